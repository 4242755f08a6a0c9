"""``Gather`` and ``GatherND`` from a constant table, as an embedding does: the map goes into every row of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["GATHER", "GATHER_ND"]


def _table(node: NodeView) -> list[int] | Refusal:
    shape = node.shape(0) if node.is_constant(0) else None
    sizes = [size for size in shape or () if isinstance(size, int)]
    if shape is None or len(sizes) != len(shape) or not sizes:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the table of {node.name} is not a constant")
    return sizes


def _form(sizes: list[int], kept: list[tuple[int, int]]) -> Form:
    """Return the form of a table.

    Args:
        sizes: Its shape.
        kept: Its axes that the gathered value has too: where in the table, and where in the value.
    """
    return Form(
        data=1,
        weight=0,
        bias=None,
        axis=kept[-1][1] if kept else -1,
        channels=sizes[kept[-1][0]] if kept else 1,
        output_axis=kept[-1][0] if kept else 0,
        fan_in=1,
        axes=tuple(place for _axis, place in kept),
        shifts=True,
        sizes=tuple(sizes[axis] for axis, _place in kept),
    )


def _form_gather(node: NodeView) -> Form | Refusal:
    sizes = _table(node)
    if isinstance(sizes, Refusal):
        return sizes
    gathered = node.integer("axis", 0)
    if not -len(sizes) <= gathered < len(sizes):
        return Refusal(Reason.WRONG_AXIS, f"{node.name} gathers axis {gathered} of a table of shape {sizes}")
    gathered %= len(sizes)
    # The axes of the indices stand in the place of the gathered one: those behind it keep their places from the end.
    before = [(axis, axis) for axis in range(gathered)]
    return _form(sizes, before + [(axis, axis - len(sizes)) for axis in range(gathered + 1, len(sizes))])


def _form_gather_nd(node: NodeView) -> Form | Refusal:
    sizes = _table(node)
    if isinstance(sizes, Refusal):
        return sizes
    batch, indices = node.integer("batch_dims", 0), node.shape(1)
    taken = indices[-1] if indices else None
    if not isinstance(taken, int):
        return Refusal(Reason.UNKNOWN_SHAPE, f"how many axes {node.name} gathers is not known")
    if batch < 0 or taken < 1 or batch + taken > len(sizes):
        return Refusal(Reason.WRONG_AXIS, f"{node.name} gathers {taken} axes behind {batch} of a table of {sizes}")
    before = [(axis, axis) for axis in range(batch)]
    return _form(sizes, before + [(axis, axis - len(sizes)) for axis in range(batch + taken, len(sizes))])


def _absorb(gather: Linear, affine: PerChannelAffine, kept: list[int]) -> Linear | Refusal:
    others = tuple(axis for axis in range(gather.weight.ndim) if axis not in kept)
    scale, shift = (np.expand_dims(part, others) for part in affine.laid_over(len(kept)))
    # The bias is left as it is: a table takes in the shift too, so that nothing is added behind it.
    return replace(gather, weight=gather.weight * scale + shift)


def _absorb_gather(gather: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    (gathered,), rank = gather.ints("axis"), gather.weight.ndim
    return _absorb(gather, affine, [axis for axis in range(rank) if axis != gathered % rank])


def _absorb_gather_nd(gather: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    (batch,), rank = gather.ints("batch_dims"), gather.weight.ndim
    taken = gather.data_shape[-1]
    assert taken is not None, "the form has refused it"
    return _absorb(gather, affine, [*range(batch), *range(batch + taken, rank)])


GATHER = Absorber(
    op_type="Gather",
    side=Side.OUTPUT,
    algebra="s·T[i] + o = (s·T + o)[i]: each row of a copy of the table, along the axes that are not gathered",
    form=_form_gather,
    absorb=_absorb_gather,
    examples=(
        Example(
            "an embedding, normalised for each feature",
            """(int64[2,3] i) => (double y)
               <double[7,6] T, int64[2] shape = {-1, 6},
                double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = Gather(T, i)
               f = Reshape(h, shape)
               y = BatchNormalization(f, gamma, beta, mean, var) }""",
        ),
        Example(
            "columns of a table, a constant for each of its rows",
            """(int64[3] i) => (double y) <double[4,7,2] T, double[4,1,2] c> {
               h = Gather<axis=1>(T, i)
               y = Mul(h, c) }""",
        ),
        Example(
            "a constant for each place of the index",
            """(int64[2,3] i) => (double y) <double[7,6] T, double[3,1] c> {
               h = Gather(T, i)
               y = Mul(h, c) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "as many places as features, and the batch norm on the places",
            """(int64[2,6] i) => (double y)
               <double[7,6] T, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = Gather(T, i)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "a table that is passed in",
            """(double[7,6] T, int64[2] i) => (double y)
               <double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = Gather(T, i)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.EDGE,
        ),
    ),
)

GATHER_ND = Absorber(
    op_type="GatherND",
    side=Side.OUTPUT,
    algebra="s·T[i] + o = (s·T + o)[i], along the axes of the table that the index does not reach",
    form=_form_gather_nd,
    absorb=_absorb_gather_nd,
    examples=(
        Example(
            "an index of two numbers into a table of three axes",
            """(int64[5,2] i) => (double y)
               <double[3,4,6] T, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = GatherND(T, i)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "a constant for each index",
            """(int64[5,1] i) => (double y) <double[4,6] T, double[5,1] c> {
               h = GatherND(T, i)
               y = Mul(h, c) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)
