"""Small Keras networks, written once for both generations, with random weights and the outputs that Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bnfold.frontends.keras.guests import keras_of, quiet

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
Network = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """A network on disk, and what its own Keras computed before it was saved."""

    path: Path
    feeds: dict[str, Array]
    expected: list[Array]


def behind_dense(keras: Any) -> Any:
    i = keras.layers.Input((5,), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(4, name="dense")(i)))


def behind_conv1d(keras: Any) -> Any:
    i = keras.layers.Input((9, 5), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(keras.layers.Conv1D(4, 3, name="conv")(i)))


def free_length(keras: Any) -> Any:
    i = keras.layers.Input((None, 5), name="x")
    x = keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2, name="conv")(i)
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(x))


def behind_conv3d(keras: Any) -> Any:
    i = keras.layers.Input((5, 6, 7, 2), name="x")
    x = keras.layers.Conv3D(4, 3, name="conv")(i)
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", scale=False)(x))


def without_beta(keras: Any) -> Any:
    i = keras.layers.Input((None, None, 3), name="x")
    x = keras.layers.Conv2D(4, 3, name="conv")(i)
    x = keras.layers.BatchNormalization(name="bn", center=False, epsilon=1e-5)(x)
    return keras.Model(i, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def channels_first(keras: Any) -> Any:
    i = keras.layers.Input((3, 5, 6), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", axis=1)(i))


def rank_3_axis_1(keras: Any) -> Any:
    i = keras.layers.Input((3, 5), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", axis=1, scale=False, center=False)(i))


def rank_5_axis_2(keras: Any) -> Any:
    i = keras.layers.Input((3, 5, 4, 2), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", axis=2)(i))


def separable(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((8, 8, 3), name="x")
    x = layers.BatchNormalization(name="bn1")(layers.SeparableConv2D(4, 3, name="sep")(i))
    x = layers.BatchNormalization(name="bn2")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn3")(x))
    return keras.Model(i, layers.BatchNormalization(name="bn4")(layers.Conv2DTranspose(3, 3, strides=2, name="up")(x)))


def grouped(keras: Any) -> Any:
    i = keras.layers.Input((8, 8, 4), name="x")
    x = keras.layers.Conv2D(6, 3, groups=2, padding="same", name="conv")(i)
    return keras.Model(i, keras.layers.BatchNormalization(name="bn")(x))


def smooth_activations(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((6,), name="x")
    x = layers.Activation("gelu", name="gelu")(layers.BatchNormalization(name="bn")(i))
    return keras.Model(i, layers.Activation("selu", name="selu")(layers.Activation("mish", name="mish")(x)))


def nested(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((6, 6, 4), name="inner_x")
    x = layers.BatchNormalization(name="bn")(i)
    inner = keras.Model(i, layers.Conv2D(4, 3, padding="same", name="conv")(x), name="inner")
    outer = keras.Sequential([layers.Input((6, 6, 4)), inner, layers.BatchNormalization(name="last")], name="outer")
    i = layers.Input((6, 6, 4), name="x")
    return keras.Model(i, layers.ReLU(name="relu")(outer(i)))


def time_distributed(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((3, 6, 6, 2), name="x")
    inner = keras.Sequential(
        [layers.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.BatchNormalization(name="bn"), layers.Flatten()],
        name="inner",
    )
    x = layers.TimeDistributed(inner, name="steps")(i)
    return keras.Model(i, layers.TimeDistributed(layers.BatchNormalization(name="last"), name="norm")(x))


def called_twice(keras: Any) -> Any:
    layers = keras.layers
    norm = layers.BatchNormalization(name="bn")
    a, b = layers.Input((4,), name="a"), layers.Input((4,), name="b")
    return keras.Model([a, b], layers.Add(name="sum")([norm(a), layers.ReLU(name="relu")(norm(b))]))


def recurrent(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((7, 5), name="x")
    x = layers.BatchNormalization(name="bn")(layers.LSTM(6, return_sequences=True, name="lstm")(i))
    return keras.Model(i, layers.Bidirectional(layers.GRU(3), name="both")(x))


def dropped(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((4,), name="x")
    x = layers.GaussianNoise(0.1, name="noise")(layers.Dropout(0.5, name="drop")(i))
    x = layers.SpatialDropout1D(0.3, name="spatial")(layers.Reshape((2, 2), name="reshape")(x))
    return keras.Model(i, layers.BatchNormalization(name="bn")(layers.AlphaDropout(0.2, name="alpha")(x)))


def dictionaries(keras: Any) -> Any:
    layers = keras.layers
    inputs = {"b": layers.Input((4,), name="b"), "a": layers.Input((4,), name="a")}
    outputs = {"y": layers.BatchNormalization(name="bn")(inputs["a"]), "x": layers.Dense(2, name="d")(inputs["b"])}
    return keras.Model(inputs, outputs)


def many_outputs(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((5, 4), name="x")
    x = layers.BatchNormalization(name="bn")(i)
    return keras.Model(i, [*layers.LSTM(3, return_state=True, name="memory")(x), x, i, x])


def half_precision(keras: Any) -> Any:
    layers, policy = keras.layers, "mixed_float16"
    i = layers.Input((6, 6, 3), name="x")
    x = layers.BatchNormalization(name="bn1", dtype=policy)(layers.Conv2D(4, 3, dtype=policy, name="conv")(i))
    x = layers.BatchNormalization(name="bn2", dtype=policy)(layers.Flatten(dtype=policy, name="flat")(x))
    return keras.Model(i, layers.Dense(2, dtype="float32", name="dense")(x))


def double_precision(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((6,), dtype="float64", name="x")
    x = layers.Dense(2, dtype="float64", name="dense")(i)
    return keras.Model(i, layers.BatchNormalization(name="bn", dtype="float64")(x))


def renormalised(keras: Any) -> Any:
    i = keras.layers.Input((4,), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", renorm=True)(i))


def two_axes(keras: Any) -> Any:
    i = keras.layers.Input((3, 5, 4), name="x")
    return keras.Model(i, keras.layers.BatchNormalization(name="bn", axis=[1, 3], fused=False)(i))


def with_arithmetic(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((4,), name="x")
    x = layers.BatchNormalization(name="bn")(i) * 2.0 + 1.0
    return keras.Model(i, layers.Dense(3, name="dense", activation="softmax")(x))


def norms_of(model: onnx.ModelProto) -> list[str]:
    """Return the names of a model's batch norms."""
    return [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]


def randomise(model: Any, seed: int = 1) -> Any:
    """Give every weight of a model a random value, variances positive ones."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = getattr(weight, "path", None) or weight.name
        values = rng.normal(size=weight.shape) * 0.4
        weight.assign(np.abs(values) + 0.3 if "variance" in name or "stddev" in name else values)
    return model


def example_of(model: Any, seed: int = 2) -> list[Array]:
    """Return one random array for every input of a model, three samples, seven where a size is free."""
    rng = np.random.default_rng(seed)
    found = []
    for tensor in model.inputs:
        shape = [3, *(7 if size is None else size for size in tensor.shape[1:])]
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        found.append(rng.normal(size=shape).astype(dtype))
    return found


def built(network: Network, generation: int) -> Any:
    """Return a network of one Keras, with random weights."""
    keras = keras_of(generation)
    with quiet():
        keras.backend.clear_session()
        return randomise(network(keras))


def outputs_of(model: Any, arrays: list[Array]) -> list[Array]:
    """Return what a model's own Keras computes in inference mode, its outputs in order."""
    from bnfold.frontends.tensorflow.guests import tensorflow

    tf = tensorflow()
    with quiet():
        names = [tensor.name.partition(":")[0] for tensor in model.inputs]
        tensors: Any = [tf.constant(array) for array in arrays]
        if isinstance(getattr(model, "_inputs_struct", model.input), dict):
            tensors = dict(zip(names, tensors, strict=True))
        values = model(tensors if len(tensors) > 1 else tensors[0], training=False)
        return [np.asarray(value) for value in tf.nest.flatten(values)]


def save(model: Any, path: Path) -> Saved:
    """Write a model, with what its own Keras computes on a random example."""
    arrays = example_of(model)
    with quiet():
        names = [tensor.name.partition(":")[0] for tensor in model.inputs]
        expected = outputs_of(model, arrays)
        model.save(path)
    return Saved(path, dict(zip(names, arrays, strict=True)), expected)
