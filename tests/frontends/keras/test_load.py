"""Loading a Keras file: what it takes, what it says no to, and what it leaves behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import (
    BnfoldError,
    CorruptModelError,
    InferenceModeError,
    SignatureError,
    SourceError,
    UnsupportedOpError,
)
from bnfold.frontends import load, look
from bnfold.frontends.keras.guests import h5py, keras_of, quiet
from bnfold.frontends.loaded import Loaded, Request
from tests.frontends.keras import networks
from tests.frontends.keras.networks import Saved, built, norms_of, save
from tests.frontends.keras.test_batch_norms import run_unoptimised

pytestmark = pytest.mark.tensorflow

BUILDER = """
from tests.frontends.keras.networks import separable
from bnfold.frontends.keras.guests import keras_of

def two():
    return separable(keras_of(2))

def three():
    return separable(keras_of(3))

def another():
    from tests.frontends.keras.networks import nested
    return nested(keras_of(2))

def nothing():
    return 3

def broken():
    raise ValueError("no such\\nfile")

def unbuilt():
    keras = keras_of(3)
    return keras.Sequential([keras.layers.Dense(3)])
"""


@pytest.fixture
def builder(folder: Path) -> Path:
    path = folder / "make.py"
    path.write_text(BUILDER)
    return path


def refusal(path: Path, request: Request) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        load(path, request)
    return refused.value


def check(loaded: Loaded, saved: Saved) -> None:
    for expected, found in zip(saved.expected, run_unoptimised(loaded.model, saved.feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["k2-named.h5", "k2.weights.h5", "k3.weights.h5"])
def test_weights_alone_need_to_be_told_what_they_belong_to(name: str, files: dict[str, Saved]) -> None:
    error = refusal(files[name].path, Request())
    assert type(error) is SourceError
    assert str(error) == f"{name} holds only weights of layers, no model"
    assert error.hint == (
        "Add the architecture with --architecture model.json (what model.to_json() wrote) "
        "or a function that builds the model with --builder file.py:function"
    )


@pytest.mark.parametrize(
    ("name", "architecture", "framework"),
    [
        ("k2-named.h5", "k2.json", "Keras 2."),
        ("k2.weights.h5", "k2.json", "Keras 2"),
        ("k3.weights.h5", "k3.json", "Keras 3"),
        ("k2-named.h5", "k3.json", "Keras 2."),
    ],
)
def test_weights_alone_convert_with_their_architecture(
    name: str, architecture: str, framework: str, files: dict[str, Saved]
) -> None:
    loaded = load(files[name].path, Request(architecture=files[architecture].path))
    check(loaded, files[name])
    assert loaded.format == "h5-weights"
    assert loaded.framework.startswith(framework)
    assert norms_of(loaded.model) == ["bn1", "bn2", "bn3", "bn4"]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("k2-named.h5", "two"),
        ("k2-named.h5", "three"),
        ("k3.weights.h5", "three"),
        ("2.h5", "two"),
        ("3.keras", "three"),
    ],
)
def test_a_builder_takes_the_place_of_what_the_file_says(
    name: str, function: str, files: dict[str, Saved], builder: Path
) -> None:
    before = (list(sys.path), dict(os.environ))
    check(load(files[name].path, Request(builder=f"{builder}:{function}")), files[name])
    assert (list(sys.path), dict(os.environ)) == before


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        ("four", "make.py has no function 'four'; it has another, broken, nothing, three, two, unbuilt",
            "Name the function that builds and returns the model."),
        ("broken", "make.py:broken raised ValueError: no such file",
            "Make the function work without arguments and return the model."),
        ("nothing", "{path}:nothing returned int, which is not a Keras model", "Make the function return the model."),
        ("unbuilt", "the model that the builder returned has no weights yet",
            "Give its first layer an input shape, or call the model once on an example."),
        ("another", ("k2-named.h5 does not fit the model: no weights for outer; weights of bn1, bn2, bn3, bn4, "
            "depthwise and 2 more, which the model does not have"),
            ("Give the architecture that these weights were saved from: --architecture model.json or "
            "--builder file.py:function")),
    ],
)  # fmt: skip
def test_a_builder_that_does_not_build_the_model_is_refused(
    function: str, message: str, hint: str, files: dict[str, Saved], builder: Path
) -> None:
    error = refusal(files["k2-named.h5"].path, Request(builder=f"{builder}:{function}"))
    assert type(error) is SourceError
    assert str(error) == message.format(path=builder)
    assert error.hint == hint


def test_a_builder_or_architecture_that_is_not_there_is_refused(files: dict[str, Saved], folder: Path) -> None:
    weights = files["k2-named.h5"].path
    error = refusal(weights, Request(builder="nowhere.py:build"))
    assert str(error) == "there is no builder 'nowhere.py:build'"
    assert error.hint == "Write it as file.py:function, with an existing file."
    error = refusal(weights, Request(architecture=folder / "nowhere.json"))
    assert str(error) == f"there is no architecture {folder / 'nowhere.json'}"
    assert error.hint == "Give the JSON file that model.to_json() wrote."


def test_numbered_weights_of_another_network_are_refused(files: dict[str, Saved], folder: Path) -> None:
    architecture = folder / "small.json"
    architecture.write_text(built(networks.behind_dense, 3).to_json())
    error = refusal(files["k3.weights.h5"].path, Request(architecture=architecture))
    assert type(error) is SourceError
    assert str(error).startswith("the weights in k3.weights.h5 do not fit the model: ")


def test_numbered_weights_that_are_left_over_are_refused(files: dict[str, Saved], folder: Path) -> None:
    """Keras itself ignores what a file holds beyond the model."""
    saved = files["k3.weights.h5"]
    path = folder / "more.weights.h5"
    path.write_bytes(saved.path.read_bytes())
    with h5py().File(path, "r+") as file:
        file["layers/dense_7/vars/0"] = np.zeros((2, 2), np.float32)
    error = refusal(path, Request(architecture=files["k3.json"].path))
    assert str(error) == (
        "the weights in more.weights.h5 do not fit the model: layers/dense_7/vars/0 is on one side only (1 in all)"
    )


def test_numbered_weights_in_another_order_are_refused(files: dict[str, Saved], folder: Path) -> None:
    saved = files["k3.weights.h5"]
    path = folder / "swapped.weights.h5"
    path.write_bytes(saved.path.read_bytes())
    with h5py().File(path, "r+") as file:
        for first, second in (("layers/batch_normalization", "layers/batch_normalization_2"),):
            file.move(first, "layers/aside")
            file.move(second, first)
            file.move("layers/aside", second)
    error = refusal(path, Request(architecture=files["k3.json"].path))
    assert str(error).startswith("the weights in swapped.weights.h5 are in another order than the model's layers: ")


def own_layer(keras: Any) -> Any:
    @keras.saving.register_keras_serializable(package="mine")
    class Doubled(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

    i = keras.layers.Input((4,), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(Doubled(name="double")(i)))


@pytest.mark.parametrize(("generation", "suffix"), [(2, ".keras"), (2, ".h5"), (3, ".keras"), (3, ".h5")])
def test_a_layer_of_somebody_else_is_refused_by_name(generation: int, suffix: str, folder: Path) -> None:
    path = save(built(own_layer, generation), folder / f"own{suffix}").path
    error = refusal(path, Request())
    assert isinstance(error, UnsupportedOpError)
    assert str(error).startswith("layer 'double' is of class ")
    assert str(error).endswith("which is not one of Keras's own layers")
    assert "Doubled" in str(error)
    assert error.hint == "Give the Python file that defines it: --custom file.py"


def with_lambda(keras: Any) -> Any:
    i = keras.layers.Input((4,), name="x")
    x = keras.layers.Lambda(lambda x: x * 3.0, output_shape=(4,), name="triple")(i)
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(x))


@pytest.mark.parametrize(("generation", "suffix"), [(2, ".keras"), (2, ".h5"), (3, ".keras"), (3, ".h5")])
def test_a_lambda_runs_only_when_trusted(generation: int, suffix: str, folder: Path) -> None:
    saved = save(built(with_lambda, generation), folder / f"own{suffix}")
    error = refusal(saved.path, Request())
    assert isinstance(error, UnsupportedOpError)
    assert str(error) == "layer 'triple' is of class Lambda, which runs code that is stored in or named by the file"
    assert error.hint == "Look at where the file comes from, and run its code with --trust"
    check(load(saved.path, Request(trust=True)), saved)


def in_training_mode(keras: Any) -> Any:
    i = keras.layers.Input((4,), name="x")
    x = keras.layers.BatchNormalization(name="bn")(i, training=True)
    return keras.Model(i, keras.layers.Dropout(0.5, name="drop")(x, training=True))


@pytest.mark.parametrize(("generation", "suffix"), [(2, ".keras"), (2, ".h5"), (3, ".keras"), (3, ".h5")])
def test_training_baked_into_a_network_is_resolved_to_moving_statistics(
    generation: int, suffix: str, folder: Path
) -> None:
    model = built(in_training_mode, generation)
    layer = model.get_layer("bn")
    saved = save(model, folder / f"phase{suffix}")
    x = saved.feeds["x"].astype(np.float64)
    gamma, beta, mean, variance = (np.asarray(weight.numpy(), np.float64) for weight in layer.weights)
    if generation == 2:
        # Computing the example moved its statistics: the file is what counts.
        with h5py().File(saved.path) if suffix == ".h5" else _weights_of(saved.path) as file:
            found = {name.rpartition("/")[2]: np.asarray(value) for name, value in _datasets(file).items()}
        keys = ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0") if suffix == ".h5" else "0123"
        gamma, beta, mean, variance = (found[key].astype(np.float64) for key in keys)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    loaded = load(saved.path, Request())
    np.testing.assert_allclose(run_unoptimised(loaded.model, saved.feeds)[0], expected, rtol=1e-5, atol=1e-5)
    assert loaded.run is not None
    for _ in range(2):  # tf_keras would move the statistics at each call
        values = np.asarray(loaded.run(saved.feeds)["drop"], np.float64)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    changes = [(change.name, change.before, change.after) for change in loaded.mode if change.kind == "training-mode"]
    assert changes == [("bn", "training=True", "training=False"), ("drop", "training=True", "training=False")]
    assert next(change.proof for change in loaded.mode) == (
        "the network's own predict normalises with the statistics of each batch here"
        if generation == 2
        else "Keras 3's own predict ignores training=True too"
    )


def test_a_frozen_batch_norm_uses_moving_statistics_whatever_the_call_says(tmp_path: Path) -> None:
    model = built(in_training_mode, 2)
    model.get_layer("bn").trainable = False
    model.get_layer("drop").rate = 0.0
    saved = save(model, tmp_path / "m.h5")
    loaded = load(saved.path, Request())
    check(loaded, saved)
    assert next(change.proof for change in loaded.mode) == (
        "it is frozen, so the network's own predict uses moving statistics too"
    )


def _weights_of(path: Path) -> Any:
    from bnfold.frontends.keras.archive import open_weights, read_artifact

    return open_weights(read_artifact(path))


def _datasets(group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    group.visititems(lambda name, item: found.update({name: np.asarray(item)}) if hasattr(item, "shape") else None)
    return found


def test_a_network_that_stays_random_is_refused(folder: Path) -> None:
    (folder / "make.py").write_text(
        "from bnfold.frontends.keras.guests import keras_of\n"
        "def build():\n"
        "    keras = keras_of(3)\n"
        "    class Noise(keras.layers.Layer):\n"
        "        def __init__(self, **settings):\n"
        "            super().__init__(**settings)\n"
        "            self.seeds = keras.random.SeedGenerator(1)\n"
        "        def call(self, inputs):\n"
        "            return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)\n"
        "    i = keras.layers.Input((4,), name='x')\n"
        "    return keras.Model(i, keras.layers.BatchNormalization(name='bn')(Noise(name='noise')(i)))\n"
    )
    keras = keras_of(3)
    with quiet():
        i = keras.layers.Input((4,), name="x")
        keras.Model(i, keras.layers.BatchNormalization(name="bn")(i)).save(folder / "plain.h5")
    error = refusal(folder / "plain.h5", Request(builder=f"{folder / 'make.py'}:build"))
    assert isinstance(error, InferenceModeError)
    assert str(error).startswith("the network stays in training mode: Stateless")
    assert "draws random numbers" in str(error)


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize(
    ("weight", "value", "message"),
    [
        ("moving_mean", np.nan, "batch norm 'bn2': 1 of 4 values of moving_mean are not finite"),
        ("gamma", np.inf, "batch norm 'bn2': 1 of 4 values of gamma are not finite"),
        ("moving_variance", -0.5, ("batch norm 'bn2': 1 of 4 values of moving_variance are so negative that "
            "epsilon 0.001 does not make them positive (smallest -0.5)")),
    ],
)  # fmt: skip
def test_statistics_that_make_no_sense_are_refused_by_layer(
    generation: int, weight: str, value: float, message: str, folder: Path
) -> None:
    model = built(networks.separable, generation)
    variable = getattr(model.get_layer("bn2"), weight)
    values = variable.numpy()
    values[2] = value
    variable.assign(values)
    error = refusal(save(model, folder / "m.keras").path, Request())
    assert isinstance(error, CorruptModelError)
    assert str(error) == message
    assert error.hint == "Go back to a checkpoint from before the training diverged."


def test_some_outputs_can_be_chosen(folder: Path) -> None:
    saved = save(built(networks.dictionaries, 3), folder / "m.keras")
    loaded = load(saved.path, Request(outputs=("bn",)))
    assert [spec.name for spec in loaded.outputs] == ["bn"]
    assert loaded.run is not None
    assert list(loaded.run(saved.feeds)) == ["bn"]
    np.testing.assert_allclose(run_unoptimised(loaded.model, saved.feeds)[0], saved.expected[1], rtol=2e-6, atol=2e-6)
    error = refusal(saved.path, Request(outputs=("bnn",)))
    assert isinstance(error, SignatureError)
    assert str(error) == "there is no output 'bnn'; there are d, bn"
    assert error.hint == "Did you mean --outputs bn?"


def test_a_keras_model_has_nothing_to_set(files: dict[str, Saved]) -> None:
    error = refusal(files["3.keras"].path, Request(set_values={"phase": "False"}))
    assert isinstance(error, SignatureError)
    assert str(error) == "k3.keras is a Keras model, which has no mode inputs to set: phase"
    assert error.hint == "Leave out --set: Keras models are traced with training=False."


@pytest.mark.parametrize("opset", [13, 18])
def test_the_opset_can_be_chosen(opset: int, files: dict[str, Saved]) -> None:
    loaded = load(files["3.keras"].path, Request(opset=opset))
    assert [entry.version for entry in loaded.model.opset_import if entry.domain == ""] == [opset]
    check(loaded, files["3.keras"])


def test_a_name_with_another_ending_does_not_matter(files: dict[str, Saved], folder: Path) -> None:
    for name in ("3.keras", "2.keras", "2.h5", "3.h5"):
        path = folder / "model.bin"
        path.write_bytes(files[name].path.read_bytes())
        check(load(path, Request()), files[name])


def test_nothing_is_left_behind(files: dict[str, Saved]) -> None:
    from tf2onnx.handler import tf_op
    from tf_keras.src.layers.normalization.batch_normalization import BatchNormalizationBase

    owners = (BatchNormalizationBase, keras_of(3).layers.BatchNormalization, keras_of(3).layers.TimeDistributed)
    before = [owner.call for owner in owners], dict(os.environ), set(tf_op.get_opsets()[""][1])
    for name in ("3.keras", "2.h5"):
        load(files[name].path, Request())
    assert ([owner.call for owner in owners], dict(os.environ), set(tf_op.get_opsets()[""][1])) == before
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_the_original_stays_usable_after_other_files_were_loaded(files: dict[str, Saved]) -> None:
    first = load(files["2.h5"].path, Request())
    load(files["3.keras"].path, Request())
    assert first.run is not None
    np.testing.assert_allclose(
        np.asarray(first.run(files["2.h5"].feeds)["bn4"], np.float64), files["2.h5"].expected[0], rtol=2e-6, atol=2e-6
    )


def test_a_free_number_of_steps_stays_free(folder: Path) -> None:
    def free_steps(keras: Any) -> Any:
        i = keras.layers.Input((None, 5), name="x")
        x = keras.layers.TimeDistributed(keras.layers.BatchNormalization(name="bn"), name="steps")(i)
        return keras.Model(i, keras.layers.TimeDistributed(keras.layers.Dense(2), name="last")(x))

    for generation in (2, 3):
        saved = save(built(free_steps, generation), folder / "m.keras")
        loaded = load(saved.path, Request())
        assert norms_of(loaded.model) == ["steps/bn"]
        assert saved.expected[0].shape == (3, 7, 2)
        assert loaded.outputs[0].shape[::2] == ("batch", 2)
        assert isinstance(loaded.outputs[0].shape[1], str)
        check(loaded, saved)
        assert loaded.run is not None
        np.testing.assert_allclose(
            np.asarray(loaded.run(saved.feeds)["last"], np.float64), saved.expected[0], rtol=2e-6, atol=2e-6
        )


def test_bfloat16_is_refused_by_layer(folder: Path) -> None:
    def narrow(keras: Any) -> Any:
        i = keras.layers.Input((4,), name="x")
        return keras.Model(i, keras.layers.Dense(3, dtype="mixed_bfloat16", name="narrow")(i))

    with quiet():
        built(narrow, 3).save(folder / "m.keras")
    error = refusal(folder / "m.keras", Request())
    assert isinstance(error, UnsupportedOpError)
    assert str(error) == "layer 'narrow' computes in bfloat16, which cannot be converted"
    assert error.hint == (
        "Rebuild the model with the policy float32 or mixed_float16, load its weights and save it again."
    )


def test_a_full_model_with_weights_of_other_shapes_is_corrupt(files: dict[str, Saved], folder: Path) -> None:
    path = folder / "m.h5"
    path.write_bytes(files["2.h5"].path.read_bytes())
    with h5py().File(path, "r+") as file:
        del file["model_weights/bn2/bn2/gamma:0"]
        file["model_weights/bn2/bn2/gamma:0"] = np.zeros(5, np.float32)
    error = refusal(path, Request())
    assert isinstance(error, CorruptModelError)
    assert str(error) == "m.h5: weight bn2/gamma of layer 'bn2' has shape [5], and the model expects [4]"


def test_operations_between_layers_are_read_from_hdf5_too(tmp_path: Path) -> None:
    """Keras 3 writes ``x + 3`` under the name of the layer that adds a list, and cannot read that itself."""
    keras = keras_of(3)
    with quiet():
        i = keras.Input((6, 6, 2), name="x")
        h = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, name="conv")(i))
        h = h * (keras.layers.ReLU(6.0, name="gate")(h + 3.0) / 6.0)
        h = keras.layers.Add(name="twice")([h, h])
        h = keras.ops.reshape(keras.ops.mean(h, axis=(1, 2), keepdims=True), (-1, 4))
        model = keras.Model(i, keras.layers.Dense(3, name="dense")(h[:, 1:]))
    saved = save(networks.randomise(model), tmp_path / "m.h5")
    loaded = load(saved.path, Request())
    check(loaded, saved)
    assert norms_of(loaded.model) == ["bn"]
    assert look(saved.path).suspicions == ()


def test_a_layer_of_ones_own_is_no_operation_whatever_it_is_called(tmp_path: Path) -> None:
    own = "import keras\n\nclass Divide(keras.layers.Layer):\n    def call(self, x):\n        return x / 4.0\n"
    own += "    def get_config(self):\n        return {'name': self.name}\n"
    path = tmp_path / "own.py"
    path.write_text(own)
    scope: dict[str, Any] = {}
    exec(own, scope)  # the file that --custom is given
    keras = keras_of(3)
    with quiet():
        i = keras.Input((4,), name="x")
        model = keras.Model(i, keras.layers.BatchNormalization(name="bn")(scope["Divide"](name="quarter")(i)))
    saved = save(networks.randomise(model), tmp_path / "m.h5")
    check(load(saved.path, Request(custom=path)), saved)
