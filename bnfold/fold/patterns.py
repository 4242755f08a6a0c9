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

__all__ = ["belongs_to_function", "is_known_product"]

_GATES = frozenset({"Erf", "Tanh"})
_LONGEST = 8


def is_known_product(draft: Draft, index: int) -> bool:
    """Tell whether a node is the product in GELU, ``x·(1 + erf(…))``, or the quotient in layer normalisation."""
    op_type = draft.op_type(index)
    if index in draft.affines or op_type not in ("Mul", "Div"):
        return False
    if op_type == "Div":
        return _computed_by(draft, draft.wiring.reads(index)[-1]) == "Sqrt"
    return any(_is_gate(draft, value) for value in draft.wiring.reads(index))


def _is_gate(draft: Draft, value: str) -> bool:
    producer = draft.wiring.producers.get(value)
    if producer is None or producer not in draft.affines or draft.op_type(producer) != "Add":
        return False
    return _computed_by(draft, draft.wiring.reads(producer)[draft.affines[producer].data_input]) in _GATES


def _computed_by(draft: Draft, value: str) -> str:
    producer = draft.wiring.producers.get(value)
    return "" if producer is None else draft.op_type(producer)


def belongs_to_function(draft: Draft, index: int) -> bool:
    """Tell whether a plain constant node ends such a function: then it neither goes nor takes anything in."""
    if draft.op_type(index) == BATCH_NORM:
        return False
    for _step in range(_LONGEST):
        affine = draft.affines.get(index)
        if affine is None:
            break
        producer = draft.wiring.producers.get(draft.wiring.reads(index)[affine.data_input])
        if producer is None:
            return False
        index = producer
    return is_known_product(draft, index)
