"""Operations in what Keras 3 writes into HDF5: ``x + 3`` is an ``Add`` there, and so is the layer that adds a list.

The file leaves out which of the two is meant, and Keras takes every ``Add`` for the layer. A layer says whether it is
trainable, an operation does not: that tells them apart.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any

from bnfold.frontends.keras.known import OPERATIONS

__all__ = ["with_modules", "with_operations"]

_SOMEWHERE = "keras.ops"
"""Where operations are from, as far as the file alone tells."""

_MODULES = ("numpy", "nn", "math", "core", "image", "linalg", "einops")


def with_operations(config: dict[str, Any], custom: Collection[str] = ()) -> dict[str, Any]:
    """Return a configuration in which operations say that they are some; one without any as it is.

    Args:
        config: The whole configuration.
        custom: Names of the classes that the caller has brought along: those are meant.
    """
    if not any(_operations(config, custom)):
        return config
    config = copy.deepcopy(config)
    for operation in _operations(config, custom):
        operation["module"] = _SOMEWHERE
    return config


def with_modules(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in which operations say which of Keras's modules they are from."""
    found = [layer for layer in _siblings(config) if layer.get("module") == _SOMEWHERE]
    for operation in found:
        name = operation["class_name"]
        for module in _MODULES:
            if isinstance(getattr(import_module(f"keras.src.ops.{module}"), name, None), type):
                operation.update(module=f"keras.src.ops.{module}", registered_name=name)
                break
    return config


def _operations(config: dict[str, Any], custom: Collection[str]) -> Iterator[dict[str, Any]]:
    for layer in _siblings(config):
        calls, settings = layer.get("inbound_nodes"), layer.get("config")
        if layer["class_name"] not in OPERATIONS or layer["class_name"] in custom or "module" in layer:
            continue
        if not isinstance(settings, dict) or not isinstance(calls, list) or not calls:
            continue
        if isinstance(calls[0], dict) and "args" in calls[0] and not {"trainable", "dtype", "layers"} & set(settings):
            yield layer


def _siblings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every layer of a model and of the models inside it."""
    stack: list[Any] = [config]
    while stack:
        model = stack.pop()
        settings = model.get("config") if isinstance(model, dict) else None
        inner = settings.get("layers") if isinstance(settings, dict) else None
        for layer in inner if isinstance(inner, list) else []:
            if isinstance(layer, dict) and isinstance(layer.get("class_name"), str):
                yield layer
                stack.append(layer)
