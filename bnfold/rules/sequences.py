"""Carriers that run along a sequence: a map that is the same at every step passes."""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import both, whole_numbers
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _same_at_every_step(node: NodeView, field: Field, axis: int) -> Refusal | None:
    at = axis + field.rank if axis < 0 else axis
    if not 0 <= at < field.rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} has no axis {axis}")
    if field.shape[at] != 1:
        return Refusal(Reason.WRONG_AXIS, f"{node.name} runs along axis {at}, along which the map varies")
    return None


def _reverse(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    return _same_at_every_step(node, field, node.integer("time_axis", 0)) or field


def _running_sum(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    axis = whole_numbers(node.constant(1))
    if axis is None or len(axis) != 1:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axis of {node.name} is not known")
    if field.has_shift:
        return Refusal(Reason.NO_RULE, f"{node.name} would add the shift up, step by step")
    return _same_at_every_step(node, field, axis[0]) or field


CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "ReverseSequence",
            "(s, o) on both sides, along axes other than the sequence's",
            *both(_reverse),
            (
                Example(
                    "features scaled behind it",
                    """(double[5,2,4] x, int64[2] lengths) => (double y) <double[4,6] W, double[6] c> {
                       h = MatMul(x, W)
                       r = ReverseSequence(h, lengths)
                       y = Mul(r, c) }""",
                ),
                Example(
                    "a factor for every step",
                    """(double[5,2,4] x, int64[2] lengths) => (double y) <double[4,6] W, double[5,1,1] c> {
                       h = MatMul(x, W)
                       r = ReverseSequence(h, lengths)
                       y = Mul(r, c) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "CumSum",
            "s on both sides, along axes other than the sum's; no shift",
            *both(_running_sum),
            (
                Example(
                    "features scaled behind it",
                    """(double[2,5,4] x) => (double y) <double[4,6] W, double[6] c, int64 axis = {1}> {
                       h = MatMul(x, W)
                       r = CumSum(h, axis)
                       y = Mul(r, c) }""",
                ),
                Example(
                    "a shift behind it",
                    """(double[2,5,4] x) => (double y) <double[4,6] W, double[6] c, int64 axis = {1}> {
                       h = MatMul(x, W)
                       r = CumSum(h, axis)
                       y = Add(r, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
    )
}
