"""What carriers have in common: a map through a node with one value, and parts of fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bnfold.affine import Field
from bnfold.graph.shapes import Dimension, Shape
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Back, Carried, Direction, Forth
from bnfold.rules.reasons import Reason, Refusal

__all__ = [
    "Carry",
    "Index",
    "along_axes",
    "both",
    "integers",
    "inverse",
    "is_identity",
    "is_read",
    "misfit",
    "negative",
    "picked",
    "placed",
    "shape_text",
    "size_of",
    "through",
    "too_large",
    "unpicked",
    "whole_numbers",
]

_LARGEST_FIELD = 1 << 22
"""A field is never laid out over more elements than this."""

Index = npt.NDArray[np.int64]
Carry = Callable[[NodeView, Field, Direction], Field | Carried | Refusal]
"""How a map travels through a node with one value in and one out."""


def both(carry: Carry) -> tuple[Back, Forth]:
    """Return both ways through a node whose first input and first output are all that the map changes."""

    def backward(node: NodeView, position: int, field: Field) -> Carried | Refusal:
        if position != 0:
            return Refusal(Reason.NO_RULE, f"it stands behind output {position} of {node.name}")
        if not node.has_input(0):
            return Refusal(Reason.NO_RULE, f"{node.name} has no input")
        refusal = misfit(node, field, node.output_shape())
        return refusal or _wrapped(carry(node, field, Direction.BACKWARD))

    def forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
        if set(fields) != {0}:
            return Refusal(Reason.NO_RULE, f"{node.name} does not read it as its value")
        refusal = misfit(node, fields[0], node.shape(0))
        return refusal or _wrapped(carry(node, fields[0], Direction.FORWARD))

    return backward, forward


def _wrapped(carried: Field | Carried | Refusal) -> Carried | Refusal:
    return Carried({0: carried}) if isinstance(carried, Field) else carried


def misfit(node: NodeView, field: Field, shape: Shape | None) -> Refusal | None:
    """Tell why a field cannot be one of a value of this shape; None where it can, or where nothing is known."""
    if shape is None:
        return None
    if field.rank != len(shape):
        return Refusal(
            Reason.UNKNOWN_SHAPE, f"at {node.name} a value of shape {shape_text(shape)} has {field.rank} axes"
        )
    if any(
        size != 1 and isinstance(known, int) and size != known for size, known in zip(field.shape, shape, strict=True)
    ):
        return Refusal(
            Reason.CHANNEL_MISMATCH, f"at {node.name} a map over {list(field.shape)} meets {shape_text(shape)}"
        )
    return None


def shape_text(shape: tuple[Dimension, ...]) -> str:
    """Return a shape for a sentence, with ``?`` for what is not known or has a made-up name."""
    made_up = ("\0", "unk__")
    return "[" + ", ".join("?" if size is None or str(size).startswith(made_up) else str(size) for size in shape) + "]"


def size_of(shape: Shape | None, axis: int) -> int | None:
    """Return the size of one axis; None where it is not known."""
    if shape is None or not 0 <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def whole_numbers(given: object) -> tuple[int, ...] | None:
    """Return an attribute or a constant as whole numbers; None where it is something else."""
    if isinstance(given, np.ndarray):
        return tuple(int(item) for item in given.reshape(-1)) if given.dtype.kind in "iu" else None
    if isinstance(given, tuple) and all(isinstance(item, int) for item in given):
        return given
    return None


def integers(node: NodeView, position: int, attribute: str, since: int) -> tuple[int, ...] | Refusal | None:
    """Return numbers that are an input since an opset and an attribute before; None where they are not given."""
    if node.opset >= since:
        if not node.has_input(position):
            return None
        constant = node.constant(position)
        if constant is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the {attribute} of {node.name} are computed while the model runs")
        numbers = whole_numbers(constant)
        return (
            Refusal(Reason.UNKNOWN_SHAPE, f"the {attribute} of {node.name} are no integers")
            if numbers is None
            else numbers
        )
    return whole_numbers(node.attributes.get(attribute))


def too_large(node: NodeView, sizes: Iterable[int]) -> Refusal | None:
    """Refuse to lay a map out over more elements than any that a layer could take in."""
    count = 1
    for size in sizes:
        count *= size
    if count <= _LARGEST_FIELD:
        return None
    return Refusal(Reason.NO_RULE, f"behind or in front of {node.name} the map would have {count} elements")


def is_identity(field: Field) -> bool:
    """Whether the map changes nothing."""
    return not field.has_scale and not field.has_shift


def is_read(node: NodeView, position: int) -> bool:
    """Whether anything reads one of the node's outputs, as the model is written."""
    name = node.proto.output[position] if position < len(node.proto.output) else ""
    view = node.view
    return bool(name) and (name in view.outputs or name in view.captured or bool(view.consumers.get(name)))


def negative(node: NodeView, field: Field) -> Refusal | None:
    """Refuse a scale that is negative anywhere, for nodes that let only the others pass."""
    below = int(np.count_nonzero(field.scale < 0))
    if not below:
        return None
    return Refusal(Reason.SIGN, f"{below} of {field.scale.size} scales are negative, which {node.name} turns round")


def along_axes(field: Field, axes: Sequence[int]) -> tuple[int, ...]:
    """Return those of ``axes`` along which the map varies."""
    return tuple(axis for axis in axes if field.shape[axis] != 1)


def inverse(field: Field) -> Field | None:
    """Return the map that undoes this one; None where a scale is zero, or so small that it does not have one."""
    with np.errstate(all="ignore"):
        scale = 1.0 / field.scale
        shift = -field.shift * scale
    return Field(scale, shift) if np.isfinite(scale).all() and np.isfinite(shift).all() else None


# Elements that are picked along one axis.


def picked(field: Field, axis: int, index: Index) -> Field:
    """Return the field of ``value[…, index, …]``; where the index is −1 there is no element, and no map.

    Args:
        field: Over the axes of the value.
        axis: The axis that is picked from.
        index: Positions along it, of any shape, which takes the place of the axis.
    """
    shape = (*field.shape[:axis], *[1] * index.ndim, *field.shape[axis + 1 :])
    if field.shape[axis] == 1:
        return Field(field.scale.reshape(shape), field.shift.reshape(shape))
    absent = np.expand_dims(index < 0, tuple(range(index.ndim, index.ndim + field.rank - axis - 1)))
    scale = np.where(absent, 1.0, np.take(field.scale, index, axis))
    return Field(scale, np.where(absent, 0.0, np.take(field.shift, index, axis))).reduced()


def unpicked(field: Field, axis: int, index: Index, size: int | None) -> Field | None:
    """Return the field of ``value`` whose picked elements have ``field``; None where one element is asked for two maps.

    Elements that are not picked take no map, or the one of all others where that is the same for all.

    Args:
        field: Over the axes of ``value[…, index, …]``.
        axis: The axis of the value that is picked from.
        index: Positions along it, of any shape, which takes the place of the axis; −1 for no element.
        size: The value's size along the axis; it may be None where the field is constant along what was picked.
    """
    inner = field.shape[axis : axis + index.ndim]
    before, behind = field.shape[:axis], field.shape[axis + index.ndim :]
    if all(size == 1 for size in inner):
        shape = (*before, 1, *behind)
        return Field(field.scale.reshape(shape), field.shift.reshape(shape))
    if size is None or any(one not in (1, other) for one, other in zip(inner, index.shape, strict=True)):
        return None
    flat = index.reshape(-1)
    here = flat >= 0
    arrays = []
    for array, default in ((field.scale, 1.0), (field.shift, 0.0)):
        wide = np.broadcast_to(array, (*before, *index.shape, *behind)).reshape(*before, -1, *behind)
        wide = np.moveaxis(wide, axis, -1)[..., here]
        whole = np.full((*wide.shape[:-1], size), default)
        whole[..., flat[here]] = wide
        if not np.array_equal(whole[..., flat[here]], wide):
            return None
        arrays.append(np.moveaxis(whole, -1, axis))
    return Field(arrays[0], arrays[1]).reduced()


def through(
    node: NodeView, field: Field, direction: Direction, axis: int, index: Index, *, size: int | None
) -> Field | Refusal:
    """Take a field through a choice along one axis of ``size`` elements."""
    rest = field.shape[axis + (1 if direction is Direction.FORWARD else index.ndim) :]
    refusal = too_large(node, (*field.shape[:axis], max(index.size, size or 0), *rest))
    if refusal is not None:
        return refusal
    if direction is Direction.FORWARD:
        return picked(field, axis, index)
    found = unpicked(field, axis, index, size)
    if found is not None:
        return found
    if size is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} picks along axis {axis}, whose size is not known")
    return Refusal(Reason.SCRAMBLED, f"{node.name} repeats elements along axis {axis}, and each has another map")


def placed(field: Field, axis: int, start: int, length: int, size: int) -> Field:
    """Return the map that is ``field`` on ``length`` elements of an axis from ``start`` on; the others take nothing."""
    shape = (*field.shape[:axis], size, *field.shape[axis + 1 :])
    part = tuple(slice(start, start + length) if other == axis else slice(None) for other in range(field.rank))
    scale, shift = np.ones(shape), np.zeros(shape)
    scale[part], shift[part] = field.scale, field.shift
    return Field(scale, shift).reduced()
