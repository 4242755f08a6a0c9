"""Layers that become one in a draft: with a branch beside it, or with the layer right in front or behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto

from bnfold.fold.chain_links import forms_of
from bnfold.fold.taken import Taken
from bnfold.rules import Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.fold.draft import Draft
    from bnfold.fold.step import Branch, Chain
    from bnfold.graph.wiring import Use

__all__ = ["join_branch", "link_chain"]


def join_branch(draft: Draft, host: int, branch: Branch) -> None:
    """Let a convolution take in a branch beside it."""
    own = draft.affines.pop(branch.node, None) if branch.node is not None else None
    absorber = draft.rules.absorbers["Conv", Side.OUTPUT]
    draft.note(host, Taken(absorber, branch=branch, own=own.field if own is not None else None))
    if branch.stays is None:
        draft.wiring.remove_input(branch.total, branch.position)
        shorter = NodeProto()
        shorter.CopyFrom(draft.node(branch.total).proto)
        del shorter.input[branch.position]
        draft.protos[branch.total] = shorter
        known = draft.constants.pop(branch.total, {})
        if known:  # what stood behind the input moved up
            draft.constants[branch.total] = {at - (at > branch.position): known[at] for at in known}
    else:
        draft.gone.add(branch.total)
        uses = list(draft.wiring.uses_of(draft.wiring.outputs[branch.total][0]))
        rest = draft.wiring.reads(branch.total)[branch.stays]
        if branch.renames:
            draft.wiring.drop_behind(branch.total, branch.stays)
        else:
            draft.wiring.drop_before(branch.total, branch.stays)
            if draft.view.is_constant(rest):
                _read_constant(draft, uses, rest)
    if branch.node is not None:
        draft.own.pop(branch.node, None)
        for node in (branch.node, branch.pool):
            if node is not None:
                draft.gone.add(node)
                draft.wiring.remove(node)


def _read_constant(draft: Draft, uses: Sequence[Use], name: str) -> None:
    """Let nodes see that a sum which they read has become a constant: an Add of two values may be an affine map now."""
    for node, position in uses:
        if node >= len(draft.view) or node in draft.affines or node in draft.becomes:
            continue
        proto = NodeProto()
        proto.CopyFrom(draft.node(node).proto)
        proto.input[position] = name
        draft.protos[node] = proto
        draft.read_again(node)


def link_chain(draft: Draft, host: int, chain: Chain) -> None:
    """Let a layer take in the one in front of it, or the one behind it."""
    assert chain.block is not None
    draft.forms.update(forms_of(draft, host, chain.block))
    draft.blocks[host] = chain.block
    draft.note(host, Taken(draft.rules.absorbers[draft.op_type(host), Side.OUTPUT], chain=chain))
    draft.gone.add(chain.layer)
    if chain.behind:
        draft.wiring.drop_behind(chain.layer, 0)
    else:
        draft.wiring.drop_before(chain.layer, 0)
