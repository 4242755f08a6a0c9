"""Carriers that repeat elements: every copy has the map of what it is a copy of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.shapes import Dimension
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import both, integers, size_of, through, too_large
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _expand(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    before, after, target = node.shape(0), node.output_shape(), node.shape(1)
    if before is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    length = len(after) if after is not None else size_of(target, 0)
    if length is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the output of {node.name} is not known")
    new = max(length, len(before)) - len(before)
    if direction is Direction.FORWARD:
        shape = (1,) * new + field.shape
        return Field(field.scale.reshape(shape), field.shift.reshape(shape))
    if field.rank != new + len(before):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} gives {new + len(before)} axes, not {field.rank}")
    for axis in field.axes():
        size: Dimension = before[axis - new] if axis >= new else 1
        known = isinstance(size, int) or (after is not None and size is not None and size == after[axis])
        if not known:
            return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} may repeat axis {axis}: its size is not known")
        if isinstance(size, int) and size != field.shape[axis]:
            return Refusal(
                Reason.SCRAMBLED, f"{node.name} repeats elements along axis {axis}, and each has another map"
            )
    return Field(field.scale.reshape(field.shape[new:]), field.shift.reshape(field.shape[new:]))


def _tile(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    if node.opset < 6:
        return Refusal(Reason.NO_RULE, f"{node.name} is a Tile of opset {node.opset}")
    repeats = integers(node, 1, "repeats", 6)
    if not field.axes():
        return field
    if not isinstance(repeats, tuple) or len(repeats) != field.rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the repeats of {node.name} are not known")
    for axis in field.axes():
        times = repeats[axis]
        if times < 1 or (direction is Direction.BACKWARD and field.shape[axis] % times):
            return Refusal(
                Reason.CHANNEL_MISMATCH, f"{node.name} repeats axis {axis} {times} times, not to {field.shape[axis]}"
            )
        size = field.shape[axis] // (1 if direction is Direction.FORWARD else times)
        refusal = too_large(node, (size, times))
        if refusal is not None:
            return refusal
        found = through(node, field, direction, axis, np.tile(np.arange(size), times), size=size)
        if isinstance(found, Refusal):
            return found
        field = found
    return field


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Expand",
            "the field keeps size 1 where the value is repeated",
            *both(_expand),
            (
                Example(
                    "one pixel becomes an image",
                    f"""(double[1,3,3,3] x) => (double y)
                       <double[6,3,3,3] W, int64[4] shape = {{1, 1, 4, 4}}, {_MEAN}> {{
                       h = Conv(x, W)
                       a = Expand(h, shape)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "one channel becomes six, and each takes another map",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[1,3,3,3] W, int64[4] shape = {{1, 6, 1, 1}}, {_MEAN}> {{
                       h = Conv(x, W)
                       a = Expand(h, shape)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                    refused=Reason.SCRAMBLED,
                ),
            ),
        ),
        Carrier(
            "Tile",
            "the field is repeated; backward, every copy must take the same map",
            *both(_tile),
            (
                Example(
                    "an image beside itself, and channels behind a layer's channels",
                    """(double[1,6,6,6] x) => (double y)
                       <double[4,12,3,3] W, int64[4] repeats = {1, 2, 1, 2}, double[6,1,1] c, double[6,1,1] d> {
                       h = Mul(x, c)
                       g = Add(h, d)
                       a = Tile(g, repeats)
                       y = Conv(a, W) }""",
                ),
                Example(
                    "copies that take maps of their own",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[3,3,3,3] W, int64[4] repeats = {{1, 2, 1, 1}}, {_MEAN}> {{
                       h = Conv(x, W)
                       a = Tile(h, repeats)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                    refused=Reason.SCRAMBLED,
                ),
            ),
        ),
    )
}
