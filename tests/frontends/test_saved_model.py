"""SavedModels of TensorFlow 2: judged before they are loaded, frozen without folding, run as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import BnfoldError, CorruptModelError, InferenceModeError, SignatureError, UnsupportedOpError
from bnfold.frontends import load
from bnfold.frontends.keras.guests import quiet
from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow.guests import tensorflow
from tests.frontends.keras import networks
from tests.frontends.keras.networks import Array, Saved, built, example_of, norms_of, outputs_of
from tests.frontends.keras.test_batch_norms import run_unoptimised

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """Folders that Keras wrote: ``model.export`` of Keras 3, ``model.save`` and ``tf.saved_model.save`` of Keras 2."""
    folder = tmp_path_factory.mktemp("saved")
    found: dict[str, Saved] = {}
    for generation in (2, 3):
        model = built(networks.separable, generation)
        arrays = example_of(model)
        expected = outputs_of(model, arrays)
        with quiet():
            if generation == 3:
                model.export(folder / "exported", verbose=False)
                model.save(folder / "model.keras")
            else:
                model.save(folder / "kept")
                model.save(folder / "model.h5")
                tensorflow().saved_model.save(model, str(folder / "saved"))
        for name in ["exported", "model.keras"] if generation == 3 else ["kept", "saved", "model.h5"]:
            found[name] = Saved(folder / name, {"x": arrays[0]}, expected)
    return found


def written(folder: Path, function: Callable[..., Any], shape: list[int | None], *keys: str, **kept: Any) -> Path:
    """Write a program of one function, under one signature or several."""
    tf = tensorflow()
    module = tf.Module()
    for name, value in kept.items():
        setattr(module, name, value)
    module.run = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")], autograph=False)
    with quiet():
        tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(keys or ("serving_default",), module.run))
    return folder


def refusal(path: Path, request: Request | None = None) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        load(path, request or Request())
    return refused.value


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["exported", "kept", "saved"])
def test_what_keras_exports_converts(name: str, exported: dict[str, Saved]) -> None:
    saved = exported[name]
    loaded = load(saved.path, Request())
    assert loaded.format == "saved-model"
    assert loaded.framework.startswith("TensorFlow 2.")
    assert loaded.description == "SavedModel, signature serving_default"
    assert [(spec.name, spec.shape) for spec in loaded.inputs] == [("x", ("batch", 8, 8, 3))]
    assert [spec.name for spec in loaded.outputs] == ["output_0" if name == "exported" else "bn4"]
    close(run_unoptimised(loaded.model, saved.feeds)[0], saved.expected[0])
    assert loaded.run is not None
    (through_tensorflow,) = loaded.run(saved.feeds).values()
    close(np.asarray(through_tensorflow), saved.expected[0])


@pytest.mark.parametrize("name", ["exported", "kept", "saved"])
def test_batch_norms_arrive_under_their_scopes(name: str, exported: dict[str, Saved]) -> None:
    norms = norms_of(load(exported[name].path, Request()).model)
    # Keras 3 counts the scopes of a second call, and the export calls every layer again.
    counted = "_1" if name == "exported" else ""
    assert [norm.rpartition("/")[2] for norm in norms] == [f"bn{number}{counted}" for number in range(1, 5)]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_of_one_converts(suffix: str, exported: dict[str, Saved], tmp_path: Path) -> None:
    saved = exported["exported"]
    path = tmp_path / f"model{suffix}"
    files = [file for file in saved.path.rglob("*") if file.is_file()]
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in files:
                zipped.write(file, Path("model", file.relative_to(saved.path)))
    else:
        with tarfile.open(path, "w:gz") as packed:
            for file in files:
                packed.add(file, Path("model", file.relative_to(saved.path)))
    loaded = load(path, Request())
    assert loaded.format == "saved-model-archive"
    close(run_unoptimised(loaded.model, saved.feeds)[0], saved.expected[0])
    assert loaded.run is not None
    close(np.asarray(loaded.run(saved.feeds)["output_0"]), saved.expected[0])


def test_the_signature_can_be_chosen_and_must_be_where_there_is_no_default(tmp_path: Path) -> None:
    tf = tensorflow()
    weight = tf.Variable(np.eye(3, dtype=np.float32) * 2)
    path = written(tmp_path / "m", lambda x: {"y": x @ weight, "x": x, "z": x + 1.0}, [None, 3], "one", "two", w=weight)
    error = refusal(path)
    assert isinstance(error, SignatureError)
    assert str(error) == "m has 2 signatures and no default: one, two"
    assert error.hint == "Choose one, for example: --signature one"
    error = refusal(path, Request(signature="onne"))
    assert isinstance(error, SignatureError)
    assert str(error) == "there is no signature 'onne'; there are one, two"
    assert error.hint == "Did you mean --signature one?"
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    loaded = load(path, Request(signature="two"))
    assert [spec.name for spec in loaded.outputs] == ["x_output", "y", "z"]
    for found, expected in zip(run_unoptimised(loaded.model, feeds), (1, 2, None), strict=True):
        close(found, feeds["x"] + 1 if expected is None else feeds["x"] * expected)
    assert loaded.run is not None
    assert list(loaded.run(feeds)) == ["x_output", "y", "z"]
    some = load(path, Request(signature="two", outputs=("y",)))
    assert [spec.name for spec in some.outputs] == ["y"]
    close(run_unoptimised(some.model, feeds)[0], feeds["x"] * 2)
    error = refusal(path, Request(signature="two", outputs=("w",)))
    assert str(error) == "there is no output 'w'; there are x, y, z"


def test_a_single_signature_of_any_name_is_taken(tmp_path: Path) -> None:
    loaded = load(written(tmp_path / "m", lambda x: x * 2.0, [None, 3], "predict"), Request())
    assert loaded.description == "SavedModel, signature predict"


def test_one_without_signatures_says_so(tmp_path: Path) -> None:
    tf = tensorflow()
    with quiet():
        tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    error = refusal(tmp_path / "m")
    assert isinstance(error, SignatureError)
    assert str(error) == "m has no signature: nothing in it says what its inputs and outputs are"
    assert error.hint == "Export the model again with model.export(), or with signatures= of tf.saved_model.save()."


@pytest.mark.parametrize("generation", [2, 3])
def test_one_that_trains_while_it_serves_gets_its_moving_statistics(generation: int, tmp_path: Path) -> None:
    model = built(networks.behind_conv1d if generation == 3 else networks.separable, generation)
    shape = [None, *model.inputs[0].shape[1:]]
    arrays = example_of(model)
    expected = outputs_of(model, arrays)
    loaded = load(written(tmp_path / "m", lambda x: model(x, training=True), shape, model=model), Request())
    assert loaded.description == "SavedModel, signature serving_default"
    assert [spec.name for spec in loaded.inputs] == ["x"]
    close(run_unoptimised(loaded.model, {"x": arrays[0]})[0], expected[0])
    norms = [norm.rpartition("/")[2].removesuffix("_1") for norm in norms_of(loaded.model)]
    assert norms == (["bn"] if generation == 3 else ["bn1", "bn2", "bn3", "bn4"])
    assert {change.kind for change in loaded.mode} == {"statistics"}
    assert loaded.mode[-1].proof.endswith("compared with this rewritten TensorFlow graph")
    assert loaded.run is not None
    (found,) = loaded.run({"x": arrays[0]}).values()
    close(np.asarray(found), expected[0])


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with a flag for training: a batch norm by hand, dropout, and a loop with dropout in its body."""
    tf = tensorflow()
    rng = np.random.default_rng(5)
    weights = [tf.Variable(rng.uniform(0.5, 1.5, shape).astype(np.float32)) for shape in ((3, 4), (4,), (4,))]

    def program(x: Any, training: Any) -> Any:
        kernel, mean, variance = weights
        h = x @ kernel

        def of_batch() -> Any:
            found = tf.nn.moments(h, [0])
            for average, new in zip((mean, variance), found, strict=True):
                average.assign(average * 0.9 + new * 0.1)
            return found

        m, v = tf.cond(training, of_batch, lambda: (mean.read_value(), variance.read_value()))
        h = tf.nn.batch_normalization(h, m, v, None, None, 1e-3)
        rate = tf.where(training, 0.5, 0.0)
        h = tf.nn.dropout(h, rate)
        _, h = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.nn.dropout(y * 0.5 + 1.0, rate)), [0, h])
        return {"y": h, "twice": h * 2.0}

    folder = tmp_path_factory.mktemp("switched") / "m"
    module = tf.Module()
    module.weights = weights
    module.run = tf.function(
        program, input_signature=[tf.TensorSpec([None, 3], name="x"), tf.TensorSpec([], tf.bool, name="training")],
        autograph=False,
    )  # fmt: skip
    with quiet():
        tf.saved_model.save(module, str(folder), signatures={"predict": module.run})
    return folder


@pytest.mark.parametrize("told", [{}, {"training": "False"}])
def test_a_flag_for_training_is_found_and_pinned(told: dict[str, str], switched: Path) -> None:
    loaded = load(switched, Request(set_values=told, outputs=("twice",)))
    feeds = {"x": np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)}
    expected = np.asarray(tensorflow().saved_model.load(str(switched)).signatures["predict"](
        x=feeds["x"], training=tensorflow().constant(value=False))["twice"])  # fmt: skip
    assert [spec.name for spec in loaded.inputs] == ["x"]
    assert [spec.name for spec in loaded.outputs] == ["twice"]
    close(run_unoptimised(loaded.model, feeds)[0], expected)
    assert loaded.run is not None
    close(np.asarray(loaded.run(feeds)["twice"]), expected)
    (change,) = loaded.mode
    assert (change.kind, change.after) == ("switch", "False")
    assert change.before == "bool placeholder"
    assert change.proof == (
        "set by the user" if told else "True leaves 2 batch-statistics nodes and 1 random one, False leaves 0"
    )
    assert len(norms_of(loaded.model)) == 1


def test_dropout_that_stays_on_goes(tmp_path: Path) -> None:
    tf = tensorflow()
    loaded = load(written(tmp_path / "m", lambda x: tf.nn.dropout(x, 0.5) + 1.0, [None, 3]), Request())
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    close(run_unoptimised(loaded.model, feeds)[0], feeds["x"] + 1.0)
    assert [(change.kind, change.before) for change in loaded.mode] == [
        ("dropout", "dropout that keeps 0.5 of its elements")
    ]


def test_recurrent_layers_with_dropout_convert(tmp_path: Path) -> None:
    """A GRU whose dropout stays on, masks of its inputs and of its states, in a loop of TensorFlow 2."""

    def recurrent(keras: Any) -> Any:
        i = keras.layers.Input((4, 3), name="x")
        layer = keras.layers.GRU(5, dropout=0.4, recurrent_dropout=0.3, name="gru")
        return keras.Model(i, keras.layers.BatchNormalization(name="bn")(layer(i)))

    model = built(recurrent, 2)
    arrays = example_of(model)
    expected = outputs_of(model, arrays)
    loaded = load(written(tmp_path / "m", lambda x: model(x, training=True), [None, 4, 3], model=model), Request())
    close(run_unoptimised(loaded.model, {"x": arrays[0]})[0], expected[0])
    assert {change.kind for change in loaded.mode} == {"dropout", "statistics"}


def test_one_that_is_random_is_refused(tmp_path: Path) -> None:
    tf = tensorflow()
    error = refusal(written(tmp_path / "m", lambda x: x * tf.random.uniform([3], name="draw"), [None, 3]))
    assert isinstance(error, InferenceModeError)
    assert str(error).startswith("1 random operation is left that no dropout explains: ")


def test_what_reads_writes_or_runs_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    tf = tensorflow()
    target = tmp_path / "written.txt"

    def writes(x: Any) -> Any:
        tf.io.write_file(str(target), "x")
        return x * 2.0

    def runs(x: Any) -> Any:
        return tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), [None, 3])

    def nested(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: writes(x), lambda: x)

    for function, op in ((writes, "WriteFile"), (runs, "EagerPyFunc"), (nested, "WriteFile")):
        error = refusal(written(tmp_path / function.__name__, function, [None, 3]))
        assert isinstance(error, UnsupportedOpError)
        assert str(error).startswith(f"{function.__name__} holds the operation {op} at ")
        assert str(error).endswith(", which reads, writes or runs something outside the network")
        assert " in the function __inference_" in str(error) or " in the function cond_" in str(error)
        assert error.hint == (
            "Export the model again without it: what reads and writes files belongs in front of the network."
        )
    assert not target.exists()


def test_a_folder_that_is_not_whole_says_so(exported: dict[str, Saved], tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(exported["exported"].path, path)
    content = (path / "saved_model.pb").read_bytes()
    (path / "saved_model.pb").write_bytes(content[: len(content) // 2])
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error).startswith(f"{path / 'saved_model.pb'} is not the graph of a SavedModel, or is not whole: ")
    assert error.hint == "Copy or download the folder again."
    (path / "saved_model.pb").write_bytes(b"")
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error) == f"{path / 'saved_model.pb'} holds no graph"
    (path / "saved_model.pb").write_bytes(content)
    shutil.rmtree(path / "variables")
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error).startswith("TensorFlow cannot load m: ")
    assert error.hint == "Check that the folder is whole: saved_model.pb, variables/ and assets/."


def test_nothing_can_be_set(exported: dict[str, Saved]) -> None:
    error = refusal(exported["exported"].path, Request(set_values={"training": "False"}))
    assert isinstance(error, SignatureError)
    assert str(error) == "exported is a SavedModel of TensorFlow 2, which has no mode inputs to set: training"


PROGRAM = """
import hashlib, sys
from pathlib import Path
from bnfold.frontends import load
from bnfold.frontends.loaded import Request
for path in sys.argv[1:]:
    print(hashlib.sha256(load(Path(path), Request()).model.SerializeToString(deterministic=True)).hexdigest())
"""


def test_bytes_are_the_same_in_every_process_and_nothing_is_said_on_stderr(
    exported: dict[str, Saved], repository: Path
) -> None:
    paths = [str(exported[name].path) for name in ("exported", "kept", "model.keras", "model.h5", "exported")]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "CUDA_"))}
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=True, cwd=repository,
            env={**plain, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0].stderr == ""
    assert runs[0].stdout == runs[1].stdout
    hashes = runs[0].stdout.split()
    assert hashes[0] == hashes[4]
    assert len(set(hashes)) == 4
