"""Carriers that act on each element alone and let a scale pass where it keeps its sign."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.elements import LARGEST
from bnfold.graph.view import NodeView
from bnfold.rules.attributes import fits_attribute
from bnfold.rules.carrying import both, negative
from bnfold.rules.declare import Carried, Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

_BROADCASTING_MAX = 8
"""The opset from which Max and Min broadcast."""


def _scale_alone(node: NodeView, field: Field) -> Refusal | None:
    if field.has_shift:
        return Refusal(Reason.NO_RULE, f"{node.name} bends at zero, which a shift moves")
    return negative(node, field)


def _homogeneous(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    # f(s·x) = s·f(x) for every s ≥ 0, zero too.
    return _scale_alone(node, field) or field


def _relu(node: NodeView, field: Field, direction: Direction) -> Field | Carried | Refusal:
    if not field.has_shift:
        return negative(node, field) or field
    if node.opset < _BROADCASTING_MAX:
        return Refusal(Reason.NO_RULE, f"{node.name} would become a Max, which broadcasts since opset 8")
    bound = field.shift if direction is Direction.BACKWARD else -field.shift
    # max(x, 0) + o = max(x + o, o), and max(x + o, 0) = max(x, −o) + o
    return Carried({0: field}, {1: np.asarray(bound)}, "Max")


def _abs(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    if field.has_shift:
        return Refusal(Reason.NO_RULE, f"{node.name} bends at zero, which a shift moves")
    if direction is Direction.FORWARD:
        return Field(np.abs(field.scale), field.shift)
    return negative(node, field) or field


def _neg(_node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    return Field(field.scale, -field.shift)


# Clip

_OPERATION = {1: "Max", 2: "Min"}


def _bounds(node: NodeView) -> dict[int, Float64Array] | Refusal:
    """Return the lower bound as 1 and the upper one as 2, those that there are; one that maps have met may vary."""
    found: dict[int, Float64Array] = {}
    for position, name in ((1, "min"), (2, "max")):
        value: object = node.attributes.get(name) if node.opset < 11 else None
        if node.has_input(position):
            constant = node.constant(position)
            if constant is None or constant.dtype != np.float64 or not constant.size:
                return Refusal(Reason.NO_RULE, f"the {name} of {node.name} is computed while the model runs")
            value = constant.astype(np.float64) if constant.size > 1 else float(constant.astype(np.float64).reshape(()))
        if not isinstance(value, (int, float, np.ndarray)):
            continue
        if np.isnan(value).any():
            return Refusal(Reason.NON_FINITE, f"the {name} of {node.name} is NaN")
        if np.any(np.asarray(value) > -_unbounded(node) if position == 1 else np.asarray(value) < _unbounded(node)):
            found[position] = np.asarray(value, dtype=np.float64)
    return found


def _unbounded(node: NodeView) -> float:
    """Return the number from which a bound bounds nothing: the largest one of the value's type, which writers put."""
    if node.opset < 11:
        return float(np.finfo(np.float32).max)  # what the attributes are if they are left out
    return LARGEST.get(node.view.type(node.reads[0]).element, float("inf"))


def _moved(bound: Float64Array, field: Field, direction: Direction) -> Float64Array:
    """Return a bound as it is on the other side of a map."""
    with np.errstate(all="ignore"):
        if direction is Direction.BACKWARD:
            return np.asarray(field.scale * bound + field.shift)
        # Zero stays zero whatever the scale, also where that is zero.
        stays = (bound == 0) & (not field.has_shift)
        return np.where(stays, 0.0, (bound - field.shift) / field.scale)


def _like(node: NodeView, position: int, number: float) -> Float64Array:
    """Return a number in the shape of the bound that it replaces."""
    old = node.constant(position)
    return np.full(() if old is None else old.shape, number)


def _clip(node: NodeView, field: Field, direction: Direction) -> Field | Carried | Refusal:
    bounds = _bounds(node)
    if isinstance(bounds, Refusal):
        return bounds
    if not bounds:
        return field
    refusal = negative(node, field)
    if refusal is not None:
        return refusal
    if any(bound.size > 1 and bound.ndim != field.rank for bound in bounds.values()):
        return Refusal(Reason.UNKNOWN_SHAPE, f"the bounds of {node.name} do not have {field.rank} axes")
    moved = {position: _moved(bound, field, direction) for position, bound in bounds.items()}
    if not all(np.isfinite(array).all() for array in moved.values()):
        return Refusal(Reason.NON_FINITE, f"a bound of {node.name} would not be finite")
    if all((array == bounds[position]).all() for position, array in moved.items()):
        return field
    if any(bound.size > 1 for bound in bounds.values()):
        return Carried({0: field}, moved)
    if all((array == array.reshape(-1)[0]).all() for array in moved.values()):
        uniform = {position: _like(node, position, array.reshape(-1)[0]) for position, array in moved.items()}
        if node.opset >= 11 or all(fits_attribute(node, array) for array in uniform.values()):
            return Carried({0: field}, uniform)
    if node.opset < _BROADCASTING_MAX:
        return Refusal(Reason.NO_RULE, f"{node.name} would become a Max or a Min, which broadcast since opset 8")
    if len(moved) == 1:
        ((position, array),) = moved.items()
        return Carried({0: field}, {1: array}, _OPERATION[position])
    return Carried({0: field}, moved, "Clip")


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Relu",
            "s·max(x, 0) = max(s·x, 0) for s ≥ 0; with a shift it becomes a Max: max(x, 0) + o = max(x + o, o)",
            *both(_relu),
            (
                Example(
                    "a batch norm behind a convolution and its activation: the activation becomes a Max",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[6] vars, double[6] beta, double[6] mean, double[6] var> {
                       h = Conv(x, W)
                       r = Relu(h)
                       y = BatchNormalization(r, vars, beta, mean, var) }""",
                ),
                Example(
                    "a positive scale in front of it goes into the layer behind it",
                    """(double[1,6,6,6] x) => (double y) <double[2,6,3,3] W, double[6,1,1] vars> {
                       h = Mul(x, vars)
                       r = Relu(h)
                       y = Conv(r, W) }""",
                ),
                Example(
                    "a negative scale",
                    """(double[1,3,6,6] x) => (double y)
                       <double[2,3,3,3] W, double[2,1,1] c = {1.5, -0.5}> {
                       h = Conv(x, W)
                       r = Relu(h)
                       y = Mul(r, c) }""",
                    refused=Reason.SIGN,
                ),
            ),
        ),
        Carrier(
            "LeakyRelu",
            "s·f(x) = f(s·x) for s ≥ 0; no shift",
            *both(_homogeneous),
            (
                Example(
                    "a positive scale behind it",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,1,1] vars> {
                       h = Conv(x, W)
                       r = LeakyRelu<alpha=0.1>(h)
                       y = Mul(r, vars) }""",
                ),
                Example(
                    "a shift",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,1,1] c> {
                       h = Conv(x, W)
                       r = LeakyRelu<alpha=0.1>(h)
                       y = Add(r, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "PRelu",
            "s·f(x) = f(s·x) for s ≥ 0, whatever its slopes; no shift",
            *both(_homogeneous),
            (
                Example(
                    "a positive scale behind it",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,1,1] slope, double[6,1,1] vars> {
                       h = Conv(x, W)
                       r = PRelu(h, slope)
                       y = Mul(r, vars) }""",
                ),
                Example(
                    "a shift",
                    """(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, double[6,1,1] slope, double[6,1,1] c> {
                       h = Conv(x, W)
                       r = PRelu(h, slope)
                       y = Add(r, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "Abs",
            "s·|x| = |s·x| for s ≥ 0, |s·x| = |s|·|x|; no shift",
            *both(_abs),
            (
                Example(
                    "a scale of any sign in front of it",
                    """(double[1,6,6,6] x) => (double y) <double[2,6,3,3] W, double[6,1,1] c> {
                       h = Mul(x, c)
                       r = Abs(h)
                       y = Conv(r, W) }""",
                ),
                Example(
                    "a negative scale behind it",
                    """(double[1,3,6,6] x) => (double y)
                       <double[2,3,3,3] W, double[2,1,1] c = {1.5, -0.5}> {
                       h = Conv(x, W)
                       r = Abs(h)
                       y = Mul(r, c) }""",
                    refused=Reason.SIGN,
                ),
            ),
        ),
        Carrier(
            "Neg",
            "s·(−x) + o = −(s·x − o)",
            *both(_neg),
            (
                Example(
                    "what is negated is what a batch norm normalised",
                    f"""(double[1,6,6,6] x) => (double y, double z) <double[2,6,3,3] W, double[3,6,3,3] V, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       n = Neg(h)
                       y = Conv(n, W)
                       z = Conv(h, V) }}""",
                ),
                Example(
                    "something else reads what it negates",
                    f"""(double[1,3,6,6] x) => (double y, double z) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       z = Sigmoid(h)
                       n = Neg(h)
                       y = BatchNormalization(n, gamma, beta, mean, var) }}""",
                    refused=Reason.USED_ELSEWHERE,
                ),
            ),
        ),
        Carrier(
            "Clip",
            "s·clip(x, a, b) + o = clip(s·x + o, s·a + o, s·b + o) for s ≥ 0; as Max and Min where the bounds vary",
            *both(_clip),
            (
                Example(
                    "one scale for all channels",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double a = {-0.3}, double b = {0.4}, double c = {2.0}> {
                       h = Conv(x, W)
                       r = Clip(h, a, b)
                       y = Mul(r, c) }""",
                ),
                Example(
                    "a batch norm behind two bounds: they become a Max and a Min",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double a = {0.0}, double b = {6.0}, double[6] vars, double[6] beta,
                        double[6] mean, double[6] var> {
                       h = Conv(x, W)
                       r = Clip(h, a, b)
                       y = BatchNormalization(r, vars, beta, mean, var) }""",
                ),
                Example(
                    "two bounds, and factors that differ: a Max and a Min would take the place of a Clip and a Mul",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double a = {0.0}, double b = {6.0}, double[6,1,1] var> {
                       h = Conv(x, W)
                       r = Clip(h, a, b)
                       y = Mul(r, var) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
    )
}
