"""Constant factors and shifts that belong to a function which runtimes compute in one go, and which stay for that.

GELU, HardSwish and layer normalisation are spelled out in five to ten nodes, some of them with constants. A runtime
knows the spelling and runs one kernel; with a constant folded away it no longer does, and the model gets slower. Batch
norms are no part of any such function, so this is asked about plain constant nodes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.rules import BATCH_NORM

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft

__all__ = ["belongs_to_function", "is_product"]

_PRODUCTS = frozenset({"Mul", "Div"})
_LONGEST = 8


def is_product(draft: Draft, index: int) -> bool:
    """Tell whether a node multiplies or divides two computed values."""
    return index not in draft.affines and draft.op_type(index) in _PRODUCTS


def belongs_to_function(draft: Draft, index: int) -> bool:
    """Tell whether a plain constant node stands behind a product of computed values, where such functions end.

    What varies along axis 1 of an image is a batch norm in two nodes, and none of these functions has that.
    """
    if draft.op_type(index) == BATCH_NORM:
        return False
    field = draft.affines[index].field
    if field.rank > 2 and field.axes() == (1,):
        return False
    for _step in range(_LONGEST):
        affine = draft.affines.get(index)
        if affine is None:
            break
        producer = draft.wiring.producers.get(draft.wiring.reads(index)[affine.data_input])
        if producer is None:
            return False
        index = producer
    return is_product(draft, index)
