"""Constants that a carrier reads, as they are once a map has gone through the carrier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.rules import Reason, Refusal

if TYPE_CHECKING:
    from bnfold.graph.view import NodeView

__all__ = ["rewritten"]

_BROADCASTING = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Sum", "Where"})
_LARGEST_CONSTANT = 1 << 22
"""Constants with more elements than this are left as they are."""


def rewritten(node: NodeView, position: int, field: Field) -> Float64Array | Refusal:
    """Apply a map to a constant input; where the operation broadcasts, the constant may grow along the map's axes.

    Args:
        node: The carrier.
        position: Which of its inputs.
        field: The map, over the axes of that input; with more axes where the operation broadcasts.
    """
    constant = node.constant(position)
    if constant is None or constant.dtype != np.float64 or not np.isfinite(constant).all():
        return Refusal(Reason.DYNAMIC_WEIGHT, f"a constant of {node.name} is no finite number")
    broadcasts = node.op_type in _BROADCASTING and node.opset >= 7
    if field.rank < constant.ndim or (field.rank > constant.ndim and not broadcasts):
        return Refusal(Reason.WRONG_AXIS, f"a constant of {node.name} has {constant.ndim} axes, not {field.rank}")
    wide = constant.reshape((1,) * (field.rank - constant.ndim) + constant.shape)
    try:
        shape = np.broadcast_shapes(wide.shape, field.shape)
    except ValueError:
        return Refusal(Reason.CHANNEL_MISMATCH, f"a constant of {node.name} has shape {list(constant.shape)}")
    if shape != wide.shape and not broadcasts:
        return Refusal(Reason.WRONG_AXIS, f"a constant of {node.name}, {list(constant.shape)}, would have to grow")
    if np.prod(shape, dtype=np.float64) > _LARGEST_CONSTANT:
        return Refusal(Reason.NO_GAIN, f"a constant of {node.name} would have {list(shape)} elements")
    with np.errstate(over="ignore", invalid="ignore"):
        changed = np.asarray(field.scale * wide.astype(np.float64) + field.shift)
    while changed.ndim > max(constant.ndim, 1) and changed.shape[0] == 1:
        changed = changed[0]
    return changed
