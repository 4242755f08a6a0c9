"""Layers whose weights the model dequantises itself: what they are multiplied by goes into the scales in front."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field, Linear, PerChannelAffine
from bnfold.rules import Absorber, Form, Reason, Refusal, Side

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.fold.step import Step

__all__ = ["scale_step"]

_DEQUANTISES = "DequantizeLinear"


def scale_step(draft: Draft, step: Step) -> Step | Refusal | None:
    """Return what the scales of a layer's quantised weights take in when the layer takes a step.

    Args:
        draft: The graph so far.
        step: What the layer takes in.

    Returns:
        None where the weights are not quantised, or stay what they are.
    """
    assert step.affine is not None
    absorber = draft.rules.absorbers[step.op_type, step.side]
    node = draft.view.node(step.index)
    form = absorber.form(node)
    assert isinstance(form, Form)
    weight = node.proto.input[form.weight]
    index = draft.view.dequantiser(weight)
    if index is None:
        return None
    rule = draft.rules.absorbers.get((_DEQUANTISES, Side.OUTPUT))
    if rule is None:
        return Refusal(Reason.WEIGHT_TYPE, f"the weight of {node.name} is quantised")
    linear = draft.linear(step.index, form, quantised=True)
    if isinstance(linear, Refusal):
        return linear
    field = _factor(absorber, linear, step.affine)
    if not field.has_scale:
        return None
    if draft.wiring.is_fixed(weight) or len(draft.wiring.uses_of(weight)) > 1:
        return Refusal(Reason.USED_ELSEWHERE, f"the quantised weight {weight} is not read by {node.name} alone")
    return draft.absorb(index, rule, field)


def _factor(absorber: Absorber, linear: Linear, affine: PerChannelAffine) -> Field:
    """Return what a layer multiplies each element of its weight by: what weights of 1 would become."""
    ones = replace(linear, weight=np.ones(linear.weight.shape), bias=np.zeros_like(linear.bias))
    scaled = absorber.absorb(ones, PerChannelAffine(affine.scale, np.zeros_like(affine.shift), affine.sizes))
    assert isinstance(scaled, Linear), "a pure scale is never refused by a layer"
    return Field.of(scaled.weight, np.zeros_like(scaled.weight))
