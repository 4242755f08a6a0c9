"""Transposed convolutions, whose weight has its input channels in front and its groups among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["INPUT_SIDE", "OUTPUT_SIDE"]


def _form(node: NodeView, side: Side) -> Form | Refusal:
    shape = node.shape(1)
    if shape is None or len(shape) < 3 or not all(isinstance(size, int) for size in shape):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} is not a constant")
    sizes = [int(size) for size in shape if isinstance(size, int)]
    group = node.integer("group", 1)
    if group < 1 or sizes[0] % group:
        return Refusal(Reason.CHANNEL_MISMATCH, f"the weight of {node.name}, {sizes}, is not of {group} groups")
    channels = sizes[1] * group if side is Side.OUTPUT else sizes[0]
    taps = int(np.prod(sizes[2:], dtype=np.int64))
    return Form(
        data=0, weight=1, bias=2, axis=1, channels=channels, output_axis=1, fan_in=taps * max(1, sizes[0] // group)
    )


def _form_output(node: NodeView) -> Form | Refusal:
    return _form(node, Side.OUTPUT)


def _form_input(node: NodeView) -> Form | Refusal:
    return _form(node, Side.INPUT)


def _bias_behind(conv: Linear, affine: PerChannelAffine) -> Float64Array:
    return conv.bias * affine.scale + affine.shift


def _absorb_output(conv: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    (group,), weight = conv.ints("group"), conv.weight
    # (I, O/g, k…) seen as (g, I/g, O/g, k…): group g owns output channels g·O/g ... (g+1)·O/g - 1.
    grouped = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    scale = affine.scale.reshape(group, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    return replace(conv, weight=(grouped * scale).reshape(weight.shape), bias=_bias_behind(conv, affine))


def _taps_of_outputs(conv: Linear) -> list[str] | None:
    """Tell for each spatial axis whether each output gets ``"every"`` tap or just ``"one"``; None for anything else."""
    kernel = conv.weight.shape[2:]
    plain = (1,) * len(kernel)
    strides, dilations = conv.ints("strides") or plain, conv.ints("dilations") or plain
    if conv.attributes.get("auto_pad", "NOTSET") != "NOTSET" or conv.ints("output_shape"):
        single = all(taps == 1 and stride == 1 for taps, stride in zip(kernel, strides, strict=True))
        return ["every"] * len(kernel) if single else None
    pads = conv.ints("pads") or (0,) * (2 * len(kernel))
    extra = conv.ints("output_padding") or (0,) * len(kernel)
    found = []
    for axis, taps in enumerate(kernel):
        before, behind = pads[axis], pads[axis + len(kernel)] - extra[axis]
        reach = (taps - 1) * dilations[axis]
        if strides[axis] == 1 and min(before, behind) >= reach:
            found.append("every")
        elif strides[axis] == taps and (dilations[axis] == 1 or taps == 1) and min(before, behind) >= 0:
            found.append("one")  # the kernels lie side by side
        else:
            return None
    return found


def _sum_of_taps(conv: Linear, taps: Float64Array) -> Float64Array | None:
    """Return what the shift adds to each output, from its part for each channel and tap; None where outputs differ."""
    if not np.any(taps):
        return np.zeros(taps.shape[0])
    found = _taps_of_outputs(conv)
    if found is None:
        return None
    for axis in reversed(range(len(found))):
        if found[axis] == "every":
            taps = taps.sum(axis=axis + 1)
        else:
            first = np.take(taps, [0], axis=axis + 1)
            if np.any(taps != first):
                return None
            taps = first.squeeze(axis + 1)
    return taps


def _absorb_input(conv: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    (group,), weight = conv.ints("group"), conv.weight
    rows = (-1, *[1] * (weight.ndim - 1))
    shifted = (weight * affine.shift.reshape(rows)).reshape(group, weight.shape[0] // group, *weight.shape[1:])
    taps = shifted.sum(axis=1).reshape(-1, *weight.shape[2:])
    added = _sum_of_taps(conv, taps)
    if added is None:
        return Refusal(
            Reason.PADDED_SHIFT, "outputs of a transposed convolution see different taps, so the shift is no bias"
        )
    return replace(conv, weight=weight * affine.scale.reshape(rows), bias=conv.bias + added)


OUTPUT_SIDE = Absorber(
    op_type="ConvTranspose",
    side=Side.OUTPUT,
    algebra="s·(Wᵀ * x + b) + o: W as (g, I/g, O/g, k…) times s as (g, 1, O/g, 1…), b' = s·b + o",
    form=_form_output,
    absorb=_absorb_output,
    new_bias=_bias_behind,
    examples=(
        Example(
            "two groups, strided, output padding, with bias",
            """(double[1,4,5,5] x) => (double y)
               <double[4,3,3,3] W, double[6] b, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = ConvTranspose<group=2, strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, W, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "one dimension, no bias",
            """(double[1,4,5] x) => (double y)
               <double[4,3,2] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = ConvTranspose<strides=[2]>(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "the output is read a second time",
            """(double[1,4,5] x) => (double y, double z)
               <double[4,3,2] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = ConvTranspose<strides=[2]>(x, W)
               z = Relu(h)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.USED_ELSEWHERE,
        ),
    ),
)

INPUT_SIDE = Absorber(
    op_type="ConvTranspose",
    side=Side.INPUT,
    algebra="Wᵀ * (s·x + o) + b = (s·W)ᵀ * x + (b + Σ W·o), when every output gets the same Σ W·o",
    form=_form_input,
    absorb=_absorb_input,
    examples=(
        Example(
            "a pure scale, strided, two groups",
            """(double[1,4,5,5] x) => (double y) <double[4,3,3,3] W, double[4,1,1] c> {
               h = Mul(x, c)
               y = ConvTranspose<group=2, strides=[2,2]>(h, W) }""",
        ),
        Example(
            "cropped until every output gets every tap",
            """(double[1,4,6,6] x) => (double y)
               <double[4,3,3,3] W, double[6] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = ConvTranspose<group=2, pads=[2,2,2,2]>(h, W, b) }""",
        ),
        Example(
            "each pixel becomes a block of four, so each output gets one tap, and all taps of a channel are equal",
            """(double[1,2,3,3] x) => (double y)
               <double[2,1,2,2] W = {1.0, 1.0, 1.0, 1.0, -3.0, -3.0, -3.0, -3.0},
                double[2] gamma, double[2] beta, double[2] mean, double[2] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = ConvTranspose<strides=[2,2], pads=[1,0,0,0]>(h, W) }""",
        ),
        Example(
            "the outputs see different taps",
            """(double[1,4,5,5] x) => (double y) <double[4,3,3,3] W, double[4,1,1] c> {
               h = Add(x, c)
               y = ConvTranspose(h, W) }""",
            refused=Reason.PADDED_SHIFT,
        ),
    ),
)
