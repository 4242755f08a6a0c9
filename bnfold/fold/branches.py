"""Find parallel linear branches of one value, and let the convolution among them take in the others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Unstorable, round_to
from bnfold.fold.branch_weights import joined
from bnfold.fold.linear_nodes import stored_dtype
from bnfold.fold.step import Branch, Step
from bnfold.fold.taken import Taken
from bnfold.graph.view import STANDARD_DOMAINS
from bnfold.rules import Reason, Refusal, Side
from bnfold.rules.branches import BRANCH_RULE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.fold.draft import Draft

__all__ = ["Joint", "find_joint", "sums"]

_SUMS = frozenset({"Add", "Sub", "Sum"})
_MOST_TERMS = 64
"""Sums of more terms than this are left as they are."""


@dataclass(frozen=True, slots=True)
class Joint:
    """A branch and the convolution that takes it in.

    Attributes:
        index: The branch's node; the sum where the branch is the value itself.
        step: What the convolution takes in.
        path: The sums between the two.
    """

    index: int
    step: Step
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Term:
    """One term of a sum.

    Attributes:
        node: The last node of the branch; None where the term is the value itself.
        pool: The average pooling in front of it, where the branch is a map behind one.
        source: The value that the branch starts from.
        total: The sum that reads it.
        position: At which input.
        sign: With which sign.
        sums: The sums from there to the last one, inclusive.
    """

    node: int | None
    pool: int | None
    source: str
    total: int
    position: int
    sign: float
    sums: tuple[int, ...]


def sums(draft: Draft) -> Iterator[int]:
    """Yield the last node of every sum."""
    for index in range(len(draft.view)):
        if index in draft.gone or not _adds(draft, index):
            continue
        value = draft.wiring.outputs[index][0]
        uses = draft.wiring.uses_of(value)
        inner = len(uses) == 1 and not draft.wiring.is_fixed(value) and _adds(draft, uses[0][0])
        if not inner:
            yield index


def find_joint(draft: Draft, last: int, refusals: dict[int, list[Refusal]]) -> Joint | None:
    """Return the next branch of a sum that a convolution beside it can take in.

    Args:
        draft: The graph so far.
        last: The last node of the sum.
        refusals: Where to note why a branch that is an affine map cannot be taken in.
    """
    by_source: dict[str, list[_Term]] = defaultdict(list)
    for term in _terms(draft, last):
        by_source[term.source].append(term)
    for terms in by_source.values():
        hosts = [term for term in terms if term.node is not None and draft.op_type(term.node) == "Conv"]
        for host in sorted(hosts, key=lambda term: -_size(draft, term)):
            for term in terms:
                if term is host or (term in hosts and _size(draft, term) > _size(draft, host)):
                    continue
                joint = _try(draft, host, term)
                if isinstance(joint, Joint):
                    return joint
                if term.node in draft.affines:
                    refusals.setdefault(term.node, []).append(joint)
    return None


def _adds(draft: Draft, index: int) -> bool:
    """Tell whether a node adds computed values, and may change."""
    if index >= len(draft.view) or index in draft.fixed or index in draft.affines:
        return False
    if draft.op_type(index) not in _SUMS or draft.view.node(index).proto.domain not in STANDARD_DOMAINS:
        return False
    # Before opset 7 an Add whose operands differ in shape says how it lays one on the other.
    return draft.view.opset >= 7 or not draft.view.node(index).integer("broadcast", 0)


def _terms(draft: Draft, last: int) -> list[_Term]:
    wiring = draft.wiring
    terms: list[_Term] = []
    pending: list[tuple[int, float, tuple[int, ...]]] = [(last, 1.0, (last,))]
    if not _adds(draft, last):
        return []
    while pending:
        total, sign, chain = pending.pop()
        for position, value in enumerate(wiring.reads(total)):
            own = -sign if draft.op_type(total) == "Sub" and position == 1 else sign
            producer = wiring.producers.get(value)
            alone = producer is not None and len(wiring.uses_of(value)) == 1 and not wiring.is_fixed(value)
            if producer is not None and alone and _adds(draft, producer):
                if producer not in chain:
                    pending.append((producer, own, (producer, *chain)))
                continue
            node, pool, source = None, None, value
            if producer is not None and alone and _is_branch(draft, producer):
                node = producer
                data_input = draft.affines[producer].data_input if producer in draft.affines else 0
                source = wiring.reads(producer)[data_input]
                pool = _pool_of(draft, node, source)
                source = source if pool is None else wiring.reads(pool)[0]
            terms.append(_Term(node, pool, source, total, position, own, chain))
            if len(terms) > _MOST_TERMS:
                return []
    return terms


def _is_branch(draft: Draft, index: int) -> bool:
    if index in draft.fixed or index in draft.becomes:
        return False
    if index in draft.affines:
        return not draft.affines[index].assumed and index < len(draft.view)
    return draft.op_type(index) in {"Conv", "AveragePool"} and bool(draft.wiring.reads(index))


def _pool_of(draft: Draft, index: int, value: str) -> int | None:
    """Return the average pooling that a map stands alone behind."""
    producer = draft.wiring.producers.get(value)
    if index not in draft.affines or producer is None or producer >= len(draft.view) or producer in draft.fixed:
        return None
    alone = len(draft.wiring.uses_of(value)) == 1 and not draft.wiring.is_fixed(value)
    return producer if alone and draft.op_type(producer) == "AveragePool" else None


def _size(draft: Draft, term: _Term) -> int:
    assert term.node is not None
    if term.node in draft.blocks:
        return draft.blocks[term.node].weights
    shape = draft.view.node(term.node).shape(1) or ()
    return int(np.prod([size for size in shape if isinstance(size, int)], dtype=np.int64))


def _try(draft: Draft, host: _Term, term: _Term) -> Joint | Refusal:
    assert host.node is not None
    wiring, node = draft.wiring, draft.view.node(host.node)
    inputs = [name for name in wiring.reads(term.total) if name]
    stays, turns = None, False
    if len(inputs) == 2:
        stays = 1 - term.position
        if draft.constants.get(term.total):
            return Refusal(Reason.NO_GAIN, f"{draft.name(term.total)} adds a constant that a map has changed")
        turns = draft.op_type(term.total) == "Sub" and stays == 1
        if turns and (host.total, host.position) != (term.total, 1):
            return Refusal(Reason.NO_GAIN, f"a change of sign would take the place of {draft.name(term.total)}")
    elif len(inputs) < 2 or draft.op_type(term.total) != "Sum":
        return Refusal(Reason.NO_RULE, f"{draft.name(term.total)} is no sum of two")
    # Where the rest of the sum holds the convolution, that rest becomes the sum.
    renames = term.total in host.sums
    branch = Branch(term.node, term.pool, term.total, term.position, stays, renames, host.sign * term.sign, turns)
    absorber = draft.rules.absorbers["Conv", Side.OUTPUT]
    form = absorber.form(node)
    if isinstance(form, Refusal):
        return form
    linear = draft.linear(host.node, form)
    if isinstance(linear, Refusal):
        return linear
    own = draft.affines[term.node].field if term.node is not None and term.node in draft.affines else None
    with np.errstate(over="ignore", invalid="ignore"):
        changed = joined(draft, host.node, linear, Taken(absorber, branch=branch, own=own))
    if isinstance(changed, Refusal):
        return Refusal(changed.reason, f"{node.name}: {changed.detail}")
    for array, axis in ((changed.weight, form.output_axis), (changed.bias, -1)):
        stored = round_to(array, stored_dtype(node, form), axis)
        if isinstance(stored, Unstorable):
            return Refusal(Reason.OUT_OF_RANGE, f"{node.name}: {stored.detail}")
    step = Step(node.name, "Conv", BRANCH_RULE, Side.OUTPUT, host.node, branch=branch)
    pools = () if term.pool is None else (term.pool,)
    path = tuple(dict.fromkeys((*pools, *term.sums, *host.sums)))
    return Joint(term.total if term.node is None else term.node, step, path)
