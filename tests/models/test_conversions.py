"""Every trained model is converted, and compared with what the program that trained it answered.

What must fold and what must stay is written down in ``zoo.toml`` by algebra; nothing here is learned from the result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

import bnfold
from models import digits, zoo

# What a batch norm, or the rest of one, consists of; everything else in a model has nothing to do with it.
ARITHMETIC = frozenset(
    {
        "Abs",
        "Add",
        "BatchNormalization",
        "Div",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "Sqrt",
        "Sub",
    }
)
# A network of four layers, each a sum of at most 200 products: a hundred roundings, of which few add up.
CLOSE = {"float32": 1e-5, "float64": 1e-13}

MODELS = [
    pytest.param(model, id=model.name, marks=[] if model.kind == "ONNX" else pytest.mark.tensorflow)
    for model in zoo.read()
]
DEPTHWISE = Path(__file__).parents[2] / "models" / "keras_depthwise" / "depthwise.keras"
Array = npt.NDArray[np.floating]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> zoo.Model:
    """One model of the zoo; all tests of one run before those of the next."""
    found: zoo.Model = request.param
    return found


@pytest.fixture(scope="module")
def conversion(model: zoo.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[bnfold.Conversion]:
    """The model, converted from a copy of its own files alone, with the hint that the zoo names and no other."""
    folder = tmp_path_factory.mktemp(model.name)
    for name in set(model.sha256) - {model.scores}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(zoo.HERE / name, folder / name)
    yield bnfold.convert(folder / model.path, options(model, folder))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def testing() -> digits.Split:
    """The digits that no model has learned from."""
    return digits.load(np.float64).test


@pytest.fixture(scope="module")
def answers(model: zoo.Model, conversion: bnfold.Conversion, testing: digits.Split) -> Array:
    """What the folded model answers to the test digits."""
    return run(conversion, feed(model, testing))


def options(model: zoo.Model, folder: Path) -> bnfold.Options:
    """Return the hints of a model as the options of a conversion."""
    hints = model.hints
    return bnfold.Options(
        outputs=tuple(filter(None, hints.get("outputs", "").split(","))),
        architecture=folder / hints["architecture"] if "architecture" in hints else None,
        builder=str(folder / hints["builder"]) if "builder" in hints else None,
    )


def feed(model: zoo.Model, split: digits.Split) -> Array:
    """Return digits in the shape and type in which a model takes them."""
    pixels = split.pixels if model.layout == "flat" else split.images(channels_last=model.layout == "channels-last")
    return pixels.astype(model.dtype)


def run(conversion: bnfold.Conversion, pixels: Array) -> Array:
    """Run the folded model as it stands: onnxruntime would fold what bnfold has left."""
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(conversion.to_bytes(), plain, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    (scores,) = session.run(None, {name: pixels})
    return np.asarray(scores)


def test_it_is_proven_and_nothing_was_taken_back(conversion: bnfold.Conversion) -> None:
    assert conversion.report.verdict in {"pass", "pass-more-accurate"}
    assert conversion.report.rolled_back == ()


def test_accuracy_is_that_of_the_original(model: zoo.Model, answers: Array, testing: digits.Split) -> None:
    original = np.load(zoo.HERE / model.scores)
    assert digits.correct(answers, testing) == model.correct
    np.testing.assert_array_equal(answers.argmax(axis=1), original.argmax(axis=1))


def test_answers_are_those_of_the_original_program(model: zoo.Model, answers: Array) -> None:
    original = np.load(zoo.HERE / model.scores)
    assert (answers.shape, answers.dtype) == (original.shape, original.dtype)
    error = np.linalg.norm(answers - original, axis=1) / np.linalg.norm(original, axis=1)
    assert error.max() <= CLOSE[model.dtype]


def test_answer_to_a_digit_does_not_depend_on_the_others(
    model: zoo.Model, conversion: bnfold.Conversion, answers: Array, testing: digits.Split
) -> None:
    pixels = feed(model, testing)
    alone = np.concatenate([run(conversion, pixels[place : place + 1]) for place in range(3)])
    np.testing.assert_allclose(alone, answers[:3], rtol=CLOSE[model.dtype] * 10)


def test_signature_is_that_of_the_original(model: zoo.Model, conversion: bnfold.Conversion) -> None:
    signature = conversion.report.signature
    (taken,), (given,) = signature.inputs, signature.outputs
    assert (taken.name.removesuffix(":0"), given.name.removesuffix(":0")) == (model.input, model.output)
    assert (taken.dtype, given.dtype) == (model.dtype, model.dtype)
    sizes = {"flat": (64,), "channels-last": (8, 8, 1), "channels-first": (1, 8, 8)}[model.layout]
    assert (taken.shape[1:], given.shape[1:]) == (sizes, (10,))
    assert not isinstance(taken.shape[0], int)


def test_every_batch_norm_is_where_algebra_says(model: zoo.Model, conversion: bnfold.Conversion) -> None:
    rows = conversion.report.batch_norms
    expected = dict.fromkeys(model.folded, ("folded", None)) | {
        part: ("kept", reason) for part, reason in model.kept.items()
    }
    found = {
        part: [(row.outcome, None if row.kept is None else row.kept.reason) for row in rows if part in row.name]
        for part in expected
    }
    assert found == {part: [outcome] for part, outcome in expected.items()}
    assert len(rows) == len(expected)


def test_no_other_arithmetic_is_left(model: zoo.Model, conversion: bnfold.Conversion) -> None:
    after = conversion.report.after
    assert after is not None
    assert {op: count for op, count in after.ops.items() if op in ARITHMETIC} == dict(model.leaves)
    assert set(after.ops) & {"If", "Loop", "RandomUniform", "RandomNormal", "Dropout", "Where"} == set()


def test_source_is_named_by_its_kind(model: zoo.Model, conversion: bnfold.Conversion) -> None:
    expected = {
        "TF1 checkpoint": "checkpoint",
        "TF1 frozen graph": "frozen-graph",
        "Keras 3 model": "keras",
        "Keras 3 model in HDF5": "h5",
        "Keras 3 weights": "h5-weights",
        "Keras 2 model in HDF5": "h5",
        "Keras 2 weights": "h5-weights",
        "SavedModel": "saved-model",
        "ONNX": "onnx",
    }
    assert conversion.report.source.format == expected[model.kind]


@pytest.mark.tensorflow
def test_the_bytes_are_the_same_whatever_order_python_gives_its_sets(tmp_path: Path) -> None:
    written = []
    for seed in ("1", "2", "3"):  # with these, tf2onnx keeps another one of two equal constants each time
        out = tmp_path / f"{seed}.onnx"
        subprocess.run(
            [sys.executable, "-m", "bnfold", "convert", "--quiet", "--verify", "off", "-o", str(out), str(DEPTHWISE)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]
