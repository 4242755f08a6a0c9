"""Normalisations that stay take in what stands behind them: their own scale and offset are per channel already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Affine, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal
from bnfold.rules.sources import BATCH_NORM, SOURCES

__all__ = [
    "BATCH_NORM_INPUT",
    "BATCH_NORM_OUTPUT",
    "GROUP_NORM_OUTPUT",
    "INSTANCE_NORM_OUTPUT",
    "LAYER_NORM_OUTPUT",
    "RMS_NORM_OUTPUT",
]

_LEAST_MEAN, _LARGEST_MEAN = 2.0**-14, 2.0**15
"""Between these, every floating type holds a number with all its digits."""

_GROUPS_OF_CHANNELS = 21
"""From this opset on, GroupNormalization has parameters for each channel; before, for each group."""


def _form_batch_norm(node: NodeView) -> Form | Refusal:
    affine = SOURCES[BATCH_NORM].read(node)
    if not isinstance(affine, Affine):
        return affine or Refusal(Reason.NO_RULE, f"{node.name} is no affine map")
    channels = affine.field.reduced().shape[1]
    shape = node.shape(1)
    if shape is not None and isinstance(shape[0], int):
        channels = shape[0]
    return Form(data=0, weight=1, bias=2, axis=1, channels=channels, output_axis=0, fan_in=1)


def _absorb_output(norm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return replace(norm, weight=norm.weight * affine.scale, bias=norm.bias * affine.scale + affine.shift)


def _absorb_input(norm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    mean, var = (norm.constants[position].astype(np.float64) for position in (3, 4))
    with np.errstate(all="ignore"):
        moved = (mean - affine.shift) / affine.scale
    # A mean that moves costs no digits. Where it cannot (a scale of 0), or where a narrow type might lose it, it stays,
    # and the offset makes up for it.
    moves = (moved == 0) | ((np.abs(moved) >= _LEAST_MEAN) & (np.abs(moved) <= _LARGEST_MEAN))
    moves &= affine.scale != 0
    new_mean = np.where(moves, moved, mean)
    rest = np.where(moves, 0.0, affine.shift + (affine.scale - 1.0) * mean)
    return replace(
        norm,
        weight=norm.weight * affine.scale,
        bias=norm.bias + norm.weight * rest / np.sqrt(var + norm.number("epsilon")),
        constants={**norm.constants, 3: new_mean},
    )


def _parameters(node: NodeView) -> list[int] | Refusal:
    shape = node.shape(1) if node.is_constant(1) else None
    sizes = [size for size in shape or () if isinstance(size, int)]
    if shape is None or len(sizes) != len(shape):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the scale of {node.name} is not a constant")
    return sizes


def _form_instance_norm(node: NodeView) -> Form | Refusal:
    sizes = _parameters(node)
    if isinstance(sizes, Refusal):
        return sizes
    if len(sizes) != 1:
        return Refusal(Reason.CHANNEL_MISMATCH, f"the scale of {node.name} has shape {sizes}")
    return Form(data=0, weight=1, bias=2, axis=1, channels=sizes[0], output_axis=0, fan_in=1)


def _form_group_norm(node: NodeView) -> Form | Refusal:
    form = _form_instance_norm(node)
    if isinstance(form, Refusal) or node.opset >= _GROUPS_OF_CHANNELS:
        return form
    shape = node.shape(0)
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if not isinstance(channels, int):
        return Refusal(Reason.UNKNOWN_SHAPE, f"how many channels {node.name} has is not known")
    if form.channels < 1 or channels % form.channels:
        detail = f"{node.name} has {form.channels} parameters for {channels} channels"
        return Refusal(Reason.CHANNEL_MISMATCH, detail)
    return replace(form, channels=channels)


def _absorb_group_norm(norm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    groups = norm.weight.size
    scale, shift = (part.reshape(groups, -1) for part in (affine.scale, affine.shift))
    uneven = np.flatnonzero((scale != scale[:, :1]).any(axis=1) | (shift != shift[:, :1]).any(axis=1))
    if uneven.size:
        detail = (
            f"it has one scale and offset for each of {groups} groups, and the map varies between the "
            f"{scale.shape[1]} channels of group {uneven[0]}"
        )
        return Refusal(Reason.WRONG_AXIS, detail)
    return _absorb_output(norm, PerChannelAffine(scale[:, 0], shift[:, 0]))


def _form_layer_norm(node: NodeView) -> Form | Refusal:
    sizes = _parameters(node)
    if isinstance(sizes, Refusal):
        return sizes
    # Its parameters are aligned with the last axes of the value, as broadcasting aligns them.
    axes = tuple(range(-len(sizes), 0))
    return Form(
        data=0,
        weight=1,
        bias=2,
        axis=-1,
        channels=sizes[-1] if sizes else 1,
        output_axis=-1 if sizes else 0,
        fan_in=max(1, int(np.prod(sizes, dtype=np.int64))),
        axes=axes,
        sizes=tuple(sizes),
    )


def _form_rms_norm(node: NodeView) -> Form | Refusal:
    form = _form_layer_norm(node)
    if isinstance(form, Refusal):
        return form
    rank = node.view.rank(node.reads[0])
    if rank is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    if rank < len(form.sizes):
        detail = f"{node.name} has a scale of shape {list(form.sizes)} for a value of {rank} axes"
        return Refusal(Reason.CHANNEL_MISMATCH, detail)
    return replace(form, bias=None, rank=rank)


def _absorb_layer_norm(norm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    scale, shift = affine.laid_over(norm.weight.ndim)
    return replace(norm, weight=norm.weight * scale, bias=norm.bias * scale + shift)


BATCH_NORM_OUTPUT = Absorber(
    op_type=BATCH_NORM,
    side=Side.OUTPUT,
    algebra="s·(γ·x̂ + β) + o = (γ·s)·x̂ + (β·s + o)",
    form=_form_batch_norm,
    absorb=_absorb_output,
    examples=(
        Example(
            "two batch norms in a row, with nothing else to fold into, become one",
            """(double[1,3,5,5] x) => (double y)
               <double[3] gamma, double[3] beta, double[3] mean, double[3] var,
                double[3] gamma2, double[3] beta2, double[3] mean2, double[3] var2> {
               r = Sigmoid(x)
               h = BatchNormalization(r, gamma, beta, mean, var)
               g = BatchNormalization(h, gamma2, beta2, mean2, var2)
               y = Sigmoid(g) }""",
            stays=1,
        ),
        Example(
            "something else reads the first",
            """(double[1,3,5,5] x) => (double y, double z)
               <double[3] gamma, double[3] beta, double[3] mean, double[3] var, double[3,1,1] c> {
               r = Sigmoid(x)
               h = BatchNormalization(r, gamma, beta, mean, var)
               z = Sigmoid(h)
               g = Mul(h, c)
               y = Sigmoid(g) }""",
            refused=Reason.USED_ELSEWHERE,
            stays=1,
        ),
    ),
)

BATCH_NORM_INPUT = Absorber(
    op_type=BATCH_NORM,
    side=Side.INPUT,
    algebra="γ·(s·x + o − μ)/σ + β = (γ·s)·(x − (μ − o)/s)/σ + β; for s = 0 it is the offset β + γ·(o − μ)/σ",
    form=_form_batch_norm,
    absorb=_absorb_input,
    examples=(
        Example(
            "pixels are scaled in front of a batch norm with nothing else to fold into, one channel by zero",
            """(double[1,3,5,5] x) => (double y)
               <double[3,1,1] c = {0.25, -2.0, 0.0}, double[3,1,1] d,
                double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               m = Sub(x, d)
               h = Mul(m, c)
               g = BatchNormalization<epsilon=0.01>(h, gamma, beta, mean, var)
               y = Sigmoid(g) }""",
            stays=1,
        ),
        Example(
            "a constant for each row of the image",
            """(double[1,3,5,5] x) => (double y, double z)
               <double[5,1] c, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = Mul(x, c)
               g = BatchNormalization(h, gamma, beta, mean, var)
               y = Sigmoid(g)
               z = Sigmoid(h) }""",
            refused=Reason.WRONG_AXIS,
            stays=1,
        ),
    ),
)

INSTANCE_NORM_OUTPUT = Absorber(
    op_type="InstanceNormalization",
    side=Side.OUTPUT,
    algebra="s·(γ·x̂ + β) + o = (γ·s)·x̂ + (β·s + o)",
    form=_form_instance_norm,
    absorb=_absorb_output,
    examples=(
        Example(
            "a batch norm behind it",
            """(double[2,3,5,5] x) => (double y)
               <double[3] s, double[3] b, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = InstanceNormalization<epsilon=0.01>(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "its offset is passed in",
            """(double[2,3,5,5] x, double[3] b) => (double y)
               <double[3] s, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = InstanceNormalization(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

GROUP_NORM_OUTPUT = Absorber(
    op_type="GroupNormalization",
    side=Side.OUTPUT,
    algebra="s·(γ·x̂ + β) + o = (γ·s)·x̂ + (β·s + o); before opset 21 where s and o are the same in each group",
    form=_form_group_norm,
    absorb=_absorb_group_norm,
    examples=(
        Example(
            "a batch norm behind it, a parameter a channel",
            """(double[2,6,5] x) => (double[2,6,5] y)
               <double[6] s, double[6] b, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = GroupNormalization<num_groups=3>(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            opset=21,
        ),
        Example(
            "a parameter a group, and a batch norm with one a channel",
            """(double[2,6,5] x) => (double[2,6,5] y)
               <double[3] s, double[3] b, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = GroupNormalization<num_groups=3>(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)

LAYER_NORM_OUTPUT = Absorber(
    op_type="LayerNormalization",
    side=Side.OUTPUT,
    algebra="s·(γ·x̂ + β) + o = (γ·s)·x̂ + (β·s + o), along the axes that its parameters have",
    form=_form_layer_norm,
    absorb=_absorb_layer_norm,
    examples=(
        Example(
            "a batch norm on the features behind it, no offset yet",
            """(double[5,6] x) => (double y)
               <double[6] s, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = LayerNormalization(x, s)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "normalised over a whole image, with parameters for each pixel of each channel",
            """(double[2,3,4,5] x) => (double y)
               <double[3,4,5] s, double[3,4,5] b, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = LayerNormalization<axis=1, epsilon=0.01>(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "normalised over the last axis, and the batch norm stands on another",
            """(double[2,3,5] x) => (double y)
               <double[5] s, double[5] b, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = LayerNormalization(x, s, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)

RMS_NORM_OUTPUT = Absorber(
    op_type="RMSNormalization",
    side=Side.OUTPUT,
    algebra="s·(γ·x̂) + o = (γ·s)·x̂ + o, along the axes that γ has",
    form=_form_rms_norm,
    absorb=_absorb_layer_norm,
    examples=(
        Example(
            "a constant for each feature behind it",
            """(double[2,5,6] x) => (double y) <double[6] s, double[6] c> {
               h = RMSNormalization(x, s)
               y = Mul(h, c) }""",
            opset=23,
        ),
        Example(
            "a batch norm on the features behind it becomes one Add",
            """(double[5,6] x) => (double y)
               <double[6] s, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = RMSNormalization(x, s)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            opset=23,
        ),
        Example(
            "a batch norm on the sequence behind it",
            """(double[2,5,6] x) => (double y)
               <double[6] s, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = RMSNormalization(x, s)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
            opset=23,
        ),
    ),
)
