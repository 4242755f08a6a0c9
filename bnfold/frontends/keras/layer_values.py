"""What every layer of a Keras model computes, to find the one at which a translation goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from bnfold.frontends.keras.build import Built
from bnfold.frontends.keras.guests import keras_of, quiet, tensorflow
from bnfold.frontends.keras.trace import call_in_inference_mode, paths_of
from bnfold.frontends.loaded import Array, LayerReader, LayerValue

__all__ = ["layer_reader"]

_MOST = 1 << 29
"""Bytes of values that are kept at most."""


class _Record:
    """What was computed so far, and by which layer."""

    def __init__(self, paths: Mapping[int, str]) -> None:
        self.paths = paths
        self.values: list[LayerValue] = []
        self.origin: dict[int, str] = {}
        self.alive: list[Any] = []  # an id means something only as long as its owner lives
        self.held = 0
        self.inside = False

    def add(self, layer: Any, read: list[Any], written: list[Any]) -> None:
        name = self.paths.get(id(layer), layer.name)
        calls = sum(value.name.partition(" (")[0] == name for value in self.values)
        name = f"{name} (call {calls + 1})" if calls else name
        reads = tuple(dict.fromkeys(self.origin[id(tensor)] for tensor in read if id(tensor) in self.origin))
        for number, tensor in enumerate(written):
            self.alive.append(tensor)
            self.origin[id(tensor)] = name
            if number or not tensor.dtype.is_floating or self.held > _MOST:
                continue
            value = np.asarray(tensor)
            self.held += value.nbytes
            self.values.append(LayerValue(name, type(layer).__name__, value, reads))


def layer_reader(built: Built, inputs: tuple[str, ...]) -> LayerReader:
    """Return a function that runs a Keras model and returns what its layers compute, those of models in it included.

    Args:
        built: The model.
        inputs: The ONNX names of its inputs, in order.
    """

    def read(feeds: Mapping[str, Array]) -> tuple[LayerValue, ...]:
        tf = tensorflow()
        record = _Record(paths_of(built.model))
        with quiet(), _recording(built, record):
            tensors = zip(inputs, built.model.inputs, strict=True)
            call_in_inference_mode(
                built, [tf.convert_to_tensor(np.asarray(feeds[name]), tensor.dtype) for name, tensor in tensors]
            )
        return tuple(record.values)

    return read


@contextmanager
def _recording(built: Built, record: _Record) -> Iterator[None]:
    """Note what goes into and out of every layer that is not a model itself, and is in no other such layer."""
    tf = tensorflow()
    layers = keras_of(built.generation).layers.Layer
    original = layers.__call__

    def flat(value: Any) -> list[Any]:
        return [item for item in tf.nest.flatten(value) if isinstance(item, tf.Tensor)]

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if record.inside or getattr(layer, "layers", None):
            return original(layer, *args, **kwargs)
        record.inside = True
        try:
            found = original(layer, *args, **kwargs)
        finally:
            record.inside = False
        record.add(layer, flat((args, kwargs)), flat(found))
        return found

    layers.__call__ = called
    try:
        yield
    finally:
        layers.__call__ = original
