"""Convolutions of one to three dimensions, with groups, depthwise ones included."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["INPUT_SIDE", "OUTPUT_SIDE"]


def _form(node: NodeView, side: Side) -> Form | Refusal:
    shape = node.shape(1) or (None,)
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) < len(shape):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} is not a constant")
    if len(sizes) < 3:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} has shape {list(sizes)}")
    group = node.integer("group", 1)
    if group < 1 or sizes[0] % group:
        return Refusal(Reason.CHANNEL_MISMATCH, f"the weight of {node.name}, {list(sizes)}, is not of {group} groups")
    return _layout(sizes, sizes[0] if side is Side.OUTPUT else sizes[1] * group)


@lru_cache(maxsize=1024)
def _layout(sizes: tuple[int, ...], channels: int) -> Form:
    return Form(
        data=0,
        weight=1,
        bias=2,
        axis=1,
        channels=channels,
        output_axis=0,
        fan_in=math.prod(sizes[1:]),
    )


def _form_output(node: NodeView) -> Form | Refusal:
    return _form(node, Side.OUTPUT)


def _form_input(node: NodeView) -> Form | Refusal:
    return _form(node, Side.INPUT)


def _bias_behind(conv: Linear, affine: PerChannelAffine) -> Float64Array:
    return conv.bias * affine.scale + affine.shift


def _absorb_output(conv: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    rows = (-1, *[1] * (conv.weight.ndim - 1))
    return replace(conv, weight=conv.weight * affine.scale.reshape(rows), bias=_bias_behind(conv, affine))


def _pads(conv: Linear) -> list[tuple[int, int]]:
    """Return the most pads, in front of and behind each spatial axis, that an output may be computed from."""
    kernel = conv.weight.shape[2:]
    auto_pad = conv.attributes.get("auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        pads = conv.ints("pads") or (0,) * (2 * len(kernel))
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if auto_pad == "VALID":
        return [(0, 0)] * len(kernel)
    strides = conv.ints("strides") or (1,) * len(kernel)
    sizes = conv.data_shape[2:]
    if len(sizes) != len(kernel):
        sizes = (None,) * len(kernel)
    pairs = []
    for reach, stride, size in zip(_reaches(conv), strides, sizes, strict=True):
        most = reach - 1 if size is None else max(0, (-(-size // stride) - 1) * stride + reach - size)
        pairs.append((most // 2, most - most // 2) if auto_pad == "SAME_UPPER" else (most - most // 2, most // 2))
    return pairs


def _reaches(conv: Linear) -> list[int]:
    """Return how far apart the first and the last tap are along each spatial axis, both included."""
    kernel = conv.weight.shape[2:]
    dilations = conv.ints("dilations") or (1,) * len(kernel)
    return [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]


def _may_read_pads(conv: Linear) -> npt.NDArray[np.bool_]:
    """Tell for each tap of the kernel whether some output may read a pad through it."""
    kernel = conv.weight.shape[2:]
    dilations = conv.ints("dilations") or (1,) * len(kernel)
    reads = np.zeros(kernel, dtype=bool)
    for axis, (before, behind) in enumerate(_pads(conv)):
        place = np.arange(kernel[axis]) * dilations[axis]
        beyond = (place < before) | (place[::-1] < behind)
        reads |= beyond.reshape([-1 if other == axis else 1 for other in range(len(kernel))])
    return reads


def _absorb_input(conv: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    (group,), (c_out, k) = conv.ints("group"), conv.weight.shape[:2]
    # Output channel o of group g reads input channels g·k ... g·k + k-1, with k = C_in / group.
    rows = (-1, k, *[1] * (conv.weight.ndim - 2))
    scale = np.repeat(affine.scale.reshape(group, k), c_out // group, axis=0).reshape(rows)
    shift = np.repeat(affine.shift.reshape(group, k), c_out // group, axis=0).reshape(rows)
    taps = (conv.weight * shift).sum(axis=1)
    # Where a tap lies on a pad it sees 0 in the place of the shift: that costs nothing only where the tap adds nothing.
    if np.any(taps) and np.any(taps[:, _may_read_pads(conv)]):
        return Refusal(
            Reason.PADDED_SHIFT, "zero padding is added after the affine, so its border never sees the shift"
        )
    bias = conv.bias + taps.sum(axis=tuple(range(1, taps.ndim)))
    return replace(conv, weight=conv.weight * scale, bias=bias)


OUTPUT_SIDE = Absorber(
    op_type="Conv",
    side=Side.OUTPUT,
    algebra="s·(W * x + b) + o = (s·W) * x + (s·b + o), for any padding, stride, dilation and groups",
    form=_form_output,
    absorb=_absorb_output,
    new_bias=_bias_behind,
    examples=(
        Example(
            "grouped, padded, strided, dilated, with bias",
            """(double[2,4,9,9] x) => (double y)
               <double[6,2,3,3] W, double[6] b, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = Conv<group=2, pads=[1,2,0,1], strides=[2,1], dilations=[2,1]>(x, W, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "depthwise, SAME padding, no bias",
            """(double[1,5,7,7] x) => (double y)
               <double[5,1,3,3] W, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Conv<group=5, auto_pad="SAME_UPPER">(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "one dimension",
            """(double[1,5,7] x) => (double y)
               <double[4,5,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = Conv(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "three dimensions, bias given as an empty name",
            """(double[1,2,4,5,6] x) => (double y)
               <double[3,2,3,1,2] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Conv(x, W, "")
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "the convolution's output is read a second time",
            """(double[1,2,5,5] x) => (double y, double z)
               <double[3,2,3,3] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Conv(x, W)
               z = Relu(h)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.USED_ELSEWHERE,
        ),
        Example(
            "the convolution's output is an output of the model",
            """(double[1,2,5,5] x) => (double y, double h)
               <double[3,2,3,3] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Conv(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.MODEL_OUTPUT,
        ),
        Example(
            "the kernel is computed while the model runs",
            """(double[1,2,5,5] x, double[3,2,3,3] W) => (double y)
               <double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Conv(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
        Example(
            "the bias is computed while the model runs",
            """(double[1,2,5,5] x, double[3] b) => (double y)
               <double[3,2,3,3] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Conv(x, W, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

INPUT_SIDE = Absorber(
    op_type="Conv",
    side=Side.INPUT,
    algebra="W * (s·x + o) + b = (W·s) * x + (b + Σ W·o), when W·o = 0 at every tap that may lie on a pad",
    form=_form_input,
    absorb=_absorb_input,
    examples=(
        Example(
            "grouped, unpadded",
            """(double[1,4,5,5] x) => (double y)
               <double[6,2,3,3] W, double[6] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Conv<group=2>(h, W, b) }""",
        ),
        Example(
            "depthwise with two kernels a channel",
            """(double[1,3,5,5] x) => (double y)
               <double[6,1,3,3] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Conv<group=3>(h, W) }""",
        ),
        Example(
            "SAME padding that pads nothing",
            """(double[1,3,6,6] x) => (double y)
               <double[4,3,2,2] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(h, W) }""",
        ),
        Example(
            "padded, but a pure scale",
            """(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, double[3,1,1] c> {
               h = Mul(x, c)
               y = Conv<pads=[1,1,1,1]>(h, W) }""",
        ),
        Example(
            "padded: the scale goes into the weights, the shift stays in front as an Add",
            """(double[1,4,5,5] x) => (double y)
               <double[6,4,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Conv<pads=[1,1,1,1]>(h, W) }""",
        ),
        Example(
            "a padded shift: the border would be wrong",
            """(double[1,4,5,5] x) => (double y) <double[6,4,3,3] W, double[4,1,1] c> {
               h = Add(x, c)
               y = Conv<pads=[1,1,1,1]>(h, W) }""",
            refused=Reason.PADDED_SHIFT,
        ),
        Example(
            "padded by auto_pad",
            """(double[1,4,5,5] x) => (double y) <double[6,4,3,3] W, double[4,1,1] c> {
               h = Sub(x, c)
               y = Conv<auto_pad="SAME_LOWER">(h, W) }""",
            refused=Reason.PADDED_SHIFT,
        ),
        Example(
            "something else reads the normalised value",
            """(double[1,4,5,5] x) => (double y, double z)
               <double[6,4,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               z = Sigmoid(h)
               y = Conv(h, W) }""",
            refused=Reason.NO_RULE,
        ),
    ),
)
