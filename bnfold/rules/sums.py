"""Sums of several values: the scale goes to every term, the shift to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Back, Carried, Carrier, Example, Forth
from bnfold.rules.operands import (
    Operand,
    alike_backward,
    alike_forward,
    laid_onto,
    ready_backward,
    ready_forward,
)
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

Weights = Callable[[NodeView, int], float]


def _plus(_node: NodeView, _position: int) -> float:
    return 1.0


def _minus(_node: NodeView, position: int) -> float:
    return -1.0 if position else 1.0


def _share(node: NodeView, _position: int) -> float:
    return 1.0 / len(node.reads)


def _sum_backward(weights: Weights, since: int) -> Back:
    def backward(node: NodeView, position: int, field: Field) -> Carried | tuple[Carried, ...] | Refusal:
        found = ready_backward(node, position, field, since)
        if isinstance(found, Refusal):
            return found
        if not field.has_shift:
            return alike_backward(node, found, field)
        # The shift goes into one of them; into a constant first, which costs nothing.
        ways: list[Carried] = []
        refusals: list[Refusal] = []
        for operand in sorted(found, key=lambda operand: operand.constant is None):
            share = Field(field.scale, field.shift / weights(node, operand.position))
            way = alike_backward(node, (operand,), share)
            if isinstance(way, Refusal):
                refusals.append(way)
            else:
                ways.append(way)
        for operands, whole in _each_of_one_value(node, found, weights):
            share = Field(field.scale, field.shift / whole)
            way = alike_backward(node, operands, share)
            if isinstance(way, Carried):
                ways.append(way)
        return tuple(ways) if ways else refusals[0]

    return backward


def _each_of_one_value(
    node: NodeView, every: Sequence[Operand], weights: Weights
) -> Iterator[tuple[tuple[Operand, ...], float]]:
    """Yield the terms that are one value, read several times, and how often it counts in the sum."""
    names: dict[str, list[Operand]] = {}
    for operand in every:
        if operand.constant is None:
            names.setdefault(node.reads[operand.position], []).append(operand)
    for operands in names.values():
        whole = sum(weights(node, operand.position) for operand in operands)
        if len(operands) > 1 and whole:
            yield tuple(operands), whole


def _sum_forward(weights: Weights, since: int) -> Forth:
    def forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
        found = ready_forward(node, fields, since)
        if isinstance(found, Refusal):
            return found
        every, rank = found
        if any(field.has_scale for field in fields.values()):
            return alike_forward(node, every, rank, fields)
        shift = np.zeros((1,) * rank)
        for operand in every:
            if operand.position in fields:
                laid = laid_onto(operand, fields[operand.position], rank)
                shift = shift + weights(node, operand.position) * laid.shift
        return Carried({0: Field(np.ones_like(shift), shift).reduced()})

    return forward


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Add",
            "s·(a + b) + o = (s·a + o) + s·b: the scale to both, the shift to one",
            _sum_backward(_plus, 7),
            _sum_forward(_plus, 7),
            (
                Example(
                    "a batch norm behind a residual sum of two layers",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Add(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "the shortcut is another input of the model",
                    f"""(double[1,3,6,6] x, double[1,6,4,4] z) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       a = Conv(x, W)
                       h = Add(a, z)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.EDGE,
                ),
                Example(
                    "one of them is the same for all channels",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[1,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Add(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Sub",
            "s·(a − b) + o = (s·a + o) − s·b: the scale to both, the shift to one, with its sign",
            _sum_backward(_minus, 7),
            _sum_forward(_minus, 7),
            (
                Example(
                    "a batch norm behind the difference of two layers",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Sub(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "what is subtracted is used elsewhere",
                    f"""(double[1,3,6,6] x) => (double y, double z)
                       <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       z = Relu(b)
                       h = Sub(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.USED_ELSEWHERE,
                ),
            ),
        ),
        Carrier(
            "Sum",
            "the scale to all, the shift to one",
            _sum_backward(_plus, 8),
            _sum_forward(_plus, 8),
            (
                Example(
                    "three layers",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[6,3,3,3] V, double[6,3,3,3] U, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       c = Conv(x, U)
                       h = Sum(a, b, c)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "the others are inputs of the model",
                    f"""(double[1,3,6,6] x, double[1,6,4,4] z, double[1,6,4,4] u) => (double y)
                       <double[6,3,3,3] W, {_MEAN}> {{
                       a = Conv(x, W)
                       h = Sum(a, z, u)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.EDGE,
                ),
            ),
        ),
        Carrier(
            "Mean",
            "of n values: the scale to all, n times the shift to one",
            _sum_backward(_share, 8),
            _sum_forward(_share, 8),
            (
                Example(
                    "two layers averaged",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Mean(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "one of them is an output of the model",
                    f"""(double[1,3,6,6] x) => (double y, double a) <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Mean(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.MODEL_OUTPUT,
                ),
            ),
        ),
    )
}
