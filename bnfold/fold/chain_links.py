"""A layer that has taken in the layer in front of it, or the one behind it: its weights, and how it reads now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.affine import Linear
from bnfold.rules import Form, Refusal, Side
from bnfold.rules.chains import Block, chained_convolutions, chained_products

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.fold.step import Chain

__all__ = ["block_of", "forms_of", "linked"]


def linked(draft: Draft, index: int, host: Linear, chain: Chain) -> Linear | Refusal:
    """Return a layer with the one beside it taken in.

    Args:
        draft: The graph so far.
        index: The layer.
        host: Its weights so far.
        chain: What it takes in.
    """
    other_type = draft.view.node(chain.layer).op_type
    form = draft.form(chain.layer, draft.rules.absorbers[other_type, Side.OUTPUT])
    other = draft.linear(chain.layer, form) if isinstance(form, Form) else form
    if isinstance(other, Refusal):
        return other
    first, second = (host, other) if chain.behind else (other, host)
    make = chained_convolutions if draft.view.node(index).op_type == "Conv" else chained_products
    return make(first, second, chain.most)


def block_of(draft: Draft, index: int) -> Block | None:
    """Return how large a layer is, from the shape of its weight alone; None where that is not known."""
    if index in draft.blocks:
        return draft.blocks[index]
    node = draft.view.node(index)
    shape = node.shape(1)
    if shape is None or not all(isinstance(size, int) and size > 0 for size in shape):
        return None
    sizes = [int(size) for size in shape if isinstance(size, int)]
    if node.op_type == "Conv":
        groups = node.integer("group", 1)
        if len(sizes) < 3 or groups < 1 or sizes[0] % groups:
            return None
        return Block(sizes[1] * groups, sizes[0], groups, tuple(sizes[2:]))
    if len(sizes) != 2:
        return None
    rows, columns = sizes[::-1] if node.op_type == "Gemm" and node.integer("transB", 0) else sizes
    return Block(rows, columns)


def forms_of(draft: Draft, host: int, block: Block) -> Mapping[tuple[int, Side], Form]:
    """Return where the parts of a layer are, seen from either side, once it has taken another one in.

    Args:
        draft: The graph before.
        host: The layer.
        block: How large it is then.
    """
    forms = {}
    for side, channels in ((Side.INPUT, block.inputs), (Side.OUTPUT, block.outputs)):
        form = draft.form(host, draft.rules.absorbers[draft.op_type(host), side])
        assert isinstance(form, Form), "its weights have been read"
        sizes = (channels,) if form.axes else form.sizes
        forms[host, side] = replace(
            form, channels=channels, sizes=sizes, fan_in=block.weights // block.outputs if block.outputs else 1
        )
    return forms
