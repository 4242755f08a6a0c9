"""Concat shares a map out among its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import is_identity, misfit, picked, size_of, too_large
from bnfold.rules.declare import Carried, Carrier, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _concat_axis(node: NodeView, rank: int) -> int | Refusal:
    axis = node.integer("axis", 1)
    axis += rank if axis < 0 else 0
    if not 0 <= axis < rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} has no axis {node.integer('axis', 1)}")
    return axis


def _lengths(node: NodeView, axis: int, whole: int | None) -> tuple[int, ...] | None:
    """Return the inputs' sizes along the axis; one that is not known is what the others leave of the whole."""
    found = [size_of(node.shape(position), axis) for position in range(len(node.reads))]
    if found.count(None) == 1 and whole is not None:
        found[found.index(None)] = whole - sum(size for size in found if size is not None)
    known = tuple(size for size in found if size is not None and size >= 0)
    return known if len(known) == len(found) and (whole is None or sum(known) == whole) else None


def _concat_backward(node: NodeView, position: int, field: Field) -> Carried | Refusal:
    if position != 0:
        return Refusal(Reason.NO_RULE, f"it stands behind output {position} of {node.name}")
    refusal = misfit(node, field, node.output_shape())
    if refusal is not None:
        return refusal
    axis = _concat_axis(node, field.rank)
    if isinstance(axis, Refusal):
        return axis
    places = range(len(node.reads))
    if field.shape[axis] == 1:
        return Carried(dict.fromkeys(places, field))
    lengths = _lengths(node, axis, field.shape[axis])
    if lengths is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the sizes of what {node.name} joins are not known")
    ends = np.cumsum(lengths)
    slices = {
        place: picked(field, axis, np.arange(end - length, end))
        for place, length, end in zip(places, lengths, ends, strict=True)
        if length
    }
    return Carried({place: part for place, part in slices.items() if not is_identity(part)})


def _concat_forward(node: NodeView, fields: Mapping[int, Field]) -> Carried | Refusal:
    places = range(len(node.reads))
    rank = next(iter(fields.values())).rank
    axis = _concat_axis(node, rank)
    if isinstance(axis, Refusal):
        return axis
    for place, field in fields.items():
        refusal = misfit(node, field, node.shape(place))
        if refusal is not None or field.rank != rank:
            return refusal or Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} joins values of {rank} and {field.rank} axes")
    first, *others = fields.values()
    same = all(
        np.array_equal(first.scale, other.scale) and np.array_equal(first.shift, other.shift) for other in others
    )
    if len(fields) == len(places) and same and first.shape[axis] == 1:
        return Carried({0: first})
    lengths = [
        fields[place].shape[axis]
        if place in fields and fields[place].shape[axis] != 1
        else size_of(node.shape(place), axis)
        for place in places
    ]
    known = tuple(length for length in lengths if length is not None)
    if len(known) != len(lengths):
        return Refusal(Reason.UNKNOWN_SHAPE, f"the sizes of what {node.name} joins are not known")
    shape = [1] * rank
    for field in fields.values():
        shape = [max(size, own) for size, own in zip(shape, field.shape, strict=True)]
    shape[axis] = sum(known)
    refusal = too_large(node, shape)
    if refusal is not None:
        return refusal
    scale, shift = np.ones(shape), np.zeros(shape)
    for place, (start, length) in enumerate(zip(np.cumsum((0, *known)), known, strict=False)):
        if place in fields:
            part = tuple(slice(start, start + length) if other == axis else slice(None) for other in range(rank))
            scale[part], shift[part] = fields[place].scale, fields[place].shift
    return Carried({0: Field(scale, shift).reduced()})


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Concat",
            "along its axis each input has its slice of the field; along another axis all have the whole",
            _concat_backward,
            _concat_forward,
            (
                Example(
                    "a batch norm behind two layers side by side",
                    f"""(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, double[2,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(x, V)
                       h = Concat<axis=-3>(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "images of two sizes, one below the other",
                    f"""(double[1,3,6,6] x, double[1,3,8,6] z) => (double y)
                       <double[6,3,3,3] W, double[6,3,3,3] V, {_MEAN}> {{
                       a = Conv(x, W)
                       b = Conv(z, V)
                       h = Concat<axis=2>(a, b)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "layers side by side in front of the layer that reads them",
                    """(double[1,2,6,6] x, double[1,4,6,6] z) => (double y)
                       <double[3,6,3,3] W, double[2,1,1] c, double[2,1,1] d, double[4,1,1] e> {
                       a = Mul(x, c)
                       b = Add(a, d)
                       g = Mul(z, e)
                       h = Concat<axis=1>(b, g)
                       y = Conv(h, W) }""",
                ),
                Example(
                    "one of them is the model's input",
                    f"""(double[1,2,4,4] x, double[1,3,6,6] z) => (double y) <double[4,3,3,3] W, {_MEAN}> {{
                       a = Conv(z, W)
                       h = Concat<axis=1>(x, a)
                       y = BatchNormalization(h, gamma, beta, mean, var) }}""",
                    refused=Reason.EDGE,
                ),
            ),
        ),
    )
}
