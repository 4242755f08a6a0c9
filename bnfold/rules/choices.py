"""Carriers that choose among several values, element by element: every candidate takes the same map."""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import negative
from bnfold.rules.declare import Carried, Carrier, Example
from bnfold.rules.operands import alike_backward, alike_forward, ready_backward, ready_forward
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _where_backward(node: NodeView, position: int, field: Field) -> Carried | tuple[Carried, ...] | Refusal:
    every = ready_backward(node, position, field, 9)
    return every if isinstance(every, Refusal) else alike_backward(node, every[1:], field)


def _where_forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
    found = ready_forward(node, fields, 9)
    if isinstance(found, Refusal):
        return found
    every, rank = found
    if 0 in fields:
        return Refusal(Reason.NO_RULE, f"{node.name} chooses by it")
    return alike_forward(node, every[1:], rank, fields)


def _extreme_backward(node: NodeView, position: int, field: Field) -> Carried | tuple[Carried, ...] | Refusal:
    every = ready_backward(node, position, field, 8)
    if isinstance(every, Refusal):
        return every
    return negative(node, field) or alike_backward(node, every, field)


def _extreme_forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
    found = ready_forward(node, fields, 8)
    if isinstance(found, Refusal):
        return found
    refusals = (negative(node, field) for field in fields.values())
    return next((refusal for refusal in refusals if refusal), None) or alike_forward(node, *found, fields)


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"


def _examples(op_type: str) -> tuple[Example, ...]:
    return (
        Example(
            "of a layer and a constant",
            f"""(double[1,3,6,6] x) => (double y)
               <double[6,3,3,3] W, double[6] vars, double[6] beta, double[6] mean, double[6] var, double[6,1,1] c> {{
               h = Conv(x, W)
               r = {op_type}(h, c)
               y = BatchNormalization(r, vars, beta, mean, var) }}""",
        ),
        Example(
            "of two layers",
            f"""(double[1,3,6,6] x) => (double y)
               <double[6,3,3,3] W, double[6,3,3,3] V, double[6] vars, double[6] beta, double[6] mean, double[6] var> {{
               a = Conv(x, W)
               b = Conv(x, V)
               r = {op_type}(a, b)
               y = BatchNormalization(r, vars, beta, mean, var) }}""",
        ),
        Example(
            "a negative scale",
            f"""(double[1,3,6,6] x) => (double y)
               <double[2,3,3,3] W, double[2,1,1] c = {{1.5, -0.5}}, double[2,1,1] d> {{
               h = Conv(x, W)
               r = {op_type}(h, d)
               y = Mul(r, c) }}""",
            refused=Reason.SIGN,
        ),
    )


CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Where",
            "(s, o) to both branches, the condition stays",
            _where_backward,
            _where_forward,
            (
                Example(
                    "one of two layers, element by element",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[6,3,3,3] V, double[1,3,3,3] U, double z = {{0.0}}, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       m = Conv(x, U)
                       q = Greater(m, z)
                       h = Where(q, a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "masked by a constant, which takes the map too",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[1,3,3,3] U, double z = {{0.0}}, {_MEAN}> {{
                       a = Conv(x, W)
                       m = Conv(x, U)
                       q = Greater(m, z)
                       h = Where(q, z, a)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "one branch is the model's input",
                    f"""(double[1,3,6,6] x, double[1,6,4,4] u) => (double y)
                       <double[6,3,3,3] W, double[1,3,3,3] U, double z = {{0.0}}, {_MEAN}> {{
                       a = Conv(x, W)
                       m = Conv(x, U)
                       q = Greater(m, z)
                       h = Where(q, u, a)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.EDGE,
                ),
            ),
        ),
        Carrier(
            "Max",
            "s·max(a, b) + o = max(s·a + o, s·b + o) for s ≥ 0",
            _extreme_backward,
            _extreme_forward,
            _examples("Max"),
        ),
        Carrier(
            "Min",
            "s·min(a, b) + o = min(s·a + o, s·b + o) for s ≥ 0",
            _extreme_backward,
            _extreme_forward,
            _examples("Min"),
        ),
    )
}
