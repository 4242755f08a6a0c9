"""Every batch norm arrives in ONNX as one node under its layer's name, and the model computes what Keras computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from bnfold.frontends.keras import load
from bnfold.frontends.loaded import Request
from tests.frontends.keras import networks
from tests.frontends.keras.networks import Array, Network, built, norms_of, save

pytestmark = pytest.mark.tensorflow

BOTH: dict[Network, list[str]] = {
    networks.behind_dense: ["bn"],
    networks.behind_conv1d: ["bn"],
    networks.free_length: ["bn"],
    networks.behind_conv3d: ["bn"],
    networks.without_beta: ["bn"],
    networks.channels_first: ["bn"],
    networks.rank_3_axis_1: ["bn"],
    networks.rank_5_axis_2: ["bn"],
    networks.separable: ["bn1", "bn2", "bn3", "bn4"],
    networks.grouped: ["bn"],
    networks.smooth_activations: ["bn"],
    networks.nested: ["outer/inner/bn", "outer/last"],
    networks.time_distributed: ["steps/inner/bn", "norm/last"],
    networks.called_twice: ["bn", "bn:2"],
    networks.recurrent: ["bn"],
    networks.dropped: ["bn"],
    networks.dictionaries: ["bn"],
    networks.many_outputs: ["bn"],
    networks.half_precision: ["bn1", "bn2"],
    networks.double_precision: ["bn"],
    networks.renormalised: ["bn"],
}
CASES = [
    *(pytest.param(network, generation, ".keras", id=f"{network.__name__}-{generation}")
        for network in BOTH for generation in (2, 3) if network is not networks.recurrent),
    pytest.param(networks.recurrent, 2, ".h5", id="recurrent-2-h5"),
    pytest.param(networks.recurrent, 3, ".h5", id="recurrent-3-h5"),
    pytest.param(networks.nested, 2, ".h5", id="nested-2-h5"),
    pytest.param(networks.nested, 3, ".h5", id="nested-3-h5"),
    pytest.param(networks.two_axes, 2, ".keras", id="two_axes-2"),
    pytest.param(networks.with_arithmetic, 2, ".h5", id="with_arithmetic-2"),
    pytest.param(networks.with_arithmetic, 3, ".keras", id="with_arithmetic-3"),
]  # fmt: skip


def run_unoptimised(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


@pytest.mark.parametrize(("network", "generation", "suffix"), CASES)
def test_batch_norms_arrive_and_nothing_else_changes(
    network: Network, generation: int, suffix: str, tmp_path: Path
) -> None:
    saved = save(built(network, generation), tmp_path / f"model{suffix}")
    loaded = load(saved.path, Request())
    onnx.checker.check_model(loaded.model, full_check=True)
    assert norms_of(loaded.model) == BOTH.get(network, ["bn"])
    assert {spec.name for spec in loaded.inputs} == set(saved.feeds)
    assert loaded.run is not None
    original = loaded.run(saved.feeds)
    assert list(original) == [spec.name for spec in loaded.outputs]
    # float16 keeps 11 bits; its products are summed in another order by each library.
    tolerances: dict[Network, float] = {networks.half_precision: 4e-3, networks.double_precision: 1e-14}
    tolerance = tolerances.get(network, 2e-6)
    for expected, through_keras, through_onnx in zip(
        saved.expected, original.values(), run_unoptimised(loaded.model, saved.feeds), strict=True
    ):
        np.testing.assert_allclose(np.asarray(through_keras, np.float64), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(through_onnx, expected, rtol=tolerance, atol=tolerance)


def test_outputs_are_called_after_their_layers_and_never_like_an_input(tmp_path: Path) -> None:
    loaded = load(save(built(networks.many_outputs, 3), tmp_path / "model.keras").path, Request())
    assert [spec.name for spec in loaded.inputs] == ["x"]
    assert [spec.name for spec in loaded.outputs] == ["memory", "memory_1", "memory_2", "bn", "x_1", "bn_1"]


@pytest.mark.parametrize("generation", [2, 3])
def test_batch_norms_that_compute_the_same_stay_two(generation: int, tmp_path: Path) -> None:
    def twins(keras: Any) -> Any:
        i = keras.layers.Input((4,), name="x")
        return keras.Model(i, [keras.layers.BatchNormalization(name=name)(i) for name in ("left", "right__3")])

    from bnfold.frontends.keras.guests import keras_of, quiet

    with quiet():
        model = twins(keras_of(generation))
        model.save(tmp_path / "model.keras")
    assert norms_of(load(tmp_path / "model.keras", Request()).model) == ["left", "right__3"]


@pytest.mark.parametrize("generation", [2, 3])
def test_adapted_statistics_stay_constants(generation: int, tmp_path: Path) -> None:
    from bnfold.frontends.keras.guests import keras_of, quiet

    keras = keras_of(generation)
    for suffix in (".keras", ".h5"):
        with quiet():
            adapted = keras.layers.Normalization(name="norm")
            adapted.adapt(np.random.default_rng(3).normal(2, 3, size=(50, 4)).astype("float32"))
            i = keras.layers.Input((4,), name="x")
            model = keras.Model(i, keras.layers.BatchNormalization(name="bn")(adapted(i)))
        saved = save(model, tmp_path / f"model{suffix}")
        loaded = load(saved.path, Request())
        assert [value.name for value in loaded.model.graph.input] == ["x"]
        np.testing.assert_allclose(run_unoptimised(loaded.model, saved.feeds)[0], saved.expected[0], rtol=2e-6)
        assert float(np.abs(saved.expected[0] - saved.feeds["x"]).max()) > 0.1  # the statistics do something


def test_frozen_layers_inside_a_model_keep_their_own_weights(tmp_path: Path) -> None:
    """A legacy file lists trainable weights first, so freezing changes the order in which weights are stored."""
    from bnfold.frontends.keras.guests import keras_of, quiet

    keras = keras_of(2)
    layers = keras.layers
    with quiet():
        i = layers.Input((4,), name="inner_x")
        x = layers.BatchNormalization(name="first")(i)
        inner = keras.Model(i, layers.BatchNormalization(name="second")(layers.Dense(4, name="mid")(x)), name="inner")
        i = layers.Input((4,), name="x")
        model = networks.randomise(keras.Model(i, layers.Dense(2, name="head")(inner(i))))
        for frozen in ("first", "second", None):
            for layer in inner.layers:
                layer.trainable = layer.name != frozen
            # Shuffled away from the configuration: the flags of the file are not those of the weights' order.
            saved = save(model, tmp_path / f"{frozen}.h5")
            _rewrite_trainable(saved.path)
            loaded = load(saved.path, Request())
            np.testing.assert_allclose(
                run_unoptimised(loaded.model, saved.feeds)[0], saved.expected[0], rtol=2e-6, atol=2e-6
            )


def _rewrite_trainable(path: Path) -> None:
    """Make the configuration call every layer trainable, as older versions did for inner models."""
    from bnfold.frontends.keras.guests import h5py

    with h5py().File(path, "r+") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"trainable": false', '"trainable": true')


def test_a_real_network_of_keras_2_0_arrives_whole(real_files: Path) -> None:
    path = real_files / "gender_mini_XCEPTION.21-0.95.hdf5"
    loaded = load(path, Request())
    assert loaded.framework == "Keras 2.0.5"
    assert sorted(norms_of(loaded.model)) == sorted(f"batch_normalization_{number}" for number in range(1, 15))
    from bnfold.frontends.keras.guests import keras_of, quiet

    faces = np.random.default_rng(4).uniform(-1, 1, size=(8, 64, 64, 1)).astype(np.float32)
    with quiet():
        original = keras_of(2).models.load_model(path, compile=False)
        expected = original.predict(faces, verbose=0)
    assert loaded.run is not None
    np.testing.assert_allclose(
        np.asarray(loaded.run({"input_1": faces})["predictions"], np.float64), expected, atol=1e-6
    )
    np.testing.assert_allclose(run_unoptimised(loaded.model, {"input_1": faces})[0], expected, atol=1e-4)
    assert expected.std() > 0.01
