"""Initializers that a caller may override, because the graph lists them among its inputs."""

from __future__ import annotations

from onnx import ModelProto

__all__ = ["freeze", "overridable"]

_DEFAULTS_SINCE = 4
"""The version of the format since which an initializer that is an input is a default; before, all had to be listed."""


def overridable(model: ModelProto) -> tuple[str, ...]:
    """Return the names of the initializers that a caller may override, in the order of the inputs."""
    if model.ir_version < _DEFAULTS_SINCE:
        return ()
    constants = {tensor.name for tensor in model.graph.initializer}
    constants.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    return tuple(value.name for value in model.graph.input if value.name in constants)


def freeze(model: ModelProto) -> ModelProto:
    """Return a model in which no initializer can be overridden; the model itself where none could be.

    Args:
        model: Any model; it is not changed.
    """
    names = set(overridable(model))
    if not names:
        return model
    result = ModelProto()
    result.CopyFrom(model)
    inputs = [value for value in model.graph.input if value.name not in names]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    return result
