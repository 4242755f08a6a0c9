"""Exported programs against the networks they were exported from, run by PyTorch in evaluation mode.

PyTorch is no part of the usual set-up; where it is missing these tests are skipped, and ``test_files.py`` is not.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import BnfoldError, CorruptModelError, InferenceModeError, SignatureError, UnsupportedOpError
from bnfold.frontends import load
from bnfold.frontends.loaded import Loaded, Request
from bnfold.parity.run import Session
from bnfold.pipeline import Options, convert
from tests.frontends.torch.archives import EVALUATION, TRAINING, changed, members, nodes, packed

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'bnfold[torch]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'bnfold[torch]'")

pytestmark = pytest.mark.filterwarnings("ignore")
nn = torch.nn
Module: Any = nn.Module


def seasoned(network: Any) -> Any:
    """Return a network whose statistics and affine parameters are those of no fresh one."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if getattr(module, "running_var", None) is not None:
            size = module.running_mean.shape
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(size, generator=generator) * 2 + 0.2)
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.4)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return network


def drawn(*shapes: tuple[int, ...]) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def saved(path: Path, network: Any, inputs: tuple[Any, ...], *, lowered: bool = False, **how: Any) -> Path:
    exported = torch.export.export(network, inputs, **how)
    if lowered:
        exported = exported.run_decompositions()
    torch.export.save(exported, path)
    return path


def flat(value: Any) -> list[Any]:
    return [one.detach().numpy() for one in torch.utils._pytree.tree_leaves(value) if isinstance(one, torch.Tensor)]


def agree(loaded: Loaded, expected: Any, inputs: tuple[Any, ...], tolerance: float = 2e-5) -> None:
    """Compare the model, and the program that it is compared with, with what the network itself answers."""
    feeds = {spec.name: value.numpy() for spec, value in zip(loaded.inputs, inputs, strict=True)}
    assert loaded.run is not None
    for found in (Session(loaded.model).run(feeds), loaded.run(feeds)):
        assert list(found) == [spec.name for spec in loaded.outputs]
        for one, other in zip(found.values(), flat(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), rtol=tolerance, atol=tolerance)


def norms(loaded: Loaded) -> list[str]:
    return [node.name for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]


class Plain(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, groups=2), nn.BatchNorm2d(6), nn.SiLU(), nn.Dropout(0.4))
        self.head = nn.Linear(6, 4)
        self.last = nn.BatchNorm1d(4, affine=False)

    def forward(self, x: Any) -> Any:
        return self.last(self.head(self.block(torch.relu(self.norm(self.first(x)))).mean((2, 3))))


class Several(Module):  # type: ignore[misc]
    """Inputs by name, a number among them, outputs in a dict, one layer called twice, a constant of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5)
        self.steps = torch.arange(5.0)
        self.register_buffer("offset", torch.ones(5) * 0.5)

    def forward(self, left: Any, right: Any = None, *, scale: int = 3) -> Any:
        first = self.norm(self.shared(left))
        second = self.norm(self.shared(right)) * scale
        parts = (first * self.steps, second + self.offset)
        return {"sum": first + second, "parts": parts, "none": None, "left": left, "again": parts[0]}


class Other(Module):  # type: ignore[misc]
    """Volumes, transposed convolutions, an LSTM, attention, and norms of one sample with statistics of all."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(4, 6, 3, stride=2)
        self.norm = nn.BatchNorm1d(6, eps=1e-3)
        self.instance = nn.InstanceNorm1d(6, affine=True, track_running_stats=True)
        self.rnn = nn.LSTM(6, 8, batch_first=True, num_layers=2, dropout=0.3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Any) -> Any:
        h = self.instance(self.norm(self.up(x))).transpose(1, 2)
        h, _ = self.rnn(h)
        return self.attention(h, h, h, need_weights=False)[0]


OPEN: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}


@pytest.mark.parametrize("mode", ["evaluation", "training", "training, lowered"])
def test_a_network_converts_from_either_mode(tmp_path: Path, mode: str) -> None:
    network, inputs = seasoned(Plain()), drawn((3, 3, 9, 9))
    expected = network.eval()(*inputs)
    network.train(mode != "evaluation")
    loaded = load(saved(tmp_path / "m.pt2", network, inputs, lowered="lowered" in mode, **OPEN), Request())
    agree(loaded, expected, inputs)
    assert norms(loaded) == ["norm", "block.1", "last"]
    assert (loaded.format, loaded.description) == ("pt2", "PyTorch exported program")
    assert loaded.inputs[0].shape == ("batch", 3, 9, 9)
    expected_changes = {"evaluation": set(), "training": {"norm", "block.1", "last", "block.3"}}
    assert {change.name for change in loaded.mode} == expected_changes[mode.partition(",")[0]]
    single = drawn((1, 3, 9, 9))
    agree(loaded, network.eval()(*single), single)


def test_inputs_and_outputs_have_the_names_that_the_network_gives_them(tmp_path: Path) -> None:
    network, inputs = seasoned(Several()).eval(), drawn((3, 5), (3, 5))
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(network, inputs[:1], {"right": inputs[1], "scale": 2}), path)
    loaded = load(path, Request())
    assert [spec.name for spec in loaded.inputs] == ["left", "right"]
    assert [spec.name for spec in loaded.outputs] == ["sum", "parts_0", "parts_1", "left_output", "again"]
    agree(loaded, network(inputs[0], right=inputs[1], scale=2), inputs)
    assert norms(loaded) == ["norm", "norm:2"]
    one = load(path, Request(outputs=("parts_1",)))
    agree(one, network(inputs[0], right=inputs[1], scale=2)["parts"][1], inputs)
    with pytest.raises(SignatureError):
        load(path, Request(outputs=("parts",)))


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_recurrent_layers_attention_and_instance_norms_convert(tmp_path: Path, mode: str) -> None:
    network, inputs = seasoned(Other()), drawn((2, 4, 7))
    expected = network.eval()(*inputs)
    loaded = load(saved(tmp_path / "m.pt2", network.train(mode == "training"), inputs), Request())
    agree(loaded, expected, inputs, 5e-5)
    if mode == "training":
        assert {change.name for change in loaded.mode} == {"norm", "instance", "rnn", "attention"}


def test_weights_that_are_no_plain_rows_are_read_as_they_lie(tmp_path: Path) -> None:
    network = seasoned(Plain()).eval().to(memory_format=torch.channels_last)
    network.head.weight = nn.Parameter(drawn((6, 8))[0].t()[2:6])
    inputs = drawn((2, 3, 9, 9))
    agree(load(saved(tmp_path / "m.pt2", network, inputs), Request()), network(*inputs), inputs)


def test_half_precision_stays(tmp_path: Path) -> None:
    network, inputs = seasoned(Plain()).eval().half(), tuple(one.half() for one in drawn((2, 3, 9, 9)))
    loaded = load(saved(tmp_path / "m.pt2", network, inputs), Request())
    assert loaded.inputs[0].dtype == "float16"
    agree(loaded, network(*inputs), inputs, 2e-2)


def test_every_batch_norm_of_a_conversion_folds_and_is_proven(tmp_path: Path) -> None:
    network, inputs = seasoned(Plain()).train(), drawn((2, 3, 9, 9))
    report = convert(saved(tmp_path / "m.pt2", network, inputs, **OPEN), Options(verify="fast")).report
    assert [(norm.name, norm.outcome) for norm in report.batch_norms] == [
        ("norm", "folded"),
        ("block.1", "folded"),
        ("last", "folded"),
    ]
    assert report.verdict in ("pass", "pass-more-accurate")


class Branch(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            y = self.norm(x)
        return torch.cond(y.sum() > 0, lambda a: a * 2, lambda a: a - 1, (y,))


def test_branches_and_blocks_without_gradients_convert(tmp_path: Path) -> None:
    network, inputs = seasoned(Branch()).eval(), drawn((3, 4))
    loaded = load(saved(tmp_path / "m.pt2", network, inputs), Request())
    for sign in (1, -1):
        fed = (inputs[0] * sign + sign,)
        agree(loaded, network(*fed), fed)


class Counting(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1.0)
        return x + self.calls


class Noisy(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x + torch.rand_like(x)


def _untracked() -> Any:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))


@pytest.mark.parametrize(
    ("network", "kind", "says"),
    [
        (
            Counting,
            UnsupportedOpError,
            "m.pt2 remembers something from one call to the next, which an ONNX model cannot: calls",
        ),
        (Noisy, InferenceModeError, "m.pt2: the outputs depend on 1 operation that draws at random: rand_like"),
        (
            _untracked,
            InferenceModeError,
            "m.pt2: 1 batch norm has no running statistics in the file, and normalises with those of each batch: 1",
        ),
    ],
)
def test_what_is_no_inference_is_refused(
    tmp_path: Path, network: Callable[[], Any], kind: type[BnfoldError], says: str
) -> None:
    for lowered in (False, True):
        path = saved(tmp_path / "m.pt2", network().eval(), drawn((2, 3)), lowered=lowered)
        with pytest.raises(kind) as refused:
            load(path, Request())
        assert str(refused.value) == says
        assert refused.value.hint


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("harmed").write_text, ("it ran",)


def test_pytorch_itself_runs_a_pickle_that_a_conversion_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pt2"
    harm = {"data/sample_inputs/model.pt": pickle.dumps(_Harm())}
    path.write_bytes(packed({**members(EVALUATION), **harm}))
    loaded = load(path, Request())
    assert loaded.run is not None
    loaded.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert not (tmp_path / "harmed").exists()


def test_guards_that_are_python_are_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def change(found: dict[str, Any]) -> None:
        found["guards_code"] = ["__import__('pathlib').Path('harmed').write_text('it ran')"]

    loaded = load(changed(tmp_path / "m.pt2", EVALUATION, change), Request())
    assert loaded.run is not None
    loaded.run({"image": np.zeros((2, 3, 8, 8), np.float32)})
    assert not (tmp_path / "harmed").exists()


def answered(path: Path) -> Mapping[str, Any]:
    loaded = load(path, Request())
    assert loaded.run is not None
    return loaded.run({"image": np.zeros((2, 3, 8, 8), np.float32)})


def _unknown_overload(found: dict[str, Any]) -> None:
    nodes(found)[0]["target"] = "torch.ops.aten.conv2d.nothing"


def _lying_arguments(found: dict[str, Any]) -> None:
    nodes(found)[0]["inputs"][3]["arg"] = {"as_ints": [0, 0]}


def _lying_types(found: dict[str, Any]) -> None:
    found["graph_module"]["graph"]["tensor_values"] = {}


@pytest.mark.parametrize("change", [_unknown_overload, _lying_arguments, _lying_types])
def test_a_program_that_pytorch_does_not_take_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = changed(tmp_path / "m.pt2", EVALUATION, change)
    with pytest.raises((CorruptModelError, UnsupportedOpError)) as refused:
        answered(path)
    assert refused.value.hint


def test_the_recorded_files_are_read_by_this_pytorch() -> None:
    first, second = (load(path, Request()) for path in (EVALUATION, TRAINING))
    image = np.random.default_rng(2).normal(size=(3, 3, 8, 8)).astype(np.float32)
    results: list[Mapping[str, Any]] = [Session(one.model).run({"image": image}) for one in (first, second)]
    np.testing.assert_array_equal(results[0]["logits"], results[1]["logits"])
    assert [change.name for change in second.mode] == ["norm", "block.1", "block.3"]
