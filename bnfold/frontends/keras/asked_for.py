"""How many weights a configuration asks for, counted in its plain JSON: at least so many, before Keras builds any."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bnfold.frontends.keras.bounded import most_numbers, too_many
from bnfold.frontends.keras.config import Config, LayerEntry, layers

__all__ = ["demand_room", "weights_asked_for"]

Shape = list[int]
_LARGEST = 1 << 62


def demand_room(config: Config, path: Path) -> None:
    """Refuse a configuration whose layers have weights that cannot be in a file, however small they are written.

    Sizes that follow from what a layer reads count where they are plain to see, and as 1 otherwise: what Keras asks for
    while it builds is bounded once more.

    Args:
        config: The configuration.
        path: The file that holds the weights.

    Raises:
        CorruptModelError: If a layer, or all of them together, ask for more numbers than the file can hold.
    """
    size = path.stat().st_size
    most, asked = most_numbers(size), 0
    for name, shape in weights_asked_for(config):
        count = math.prod(shape)
        asked += count
        if asked > most:
            raise too_many(path.name, size, most, (name, shape) if count > most else None)


def weights_asked_for(config: Config) -> Iterator[tuple[str, Shape]]:
    """Yield the name of a layer and the shape of a weight, for every weight that a configuration is known to ask for.

    What is not known of a shape is 1, so that no weight is larger in it than it will be.
    """
    for layer, channels in _with_channels(config):
        for shape in _shapes(layer, channels):
            yield layer.name, shape


def _with_channels(config: Config) -> Iterator[tuple[LayerEntry, int]]:
    """Yield every layer with the size of the last axis of what it reads; 1 where that is not plain to see."""
    behind: dict[str, int] = {}
    last: dict[tuple[tuple[str, str, int], ...], int] = {}
    for layer in layers(config):
        around = layer.models[:-1]
        sources = {behind.get(f"{layer.path.rpartition('/')[0]}/{name}", 1) for name in layer.sources}
        read = sources.pop() if len(sources) == 1 else 1 if layer.sources else last.get(around, 1)
        read = max(read, _built_for(layer))
        yield layer, read
        written = _written(layer, read)
        behind[f"{layer.path.rpartition('/')[0]}/{layer.name}"] = last[around] = written


def _built_for(layer: LayerEntry) -> int:
    """Return the last axis of the shape that the file says a layer was built for, or is fed."""
    return max(_last(layer.built_for.get("input_shape")), _last(layer.config.get("batch_input_shape")))


def _last(shape: object) -> int:
    if isinstance(shape, dict):  # Keras 3 may write a tuple as an object
        shape = next((value for value in shape.values() if isinstance(value, list)), None)
    return _size(shape[-1]) if isinstance(shape, list) and shape and not isinstance(shape[-1], list) else 1


def _size(value: object) -> int:
    """Return a size as Keras would read it; 1 for what is none."""
    if isinstance(value, str | float):
        try:
            value = int(value)
        except (ValueError, OverflowError):
            return 1
    return min(max(value, 1), _LARGEST) if isinstance(value, int) else 1


def _sizes(value: object, axes: int) -> Shape:
    return [_size(one) for one in value] if isinstance(value, list) else [_size(value)] * axes


def _axes(class_name: str) -> int:
    return next((int(digit) for digit in "123" if f"{digit}D" in class_name), 1)


def _convolution(layer: LayerEntry, channels: int) -> list[Shape]:
    told = layer.config
    kernel = _sizes(told.get("kernel_size"), _axes(layer.class_name))
    filters = _size(told.get("filters"))
    # With the channels in front, the last axis says nothing of them.
    channels = 1 if told.get("data_format") == "channels_first" else channels
    bias = [filters] if told.get("use_bias", True) else [0]
    if "Separable" in layer.class_name:
        multiplier = _size(told.get("depth_multiplier"))
        return [[*kernel, channels, multiplier], [*[1] * len(kernel), channels * multiplier, filters], bias]
    if "Depthwise" in layer.class_name:
        return [[*kernel, channels, _size(told.get("depth_multiplier"))]]
    if "LSTM" in layer.class_name:
        return [[*kernel, channels, 4 * filters], [*kernel, filters, 4 * filters]]
    if "Transpose" in layer.class_name:
        return [[*kernel, filters, channels], bias]
    return [[*kernel, max(1, channels // _size(told.get("groups"))), filters], bias]


def _dense(layer: LayerEntry, channels: int) -> list[Shape]:
    units = _size(layer.config.get("units"))
    return [[channels, units], [units] if layer.config.get("use_bias", True) else [0]]


def _recurrent(gates: int) -> Callable[[LayerEntry, int], list[Shape]]:
    def shapes(layer: LayerEntry, channels: int) -> list[Shape]:
        units = _size(layer.config.get("units"))
        return [[channels, gates * units], [units, gates * units]]

    return shapes


def _embedding(layer: LayerEntry, _channels: int) -> list[Shape]:
    return [[_size(layer.config.get("input_dim")), _size(layer.config.get("output_dim"))]]


def _attention(layer: LayerEntry, _channels: int) -> list[Shape]:
    told = layer.config
    return [[_size(told.get("num_heads")), _size(told.get("key_dim") or told.get("head_dim"))]]


_RECURRENT = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
_SHAPES: Mapping[str, Callable[[LayerEntry, int], list[Shape]]] = {
    "Dense": _dense,
    "Embedding": _embedding,
    "ReversibleEmbedding": _embedding,
    "MultiHeadAttention": _attention,
    **{name: _recurrent(gates) for name, gates in _RECURRENT.items()},
    **{f"{name}Cell": _recurrent(gates) for name, gates in _RECURRENT.items()},
}
# What leaves the last axis as it is, whatever it is told.
_KEEPS = frozenset(["Activation", "ActivityRegularization", "BatchNormalization", "Dropout", "ELU", "GaussianDropout",
    "GaussianNoise", "Identity", "LayerNormalization", "LeakyReLU", "PReLU", "ReLU", "Rescaling", "Softmax",
    "ThresholdedReLU"])  # fmt: skip


def _shapes(layer: LayerEntry, channels: int) -> list[Shape]:
    if "Conv" in layer.class_name:
        return _convolution(layer, channels)
    counted = _SHAPES.get(layer.class_name)
    return counted(layer, channels) if counted else []


def _written(layer: LayerEntry, read: int) -> int:
    """Return the size of the last axis of what a layer writes; 1 where that is not plain to see."""
    told, name = layer.config, layer.class_name
    if name == "InputLayer":
        return _last(told.get("batch_shape") or told.get("batch_input_shape"))
    if name in _KEEPS:
        return read
    if "Conv" in name and "Depthwise" not in name and told.get("data_format") != "channels_first":
        return _size(told.get("filters"))
    if name == "Dense" or name in _RECURRENT:
        return _size(told.get("units"))
    if name == "Embedding":
        return _size(told.get("output_dim"))
    return 1
