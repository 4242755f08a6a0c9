"""Carriers that move elements without changing them: the field moves as the elements do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.channels import regroup
from bnfold.graph.shapes import Dimension, Shape
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Back, Carried, Carrier, Direction, Example, Forth
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

_LARGEST_FIELD = 1 << 22
"""A field is never laid out over more elements than this."""

Carry = Callable[[NodeView, Field, Direction], Field | Refusal]


def _backward(carry: Carry) -> Back:
    def backward(node: NodeView, position: int, field: Field) -> Carried | Refusal:
        if position != 0:
            return Refusal(Reason.NO_RULE, f"it stands behind output {position} of {node.name}")
        carried = carry(node, field, Direction.BACKWARD)
        return carried if isinstance(carried, Refusal) else Carried({0: carried})

    return backward


def _forward(carry: Carry) -> Forth:
    def forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
        if set(fields) != {0}:
            return Refusal(Reason.NO_RULE, f"{node.name} does not read it as its value")
        carried = carry(node, fields[0], Direction.FORWARD)
        return carried if isinstance(carried, Refusal) else Carried({0: carried})

    return forward


def _unchanged(_node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    return field


def _dropout(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    training = node.constant(2) if node.has_input(2) else np.asarray([False])
    trains = training is None or bool(np.any(training)) or (node.opset < 7 and not node.integer("is_test", 0))
    if trains:
        return Refusal(Reason.NO_RULE, f"{node.name} drops at random")
    if len(node.proto.output) > 1 and node.proto.output[1]:
        return Refusal(Reason.NO_RULE, f"{node.name} also returns its mask")
    return field


def _transpose(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    given = node.attributes.get("perm")
    perm = tuple(given) if isinstance(given, tuple) else tuple(reversed(range(field.rank)))
    if sorted(perm) != list(range(field.rank)):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} permutes {len(perm)} axes of a value with {field.rank}")
    if direction is Direction.BACKWARD:
        perm = tuple(int(axis) for axis in np.argsort(perm))
    return field.transposed(perm)


def _known(shape: Shape) -> tuple[int, ...] | None:
    sizes = [size for size in shape if isinstance(size, int)]
    return tuple(sizes) if len(sizes) == len(shape) else None


def _regrouped(node: NodeView, field: Field, before: Shape, after: Shape) -> Field | Refusal:
    """Map a field through a row-major change of shape, group of axes by group of axes."""
    if field.rank != len(before):
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} reshapes a value of {len(before)} axes, not {field.rank}")
    inner: list[int] = []
    outer: list[int] = []
    for group in regroup(before, after):
        last = group.first_before + len(group.before)
        varies = any(size != 1 for size in field.shape[group.first_before : last])
        if not varies:
            inner += [1] * len(group.before)
            outer += [1] * len(group.after)
            continue
        if len(group.before) == len(group.after) == 1:
            inner.append(field.shape[group.first_before])
            outer.append(field.shape[group.first_before])
            continue
        sizes, others = _known(group.before), _known(group.after)
        if sizes is None or others is None or np.prod(sizes) != np.prod(others):
            return Refusal(
                Reason.UNKNOWN_SHAPE,
                f"{node.name} reshapes {_text(group.before)} to {_text(group.after)}: the channel is lost track of",
            )
        inner += sizes
        outer += others
    if np.prod(inner, dtype=np.float64) > _LARGEST_FIELD:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} spreads the channel over {inner}")
    if any(size not in (1, laid) for size, laid in zip(field.shape, inner, strict=True)):
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} reshapes {_text(before)}, not {list(field.shape)}")
    return field.reshaped(tuple(inner), tuple(outer))


def _text(shape: tuple[Dimension, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _reshape(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    before, after = node.shape(0), node.output_shape()
    if before is None or after is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the shapes around {node.name} are not known")
    if direction is Direction.BACKWARD:
        before, after = after, before
    return _regrouped(node, field, before, after)


def _flatten(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    shape = node.shape(0)
    if shape is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    axis = node.integer("axis", 1)
    axis += len(shape) if axis < 0 else 0
    halves = (_product(shape[:axis]), _product(shape[axis:]))
    if direction is Direction.FORWARD:
        return _regrouped(node, field, shape, halves)
    return _regrouped(node, field, halves, shape)


def _product(sizes: Shape) -> Dimension:
    known = _known(sizes)
    if known is not None:
        return int(np.prod(known, dtype=np.int64))
    return sizes[0] if len(sizes) == 1 else None


def _axes(node: NodeView, rank: int) -> tuple[int, ...] | None:
    given = node.constant(1) if node.has_input(1) else node.attributes.get("axes")
    if given is None or not rank:
        return None
    axes = {int(axis) % rank for axis in np.asarray(given).reshape(-1)}
    return tuple(sorted(axes)) if len(axes) == np.asarray(given).size else None


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
        return _reshape(node, field, direction)
    return _without(field, axes, node) if direction is Direction.FORWARD else _with(field, axes)


def _unsqueeze(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    before = node.shape(0)
    given = node.constant(1) if node.has_input(1) else node.attributes.get("axes")
    if before is None or given is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} adds are not known")
    axes = _axes(node, len(before) + np.asarray(given).size)
    if axes is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the axes that {node.name} adds repeat")
    return _with(field, axes) if direction is Direction.FORWARD else _without(field, axes, node)


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Identity",
            "(s, o) on both sides",
            _backward(_unchanged),
            _forward(_unchanged),
            (
                Example(
                    "between a convolution and its batch norm",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       i = Identity(h)
                       y = BatchNormalization(i, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "something else reads its output",
                    f"""(double[1,3,6,6] x) => (double y, double z) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       i = Identity(h)
                       z = Relu(i)
                       y = BatchNormalization(i, gamma, beta, mean, var) }}""",
                    refused=Reason.USED_ELSEWHERE,
                ),
            ),
        ),
        Carrier(
            "Dropout",
            "(s, o) on both sides: in inference mode it is the identity",
            _backward(_dropout),
            _forward(_dropout),
            (
                Example(
                    "between a batch norm and a dense layer",
                    f"""(double[2,6] x) => (double y) <double[6,3] B, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       i = Dropout(h)
                       y = Gemm(i, B) }}""",
                ),
                Example(
                    "its mask is used",
                    f"""(double[2,6] x) => (double y, bool[2,6] z) <double[6,3] B, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       i, z = Dropout(h)
                       y = Gemm(i, B) }}""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "Transpose",
            "the field's axes are permuted as the value's",
            _backward(_transpose),
            _forward(_transpose),
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
            _backward(_reshape),
            _forward(_reshape),
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
                    refused=Reason.WRONG_AXIS,
                ),
                Example(
                    "a constant for each row of another number of rows",
                    """(double[3,4] x) => (double y) <double[4,6] W,
                        int64[2] other = {6, 3}, double[6,1] c> {
                       h = MatMul(x, W)
                       g = Reshape(h, other)
                       y = Mul(g, c) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "Flatten",
            "as Reshape to two axes",
            _backward(_flatten),
            _forward(_flatten),
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
            _backward(_squeeze),
            _forward(_squeeze),
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
            _backward(_unsqueeze),
            _forward(_unsqueeze),
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
