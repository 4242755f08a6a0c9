"""Comparing two files: which of their inputs and outputs belong together, on what, and by whose measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import bnfold
from bnfold import frontends
from bnfold.frontends.loaded import Array, Loaded, Request
from bnfold.graph.ports import renamed
from bnfold.parity.run import Session
from bnfold.report import Paired

TWO = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,4] x, float[N,3] z) => (float[N,4] y, float[N,3] v) <float[4,4] w> {
    h = MatMul(x, w)  y = Relu(h)  v = Tanh(z) }"""


def _model(text: str = TWO) -> onnx.ModelProto:
    model = parser.parse_model(text)
    del model.graph.value_info[:]
    w = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    return model


@pytest.fixture
def one(tmp_path: Path) -> Path:
    onnx.save(_model(), tmp_path / "one.onnx")
    return tmp_path / "one.onnx"


def _renamed(one: Path, **names: str) -> Path:
    onnx.save(
        renamed(onnx.load(one), {old: new.replace("__", "/") for old, new in names.items()}), one.parent / "b.onnx"
    )
    return one.parent / "b.onnx"


def test_inputs_and_outputs_are_matched_by_name_then_by_what_they_can_be(one: Path) -> None:
    report = bnfold.verify(one, _renamed(one, x="in__x:0", z="zz", y="h", v="v:0"))
    assert report.verdict == "pass"
    assert report.paired == (
        Paired("input", "x", "in/x:0"),
        Paired("input", "z", "zz"),
        Paired("output", "y", "h"),
        Paired("output", "v", "v:0"),
    )


def test_what_could_be_either_is_not_guessed(tmp_path: Path) -> None:
    text = TWO.replace("float[N,3] z", "float[N,4] z").replace("float[N,3] v", "float[N,4] v")
    onnx.save(_model(text), tmp_path / "one.onnx")
    other = _renamed(tmp_path / "one.onnx", x="p", z="q")
    with pytest.raises(bnfold.SignatureError) as caught:
        bnfold.verify(tmp_path / "one.onnx", other)
    assert str(caught.value) == (
        "the two models do not have the same inputs: x float[N, 4], z float[N, 4] here, p float[N, 4], q float[N, 4] "
        "there"
    )


def test_symbols_orders_and_names_of_constants_do_not_matter(one: Path) -> None:
    other = onnx.load(one)
    for value in (*other.graph.input, *other.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    turned = list(other.graph.input)[::-1]
    del other.graph.input[:]
    other.graph.input.extend(turned)
    onnx.save(renamed(other, {"w": "weights"}), one.parent / "b.onnx")
    assert bnfold.verify(one, one.parent / "b.onnx").verdict == "pass"


def test_a_batch_that_only_one_of_two_has_fixed_is_the_one_to_compare_with(one: Path) -> None:
    other = onnx.load(one)
    for value in (*other.graph.input, *other.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(other, one.parent / "b.onnx")
    report = bnfold.verify(one, one.parent / "b.onnx")
    assert report.verdict == "pass"
    assert report.parity is not None
    assert {shape[0] for probe in report.parity.probes for _name, shape in probe.shapes} == {2}


def test_the_batches_that_were_asked_for_are_fed(one: Path) -> None:
    report = bnfold.verify(one, one, bnfold.Options(batch=(1, 2, 7)))
    assert report.parity is not None
    assert [probe.shapes[0][1][0] for probe in report.parity.probes[:3]] == [1, 2, 7]


def test_a_batch_that_cannot_be_is_refused(one: Path) -> None:
    other = onnx.load(one)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(other, one.parent / "b.onnx")
    with pytest.raises(bnfold.SignatureError, match=r"^the first axis of the input x is fixed at 2, so --batch 3 has"):
        bnfold.verify(one.parent / "b.onnx", one, bnfold.Options(batch=(2, 3)))


OWN = """
import numpy as np

def several():
    for number in range(5):
        yield {"x": np.full((2, 4), number, np.float32), "z": np.ones((2, 3), np.float32), "label": np.array([number])}

def one():
    return next(several())

def for_ever():
    while True:
        yield one()

def broken():
    raise KeyError("lost")

def nothing():
    return []

def accuracy(outputs, inputs):
    return float((outputs["y"].sum(axis=1) > inputs["label"][0]).mean())

def both(outputs, inputs):
    return {"largest": outputs["y"].max(), "positive": bool((outputs["y"] >= 0).all())}

def words(outputs, inputs):
    return "good"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN, "utf-8")
    return tmp_path / "own.py"


@pytest.mark.parametrize(("function", "count"), [("several", 5), ("one", 1)])
def test_a_function_gives_the_inputs(one: Path, own: Path, function: str, count: int) -> None:
    report = bnfold.verify(one, one, bnfold.Options(data=Path(f"{own}:{function}")))
    assert report.parity is not None
    names = [probe.name for probe in report.parity.probes if probe.origin == "the user's arrays"]
    assert names == [f"given {number + 1}" for number in range(count)]


def test_a_folder_of_archives_is_a_set_of_inputs_a_file(one: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    for number in range(3):
        np.savez(
            tmp_path / "sets" / f"{number}.npz", x=np.full((1, 4), number, np.float32), z=np.ones((1, 3), np.float32)
        )
    report = bnfold.verify(one, one, bnfold.Options(data=tmp_path / "sets"))
    assert report.parity is not None
    assert sum(probe.origin == "the user's arrays" for probe in report.parity.probes) == 3


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("broken", "--data: {own}:broken raised KeyError: 'lost'"),
        ("nothing", "--data: {own}:nothing gives nothing"),
        ("absent", "--data: own.py has no function 'absent'; it has accuracy, both, broken, for_ever, nothing, one, "),
    ],
)
def test_a_function_that_gives_none_is_told(one: Path, own: Path, function: str, said: str) -> None:
    with pytest.raises(bnfold.SourceError) as caught:
        bnfold.verify(one, one, bnfold.Options(data=Path(f"{own}:{function}")))
    assert str(caught.value).startswith(said.format(own=own))


def test_a_function_that_never_ends_is_left_after_enough(own: Path) -> None:
    from bnfold.frontends.loaded import TensorSpec
    from bnfold.pipeline.feeds import load_given

    specs = (TensorSpec("x", "float32", (None, 4)), TensorSpec("z", "float32", (None, 3)))
    assert len(load_given(Path(f"{own}:for_ever"), specs)) == 256


def test_the_metric_gets_what_was_stored_beside_the_inputs(one: Path, own: Path) -> None:
    options = bnfold.Options(data=Path(f"{own}:several"), metric=f"{own}:accuracy")
    report = bnfold.verify(one, one, options)
    assert report.parity is not None
    (row,) = report.parity.measured
    w = numpy_helper.to_array(onnx.load(one).graph.initializer[0]).astype(np.float64)
    sums = [np.maximum(np.full((2, 4), number) @ w, 0).sum(axis=1) for number in range(5)]
    expected = float(np.mean([(sums[number] > number).mean() for number in range(5)]))
    assert (row.name, row.inputs, row.verdict.value) == ("accuracy", 5, "pass")
    assert (row.reference, row.unfolded, row.candidate) == (expected,) * 3


def test_a_metric_may_have_several_figures_and_is_asked_on_real_inputs(one: Path, own: Path) -> None:
    report = bnfold.verify(one, one, bnfold.Options(metric=f"{own}:both"))
    assert report.parity is not None
    assert [(row.name, row.inputs) for row in report.parity.measured] == [("largest", 4), ("positive", 4)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("accuracy", "--metric: {own}:accuracy raised KeyError: 'label'"),
        ("words", "--metric: {own}:words returned str, which is no number"),
    ],
)
def test_a_metric_that_does_not_work_is_told(one: Path, own: Path, function: str, said: str) -> None:
    with pytest.raises(bnfold.SourceError) as caught:
        bnfold.verify(one, one, bnfold.Options(metric=f"{own}:{function}"))
    assert str(caught.value) == said.format(own=own)


@pytest.fixture
def translated(one: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second file that seems to come from a framework, whose own program is off."""
    right = frontends.load
    session = Session(onnx.load(one))

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = session.run(feeds)
        return {name: np.asarray(value * (1.01 if name == "y" else 1.0), np.float32) for name, value in found.items()}

    def load(path: Path, request: Request) -> Loaded:
        found = right(path, request)
        return replace(found, run=run) if path.name == "b.onnx" else found

    monkeypatch.setattr(frontends, "load", load)
    onnx.save(_model(), one.parent / "b.onnx")
    return one.parent / "b.onnx"  # type: ignore[return-value]  # pytest's fixtures may


def test_what_shows_a_wrong_translation_is_written_with_what_the_original_says(one: Path, translated: Path) -> None:
    folder = one.parent / "case"
    report = bnfold.verify(one, translated, bnfold.Options(repro=folder))
    assert report.verdict == "fail"
    assert report.reproduction == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["before.onnx", "expected.npz", "feeds.npz", "show.py"]
    feeds, expected = (dict(np.load(folder / name)) for name in ("feeds.npz", "expected.npz"))
    ours = Session(onnx.load(folder / "before.onnx")).run(feeds)
    np.testing.assert_allclose(expected["y"], ours["y"] * 1.01, rtol=1e-5)
    np.testing.assert_allclose(expected["v"], ours["v"], rtol=1e-5)


def test_nothing_is_written_where_nothing_failed(one: Path) -> None:
    report = bnfold.verify(one, one, bnfold.Options(repro=one.parent / "case"))
    assert (report.verdict, report.reproduction) == ("pass", "")
    assert not (one.parent / "case").exists()
