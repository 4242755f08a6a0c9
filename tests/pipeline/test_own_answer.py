"""Whether an artifact agrees by itself: measured where its framework can run it as it is, and said why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, parser

from bnfold.frontends.loaded import Array, Loaded, ModeChange, Runner, TensorSpec
from bnfold.pipeline import Options, convert
from bnfold.pipeline.own_answer import own_answer
from bnfold.pipeline.reading import Reading
from bnfold.report import OwnAnswer, Source

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"""
SOURCE = Source("m.h5", "h5", "Keras 2", "Keras model", "", 1)
SPEC = (TensorSpec("x", "float32", ("N", 3)),)
TRAINS = (
    ModeChange("training-mode", "bn1", "training=True", "training=False"),
    ModeChange("training-mode", "bn2", "training=True", "training=False"),
    ModeChange("dropout", "drop", "Dropout 0.5", "Identity"),
)


def reading(
    own: Runner | None = None, says: str = "", mode: tuple[ModeChange, ...] = TRAINS, run: Runner | None = None
) -> Reading:
    model = parser.parse_model(TEXT)
    plain: Runner = run or (lambda feeds: {"y": np.maximum(feeds["x"], 0)})
    loaded = Loaded(model, "h5", "Keras 2", "", SPEC, SPEC, mode, plain, own=own, own_says=says)
    return Reading(loaded, model, mode, SOURCE)


def test_an_artifact_that_is_in_inference_mode_agrees_without_being_run_again() -> None:
    def run(_feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise AssertionError("nothing is to be compared")

    assert own_answer(reading(mode=(), run=run), (), 0) == OwnAnswer(agrees=True, error=0.0, why="")


def test_what_rounding_explains_agrees() -> None:
    found = own_answer(reading(lambda feeds: {"y": np.maximum(feeds["x"], 0) * np.float32(1 + 1e-6)}), (), 0)
    assert found.agrees is True
    assert found.error == pytest.approx(1e-6, rel=0.2)
    assert found.why == ""


def test_another_answer_differs_and_the_changes_say_why() -> None:
    found = own_answer(reading(lambda feeds: {"y": np.maximum(feeds["x"] - feeds["x"].mean(0), 0)}), (), 0)
    assert found.agrees is False
    assert found.error is not None
    assert found.error > 0.01
    assert found.why == "the statistics of each batch are used at bn1, bn2; elements are dropped at drop"


def test_three_samples_are_fed_because_one_has_no_statistics() -> None:
    batches = []

    def own(feeds: Mapping[str, Array]) -> dict[str, Array]:
        batches.append(feeds["x"].shape)
        return {"y": np.maximum(feeds["x"], 0)}

    assert own_answer(reading(own), (), 0).agrees is True
    assert batches == [(3, 3)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_differs(value: float) -> None:
    found = own_answer(reading(lambda feeds: {"y": np.full_like(feeds["x"], value)}), (), 0)
    assert found.agrees is False


def test_another_shape_differs() -> None:
    assert own_answer(reading(lambda feeds: {"y": feeds["x"][:1]}), (), 0).agrees is False


def test_what_does_not_run_by_itself_is_not_told() -> None:
    def own(_feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeError("the placeholder has no value")

    found = own_answer(reading(own), (), 0)
    assert found == OwnAnswer(None, None, "it does not run by itself: the placeholder has no value")


def test_a_mode_that_has_to_be_fed_is_not_told() -> None:
    found = own_answer(reading(says="its mode has to be fed"), (), 0)
    assert found == OwnAnswer(None, None, "its mode has to be fed")


def _converted(path: Path) -> OwnAnswer | None:
    return convert(path, Options(verify="fast")).report.own


def _onnx(training: int) -> ModelProto:
    outputs = "y, m, v" if training else "y"
    return parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,4,4] x) => (float[N,3,4,4] y)
        <float[3] s = {{1, 2, 3}}, float[3] b = {{0, 1, 0}}, float[3] rm = {{1, 0, 2}}, float[3] rv = {{1, 2, 3}}> {{
            {outputs} = BatchNormalization<training_mode={training}>(x, s, b, rm, rv)
        }}""")


@pytest.mark.parametrize("training", [0, 1])
def test_an_onnx_file_agrees_unless_it_trains(tmp_path: Path, training: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_onnx(training).SerializeToString())
    found = _converted(path)
    assert found is not None
    assert found.agrees is (None if training else True)


def test_nothing_is_told_where_nothing_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_onnx(0).SerializeToString())
    assert convert(path, Options(verify="off")).report.own is None


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "agrees", "why"),
    [
        ("tf_keras_dense/phase1.h5", False, "the statistics of each batch are used at "),
        ("keras_dense/tuned.h5", True, ""),
        ("tf1_batch_statistics", False, "the statistics of each batch are used at "),
        ("tf1_layers", None, "its mode has to be fed; with "),
    ],
)
def test_trained_models_say_whether_their_own_answer_is_the_same(
    repository: Path, name: str, agrees: object, why: str
) -> None:
    found = _converted(repository / "models" / name)
    assert found is not None
    assert found.agrees is agrees
    assert found.why.startswith(why)
