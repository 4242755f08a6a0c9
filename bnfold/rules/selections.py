"""Carriers that pick elements, or repeat them: the field is picked and repeated as the value is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import (
    along_axes,
    both,
    integers,
    is_identity,
    misfit,
    picked,
    placed,
    size_of,
    through,
    too_large,
)
from bnfold.rules.declare import Carried, Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


# Split


def _parts(node: NodeView, axis: int, whole: int | None) -> tuple[int, ...] | None:
    """Return the sizes of the outputs along the axis."""
    count = len(node.proto.output)
    given = integers(node, 1, "split", 13)
    if isinstance(given, Refusal):
        given = None
    if given is not None:
        return given if len(given) == count and all(part >= 0 for part in given) else None
    if whole is not None and not node.has_input(1):
        number = node.integer("num_outputs", count)
        each = -(-whole // number) if number > 0 else 0
        if number != count or (node.opset < 18 and each * number != whole):
            return None
        return tuple(max(0, min(each, whole - each * place)) for place in range(number))
    known = [size_of(node.output_shape(place) if node.proto.output[place] else None, axis) for place in range(count)]
    return tuple(part for part in known if part is not None) if None not in known else None


def _split_axis(node: NodeView, rank: int) -> int | Refusal:
    axis = node.integer("axis", 0)
    axis += rank if axis < 0 else 0
    if not 0 <= axis < rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} has no axis {node.integer('axis', 0)}")
    return axis


def _split_backward(node: NodeView, position: int, field: Field) -> Carried | Refusal:
    axis = _split_axis(node, field.rank)
    if isinstance(axis, Refusal):
        return axis
    refusal = misfit(node, field, node.output_shape(position))
    if refusal is not None:
        return refusal
    if len(node.proto.output) == 1:
        return Carried({0: field})
    parts = _parts(node, axis, size_of(node.shape(0), axis))
    whole = size_of(node.shape(0), axis)
    if parts is None or (whole is not None and sum(parts) != whole):
        return Refusal(Reason.UNKNOWN_SHAPE, f"the sizes into which {node.name} splits are not known")
    if field.shape[axis] not in (1, parts[position]):
        return Refusal(
            Reason.CHANNEL_MISMATCH, f"{node.name} gives {parts[position]} elements, not {field.shape[axis]}"
        )
    refusal = too_large(node, (*field.shape[:axis], sum(parts), *field.shape[axis + 1 :]))
    if refusal is not None:
        return refusal
    return Carried({0: placed(field, axis, sum(parts[:position]), parts[position], sum(parts))})


def _split_forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
    if set(fields) != {0}:
        return Refusal(Reason.NO_RULE, f"{node.name} does not read it as its value")
    field = fields[0]
    axis = _split_axis(node, field.rank)
    if isinstance(axis, Refusal):
        return axis
    refusal = misfit(node, field, node.shape(0))
    if refusal is not None:
        return refusal
    if field.shape[axis] == 1:
        return Carried({place: field for place, name in enumerate(node.proto.output) if name})
    parts = _parts(node, axis, field.shape[axis])
    if parts is None or sum(parts) != field.shape[axis]:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the sizes into which {node.name} splits are not known")
    slices, start = {}, 0
    for place, (name, part) in enumerate(zip(node.proto.output, parts, strict=True)):
        mine = picked(field, axis, np.arange(start, start + part))
        if name and part and not is_identity(mine):
            slices[place] = mine
        start += part
    return Carried(slices)


# Slice, Gather


def _slice(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    bounds: list[tuple[int, ...] | None] = []
    touched = _sliced(node, field.rank)
    if isinstance(touched, Refusal):
        return touched
    if not along_axes(field, touched):
        return field  # whatever it takes of the others
    for position, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        given = integers(node, position, name, 10)
        if isinstance(given, Refusal):
            return given
        bounds.append(given)
    starts, ends, _axes, steps = bounds
    if starts is None or ends is None or not len(starts) == len(ends) == len(touched):
        return Refusal(Reason.UNKNOWN_SHAPE, f"the bounds of {node.name} are not known")
    steps = steps or (1,) * len(starts)
    if len(steps) != len(starts) or 0 in steps:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the steps of {node.name} do not fit its bounds")
    for axis, start, end, step in zip(touched, starts, ends, steps, strict=True):
        if field.shape[axis] == 1:
            continue
        found = _sliced_axis(node, field, direction, axis, (start, end, step))
        if isinstance(found, Refusal):
            return found
        field = found
    return field


def _sliced_axis(
    node: NodeView, field: Field, direction: Direction, axis: int, bounds: tuple[int, int, int]
) -> Field | Refusal:
    size = field.shape[axis] if direction is Direction.FORWARD else size_of(node.shape(0), axis)
    if size is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} slices axis {axis}, whose size is not known")
    refusal = too_large(node, (size,))
    if refusal is not None:
        return refusal
    index = np.arange(size)[_span(size, *bounds)]
    if not index.size:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} leaves nothing of axis {axis}")
    if direction is Direction.BACKWARD and field.shape[axis] != index.size:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} leaves {index.size} elements, not {field.shape[axis]}")
    return through(node, field, direction, axis, index, size=size)


def _sliced(node: NodeView, rank: int) -> tuple[int, ...] | Refusal:
    """Return the axes that are sliced, in order."""
    axes = integers(node, 3, "axes", 10)
    if isinstance(axes, Refusal):
        return axes
    if axes is None:
        starts = integers(node, 1, "starts", 10)
        shape = node.shape(1) if node.opset >= 10 else None
        count = len(starts) if isinstance(starts, tuple) else size_of(shape, 0)
        axes = tuple(range(rank if count is None else count))
    axes = tuple(axis + rank if axis < 0 else axis for axis in axes)
    if len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} slices axes {list(axes)} of a value with {rank}")
    return axes


def _span(size: int, start: int, end: int, step: int) -> slice:
    """Count negative bounds from the end, then hold all inside; a step back may end in front of the first element."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, -1), size - 1), min(max(end, -1), size - 1)
    return slice(0, 0) if start < 0 else slice(start, None if end < 0 else end, step)


def _gather(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    indices, shape = node.constant(1), node.shape(1)
    if shape is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the indices of {node.name} is not known")
    rank = field.rank if direction is Direction.FORWARD else field.rank - len(shape) + 1
    axis = node.integer("axis", 0)
    axis += rank if axis < 0 else 0
    if not 0 <= axis < rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} has no axis {node.integer('axis', 0)}")
    touched = (axis,) if direction is Direction.FORWARD else tuple(range(axis, axis + len(shape)))
    if not along_axes(field, touched):
        # The same for every element, so for those that are picked, whichever they are.
        return through(node, field, direction, axis, np.zeros((1,) * len(shape), dtype=np.int64), size=None)
    if indices is None and node.is_constant(0):
        return Refusal(Reason.WRONG_AXIS, f"{node.name} looks up whichever rows, and the map varies along axis {axis}")
    if indices is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} picks by indices that are computed while the model runs")
    size = field.shape[axis] if direction is Direction.FORWARD else size_of(node.shape(0), axis)
    if size is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} picks along axis {axis}, whose size is not known")
    if indices.dtype.kind not in "iu":
        return Refusal(Reason.UNKNOWN_SHAPE, f"the indices of {node.name} are no integers")
    index = indices.astype(np.int64)
    index = np.where(index < 0, index + size, index)
    if ((index < 0) | (index >= size)).any() or not index.size:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} picks what axis {axis} of {size} elements does not have")
    return through(node, field, direction, axis, index, size=size)


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Split",
            "each output has its slice of the field; backward, the other outputs' slices take nothing",
            _split_backward,
            _split_forward,
            (
                Example(
                    "a batch norm behind one half of a layer",
                    """(double[1,3,6,6] x) => (double y, double z)
                       <double[8,3,3,3] W, int64[2] sizes = {6, 2}, double[6] gamma, double[6] beta, double[6] mean,
                        double[6] var> {
                       h = Conv(x, W)
                       a, z = Split<axis=1>(h, sizes)
                       y = BatchNormalization(a, gamma, beta, mean, var) }""",
                ),
                Example(
                    "a batch norm in front of two layers that read half of it each",
                    f"""(double[1,6,6,6] x) => (double y, double z) <double[2,3,3,3] W, double[4,3,1,1] V, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       a, b = Split<axis=1,num_outputs=2>(h)
                       y = Conv(a, W)
                       z = Conv(b, V) }}""",
                ),
                Example(
                    "one half of the rows, and the batch norm's channels are columns",
                    f"""(double[1,3,8,8] x) => (double y, double z) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       a, z = Split<axis=2,num_outputs=2>(h)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Slice",
            "the field is sliced; backward, what is cut off takes nothing",
            *both(_slice),
            (
                Example(
                    "every second channel, from the last",
                    """(double[1,3,6,6] x) => (double y)
                       <double[12,3,3,3] W, int64[1] starts = {-1}, int64[1] ends = {-1000}, int64[1] axes = {1},
                        int64[1] steps = {-2}, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
                       h = Conv(x, W)
                       a = Slice(h, starts, ends, axes, steps)
                       y = BatchNormalization(a, gamma, beta, mean, var) }""",
                ),
                Example(
                    "the border is cut off in front of a layer",
                    f"""(double[1,6,8,8] x) => (double y)
                       <double[2,6,3,3] W, int64[2] starts = {{1, 1}}, int64[2] ends = {{-1, -1}},
                        int64[2] axes = {{2, 3}}, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       a = Slice(h, starts, ends, axes)
                       y = Conv(a, W) }}""",
                ),
                Example(
                    "channels are cut out by numbers that are not known",
                    """(double[1,3,6,6] x, int64[1] starts, int64[1] ends) => (double y)
                       <double[12,3,3,3] W, int64[1] axes = {1},
                        double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
                       h = Conv(x, W)
                       a = Slice(h, starts, ends, axes)
                       y = BatchNormalization(a, gamma, beta, mean, var) }""",
                    refused=Reason.UNKNOWN_SHAPE,
                ),
            ),
        ),
        Carrier(
            "Gather",
            "the field is picked from; backward, an element that is picked twice must take one map",
            *both(_gather),
            (
                Example(
                    "channels in another order",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, int64[6] order = {{3, 0, 5, 1, -2, 2}}, {_MEAN}> {{
                       h = Conv(x, W)
                       a = Gather<axis=1>(h, order)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "the last step of a sequence, whichever it is",
                    """(double[2,5,4] x, int64[1] last) => (double y) <double[4,6] W, double[6] c> {
                       h = MatMul(x, W)
                       a = Gather<axis=1>(h, last)
                       y = Mul(a, c) }""",
                ),
                Example(
                    "one channel is picked twice, and takes two maps",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, int64[6] order = {{0, 1, 2, 3, 4, 0}}, {_MEAN}> {{
                       h = Conv(x, W)
                       a = Gather<axis=1>(h, order)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                    refused=Reason.SCRAMBLED,
                ),
            ),
        ),
    )
}
