"""Carriers that reduce axes: a map that does not vary along them passes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import along_axes, both, negative, size_of, whole_numbers
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

_AXES_ARE_INPUT_SINCE = {"ReduceSum": 13}


def _axes(node: NodeView, rank: int) -> tuple[int, ...] | Refusal:
    """Return the axes that are reduced; none where the node does nothing."""
    since = _AXES_ARE_INPUT_SINCE.get(node.op_type, 18)
    given: object = node.attributes.get("axes") if node.opset < since else None
    if node.opset >= since and node.has_input(1):
        given = node.constant(1)
        if given is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} reduces are computed")
    axes = () if given is None else whole_numbers(given)
    if axes is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} reduces are no integers")
    if not axes:
        return () if node.opset >= since and node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    found = sorted({axis + rank if axis < 0 else axis for axis in axes})
    if len(found) != len(axes) or found[0] < 0 or found[-1] >= rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} reduces axes {list(axes)} of a value with {rank}")
    return tuple(found)


def _reduced(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    """Take a field to the other side of a reduction as if each of its elements were one value."""
    shape = node.shape(0)
    if shape is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    axes = _axes(node, len(shape))
    if isinstance(axes, Refusal):
        return axes
    keeps = bool(node.integer("keepdims", 1))
    if direction is Direction.BACKWARD and not keeps:
        if field.rank + len(axes) != len(shape):
            return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} leaves {len(shape) - len(axes)} axes, not {field.rank}")
        return Field(np.expand_dims(field.scale, axes), np.expand_dims(field.shift, axes))
    if field.rank != len(shape):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} reduces {len(shape)} axes, not {field.rank}")
    varying = along_axes(field, axes)
    if varying:
        return Refusal(Reason.WRONG_AXIS, f"{node.name} reduces axis {varying[0]}, along which the map varies")
    if keeps or direction is Direction.BACKWARD:
        return field
    kept = tuple(size for axis, size in enumerate(field.shape) if axis not in axes)
    return Field(field.scale.reshape(kept), field.shift.reshape(kept))


def _mean(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    if direction is Direction.FORWARD and field.has_shift and not field.has_scale:
        shape = node.shape(0)
        axes = _axes(node, field.rank)
        # The mean of a shift that varies is the mean of as many numbers.
        if shape is not None and not isinstance(axes, Refusal) and along_axes(field, axes):
            mean = field.shift.mean(axis=axes, keepdims=True)
            return _reduced(node, Field(np.ones_like(mean), mean), direction)
    return _reduced(node, field, direction)


def _extreme(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    return negative(node, field) or _reduced(node, field, direction)


def _sum(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    found = _reduced(node, field, direction)
    if isinstance(found, Refusal) or not found.has_shift:
        return found
    shape = node.shape(0)
    axes = _axes(node, 0 if shape is None else len(shape))
    sizes = [] if isinstance(axes, Refusal) else [size_of(shape, axis) for axis in axes]
    count = int(np.prod([size for size in sizes if size is not None], dtype=np.int64))
    if None in sizes or isinstance(axes, Refusal) or not count:
        return Refusal(Reason.UNKNOWN_SHAPE, f"it is not known how many elements {node.name} adds up")
    times = float(count) if direction is Direction.FORWARD else 1.0 / count
    return Field(found.scale, found.shift * times)


def _norm(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    if field.has_shift:
        return Refusal(Reason.NO_RULE, f"{node.name} takes powers, which no shift passes")
    shape = node.shape(0)
    if shape is not None and _axes(node, len(shape)) == ():
        return Refusal(Reason.NO_RULE, f"{node.name} reduces no axis")
    if direction is Direction.FORWARD:
        return _reduced(node, Field(np.abs(field.scale), field.shift), direction)
    return negative(node, field) or _reduced(node, field, direction)


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"
_POSITIVE = "double[6] vars, double[6] beta, double[6] mean, double[6] var"


def _behind(op_type: str, parameters: str) -> Example:
    gamma = parameters.split()[1].rstrip(",")
    return Example(
        "over the image, behind a convolution",
        f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, int64[2] axes = {{2, -1}}, {parameters}> {{
           h = Conv(x, W)
           p = {op_type}<keepdims=0>(h, axes)
           y = BatchNormalization(p, {gamma}, beta, mean, var) }}""",
    )


def _negative(op_type: str) -> Example:
    return Example(
        "a negative scale behind it",
        f"""(double[1,3,6,6] x) => (double y)
           <double[2,3,3,3] W, int64[2] axes = {{2, 3}}, double[2,1,1] c = {{1.5, -0.5}}> {{
           h = Conv(x, W)
           p = {op_type}(h, axes)
           y = Mul(p, c) }}""",
        refused=Reason.SIGN,
    )


def _across(op_type: str) -> Example:
    return Example(
        "over the channels themselves",
        f"""(double[1,6,4,4] x) => (double y) <double[1,1,3,3] W, int64[1] axes = {{1}}, {_MEAN}> {{
           h = BatchNormalization(x, gamma, beta, mean, var)
           p = {op_type}(h, axes)
           y = Conv(p, W) }}""",
        refused=Reason.WRONG_AXIS,
    )


def _positive_scale(op_type: str) -> Example:
    return Example(
        "a positive scale behind it",
        f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, int64[2] axes = {{2, 3}}, double[6,1,1] vars> {{
           h = Conv(x, W)
           p = {op_type}(h, axes)
           y = Mul(p, vars) }}""",
    )


CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "ReduceMean",
            "(s, o) on both sides, over axes along which they do not vary; a shift in front of it may",
            *both(_mean),
            (_behind("ReduceMean", _MEAN), _across("ReduceMean")),
        ),
        Carrier(
            "ReduceSum",
            "(s, o) behind it is (s, o / n) in front, of n elements",
            *both(_sum),
            (_behind("ReduceSum", _MEAN), _across("ReduceSum")),
        ),
        Carrier(
            "ReduceMax",
            "s·max(x) + o = max(s·x + o) for s ≥ 0, over axes along which they do not vary",
            *both(_extreme),
            (_behind("ReduceMax", _POSITIVE), _negative("ReduceMax")),
        ),
        Carrier(
            "ReduceMin",
            "s·min(x) + o = min(s·x + o) for s ≥ 0, over axes along which they do not vary",
            *both(_extreme),
            (_behind("ReduceMin", _POSITIVE), _negative("ReduceMin")),
        ),
        Carrier(
            "ReduceL1",
            "s·‖x‖ = ‖s·x‖ for s ≥ 0, ‖s·x‖ = |s|·‖x‖; no shift",
            *both(_norm),
            (_positive_scale("ReduceL1"), _negative("ReduceL1")),
        ),
        Carrier(
            "ReduceL2",
            "s·‖x‖ = ‖s·x‖ for s ≥ 0, ‖s·x‖ = |s|·‖x‖; no shift",
            *both(_norm),
            (_positive_scale("ReduceL2"), _negative("ReduceL2")),
        ),
    )
}
