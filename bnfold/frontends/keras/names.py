"""The names of a Keras model's inputs and outputs: those of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["layer_names", "unique"]


def unique(names: Sequence[str], taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Return names that differ from each other and from those taken, by numbers behind the later ones."""
    seen, found = set(taken), []
    for name in names:
        number, free = 0, name
        while free in seen:
            number += 1
            free = f"{name}_{number}"
        seen.add(free)
        found.append(free)
    return tuple(found)


def layer_names(model: Any, generation: int, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a Keras model's inputs, and of its ``count`` outputs by the layers that compute them."""
    inputs = unique([_plain(tensor.name) for tensor in model.inputs])
    outputs = [_layer_of(tensor, generation) for tensor in getattr(model, "outputs", None) or []]
    if len(outputs) != count:
        outputs = [f"output_{index}" for index in range(count)]
    return inputs, unique(outputs, inputs)


def _plain(name: str) -> str:
    return name.partition(":")[0]


def _layer_of(tensor: Any, generation: int) -> str:
    history = getattr(tensor, "_keras_history", None)
    if history is None:
        return _plain(tensor.name)
    return str((history.operation if generation >= 3 else history.layer).name)
