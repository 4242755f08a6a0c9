"""Exported programs as files: looked at, put in inference mode, and refused, without PyTorch."""

from __future__ import annotations

import base64
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import (
    BnfoldError,
    CorruptModelError,
    InferenceModeError,
    MissingExtraError,
    SignatureError,
    UnknownFormatError,
    UnsupportedOpError,
)
from bnfold.frontends import load, look
from bnfold.frontends.loaded import Request
from bnfold.frontends.sniff import Format, sniff
from bnfold.frontends.torch.archive import read_archive
from bnfold.frontends.torch.harmless import program_of
from bnfold.frontends.torch.modes import in_inference_mode
from tests.frontends.torch.archives import EVALUATION, TRAINING, changed, members, nodes, packed, program
from tests.fuzz.mutations import mutate

Tree = dict[str, Any]
SAVE_AGAIN = "Export and save the program again, with torch.export.export and torch.export.save."


def refusal(path: Path) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        look(path)
    return refused.value


def answer(path: Path) -> str:
    refused: BnfoldError | None = None
    try:
        return look(path).format
    except BnfoldError as error:
        refused = error
    assert refused.hint
    return "refused"


def node(found: Tree, op: str) -> Tree:
    return next(one for one in nodes(found) if one["target"].split(".")[-2] == op)


def given(one: Tree, name: str) -> Tree:
    return next(entry for entry in one["inputs"] if entry["name"] == name)


def test_a_look_tells_inputs_outputs_and_batch_norms() -> None:
    glance = look(EVALUATION)
    assert (glance.format, glance.description) == ("pt2", "PyTorch exported program")
    assert glance.framework.startswith("PyTorch 2.")
    assert [(port.name, port.dtype, port.shape) for port in glance.inputs] == [("image", "float32", (None, 3, 8, 8))]
    assert [(port.name, port.dtype, port.shape) for port in glance.outputs] == [("logits", "float32", (None, 3))]
    assert [
        (seen.name, seen.kind, seen.channels, seen.epsilon, seen.statistics, seen.behind) for seen in glance.batch_norms
    ] == [
        ("norm", "batch_norm", 4, 1e-5, "moving", "conv2d first"),
        ("block.1", "batch_norm", 4, 1e-3, "moving", "conv2d block.0"),
    ]
    assert glance.suspicions == ()


def test_a_look_says_what_was_exported_in_training_mode() -> None:
    glance = look(TRAINING)
    assert [seen.statistics for seen in glance.batch_norms] == ["batch", "batch"]
    (suspicion,) = glance.suspicions
    assert suspicion.about == ("norm", "block.1")
    assert suspicion.says == "it was exported in training mode: 2 batch norms use the statistics of each batch"


def test_both_files_hold_the_same_numbers() -> None:
    first, second = read_archive(EVALUATION), read_archive(TRAINING)
    assert set(first.weights) == set(second.weights) > {"norm.running_var", "block.0.bias"}
    for name, payload in first.weights.items():
        np.testing.assert_array_equal(first.value(payload), second.value(second.weights[name]))


def test_inference_mode_is_what_evaluation_mode_exports() -> None:
    found, changes = in_inference_mode(program_of(program(TRAINING), "m.pt2"), "m.pt2")
    expected, none = in_inference_mode(program_of(program(EVALUATION), "m.pt2"), "m.pt2")
    assert none == ()

    def operations(tree: Tree) -> list[tuple[str, list[object]]]:
        return [(one["target"], [entry["arg"] for entry in one["inputs"]]) for one in nodes(tree)]

    assert operations(found) == operations(expected)
    assert [(change.kind, change.name, change.before, change.after) for change in changes] == [
        ("training-mode", "norm", "statistics of each batch", "running statistics"),
        ("training-mode", "block.1", "statistics of each batch", "running statistics"),
        ("dropout", "block.3", "dropout 0.25", "off"),
    ]


def test_without_pytorch_the_extra_is_named() -> None:
    if find_spec("torch") is not None:
        pytest.skip("PyTorch is installed here")
    with pytest.raises(MissingExtraError) as refused:
        load(EVALUATION, Request())
    assert str(refused.value) == "reading a PyTorch exported program takes torch, which is not installed"
    assert refused.value.hint == "Install what is missing with: pip install 'bnfold[torch]'"


def _no_statistics(found: Tree) -> None:
    for name in ("running_mean", "running_var"):
        given(node(found, "batch_norm"), name)["arg"] = {"as_none": True}


def _random(found: Tree) -> None:
    one = node(found, "relu")
    one["target"] = "torch.ops.aten.bernoulli.default"


def _remembering(found: Tree) -> None:
    one = next(one for one in nodes(found) if one["target"] == "torch.ops.aten.add_.Tensor")
    one["inputs"][0]["arg"] = {"as_tensor": {"name": "b_block_1_running_mean"}}


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (
            _no_statistics,
            InferenceModeError,
            "m.pt2: 1 batch norm has no running statistics in the file, and normalises with those of each batch: norm",
        ),
        (
            _random,
            InferenceModeError,
            "m.pt2: the outputs depend on 1 operation that draws at random: relu",
        ),
        (
            _remembering,
            UnsupportedOpError,
            "m.pt2 remembers something from one call to the next, which an ONNX model cannot: block.1.running_mean",
        ),
    ],
)
def test_what_cannot_be_put_in_inference_mode_is_refused(
    change: Callable[[Tree], None], kind: type[BnfoldError], says: str
) -> None:
    told = program(TRAINING)
    change(told)
    with pytest.raises(kind) as refused:
        in_inference_mode(program_of(told, "m.pt2"), "m.pt2")
    assert str(refused.value) == says
    assert refused.value.hint


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.relu.default.__class__",
        "torch.ops.mine.relu.default",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.call",
        "math.factorial",
        "#mine.relu",
        "os.system",
        "",
    ],
)
def test_an_operation_that_does_more_than_compute_is_refused(tmp_path: Path, target: str) -> None:
    def change(found: Tree) -> None:
        node(found, "relu")["target"] = target

    error = refusal(changed(tmp_path / "m.pt2", EVALUATION, change))
    assert type(error) is UnsupportedOpError
    assert str(error) == f"m.pt2 holds operations that are not PyTorch's own, or do more than compute: {target}"


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')",
        "Symbol('s77').__class__",
        "s77.free_symbols",
        "().__class__.__bases__",
        "[c for c in range(9)]",
        "lambda: 1",
        "Symbol(open('f'))",
        "Pow(Integer(99), Pow(Integer(99), Integer(99)))",
        "9**9**9",
        "Pow(Integer(10), Integer(1000))",
        "Integer(1)" * 1000,
        "e1e1e1",
    ],
)
def test_a_size_that_is_no_formula_is_refused(tmp_path: Path, formula: str) -> None:
    def change(found: Tree) -> None:
        sizes = found["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        assert "as_expr" in sizes[0]
        sizes[0]["as_expr"]["expr_str"] = formula

    error = refusal(changed(tmp_path / "m.pt2", EVALUATION, change))
    assert type(error) is CorruptModelError
    assert str(error).startswith("m.pt2 is not a program as PyTorch writes it: ")
    assert error.hint == SAVE_AGAIN


def test_what_pytorch_would_run_is_not_handed_on() -> None:
    """Guards are Python, arguments are described by classes to import, and stack traces are somebody's folders."""
    told = program(EVALUATION)
    told["guards_code"] = ["HARM"]
    told["verifiers"].append("HARM")
    module = told["graph_module"]
    module["metadata"] = {"HARM": "HARM"}
    module["treespec_namedtuple_fields"] = {"HARM": {"field_names": ["HARM"]}}
    calling = module["module_call_graph"][0]["signature"]
    calling["in_spec"] = calling["in_spec"].replace("builtins.tuple", "HARM")
    calling["out_spec"] = calling["out_spec"].replace("builtins.dict", "HARM")
    module["module_call_graph"].append({"fqn": "HARM", "signature": None})
    told["range_constraints"]["HARM"] = {"min_val": 1, "max_val": 2}
    for one in nodes(told):
        one["metadata"] |= {
            "source_fn_stack": "HARM,torch.HARM",
            "from_node": "[HARM]",
            "stack_trace": "HARM",
            "custom": "HARM",
        }
    told["HARM"] = "HARM"
    assert "HARM" not in json.dumps(program_of(told, "m.pt2"))


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("harmed").write_text, ("it ran",)


def test_pickles_in_an_archive_are_neither_read_nor_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harm = pickle.dumps(_Harm())
    files = members(EVALUATION)
    assert files["data/sample_inputs/model.pt"]
    path = tmp_path / "m.pt2"
    path.write_bytes(packed({**files, "data/sample_inputs/model.pt": harm, "extra/harm.py": b"raise SystemExit"}))
    assert len(look(path).batch_norms) == 2
    assert not (tmp_path / "harmed").exists()
    pickle.loads(harm)
    assert (tmp_path / "harmed").read_text() == "it ran", "the pickle does what it says when somebody reads it"


def _pickled(found: Tree) -> None:
    found["config"]["norm.weight"]["use_pickle"] = True


def _beyond(found: Tree) -> None:
    found["config"]["norm.weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]


def _before(found: Tree) -> None:
    found["config"]["norm.weight"]["tensor_meta"]["storage_offset"] = {"as_int": -1}


def _elsewhere(found: Tree) -> None:
    found["config"]["norm.weight"]["path_name"] = "../../../etc/passwd"


def _type(found: Tree) -> None:
    found["config"]["norm.weight"]["tensor_meta"]["dtype"] = 99


def _ranks(found: Tree) -> None:
    found["config"]["norm.weight"]["tensor_meta"]["strides"] = []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_pickled, "m.pt2: the tensor norm.weight is stored as a Python pickle, which is a program and is not run"),
        (_beyond, "m.pt2: the tensor norm.weight has the shape [1099511627776] of float32, and its file has 16 bytes"),
        (
            _before,
            "m.pt2: the tensor norm.weight has the offset [{'as_int': -1}], which are no whole numbers",
        ),
        (
            _elsewhere,
            "m.pt2: the tensor norm.weight lies in m/data/weights/../../../etc/passwd, which is missing",
        ),
        (_type, "m.pt2: the tensor norm.weight has the element type 99 in the layout 7, which is not read"),
        (_ranks, "m.pt2: the tensor norm.weight has the shape [4] of float32, and its file has 16 bytes"),
    ],
)
def test_weights_that_do_not_lie_in_their_file_are_refused(
    tmp_path: Path, change: Callable[[Tree], None], says: str
) -> None:
    error = refusal(changed(tmp_path / "m.pt2", EVALUATION, change, "data/weights/model_weights_config.json"))
    assert str(error) == says
    assert error.hint


def test_a_compressed_archive_is_refused_because_it_may_be_larger_than_it_looks(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(packed(members(EVALUATION) | {"data/weights/weight_0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED))
    assert str(refusal(path)).endswith("is compressed, and PyTorch does not compress what it saves")


def test_several_programs_are_told_apart_by_their_names(tmp_path: Path) -> None:
    files = members(EVALUATION)
    both = {
        re.sub(r"model(?=[._])", part, name): content for part in ("left", "right") for name, content in files.items()
    }
    path = tmp_path / "m.pt2"
    path.write_bytes(packed(both))
    error = refusal(path)
    assert type(error) is SignatureError
    assert str(error) == "m.pt2 holds 2 programs, and none is called model: left, right"
    assert error.hint == "Choose one, for example: --signature left"
    assert read_archive(path, "right").name == "right"


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    files = members(EVALUATION)
    path = tmp_path / "m.pt2"
    for depth in (500, 100_000):
        path.write_bytes(packed({**files, "models/model.json": b'{"a":' * depth + b"1" + b"}" * depth}))
        assert type(refusal(path)) is CorruptModelError


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"m/data.pkl": b"", "m/byteorder": b"little"},
            "IT looks like a PyTorch pickle: weights without a network, or a network whose code is elsewhere",
        ),
        (
            {"m/data.pkl": b"", "m/constants.pkl": b"", "m/code/__torch__/net.py": b""},
            "IT looks like a TorchScript program",
        ),
        (
            {"m/archive_format": b"pt2", "m/data/aotinductor/model/wrapper.so": b""},
            "IT holds a network that PyTorch compiled to machine code",
        ),
        (
            {"version": b"8.2", "serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b""},
            "IT is an exported program of PyTorch 2.8 or older, whose weights are pickles: they are not run",
        ),
    ],
)
def test_what_else_pytorch_saves_is_named_and_refused(tmp_path: Path, names: dict[str, bytes], says: str) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    with pytest.raises(UnknownFormatError) as refused:
        sniff(path)
    assert str(refused.value).replace(str(path), "IT") == says
    assert "torch.export" in refused.value.hint


def test_spoilt_archives_end_in_a_look_or_an_error_of_ours(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    content, path = TRAINING.read_bytes(), tmp_path / "m.pt2"
    answers: dict[str, int] = {}
    for _round in range(150):
        path.write_bytes(mutate(content, content, random))
        said = answer(path)
        answers[said] = answers.get(said, 0) + 1
    assert answers["refused"] > 15


def test_spoilt_programs_end_in_a_look_or_an_error_of_ours(tmp_path: Path) -> None:
    """The checksums of an archive find most of the above, so here the JSON is spoilt and packed again."""
    random = np.random.default_rng(8)
    files, path = members(TRAINING), tmp_path / "m.pt2"
    answers: dict[str, int] = {}
    for turn in range(250):
        name = ["models/model.json", "data/weights/model_weights_config.json"][turn % 2]
        told = json.loads(files[name])
        for _step in range(int(random.integers(1, 4))):
            _spoil(told, random)
        path.write_bytes(packed({**files, name: json.dumps(told).encode()}))
        said = answer(path)
        answers[said] = answers.get(said, 0) + 1
    assert answers["refused"] > 25
    assert answers[Format.TORCH_EXPORT.value] > 25


def _spoil(tree: Any, random: np.random.Generator) -> None:
    """Replace, remove or double something somewhere in a tree."""
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        inner = stack.pop()
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        found += [(inner, key) for key in keys]
        stack += [inner[key] for key in keys if isinstance(inner[key], dict | list)]
    place, key = found[int(random.integers(len(found)))]
    other, source = found[int(random.integers(len(found)))]
    strange: list[Any] = [None, -1, 1 << 70, 0.5, "", "__import__('os')", [], {}, True, base64.b64encode(b"x").decode()]
    match int(random.integers(3)):
        case 0:
            place[key] = strange[int(random.integers(len(strange)))]
        case 1:
            del place[key]
        case _:
            place[key] = json.loads(json.dumps(other[source])) if source in other or isinstance(other, list) else None
