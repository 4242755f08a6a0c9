"""Checkpoints that hold moving averages of their weights, and which values a conversion takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import SignatureError
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.tensorflow import checkpoint, frozen_graph
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from tests.frontends.tensorflow.programs import Array, dense, flow, moving_norm, write
from tests.frontends.tensorflow.test_inference_mode import agree, run_onnx

pytestmark = pytest.mark.tensorflow

X = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)
AVERAGE = "/ExponentialMovingAverage"


def v1() -> Any:
    return tensorflow().compat.v1


def averaged(name: str = "ExponentialMovingAverage") -> list[Any]:
    x = v1().placeholder("float32", [None, 6], name="x")
    h = moving_norm(dense(x, 5, "one"), v1().placeholder("bool", name="train"), "bn")
    y = dense(tensorflow().nn.relu(h), 3, "out")
    v1().train.ExponentialMovingAverage(0.9, name=name).apply(v1().trainable_variables())
    return [y]


@pytest.fixture(scope="module", params=[1, 2])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write(tmp_path_factory.mktemp("averaged"), averaged, version=request.param)


def computed(values: dict[str, Array], average: str) -> Array:
    """The network by hand; ``average`` is what the names of its weights end in."""

    def layer(h: Array, scope: str) -> Array:
        found: Array = h @ values[f"{scope}/weights{average}"] + values[f"{scope}/biases{average}"]
        return found

    scale = values[f"bn/gamma{average}"] / np.sqrt(values["bn/pop_var"] + 1e-3)
    h = (layer(X, "one") - values["bn/pop_mean"]) * scale + values[f"bn/beta{average}"]
    return layer(np.maximum(h, 0), "out")


def said(loaded: Loaded) -> tuple[str, str, str, str]:
    (change,) = [change for change in loaded.mode if change.kind == "averaged-weights"]
    return change.name, change.before, change.after, change.proof


@pytest.mark.parametrize(
    ("choice", "average", "after", "proof"),
    [
        ("auto", "", "plain values", "the program itself reads the plain ones; --ema yes takes the averages"),
        ("no", "", "plain values", "asked for with --ema no"),
        ("yes", AVERAGE, "averages",
            "asked for with --ema yes; 2 without an average keep their values: bn/pop_mean, bn/pop_var"),
    ],
)  # fmt: skip
def test_plain_or_averaged_weights_are_taken_and_named(
    program: Any, choice: Any, average: str, after: str, proof: str
) -> None:
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs, ema=choice))
    expected = computed(program.values, average)
    assert np.abs(expected - computed(program.values, "" if average else AVERAGE)).max() > 0.1
    agree(run_onnx(loaded, {"x:0": X}), [expected])
    assert loaded.run is not None
    agree(list(loaded.run({"x:0": X}).values()), [expected])
    before = "plain values" if average else "with an average in the checkpoint model.ckpt-3"
    assert said(loaded) == ("6 variables", before, after, proof)


def test_an_average_of_any_name_is_found_by_its_update(tmp_path: Path) -> None:
    program = write(tmp_path, lambda: averaged("shadow"))
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs, ema="yes"))
    agree(run_onnx(loaded, {"x:0": X}), [computed(dict(program.values), "/shadow")])


def test_what_the_program_itself_restores_is_taken(program: Any, tmp_path: Path) -> None:
    """A program that evaluates restores the averages under the names of the variables."""
    with flow(1), quiet(), tensorflow().Graph().as_default() as graph:
        x = v1().placeholder("float32", [None, 6], name="x")
        h = moving_norm(dense(x, 5, "one"), v1().placeholder("bool", name="train"), "bn")
        y = dense(tensorflow().nn.relu(h), 3, "out")
        saver = v1().train.Saver(v1().train.ExponentialMovingAverage(0.9).variables_to_restore())
        with v1().Session(graph=graph) as session:
            saver.restore(session, str(program.prefix))
            saver.save(session, str(tmp_path / "model.ckpt"))
            expected = session.run(y, {x: X, "train:0": False})
    loaded = checkpoint.load(tmp_path / "model.ckpt", Request())
    agree(run_onnx(loaded, {"x:0": X}), [expected])
    assert said(loaded)[1:3] == ("plain values", "averages")
    assert said(loaded)[3].startswith("the program itself restores the averages; ")
    with pytest.raises(SignatureError) as caught:
        checkpoint.load(tmp_path / "model.ckpt", Request(ema="no"))
    assert str(caught.value) == (
        "the checkpoint model.ckpt holds only the moving averages of 6 variables: "
        "bn/beta, bn/gamma, one/biases, one/weights and 2 more"
    )


def test_averages_that_are_not_there_are_refused(program: Any, tmp_path: Path) -> None:
    plain = write(tmp_path, lambda: [dense(v1().placeholder("float32", [None, 6], name="x"), 3, "out")])
    with pytest.raises(SignatureError) as caught:
        checkpoint.load(plain.prefix, Request(ema="yes"))
    assert str(caught.value) == (
        "the checkpoint model.ckpt-3 holds no moving average of the 2 variables that the outputs need"
    )
    assert caught.value.hint == "Leave --ema out, or give the checkpoint of a program that averaged its weights."
    with pytest.raises(SignatureError) as caught:
        frozen_graph.load(program.frozen, Request(ema="yes"))
    assert str(caught.value) == "the graph holds no moving average of the 0 variables that the outputs need"
