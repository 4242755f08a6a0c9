"""Carriers that move elements without changing them: the field moves as the elements do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from bnfold.affine import Field
from bnfold.graph.channels import AxisGroup, known_sizes, regroup
from bnfold.graph.shapes import Dimension, Shape
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import both, shape_text, too_large, whole_numbers
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

_MOST_AXES = 48  # numpy has arrays of 64


def _transpose(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    given = node.attributes.get("perm")
    perm = tuple(given) if isinstance(given, tuple) else tuple(reversed(range(field.rank)))
    if sorted(perm) != list(range(field.rank)):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} permutes {len(perm)} axes of a value with {field.rank}")
    if direction is Direction.BACKWARD:
        perm = tuple(int(axis) for axis in np.argsort(perm))
    return field.transposed(perm)


def _regrouped(node: NodeView, field: Field, before: Shape, after: Shape) -> Field | Refusal:
    """Map a field through a row-major change of shape, group of axes by group of axes."""
    if field.rank != len(before):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} reshapes a value of {len(before)} axes, not {field.rank}")
    inner: list[int] = []
    outer: list[int] = []
    mixed: list[tuple[AxisGroup, int]] = []
    for group in regroup(before, after):
        given = field.shape[group.first_before : group.first_before + len(group.before)]
        if all(size == 1 for size in given):
            inner += [1] * len(group.before)
            outer += [1] * len(group.after)
            continue
        if len(group.before) == len(group.after) == 1:
            inner.append(given[0])
            outer.append(given[0])
            continue
        sizes, others = known_sizes(group.before), known_sizes(group.after)
        if sizes is None or others is None or not np.prod(sizes) == np.prod(others) > 0:
            return Refusal(
                Reason.UNKNOWN_SHAPE,
                f"{node.name} reshapes {shape_text(group.before)} to {shape_text(group.after)}: "
                "the channel is lost track of",
            )
        inner += sizes
        outer += others
        if len(group.before) > 1 and len(group.after) > 1:
            mixed.append((group, sum(size != 1 for size in given)))
    refusal = too_large(node, inner)
    if refusal is not None:
        return refusal
    if any(size not in (1, laid) for size, laid in zip(field.shape, inner, strict=True)):
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} reshapes {shape_text(before)}, not {list(field.shape)}")
    result = field.reshaped(tuple(inner), tuple(outer))
    for group, varying in mixed:
        found = result.shape[group.first_after : group.first_after + len(group.after)]
        if sum(size != 1 for size in found) > varying:
            return Refusal(
                Reason.SCRAMBLED,
                f"{node.name} lays {shape_text(group.before)} out as {shape_text(group.after)}, in other rows",
            )
    return result


def _reshape(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    shapes = _around(node)
    if shapes is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the shapes around {node.name} are not known")
    before, after = shapes
    if (axes := max(len(before), len(after))) > _MOST_AXES:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} reshapes to or from {axes} axes, more than can be followed")
    if direction is Direction.BACKWARD:
        before, after = after, before
    return _regrouped(node, field, before, after)


def _around(node: NodeView) -> tuple[Shape, Shape] | None:
    """Return the shapes on both sides of a Reshape; dimensions that are the same, though not known, have one name."""
    before, after = node.shape(0), node.output_shape()
    if before is None:
        return None
    before = tuple(f"\0{axis}" if size is None else size for axis, size in enumerate(before))
    given = node.constant(1) if node.has_input(1) else node.attributes.get("shape")
    target = whole_numbers(given)
    if target is None and after is None:
        return None
    if after is None or (target is not None and len(after) != len(target)):
        after = (None,) * len(target or ())
    named: list[Dimension] = list(after)
    for axis, size in enumerate(target or ()):
        if size == 0 and not node.integer("allowzero", 0):
            if axis >= len(before):
                return None
            named[axis] = before[axis]
        elif size >= 0:
            named[axis] = size
    unknown = [axis for axis, size in enumerate(named) if not isinstance(size, int) and size not in before]
    if len(unknown) == 1:
        named[unknown[0]] = _left_over(before, [size for axis, size in enumerate(named) if axis != unknown[0]])
    return before, tuple(named)


def _left_over(before: Shape, others: Sequence[Dimension]) -> Dimension:
    """Return the one dimension that is left of a shape when the others are taken out; None where that is not one."""
    left = [size for size in before if not isinstance(size, int)]
    for size in others:
        if not isinstance(size, int):
            if size not in left:
                return None
            left.remove(size)
    whole = prod(size for size in before if isinstance(size, int))
    taken = prod(size for size in others if isinstance(size, int))
    if taken <= 0 or whole <= 0:
        return None
    if not left:
        return whole // taken if whole % taken == 0 else None
    return left[0] if len(left) == 1 and whole == taken else None


def _flatten(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    shape = node.shape(0)
    if shape is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    axis = node.integer("axis", 1)
    axis += len(shape) if axis < 0 else 0
    if not 0 <= axis <= len(shape):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} has no axis {node.integer('axis', 1)}")
    halves = (_product(shape[:axis]), _product(shape[axis:]))
    if direction is Direction.FORWARD:
        return _regrouped(node, field, shape, halves)
    return _regrouped(node, field, halves, shape)


def _product(sizes: Shape) -> Dimension:
    known = known_sizes(sizes)
    if known is not None:
        return int(np.prod(known, dtype=np.int64))
    return sizes[0] if len(sizes) == 1 else None


def _axes(node: NodeView, rank: int) -> tuple[int, ...] | None:
    given = node.constant(1) if node.has_input(1) else node.attributes.get("axes")
    if given is None or not rank:
        return None
    numbers = whole_numbers(given)
    if numbers is None or not all(-rank <= axis < rank for axis in numbers):
        return None
    axes = {axis % rank for axis in numbers}
    return tuple(sorted(axes)) if len(axes) == len(numbers) else None


def _without(field: Field, axes: tuple[int, ...], node: NodeView) -> Field | Refusal:
    if any(field.shape[axis] != 1 for axis in axes):
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} drops an axis along which the map varies")
    kept = tuple(size for axis, size in enumerate(field.shape) if axis not in axes)
    return Field(field.scale.reshape(kept), field.shift.reshape(kept))


def _with(field: Field, axes: tuple[int, ...]) -> Field:
    return Field(np.expand_dims(field.scale, axes), np.expand_dims(field.shift, axes))


def _squeeze(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    before, after = node.shape(0), node.output_shape()
    rank = len(before) if before is not None else None
    axes = _axes(node, rank) if rank is not None else None
    if axes is None or rank is None:
        if before is None or after is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} drops are not known")
        shapes = (before, after) if direction is Direction.FORWARD else (after, before)
        return _regrouped(node, field, *shapes)
    if field.rank + (len(axes) if direction is Direction.BACKWARD else 0) != rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} drops {len(axes)} of {rank} axes, which leaves {field.rank}")
    return _without(field, axes, node) if direction is Direction.FORWARD else _with(field, axes)


def _unsqueeze(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    before = node.shape(0)
    given = node.constant(1) if node.has_input(1) else node.attributes.get("axes")
    if before is None or given is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} adds are not known")
    axes = _axes(node, len(before) + np.asarray(given).size)
    if axes is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} adds are no axes, or repeat")
    if len(before) + len(axes) > _MOST_AXES:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} adds {len(axes)} axes, more than can be followed")
    if field.rank != len(before) + (len(axes) if direction is Direction.BACKWARD else 0):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} adds {len(axes)} axes to {len(before)}, not {field.rank}")
    return _with(field, axes) if direction is Direction.FORWARD else _without(field, axes, node)


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Transpose",
            "the field's axes are permuted as the value's",
            *both(_transpose),
            (
                Example(
                    "channels last and back",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       l = Transpose<perm=[0,2,3,1]>(h)
                       f = Transpose<perm=[0,3,1,2]>(l)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "a constant on channels last",
                    """(double[1,3,6,5] x) => (double y) <double[6,3,3,3] W, double[6] c, double[6] d> {
                       h = Conv(x, W)
                       l = Transpose<perm=[0,2,3,1]>(h)
                       m = Mul(l, c)
                       y = Add(m, d) }""",
                ),
                Example(
                    "the batch norm stands on rows: height and channel changed places, sizes equal",
                    f"""(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       l = Transpose<perm=[0,2,1,3]>(h)
                       y = BatchNormalization(l, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Reshape",
            "the field is reshaped group by group of axes; each group must hold the channel whole",
            *both(_reshape),
            (
                Example(
                    "tokens folded into the batch",
                    f"""(double[2,5,4] x) => (double y) <double[4,6] W, int64[2] shape = {{-1, 6}}, {_MEAN}> {{
                       h = MatMul(x, W)
                       f = Reshape(h, shape)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "image to vector in front of a dense layer",
                    f"""(double[2,6,2,3] x) => (double y) <double[36,4] W, int64[2] shape = {{0, -1}}, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       f = Reshape(h, shape)
                       y = Gemm(f, W) }}""",
                ),
                Example(
                    "features split in heads by a constant for each of them",
                    """(double[5,4] x) => (double y)
                       <double[4,6] W, double[6] b, int64[3] shape = {-1, 2, 3}, double[2,3] c> {
                       h = Gemm(x, W, b)
                       f = Reshape(h, shape)
                       y = Mul(f, c) }""",
                ),
                Example(
                    "the columns behind it are not the layer's columns",
                    """(double[6,4] x) => (double y) <double[4,6] W, int64[2] shape = {4, 9}, double[9] c> {
                       h = MatMul(x, W)
                       f = Reshape(h, shape)
                       y = Mul(f, c) }""",
                    refused=Reason.SCRAMBLED,
                ),
                Example(
                    "a constant for each row of another number of rows",
                    """(double[3,4] x) => (double y) <double[4,6] W,
                        int64[2] other = {6, 3}, double[6,1] c> {
                       h = MatMul(x, W)
                       g = Reshape(h, other)
                       y = Mul(g, c) }""",
                    refused=Reason.SCRAMBLED,
                ),
            ),
        ),
        Carrier(
            "Flatten",
            "as Reshape to two axes",
            *both(_flatten),
            (
                Example(
                    "between a batch norm and a dense layer",
                    f"""(double[2,6,2,3] x) => (double y) <double[36,4] W, double[4] b, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       f = Flatten(h)
                       y = Gemm(f, W, b) }}""",
                ),
                Example(
                    "a batch norm behind it that differs between the positions of one channel",
                    f"""(double[2,3,3,3] x) => (double y) <double[3,3,2,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       f = Flatten(h)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Squeeze",
            "axes of size 1 leave the field",
            *both(_squeeze),
            (
                Example(
                    "a convolution over one row",
                    f"""(double[1,3,1,6] x) => (double y)
                        <double[6,3,1,3] W, int64[1] axes = {{2}}, {_MEAN}> {{
                       h = Conv(x, W)
                       f = Squeeze(h, axes)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "the channel has moved",
                    f"""(double[1,1,8,8] x) => (double y)
                        <double[1,1,3,3] W, int64[1] axes = {{1}}, {_MEAN}> {{
                       h = Conv(x, W)
                       f = Squeeze(h, axes)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Unsqueeze",
            "axes of size 1 join the field",
            *both(_unsqueeze),
            (
                Example(
                    "a dense layer, then a batch norm on images of one pixel",
                    f"""(double[2,4] x) => (double y) <double[4,6] W, int64[2] axes = {{2, 3}}, {_MEAN}> {{
                       h = MatMul(x, W)
                       f = Unsqueeze(h, axes)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "the batch norm stands on the rows",
                    f"""(double[6,4] x) => (double y) <double[4,5] W, int64[1] axes = {{0}}, {_MEAN}> {{
                       h = MatMul(x, W)
                       f = Unsqueeze(h, axes)
                       y = BatchNormalization(f, gamma, beta, mean, var) }}""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
    )
}
