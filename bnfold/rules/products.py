"""Products and quotients: the scale goes into one factor, a shift only past a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import inverse, too_large
from bnfold.rules.declare import Back, Carried, Carrier, Example, Forth
from bnfold.rules.operands import (
    Operand,
    alike_backward,
    laid_onto,
    ready_backward,
    ready_forward,
)
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _product_backward(*, divides: bool) -> Back:
    def backward(node: NodeView, position: int, field: Field) -> Carried | tuple[Carried, ...] | Refusal:
        every = ready_backward(node, position, field, 7)
        if isinstance(every, Refusal):
            return every
        if len(every) != 2:
            return Refusal(Reason.NO_RULE, f"{node.name} has {len(every)} operands")
        if field.has_shift:
            return _shift_behind(node, every, field, divides=divides)
        ways: list[Carried] = []
        refusals: list[Refusal] = []
        for operand in sorted(every, key=lambda operand: operand.constant is None):
            taken: Field | None = field
            if divides and operand.position == 1:
                taken = inverse(field) if operand.constant is not None else None
            if taken is None:
                refusals.append(Refusal(Reason.NO_RULE, f"{node.name} divides by what is computed"))
                continue
            way = alike_backward(node, (operand,), taken)
            if isinstance(way, Refusal):
                refusals.append(way)
            else:
                ways.append(way)
        return tuple(ways) if ways else refusals[0]

    return backward


def _moved(node: NodeView, shift: Float64Array, factor: Float64Array) -> Field | Refusal:
    """Return a shift multiplied by a factor, both over the output's axes."""
    refusal = too_large(node, map(max, shift.shape, factor.shape))
    if refusal is not None:
        return refusal
    with np.errstate(all="ignore"):
        moved = np.asarray(shift * factor)
    if not np.isfinite(moved).all():
        return Refusal(Reason.NON_FINITE, f"the shift in front of or behind {node.name} would not be finite")
    return Field(np.ones_like(moved), moved).reduced()


def _factor(node: NodeView, other: Operand, rank: int, *, divides: bool) -> Field | Refusal:
    """Return what the one computed operand is multiplied by, over the output's axes, where that is a constant."""
    if other.constant is None or (divides and other.position == 0):
        return Refusal(Reason.NO_RULE, f"{node.name} would multiply the shift by what is computed")
    constant = laid_onto(other, Field(other.constant, np.zeros_like(other.constant)), rank)
    factor = inverse(constant) if divides else constant
    if factor is None or not np.isfinite(factor.scale).all():
        return Refusal(Reason.NON_FINITE, f"the constant of {node.name} is zero or not finite somewhere")
    return factor


def _shift_behind(node: NodeView, every: Sequence[Operand], field: Field, *, divides: bool) -> Carried | Refusal:
    computed = [operand for operand in every if operand.constant is None]
    if len(computed) != 1:
        return Refusal(Reason.NO_RULE, f"{node.name} multiplies what is computed: its inputs take no shift")
    factor = _factor(node, every[1 - computed[0].position], field.rank, divides=divides)
    undone = factor if isinstance(factor, Refusal) else inverse(factor)
    if undone is None:
        return Refusal(Reason.NON_FINITE, f"the constant of {node.name} is zero somewhere")
    if isinstance(undone, Refusal):
        return undone
    moved = _moved(node, field.shift, undone.scale)
    return moved if isinstance(moved, Refusal) else alike_backward(node, computed, moved)


def _product_forward(*, divides: bool) -> Forth:
    def forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
        found = ready_forward(node, fields, 7)
        if isinstance(found, Refusal):
            return found
        every, rank = found
        if len(every) != 2:
            return Refusal(Reason.NO_RULE, f"{node.name} has {len(every)} operands")
        if divides and 1 in fields:
            return Refusal(Reason.NO_RULE, f"{node.name} divides by it")
        if any(field.has_shift for field in fields.values()):
            if len(fields) != 1:
                return Refusal(Reason.NO_RULE, f"{node.name} multiplies two shifts")
            ((position, field),) = fields.items()
            factor = _factor(node, every[1 - position], rank, divides=divides)
            if isinstance(factor, Refusal):
                return factor
            moved = _moved(node, laid_onto(every[position], field, rank).shift, factor.scale)
            return moved if isinstance(moved, Refusal) else Carried({0: moved})
        scale = np.ones((1,) * rank)
        for position, field in fields.items():
            scale = scale * laid_onto(every[position], field, rank).scale
        return Carried({0: Field(scale, np.zeros_like(scale)).reduced()})

    return forward


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Mul",
            "s·(a·b) = (s·a)·b; a shift only where b is constant: (a + o)·b = a·b + o·b",
            _product_backward(divides=False),
            _product_forward(divides=False),
            (
                Example(
                    "a scale behind a gate goes into the layer that is not gated",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, double[6,1,1] c> {
                       a = Conv(x, W)
                       b = Conv(x, V)
                       g = Sigmoid(b)
                       h = Mul(a, g)
                       y = Mul(h, c) }""",
                ),
                Example(
                    "a shift behind a product",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, double[6,1,1] c> {
                       a = Conv(x, W)
                       b = Conv(x, V)
                       g = Sigmoid(b)
                       h = Mul(a, g)
                       y = Add(h, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "Div",
            "s·(a / b) = (s·a) / b; a shift only where b is constant: (a + o) / b = a / b + o / b",
            _product_backward(divides=True),
            _product_forward(divides=True),
            (
                Example(
                    "a scale behind a quotient goes into the numerator",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, double[6,1,1] c> {
                       a = Conv(x, W)
                       b = Conv(x, V)
                       e = Exp(b)
                       h = Div(a, e)
                       y = Mul(h, c) }""",
                ),
                Example(
                    "only the denominator has a layer",
                    """(double[1,3,6,6] x, double[1,6,4,4] z) => (double y) <double[6,3,3,3] V, double[6,1,1] c> {
                       b = Conv(x, V)
                       a = Sigmoid(z)
                       h = Div(a, b)
                       y = Mul(h, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
    )
}
