"""One linear layer behind another, with nothing between them, is one linear layer: ``W₂(W₁x + b₁) + b₂``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.linear import Attribute
from bnfold.affine.per_channel import Float64Array
from bnfold.rules import conv, gemm
from bnfold.rules.branches import Grid, grid_of
from bnfold.rules.declare import Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CHAIN_ALGEBRA", "CHAIN_EXAMPLES", "CHAIN_RULE", "Block", "chained_convolutions", "chained_products"]

CHAIN_RULE = "layer-chain"
"""The stable name of the rule."""

CHAIN_ALGEBRA = (
    "W₂·(W₁·x + b₁) + b₂ = (W₂·W₁)·x + (W₂·b₁ + b₂), where that is no more weights and no more work; "
    "behind padding only where W₂·b₁ = 0 at its border"
)


@dataclass(frozen=True, slots=True)
class Block:
    """How large a convolution or a matrix product is.

    Attributes:
        inputs: Channels that it reads.
        outputs: Channels that it makes.
        groups: How many groups they are in; 1 for a product.
        taps: Kernel sizes; empty for a product.
    """

    inputs: int
    outputs: int
    groups: int = 1
    taps: tuple[int, ...] = ()

    @property
    def weights(self) -> int:
        """How many weights it has: so many products it takes to compute all channels of one position."""
        return self.outputs * (self.inputs // self.groups) * math.prod(self.taps)

    @property
    def is_even(self) -> bool:
        """Whether runtimes that keep channels in blocks compute it in blocks: its inputs make up quarters of them."""
        each = self.inputs // self.groups
        return each % 4 == 0 or each < 8 or not self.taps


def _too_many(weights: int, most: int) -> Refusal | None:
    if weights <= most:
        return None
    return Refusal(Reason.NO_GAIN, f"as one layer it would have {weights} weights, in the place of {most}")


def chained_convolutions(first: Linear, second: Linear, most: int) -> Linear | Refusal:
    """Return the convolution that does what one does and then another, in the place of the second.

    Output ``y`` of the second reads ``stride₂·y − begin₂ + dilation₂·tap₂`` of what lies between, which reads
    ``stride₁·(…) − begin₁ + dilation₁·tap₁``. Padding of what lies between is zeros; the first convolution, continued
    beyond its input, computes zeros there only along axes in which it has one tap and no padding, and no bias.

    Args:
        first: In front.
        second: Behind it.
        most: How many weights the result may have.
    """
    grids = [grid_of(one, one.weight.shape[2:]) for one in (first, second)]
    for grid in grids:
        if isinstance(grid, str):
            return Refusal(Reason.OTHER_GRID, grid)
    front, behind = (grid for grid in grids if isinstance(grid, Grid))
    if (
        len(front.taps) != len(behind.taps)
        or min((*front.begin, *front.end, *behind.begin, *behind.end), default=0) < 0
    ):
        return Refusal(Reason.OTHER_GRID, "their axes or pads do not fit together")
    for axis, padded in enumerate(zip(behind.begin, behind.end, strict=True)):
        if any(padded) and (front.taps[axis] > 1 or front.begin[axis] or front.end[axis]):
            return Refusal(Reason.OTHER_GRID, "zeros are padded to what the first computes from more than one position")
    channels = first.weight.shape[0]
    second_groups, first_groups = (one.ints("group")[0] for one in (second, first))
    if second.weight.shape[1] * second_groups != channels:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{channels} channels, and {second.weight.shape[1] * second_groups}")
    groups = math.gcd(first_groups, second_groups)
    grid, places = _composed(front, behind)
    made = Block(first.weight.shape[1] * first_groups, second.weight.shape[0], groups, grid.taps)
    refusal = _too_many(made.weights, most)
    if refusal is not None:
        return refusal
    # What the first adds is a shift in front of the second.
    shifted = conv.INPUT_SIDE.absorb(second, PerChannelAffine(np.ones(channels), first.bias))
    if isinstance(shifted, Refusal):
        return shifted
    inner, outer = (_grouped(one.weight, own, groups) for one, own in ((first, first_groups), (second, second_groups)))
    weight = np.zeros((groups, outer.shape[1], inner.shape[2], *grid.taps))
    flat = inner.reshape(*inner.shape[:2], -1)
    for tap in np.ndindex(*behind.taps):
        part = outer[(slice(None), slice(None), slice(None), *tap)] @ flat
        where = tuple(places[axis][tap[axis]] for axis in range(len(tap)))
        weight[(slice(None), slice(None), slice(None), *where)] += part.reshape(*part.shape[:2], *inner.shape[2:])
    return replace(
        shifted,
        weight=weight.reshape(-1, inner.shape[2], *grid.taps),
        attributes=_attributes(second, grid, groups),
        data_shape=first.data_shape,
    )


def _grouped(weight: Float64Array, own: int, groups: int) -> Float64Array:
    """Lay a kernel of ``own`` groups out in fewer: shape (groups, outputs, inputs, taps…), zeros between the own."""
    inside = own // groups
    split = weight.reshape(groups, inside, weight.shape[0] // own, *weight.shape[1:])
    wide = np.zeros((groups, inside, split.shape[2], inside, *weight.shape[1:]))
    for each in range(inside):
        wide[:, each, :, each] = split[:, each]
    return wide.reshape(groups, inside * split.shape[2], inside * weight.shape[1], *weight.shape[2:])


def _composed(front: Grid, behind: Grid) -> tuple[Grid, list[list[slice]]]:
    """Return where both together read, and for each axis and tap of the second where the taps of the first lie."""
    taps, dilations, places = [], [], []
    for axis, (count, other) in enumerate(zip(front.taps, behind.taps, strict=True)):
        near = front.dilations[axis] if count > 1 else 0
        far = front.strides[axis] * behind.dilations[axis] if other > 1 else 0
        step = math.gcd(near, far) or 1
        length = (near // step) * (count - 1) + 1
        taps.append(length + (far // step) * (other - 1))
        dilations.append(step)
        starts = [far // step * tap for tap in range(other)]
        places.append([slice(start, start + length, max(near // step, 1)) for start in starts])
    strides = tuple(stride * other for stride, other in zip(front.strides, behind.strides, strict=True))
    begin, end = (
        tuple(near + stride * far for near, stride, far in zip(ours, front.strides, theirs, strict=True))
        for ours, theirs in ((front.begin, behind.begin), (front.end, behind.end))
    )
    return Grid(tuple(taps), strides, tuple(dilations), begin, end), places


def _attributes(
    second: Linear, grid: Grid, groups: int
) -> dict[str, int | float | str | tuple[int, ...] | tuple[float, ...]]:
    """Return the attributes of the second with another grid; what says nothing is not said anew."""
    attributes: dict[str, Attribute] = {**second.attributes, "group": groups, "auto_pad": "NOTSET"}
    stated: Mapping[str, tuple[tuple[int, ...], int | None]] = {
        "kernel_shape": (grid.taps, None),
        "strides": (grid.strides, 1),
        "dilations": (grid.dilations, 1),
        "pads": ((*grid.begin, *grid.end), 0),
    }
    for name, (value, usual) in stated.items():
        if name in attributes or (usual is not None and any(size != usual for size in value)):
            attributes[name] = value
    return attributes


def chained_products(first: Linear, second: Linear, most: int) -> Linear | Refusal:
    """Return the product that does what one does and then another; a ``Gemm`` wherever one of them is.

    Args:
        first: ``MatMul`` or ``Gemm``, with its constant on the right.
        second: The same.
        most: How many weights the result may have.
    """
    for one in (first, second):
        if one.weight_input != 1 or one.weight.ndim != 2:
            return Refusal(Reason.NO_RULE, "a product of more than a value and a matrix on its right")
        if "transA" in one.attributes and one.ints("transA") != (0,):
            return Refusal(Reason.NO_RULE, "what is multiplied is transposed first")
    inner, outer = (_matrix(one) for one in (first, second))
    if inner.shape[1] != outer.shape[0]:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{inner.shape[1]} columns, and {outer.shape[0]} rows")
    refusal = _too_many(inner.shape[0] * outer.shape[1], most)
    if refusal is not None:
        return refusal
    if not _is_gemm(first):
        return replace(second, weight=_stored(second, inner @ outer), data_shape=first.data_shape)
    if first.bias.shape[0] != 1:
        return Refusal(Reason.NO_RULE, "the first adds to rows")
    added = np.broadcast_to(first.number("beta") * first.bias, (1, inner.shape[1]))
    if _is_gemm(second):
        shifted = gemm.INPUT_SIDE.absorb(second, PerChannelAffine(np.ones(outer.shape[0]), added.reshape(-1)))
        if isinstance(shifted, Refusal):
            return shifted
        return replace(shifted, weight=_stored(second, first.number("alpha") * inner @ outer))
    attributes = {**first.attributes, "beta": 1.0}
    return replace(first, weight=_stored(first, inner @ outer), bias=added @ outer, attributes=attributes)


def _is_gemm(product: Linear) -> bool:
    return "transB" in product.attributes


def _matrix(product: Linear) -> Float64Array:
    """Return a product's constant as it is multiplied with, without its factor."""
    return product.weight.T if _is_gemm(product) and product.ints("transB") != (0,) else product.weight


def _stored(product: Linear, matrix: Float64Array) -> Float64Array:
    """Return a matrix as a product keeps it."""
    return matrix.T if _is_gemm(product) and product.ints("transB") != (0,) else matrix


CHAIN_EXAMPLES = (
    Example(
        "a 1x1 convolution in front of a padded one, no bias",
        """(double[1,3,7,7] x) => (double y) <double[8,3,1,1] V, double[8,8,3,3] W, double[8] b> {
           h = Conv(x, V)
           y = Conv<pads=[1,1,1,1]>(h, W, b) }""",
    ),
    Example(
        "a 1x1 convolution behind a padded one, with biases and strides",
        """(double[1,3,9,9] x) => (double y) <double[16,3,5,5] V, double[16] c, double[3,16,1,1] W, double[3] b> {
           h = Conv<pads=[2,2,2,2], strides=[2,2]>(x, V, c)
           y = Conv(h, W, b) }""",
    ),
    Example(
        "two dense layers",
        """(double[2,6] x) => (double y) <double[6,5] V, double[5] c, double[4,5] W, double[4] b> {
           h = Gemm(x, V, c)
           y = Gemm<transB=1>(h, W, b) }""",
    ),
    Example(
        "two products of a sequence, an Add between them and no other",
        """(double[2,3,6] x) => (double y) <double[6,5] V, double[5] c, double[5,4] W> {
           h = MatMul(x, V)
           a = Add(h, c)
           y = MatMul(a, W) }""",
        stays=1,
    ),
    Example(
        "a bias in front of padding: the border never sees it",
        """(double[1,3,7,7] x) => (double y) <double[8,3,1,1] V, double[8] c, double[8,8,3,3] W> {
           h = Conv(x, V, c)
           y = Conv<pads=[1,1,1,1]>(h, W) }""",
        refused=Reason.PADDED_SHIFT,
    ),
    Example(
        "a bottleneck: as one layer it would be larger",
        """(double[2,6] x) => (double y) <double[6,2] V, double[2,6] W> {
           h = MatMul(x, V)
           y = MatMul(h, W) }""",
        refused=Reason.NO_GAIN,
    ),
    Example(
        "something else reads what lies between",
        """(double[2,6] x) => (double y, double z) <double[6,5] V, double[5,4] W> {
           h = MatMul(x, V)
           z = Relu(h)
           y = MatMul(h, W) }""",
        refused=Reason.USED_ELSEWHERE,
    ),
)
"""Graphs that show the rule at work, and refusing."""
