"""Layers whose weights the model dequantises itself: what they are multiplied by goes into the scales in front."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field, Linear, PerChannelAffine
from bnfold.rules import Absorber, Carried, Form, Reason, Refusal, Side

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
    if not any(draft.view.dequantising(name) for name in draft.view.reads[step.index]):
        return None
    form = absorber.form(node)
    assert isinstance(form, Form)
    weight = node.reads[form.weight]
    way = draft.view.dequantising(weight)
    if not way:
        return None
    index = way[-1]
    rule = draft.rules.absorbers.get((_DEQUANTISES, Side.OUTPUT))
    if rule is None:
        return Refusal(Reason.WEIGHT_TYPE, f"the weight of {node.name} is quantised")
    linear = draft.linear(step.index, form, quantised=True)
    if isinstance(linear, Refusal):
        return linear
    field = _factor(absorber, linear, step.affine)
    if not field.has_scale:
        return None
    for other in way:
        value = draft.view.graph.node[other].output[0]
        if draft.wiring.is_fixed(value) or len(draft.wiring.uses_of(value)) > 1:
            return Refusal(Reason.USED_ELSEWHERE, f"the quantised weight {value} is not read by {node.name} alone")
        if other != index:
            before = _in_front(draft, other, field)
            if isinstance(before, Refusal):
                return before
            field = before
    return draft.absorb(index, rule, field)


def _in_front(draft: Draft, index: int, field: Field) -> Field | Refusal:
    """Return the map in front of a node that lays the weight out otherwise."""
    node = draft.view.node(index)
    carrier = draft.rules.carriers.get(node.op_type)
    carried = None if carrier is None else carrier.backward(node, 0, field)
    if isinstance(carried, Refusal):
        return carried
    if not isinstance(carried, Carried) or set(carried.fields) != {0} or carried.constants or carried.becomes:
        return Refusal(Reason.NO_RULE, f"{node.op_type} {node.name} stands behind the quantised weight")
    return carried.fields[0]


def _factor(absorber: Absorber, linear: Linear, affine: PerChannelAffine) -> Field:
    """Return what a layer multiplies each element of its weight by: what weights of 1 would become."""
    ones = replace(linear, weight=np.ones(linear.weight.shape), bias=np.zeros_like(linear.bias))
    scaled = absorber.absorb(ones, PerChannelAffine(affine.scale, np.zeros_like(affine.shift), affine.sizes))
    assert isinstance(scaled, Linear), "a pure scale is never refused by a layer"
    return Field.of(scaled.weight, np.zeros_like(scaled.weight))
