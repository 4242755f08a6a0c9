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


def rewritten(node: NodeView, position: int, field: Field) -> Float64Array | Refusal:
    """Apply a map to a constant input, which keeps its shape.

    Args:
        node: The carrier.
        position: Which of its inputs.
        field: The map, over the axes of that input.
    """
    constant = node.constant(position)
    if constant is None or constant.dtype != np.float64 or not np.isfinite(constant).all():
        return Refusal(Reason.DYNAMIC_WEIGHT, f"a constant of {node.name} is no finite number")
    sizes = constant.shape
    if field.rank != constant.ndim or any(size not in (1, own) for size, own in zip(field.shape, sizes, strict=True)):
        return Refusal(Reason.CHANNEL_MISMATCH, f"a constant of {node.name} has shape {list(sizes)}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(field.scale * constant.astype(np.float64) + field.shift)
