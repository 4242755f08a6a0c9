"""Numbers that are inputs of an operation today, and were attributes of it in older operator sets.

A rule speaks of such a number as of the input that it is today; where a model has it as an attribute, it stays one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.graph.elements import NO_FINER

if TYPE_CHECKING:
    from bnfold.affine.per_channel import Float64Array
    from bnfold.graph.view import NodeView

__all__ = ["attribute_of", "fits_attribute"]

_INPUTS_SINCE = 11
_NAMES = {("Clip", 1): "min", ("Clip", 2): "max", ("Pad", 2): "value"}


def attribute_of(op_type: str, position: int, opset: int) -> str:
    """Return the attribute that an opset has in the place of an input; empty where it has none."""
    return _NAMES.get((op_type, position), "") if opset < _INPUTS_SINCE else ""


def fits_attribute(node: NodeView, number: Float64Array) -> bool:
    """Tell whether an attribute can hold one number for a node, as well as a constant of the value's type would.

    Attributes are float32, whatever the type of the value.
    """
    if number.size != 1:
        return False
    if node.view.type(node.reads[0]).element in NO_FINER:
        return True
    with np.errstate(all="ignore"):
        return bool((number.astype(np.float32).astype(np.float64) == number).all())
