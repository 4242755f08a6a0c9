"""Layers, functions and models of the user's own: their file is named, and nothing else is imported for them."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bnfold.errors import BnfoldError, SourceError, UnsupportedOpError
from bnfold.frontends import load
from bnfold.frontends.keras.guests import keras_of, quiet
from bnfold.frontends.keras.users_code import custom_of
from bnfold.frontends.loaded import Loaded, Request
from tests.frontends.keras.networks import Array, Saved, norms_of, outputs_of, randomise, save
from tests.frontends.keras.test_batch_norms import run_unoptimised

pytestmark = pytest.mark.tensorflow

DEFINITIONS = """
import {keras} as keras
import tensorflow as tf
from {keras}.layers import Dense

@keras.saving.register_keras_serializable(package="Mine")
class Scale(keras.layers.Layer):
    def __init__(self, factor=2.0, **settings):
        super().__init__(**settings)
        self.factor = factor

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1],))
        super().build(shape)

    def call(self, x):
        return x * self.w * self.factor

    def get_config(self):
        return {{**super().get_config(), "factor": self.factor}}

class OnlyInTraining(keras.layers.Layer):
    def call(self, x, training=None):
        return x * 100.0 if training else x + 1.0

def bent(x):
    return x * tf.sigmoid(x)

class Net(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = Dense(4)
        self.bn = keras.layers.BatchNormalization(name="bn")
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x, training=None):
        return self.drop(self.bn(self.dense(x), training=training), training=training)

    def get_config(self):
        return {{}}

def build():
    net = Net()
    net(tf.zeros((1, 3)))
    return net
"""


@pytest.fixture
def definitions(folder: Path) -> dict[int, Path]:
    """A file of the user's for each generation of Keras."""
    found = {}
    for generation, name in ((2, "tf_keras"), (3, "keras")):
        found[generation] = folder / f"mine{generation}.py"
        found[generation].write_text(DEFINITIONS.format(keras=name), "utf-8")
    return found


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Let no class stay registered: a file must be read by what its user brings along."""
    yield
    for generation in (2, 3):
        keras_of(generation).utils.get_custom_objects().clear()


def mine(path: Path) -> ModuleType:
    """Import a user's file as its author does, and forget what it registered."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(keras: Any, module: ModuleType) -> Any:
    layers = keras.layers
    i = layers.Input((5,), name="x")
    x = layers.Dense(4, activation=module.bent, name="dense")(i)
    x = layers.BatchNormalization(name="bn")(module.Scale(3.0, name="scale")(x))
    return keras.Model(i, layers.Dense(2, name="last")(module.OnlyInTraining(name="bump")(x)))


def refusal(path: Path, request: Request) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        load(path, request)
    return refused.value


def check(loaded: Loaded, saved: Saved) -> None:
    feeds = dict(zip([spec.name for spec in loaded.inputs], saved.feeds.values(), strict=True))
    assert loaded.run is not None
    original: list[Array] = list(loaded.run(feeds).values())
    for expected, found, own in zip(saved.expected, run_unoptimised(loaded.model, feeds), original, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(own, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_and_functions_of_the_user_are_found_in_the_file_that_is_named(
    generation: int, suffix: str, folder: Path, definitions: dict[int, Path]
) -> None:
    keras = keras_of(generation)
    saved = save(randomise(network(keras, mine(definitions[generation]))), folder / f"model{suffix}")
    keras.utils.get_custom_objects().clear()
    error = refusal(saved.path, Request())
    assert isinstance(error, UnsupportedOpError)
    assert error.hint == "Give the Python file that defines it: --custom file.py"
    loaded = load(saved.path, Request(custom=definitions[generation]))
    check(loaded, saved)
    assert norms_of(loaded.model) == ["bn"]
    assert keras.utils.get_custom_objects().get("OnlyInTraining") is None


@pytest.mark.parametrize("generation", [2, 3])
def test_a_model_of_a_class_of_its_own_takes_what_it_was_built_for(
    generation: int, folder: Path, definitions: dict[int, Path]
) -> None:
    keras = keras_of(generation)
    model = randomise(mine(definitions[generation]).build())
    x = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    with quiet():
        expected = np.asarray(model(x, training=False))
        model.save(folder / "net.keras")
        model.save_weights(folder / "net.weights.h5")
    keras.utils.get_custom_objects().clear()
    custom = definitions[generation]
    for name, request in (
        ("net.keras", Request(custom=custom)),
        ("net.weights.h5", Request(builder=f"{custom}:build")),
    ):
        loaded = load(folder / name, request)
        check(loaded, Saved(folder / name, {"x": x}, [expected]))
        assert [(spec.name, spec.shape) for spec in loaded.inputs] == [("input", ("batch", 3))]
        assert norms_of(loaded.model) == ["net/bn"]


def test_no_module_is_imported_because_a_file_says_so(folder: Path, definitions: dict[int, Path]) -> None:
    model = network(keras_of(3), mine(definitions[3]))
    with quiet():
        model.save(folder / "model.keras")
    (folder / "trap.py").write_text("raise SystemExit('imported')", "utf-8")
    path = folder / "trapped.keras"
    with zipfile.ZipFile(folder / "model.keras") as archive, zipfile.ZipFile(path, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                layer = next(one for one in config["config"]["layers"] if one["class_name"] == "OnlyInTraining")
                layer.update(module="trap", registered_name="trap>OnlyInTraining")
                content = json.dumps(config).encode()
            copy.writestr(name, content)
    keras_of(3).utils.get_custom_objects().clear()
    assert norms_of(load(path, Request(custom=definitions[3])).model) == ["bn"]
    assert "trap" not in sys.modules


def test_a_file_that_defines_nothing_or_fails_is_refused(folder: Path) -> None:
    path = folder / "mine.py"
    for text, says, hint in (
        ("import keras", "mine.py defines no class and no function", "Define the layers in that file."),
        ("1 / 0", "mine.py raised ZeroDivisionError: division by zero",
            "Make the file work when it is imported, with nothing but definitions."),
    ):  # fmt: skip
        path.write_text(text, "utf-8")
        with pytest.raises(SourceError) as refused:
            custom_of(path)
        assert (str(refused.value), refused.value.hint) == (says, hint)
    with pytest.raises(SourceError) as refused:
        custom_of(folder / "nowhere.py")
    assert str(refused.value) == f"there is no file {folder / 'nowhere.py'}"
    assert custom_of(None) == {}


def test_outputs_are_those_of_inference_mode(definitions: dict[int, Path]) -> None:
    module = mine(definitions[3])
    model = network(keras_of(3), module)
    x = np.ones((2, 5), np.float32)
    with quiet():
        assert not np.allclose(outputs_of(model, [x])[0], np.asarray(model(x, training=True)))
