"""Find layers that stand one behind another with nothing between them, and may be one."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from bnfold.affine import Linear, Unstorable, round_to
from bnfold.fold.chain_links import block_of, linked
from bnfold.fold.draft import is_named
from bnfold.fold.linear_nodes import stored_dtype
from bnfold.fold.patterns import belongs_to_function
from bnfold.fold.step import Chain, Step
from bnfold.fold.storable import element
from bnfold.rules import Reason, Refusal, Side
from bnfold.rules.branches import grid_of
from bnfold.rules.chains import CHAIN_RULE, Block

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.graph.view import GraphView

__all__ = ["Link", "find_link", "layers_of"]

_CONVOLUTION = "Conv"
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_UNEVEN = 2
"""Channels that fill no blocks cost a convolution so many times its work at most."""


@dataclass(frozen=True, slots=True)
class Link:
    """Two layers that become one.

    Attributes:
        index: The layer that vanishes.
        step: What the other one takes in.
        shift: An Add that stands between them, and what takes that in first; None where there is none.
    """

    index: int
    step: Step
    shift: tuple[int, Step] | None = None


def layers_of(view: GraphView) -> tuple[int, ...]:
    """Return the nodes of a graph that may be one with a layer in front."""
    kinds = {_CONVOLUTION, *_PRODUCTS}
    return tuple(index for index, op_type in enumerate(view.op_types) if op_type in kinds)


def find_link(draft: Draft, second: int, keep: Collection[str]) -> Link | tuple[int, Refusal] | None:
    """Return how a layer and the one in front of it become one, or which of them says why not; None without any.

    Args:
        draft: The graph so far.
        second: The layer behind.
        keep: Names of nodes or values, or patterns of them, that stay.
    """
    kind, wiring = draft.op_type(second), draft.wiring
    if second in draft.gone or wiring.inputs[second] is None or not wiring.reads(second):
        return None
    kinds = {_CONVOLUTION} if kind == _CONVOLUTION else _PRODUCTS if kind in _PRODUCTS else frozenset()
    between = None
    first = wiring.producers.get(wiring.reads(second)[0])
    if first is not None and kind in _PRODUCTS and draft.is_shift(first):
        between, first = first, wiring.producers.get(wiring.reads(first)[draft.affines[first].data_input])
    if first is None or first >= len(draft.view) or draft.op_type(first) not in kinds:
        return None
    for index in (first, second):
        if index in draft.becomes:
            return None
        if is_named(draft.view.node(index), keep):
            return index, Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(index)} was named")
    refusal = _seen(draft, first, between) or _too_large(draft, first, second)
    if refusal is not None:
        return first, refusal
    found = _tried(draft, first, second, between)
    return (first, found) if isinstance(found, Refusal) else found


def _seen(draft: Draft, first: int, between: int | None) -> Refusal | None:
    """Say who else sees what lies between, its shape included: it will not be there."""
    wiring = draft.wiring
    for index in (first,) if between is None else (first, between):
        value = wiring.outputs[index][0]
        if value in wiring.model_outputs:
            return Refusal(Reason.MODEL_OUTPUT, f"{value} is an output of the graph")
        if value in wiring.captured:
            return Refusal(Reason.USED_IN_SUBGRAPH, f"{value} is used in a body")
        if len(wiring.uses.get(value, ())) != 1:
            readers = ", ".join(sorted({draft.name(node) for node, _position in wiring.uses[value]}))
            return Refusal(Reason.USED_ELSEWHERE, f"{value} is read by {readers}")
    if between is not None and (between in draft.fixed or belongs_to_function(draft, between)):
        return Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(between)} is to stay as it is")
    return None


def _too_large(draft: Draft, first: int, second: int) -> Refusal | None:
    """Say what the shapes of the weights tell, without a look at any number."""
    inner, outer = block_of(draft, first), block_of(draft, second)
    if inner is None or outer is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {draft.name(first)} is not a constant")
    if len(inner.taps) != len(outer.taps) or inner.outputs != outer.inputs:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{draft.name(first)} and {draft.name(second)} do not fit together")
    for index in (first, second):
        if not _vanishes(draft, index):
            return Refusal(Reason.NO_GAIN, f"the weight of {draft.name(index)} stays for another layer")
    taps = tuple(max(pair) for pair in zip(inner.taps, outer.taps, strict=True))
    least = Block(inner.inputs, outer.outputs, math.gcd(inner.groups, outer.groups), taps)
    most = inner.weights + outer.weights
    if least.weights > most:
        detail = f"{draft.name(first)} and {draft.name(second)} as one would have {least.weights} weights, not {most}"
        return Refusal(Reason.NO_GAIN, detail)
    return None


def _vanishes(draft: Draft, index: int) -> bool:
    """Tell whether nothing needs a layer's weight once the layer has another one."""
    if draft.taken_in.get(index):
        return True  # it has a copy of its own
    name = draft.wiring.reads(index)[1]
    for _step in range(len(draft.view)):
        others = {node for node, _position in draft.wiring.uses.get(name, ())} - {index}
        if draft.wiring.is_fixed(name) or any(not draft.taken_in.get(node) for node in others):
            return False
        outer = draft.view.outer
        if outer is not None and outer.is_constant(name):
            return False
        producer = draft.wiring.producers.get(name)
        if producer is None or not draft.wiring.reads(producer):
            return True
        index, name = producer, draft.wiring.reads(producer)[0]
    return False


def _tried(draft: Draft, first: int, second: int, between: int | None) -> Link | Refusal:
    """Put two layers together on real weights."""
    inner, outer = block_of(draft, first), block_of(draft, second)
    assert inner is not None
    assert outer is not None
    # A Gemm has a place for what the layers add, so where one of them is one, it takes in the other.
    behind = (draft.op_type(first), draft.op_type(second)) == ("Gemm", "MatMul")
    host, other = (first, second) if behind else (second, first)
    if behind and between is not None:
        return Refusal(Reason.NO_GAIN, f"{draft.name(between)} can go into {draft.name(first)}")
    node, chain = draft.view.node(host), Chain(other, behind, inner.weights + outer.weights)
    absorber = draft.rules.absorbers[node.op_type, Side.OUTPUT]
    form = draft.form(host, absorber)
    if isinstance(form, Refusal):
        return form
    linear = draft.linear(host, form)
    if isinstance(linear, Refusal):
        return linear
    if node.op_type == _CONVOLUTION and _enlarges(linear):
        return Refusal(Reason.NO_GAIN, f"{draft.name(second)} pads more than its kernel takes away")
    with np.errstate(over="ignore", invalid="ignore"):
        changed = linked(draft, host, linear, chain)
    if isinstance(changed, Refusal):
        return Refusal(changed.reason, f"{draft.name(first)} and {draft.name(second)}: {changed.detail}")
    groups = changed.ints("group")[0] if node.op_type == _CONVOLUTION else 1
    block = Block(inner.inputs, outer.outputs, groups, changed.weight.shape[2:])
    if _dear(draft, second, block, chain.most):
        detail = f"{inner.inputs // groups} channels fill no blocks, so {draft.name(second)} would be slower"
        return Refusal(Reason.NO_GAIN, detail)
    stored_bias = changed.bias.size if np.any(changed.bias) else 0
    if block.weights + stored_bias > chain.most:  # what the first adds may need more room behind the second
        detail = f"{draft.name(first)} and {draft.name(second)} as one would have {stored_bias} biases more"
        return Refusal(Reason.NO_GAIN, detail)
    for array, axis in ((changed.weight, form.output_axis), (changed.bias, -1)):
        stored = round_to(array, stored_dtype(node, form), axis)
        if isinstance(stored, Unstorable):
            return Refusal(Reason.OUT_OF_RANGE, f"{node.name}: {stored.detail}")
    side = Side.OUTPUT if behind else Side.INPUT
    step = Step(node.name, node.op_type, CHAIN_RULE, side, host, chain=Chain(other, behind, chain.most, block))
    if between is None:
        return Link(other, step)
    shift = draft.absorb(second, draft.rules.absorbers[node.op_type, Side.INPUT], draft.affines[between].field, at=0)
    return shift if isinstance(shift, Refusal) else Link(other, step, (between, shift))


def _enlarges(second: Linear) -> bool:
    """Tell whether a convolution makes more positions than it reads: then the first one works at fewer."""
    grid = grid_of(second, second.weight.shape[2:])
    if isinstance(grid, str):
        return False
    return any(
        begin + end > dilation * (taps - 1)
        for begin, end, dilation, taps in zip(grid.begin, grid.end, grid.dilations, grid.taps, strict=True)
    )


def _dear(draft: Draft, second: int, block: Block, most: int) -> bool:
    """Tell whether a runtime that keeps images in blocks of channels would take longer for the one layer."""
    value = draft.wiring.outputs[second][0]
    image = len(block.taps) == 2 and element(draft, second, value) == TensorProto.FLOAT
    return image and not block.is_even and _UNEVEN * block.weights > most
