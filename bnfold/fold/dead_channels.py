"""Channels that a map makes constant: what a function of each element makes of them is constant too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field
from bnfold.rules import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.affine.per_channel import Float64Array
    from bnfold.fold.draft import Draft
    from bnfold.graph.view import NodeView

__all__ = ["constant_behind", "without_dead"]


def _leaky(node: NodeView, array: Float64Array) -> Float64Array:
    return np.where(array < 0, node.number("alpha", float(np.float32(0.01))) * array, array)


# Each of them is 0 at 0: a channel that is multiplied by 0 behind it adds nothing to what stands here.
_FUNCTIONS: Mapping[str, Callable[[NodeView, Float64Array], Float64Array]] = {
    "Abs": lambda _node, array: np.abs(array),
    "LeakyRelu": _leaky,
    "Relu": lambda _node, array: np.maximum(array, 0.0),
}


def _dead(field: Field) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray((field.scale == 0) & (field.shift != 0))


def without_dead(field: Field) -> Field:
    """Return a map without the shifts of the channels that it multiplies by zero."""
    return Field(field.scale, np.where(_dead(field), 0.0, field.shift))


def constant_behind(draft: Draft, value: str, field: Field) -> Mapping[str, Field] | Refusal:
    """Return the shifts of constant channels as they are behind all readers of a value, by what these compute.

    ``f(0·x + o) = 0·f(x) + f(o)`` for each ``f`` of one element that is 0 at 0.

    Args:
        draft: The graph so far.
        value: What the map computes.
        field: The map.
    """
    dead = _dead(field)
    found: dict[str, Field] = {}
    if not dead.any():
        return found
    for index, position in draft.wiring.uses_of(value):
        function = _FUNCTIONS.get(draft.op_type(index))
        if function is None or position or index >= len(draft.view) or index in draft.becomes:
            detail = f"{draft.op_type(index)} {draft.name(index)} reads a channel that is constant"
            return Refusal(Reason.NO_RULE, detail)
        shift = np.where(dead, function(draft.node(index), field.shift), 0.0)
        if shift.any():
            found[draft.wiring.outputs[index][0]] = Field.of(np.ones_like(shift), shift)
    return found
