"""Inputs that broadcast against each other: what each of them takes of a map over the output, or gives to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.shapes import Shape
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import inverse, misfit, too_large
from bnfold.rules.declare import Carried
from bnfold.rules.reasons import Reason, Refusal

__all__ = [
    "Operand",
    "alike_backward",
    "alike_forward",
    "common",
    "laid_onto",
    "operands",
    "ready_backward",
    "ready_forward",
    "rewritten",
    "taken_by",
]

_LARGEST_GROWN = 1 << 16
"""No constant is enlarged to more elements than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """An input of a node whose inputs broadcast against each other.

    Attributes:
        position: Which input it is.
        shape: Its shape.
        axes: Which axis of the output each of its axes is.
        constant: Its value if it is constant.
        grows: Whether another constant in its place may be larger, as the node broadcasts it.
    """

    position: int
    shape: Shape
    axes: tuple[int, ...]
    constant: Float64Array | None
    grows: bool


def operands(node: NodeView, broadcasts_since: int = 7) -> tuple[tuple[Operand, ...], int] | Refusal:
    """Return all inputs of a node as operands, and the number of axes of its output.

    Args:
        node: The node.
        broadcasts_since: The opset from which it broadcasts as numpy does. Before, an attribute may name the axis from
            which the second operand stands.
    """
    count = len(node.reads)
    while node.has_input(count):
        count += 1
    shapes: list[Shape] = []
    for position in range(count):
        shape = node.shape(position)
        if shape is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of input {position} of {node.name} is not known")
        shapes.append(shape)
    rank = max(map(len, shapes))
    found: list[Operand] = []
    for position, shape in enumerate(shapes):
        offset = rank - len(shape)
        if node.opset < broadcasts_since and position == 1 and node.integer("broadcast", 0):
            offset = node.integer("axis", offset)
            offset += rank if offset < 0 else 0
        if offset < 0 or offset + len(shape) > rank:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the operands of {node.name} do not fit together")
        constant = node.constant(position)
        if constant is not None and constant.dtype != np.float64:
            constant = None
        axes = tuple(range(offset, offset + len(shape)))
        value = None if constant is None else constant.astype(np.float64)
        found.append(Operand(position, shape, axes, value, node.opset >= broadcasts_since))
    for axis in range(rank):
        if len(_sizes(found, axis) - {1}) > 1:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the operands of {node.name} do not fit together")
    return tuple(found), rank


def _sizes(every: Sequence[Operand], axis: int) -> set[int]:
    """Return the known sizes of the operands along one axis of the output."""
    sizes = (operand.shape[operand.axes.index(axis)] for operand in every if axis in operand.axes)
    return {size for size in sizes if isinstance(size, int)}


def taken_by(node: NodeView, operand: Operand, field: Field) -> Field | Refusal:
    """Return what an operand has to take so that the output takes ``field``; a refusal where it broadcasts there."""
    whole = node.output_shape()
    for axis in field.axes():
        size = operand.shape[operand.axes.index(axis)] if axis in operand.axes else 1
        if isinstance(size, str) and whole is not None and len(whole) == field.rank and whole[axis] == size:
            continue  # the output is as large as the operand
        where = f"input {operand.position} of {node.name}"
        if size == 1:
            return Refusal(Reason.WRONG_AXIS, f"{where} is broadcast along axis {axis}, along which the map varies")
        if not isinstance(size, int):
            return Refusal(Reason.UNKNOWN_SHAPE, f"{where} may be broadcast along axis {axis}: its size is not known")
        if size != field.shape[axis]:
            return Refusal(
                Reason.CHANNEL_MISMATCH, f"{where} has size {size} along axis {axis}, not {field.shape[axis]}"
            )
    shape = tuple(field.shape[axis] for axis in operand.axes)
    return Field(field.scale.reshape(shape), field.shift.reshape(shape))


def laid_onto(operand: Operand, field: Field, rank: int) -> Field:
    """Return the map of an operand over the axes of the output."""
    shape = [1] * rank
    for axis, size in zip(operand.axes, field.shape, strict=True):
        shape[axis] = size
    return Field(field.scale.reshape(shape), field.shift.reshape(shape))


def rewritten(node: NodeView, operand: Operand, field: Field) -> Float64Array | Refusal:
    """Return a constant operand with a map over the output's axes applied to it, enlarged where that broadcasts."""
    assert operand.constant is not None
    constant = operand.constant
    shape = [1] * field.rank
    for axis, size in zip(operand.axes, constant.shape, strict=True):
        shape[axis] = size
    wide = np.broadcast_shapes(tuple(shape), field.shape)
    grows = wide != tuple(shape)
    size = int(np.prod(wide, dtype=np.float64))
    if grows and (not operand.grows or size > max(constant.size, _LARGEST_GROWN)):
        return Refusal(
            Reason.NO_GAIN, f"the constant of {node.name} would grow from {constant.size} to {size} elements"
        )
    with np.errstate(all="ignore"):
        result = np.asarray(field.scale * constant.reshape(shape) + field.shift)
    if not np.isfinite(result).all():
        return Refusal(Reason.NON_FINITE, f"the constant of {node.name} would not be finite")
    if not grows:
        return result.reshape(constant.shape)
    while result.ndim > constant.ndim and result.shape[0] == 1:
        result = result[0]
    return result


def common(node: NodeView, every: Sequence[Operand], rank: int, fields: Mapping[int, Field]) -> Field | Refusal:
    """Return the one map that every computed operand carries, over the output's axes; a refusal where they differ."""
    found: Field | None = None
    for operand in every:
        given = fields.get(operand.position)
        if given is None:
            if operand.constant is None:
                return Refusal(Reason.NO_RULE, f"input {operand.position} of {node.name} does not carry the same map")
            continue
        refusal = misfit(node, given, operand.shape)
        if refusal is not None:
            return refusal
        laid = laid_onto(operand, given, rank).reduced()
        if found is not None and not (
            np.array_equal(found.scale, laid.scale) and np.array_equal(found.shift, laid.shift)
        ):
            return Refusal(Reason.NO_RULE, f"the inputs of {node.name} carry different maps")
        found = laid
    return found if found is not None else Refusal(Reason.NO_RULE, f"no input of {node.name} carries a map")


def ready_backward(node: NodeView, position: int, field: Field, since: int) -> tuple[Operand, ...] | Refusal:
    """Return a node's operands where a field behind its output fits them; ``since`` as for ``operands``."""
    if position != 0:
        return Refusal(Reason.NO_RULE, f"it stands behind output {position} of {node.name}")
    found = operands(node, since)
    if isinstance(found, Refusal):
        return found
    every, rank = found
    if field.rank != rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} gives {rank} axes, not {field.rank}")
    for axis in field.axes():
        sizes = _sizes(every, axis)
        single = all(operand.shape[operand.axes.index(axis)] == 1 for operand in every if axis in operand.axes)
        if single or not sizes <= {1, field.shape[axis]}:
            return Refusal(
                Reason.CHANNEL_MISMATCH, f"a map over {list(field.shape)} does not fit axis {axis} of {node.name}"
            )
    return misfit(node, field, node.output_shape()) or every


def ready_forward(node: NodeView, fields: Mapping[int, Field], since: int) -> tuple[tuple[Operand, ...], int] | Refusal:
    """Return a node's operands and its output's rank where the fields in front fit; ``since`` as for ``operands``."""
    found = operands(node, since)
    if isinstance(found, Refusal):
        return found
    every, rank = found
    sizes = [_sizes(every, axis) for axis in range(rank)]
    laid = [1] * rank
    for operand in every:
        if operand.position not in fields:
            continue
        refusal = misfit(node, fields[operand.position], operand.shape)
        if refusal is not None:
            return refusal
        for axis, size in zip(operand.axes, fields[operand.position].shape, strict=True):
            sizes[axis].add(size)
            laid[axis] = max(laid[axis], size)
    if any(len(known - {1}) > 1 for known in sizes):
        return Refusal(Reason.CHANNEL_MISMATCH, f"the maps of the operands of {node.name} do not fit together")
    return too_large(node, laid) or found


def alike_backward(node: NodeView, every: Sequence[Operand], field: Field) -> Carried | Refusal:
    """Let every operand take what stands behind the node; constants are rewritten."""
    fields: dict[int, Field] = {}
    constants: dict[int, Float64Array] = {}
    for operand in every:
        if operand.constant is not None:
            constant = rewritten(node, operand, field)
            if isinstance(constant, Refusal):
                return constant
            constants[operand.position] = constant
            continue
        taken = taken_by(node, operand, field)
        if isinstance(taken, Refusal):
            return taken
        fields[operand.position] = taken
    return Carried(fields, constants)


def alike_forward(
    node: NodeView, every: Sequence[Operand], rank: int, fields: Mapping[int, Field]
) -> Carried | Refusal:
    """Take out of a node what every computed operand carries; constants are rewritten by its inverse."""
    field = common(node, every, rank, fields)
    if isinstance(field, Refusal):
        return field
    undone = inverse(field)
    constants: dict[int, Float64Array] = {}
    for operand in every:
        if operand.constant is None:
            continue
        if undone is None:
            return Refusal(Reason.NON_FINITE, f"{node.name} has a constant, and a scale in front of it is zero")
        constant = rewritten(node, operand, undone)
        if isinstance(constant, Refusal):
            return constant
        constants[operand.position] = constant
    return Carried({0: field}, constants)
