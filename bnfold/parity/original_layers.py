"""The first layer of an original program that has no counterpart in a model whose output is wrong.

Layers and values of a translation have different names, and images have their channels elsewhere, so they are matched
by what they hold. A layer may have no counterpart although nothing is wrong, because the translation joins it with its
neighbour: then those that read it have theirs. So the layer at which a fault enters is the first without a counterpart
that leads to others without one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.layerwise import OriginalLayer
from bnfold.parity.run import Session
from bnfold.parity.verdict import Suspect

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Layer", "LayerReader", "beside", "first_off", "values_of"]

_FINEST = 2.0**-18
_COARSEST = 2.0**-8
_SHARE = 16
"""A layer has a counterpart where its error is less than the output's by this, within the two bounds above."""
_AXES = 5
_AT_ONCE = 48
"""How many inner values are held at a time."""


class Layer(Protocol):
    """What one layer of the original program computed."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> str:
        """What it is."""

    @property
    def value(self) -> Array:
        """What it computed."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the layers whose values it read."""


LayerReader = Callable[[Mapping[str, Array]], Sequence[Layer]]
"""Runs the original program and returns what its layers computed, in order."""


Values = Callable[[], Iterable[tuple[str, object]]]
"""Computes the values of a model, with their names."""


def first_off(layers: Sequence[Layer], values: Values, error: float, probe: str) -> Suspect | None:
    """Return the first layer whose value, and what is computed from it, is nowhere in a model; None if there is none.

    Args:
        layers: What the original program's layers computed, in order.
        values: Computes the values of the model on the same inputs.
        error: The error of the output that is wrong.
        probe: What the inputs are called.
    """
    bound = min(max(error / _SHARE if math.isfinite(error) else _COARSEST, _FINEST), _COARSEST)
    wide = {layer.name: np.asarray(layer.value).astype(np.float64) for layer in layers}
    found = _counterparts(wide, values(), bound)
    healed = _healed(layers, found)
    off = [item for item in layers if item.name not in healed]
    # Where folding has taken a layer away, nothing of it is left; where a layer is wrong, there is something like it.
    first = [item for item in off if healed.issuperset(item.reads)] or off
    if len(first) > 1:
        apart = _nearest({item.name: wide[item.name] for item in first}, values())
        first.sort(key=lambda item: apart[item.name])
    if not first:
        return None
    return Suspect(
        value=first[0].name,
        op_type=first[0].kind,
        node=first[0].name,
        between=tuple(found.get(read, read) for read in first[0].reads),
        unfolded=math.nan,
        candidate=math.nan,
        limit=bound,
        probe=probe,
        layer=True,
    )


def _counterparts(wide: Mapping[str, Array], values: Iterable[tuple[str, object]], bound: float) -> dict[str, str]:
    """Return which value of a model is what a layer computed, by the layer."""
    left = dict(wide)
    sizes = {name: _norm(value) for name, value in left.items()}
    found: dict[str, str] = {}
    for name, value in values:
        if not isinstance(value, np.ndarray) or not roundoff(value.dtype):
            continue
        other = value.astype(np.float64)
        size = _norm(other)
        for layer in [item for item, held in left.items() if held.size == other.size]:
            # Moving axes leaves the size of a value as it is, so most are told apart by that.
            near = abs(size - sizes[layer]) <= bound * sizes[layer]
            if near and _apart(left[layer], other) <= bound * sizes[layer]:
                found[layer] = name
                del left[layer]
    return found


def _healed(layers: Sequence[Layer], found: Collection[str]) -> set[str]:
    """Return the layers that have a counterpart, or all of whose readers are so."""
    readers: dict[str, list[str]] = {}
    for item in layers:
        for read in item.reads:
            readers.setdefault(read, []).append(item.name)
    healed = set(found)
    for item in reversed(layers):
        behind = readers.get(item.name, [])
        if behind and healed.issuperset(behind):
            healed.add(item.name)
    return healed


def _nearest(wide: Mapping[str, Array], values: Iterable[tuple[str, object]]) -> dict[str, float]:
    """Return how far the likest value of a model is from what a layer computed, by the layer, relative to it."""
    return {layer: error for layer, (error, _name) in _likest(wide, values).items()}


def _likest(wide: Mapping[str, Array], values: Iterable[tuple[str, object]]) -> dict[str, tuple[float, str]]:
    """Return the distance of the likest value from what a layer computed, relative to it, and the value's name."""
    found = dict.fromkeys(wide, (math.inf, ""))
    sizes = {layer: _norm(held) for layer, held in wide.items()}
    for name, value in values:
        if not isinstance(value, np.ndarray) or not roundoff(value.dtype):
            continue
        other = value.astype(np.float64)
        size = _norm(other)
        for layer, held in wide.items():
            unit = sizes[layer] or 1.0
            # Two values are at least as far apart as their sizes.
            if held.size == other.size and abs(size - sizes[layer]) < found[layer][0] * unit:
                apart = _apart(held, other) / unit
                if apart < found[layer][0]:
                    found[layer] = apart, name
    return found


def beside(layers: Sequence[Layer], values: Iterable[tuple[str, object]]) -> tuple[OriginalLayer, ...]:
    """Return every layer of the original program with the likest value of a model.

    Args:
        layers: What the original program's layers computed, in order.
        values: The values of the model on the same inputs, with their names.
    """
    floats = [item for item in layers if roundoff(np.asarray(item.value).dtype)]
    found = _likest({item.name: np.asarray(item.value).astype(np.float64) for item in floats}, values)
    return tuple(
        OriginalLayer(item.name, item.kind, name, error if name else math.nan)
        for item in floats
        for error, name in (found[item.name],)
    )


def values_of(model: ModelProto, feeds: Mapping[str, Array]) -> Iterator[tuple[str, object]]:
    """Yield every value that a model computes of some inputs, a few at a time.

    Raises:
        BnfoldError: If it does not run on them.
    """
    every = [name for node in model.graph.node for name in node.output if name]
    for start in range(0, len(every), _AT_ONCE):
        found: Mapping[str, object] = Session(model, also=every[start : start + _AT_ONCE]).run(feeds)
        yield from found.items()


def _norm(value: Array) -> float:
    return float(np.sqrt(np.square(value).sum()))


def _apart(one: Array, other: Array) -> float:
    """Return the distance of two values of one size, however the axes of the second are moved."""
    return min((_norm(one - moved) for moved in _turned(other, one.shape)), default=math.inf)


def _turned(value: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield a value in another shape: with its axes moved, or its elements in one row."""
    if value.shape == shape:
        yield value
    if value.ndim == len(shape) <= _AXES:
        for axes in itertools.permutations(range(value.ndim)):
            if tuple(value.shape[axis] for axis in axes) == shape and axes != tuple(range(value.ndim)):
                yield value.transpose(axes)
    elif value.ndim != len(shape):
        yield value.reshape(shape)
        if value.ndim > 2:
            yield np.moveaxis(value, 1, -1).reshape(shape)
