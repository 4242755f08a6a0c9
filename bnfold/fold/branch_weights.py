"""The weights of a layer that has taken in a branch beside it, or another layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Linear
from bnfold.fold.chain_links import linked
from bnfold.rules import Form, Reason, Refusal
from bnfold.rules.branches import Grid, add_convolution, add_diagonal, grid_of

if TYPE_CHECKING:
    from bnfold.affine.per_channel import Float64Array
    from bnfold.fold.draft import Draft
    from bnfold.fold.step import Branch
    from bnfold.fold.taken import Taken
    from bnfold.graph.view import NodeView

__all__ = ["joined"]


def joined(draft: Draft, index: int, host: Linear, taken: Taken) -> Linear | Refusal:
    """Return a layer with a branch or another layer taken in.

    Args:
        draft: The graph so far.
        index: The layer.
        host: Its weights so far.
        taken: The branch or the layer.
    """
    if taken.chain is not None:
        return linked(draft, index, host, taken.chain)
    assert taken.branch is not None
    both = _with_branch(draft, index, host, taken, taken.branch)
    if isinstance(both, Refusal) or not taken.branch.turns:
        return both
    return replace(both, weight=-both.weight, bias=-both.bias)


def _with_branch(draft: Draft, index: int, host: Linear, taken: Taken, beside: Branch) -> Linear | Refusal:
    node, sign = draft.view.node(index), beside.sign
    grid = grid_of(host, host.weight.shape[2:])
    if isinstance(grid, str):
        return Refusal(Reason.OTHER_GRID, f"{node.name}: {grid}")
    rank = host.weight.ndim - 2
    (groups,) = host.ints("group")
    channels = host.weight.shape[1] * groups
    if beside.node is None:
        return add_diagonal(host, grid, np.full(channels, sign), np.zeros(channels), Grid.point(rank))
    if taken.own is not None:
        affine = taken.own.along(1, channels) if taken.own.rank == rank + 2 else None
        if affine is None:
            return Refusal(Reason.WRONG_AXIS, f"the branch beside {node.name} varies along another axis")
        scale, shift = sign * affine.scale, sign * affine.shift
        if beside.pool is not None:
            return _with_pool(host, grid, draft.view.node(beside.pool), scale, shift)
        return add_diagonal(host, grid, scale, shift, Grid.point(rank))
    layer = draft.view.node(beside.node)
    if layer.op_type == "AveragePool":
        return _with_pool(host, grid, layer, np.full(channels, sign), np.zeros(channels))
    form = taken.absorber.form(layer)
    branch = draft.linear(beside.node, form) if isinstance(form, Form) else form
    if isinstance(branch, Refusal):
        return branch
    if branch.weight.ndim != host.weight.ndim:
        return Refusal(Reason.OTHER_GRID, f"{layer.name} has another number of axes")
    branch_grid = grid_of(branch, branch.weight.shape[2:])
    if isinstance(branch_grid, str):
        return Refusal(Reason.OTHER_GRID, f"{layer.name}: {branch_grid}")
    return add_convolution(host, grid, branch, branch_grid, sign)


def _with_pool(host: Linear, grid: Grid, pool: NodeView, scale: Float64Array, shift: Float64Array) -> Linear | Refusal:
    """Take in a map of average pooling, which is a convolution where it counts its padding as zeros."""
    taps = pool.attributes.get("kernel_shape", ())
    if not isinstance(taps, tuple) or len(taps) != host.weight.ndim - 2 or min(taps, default=0) < 1:
        return Refusal(Reason.OTHER_GRID, f"{pool.name} has another number of axes")
    window = replace(host, attributes=dict(pool.attributes))  # type: ignore[arg-type]
    at = grid_of(window, taps)
    if isinstance(at, str):
        return Refusal(Reason.OTHER_GRID, f"{pool.name}: {at}")
    padded = any(at.begin) or any(at.end)
    if pool.integer("ceil_mode", 0) or (padded and not pool.integer("count_include_pad", 0)):
        return Refusal(Reason.OTHER_GRID, f"{pool.name} divides by another count at the border")
    return add_diagonal(host, grid, scale / float(np.prod(taps)), shift, at)
