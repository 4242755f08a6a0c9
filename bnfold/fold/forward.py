"""Follow an affine map forward, to all the layers that read what it computes; each of them must take it in.

A map ``s·x + o`` travels as two: first its shift, then its scale.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field
from bnfold.fold.dead_channels import constant_behind, without_dead
from bnfold.fold.patterns import is_known_product
from bnfold.fold.stage import Stage, worth_it
from bnfold.fold.storable import storable_shift
from bnfold.fold.trail import Leaf, Route, Trail, settle
from bnfold.rules import BATCH_NORM, Reason, Refusal, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bnfold.fold.draft import Draft
    from bnfold.graph.wiring import Use

__all__ = ["ForwardWalk", "toward_consumers"]

_SUMS = frozenset({"Add", "Sub", "Sum"})
_MOST_NODES = 96
"""No map is followed through more nodes than this."""


def toward_consumers(draft: Draft, index: int, stage: Stage) -> Route | Refusal:
    """Follow a map forward.

    Args:
        draft: The graph so far.
        index: The node of the map.
        stage: What the fold may leave behind.
    """
    affine = draft.affines[index]
    if affine.assumed:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{draft.name(index)} may enlarge a value whose size is not known")
    if stage.max_form:
        return Refusal(Reason.NO_RULE, f"{draft.name(index)} has no node in front that could change its form")
    scale, shift = affine.field.scale_only(), affine.field.shift_only()
    rest: Field | None = None
    value = draft.wiring.outputs[index][0]
    behind: Mapping[str, Field] = {}
    if stage.scale_only:
        left = _left_in_front(draft, index, affine.field)
        if isinstance(left, Refusal):
            return left
        rest, behind = left
    parts = [part for part, there in ((shift, shift.has_shift), (scale, scale.has_scale)) if there]
    if stage.scale_only:
        parts = [scale]
    trail = Trail()
    uniform = draft.op_type(index) != BATCH_NORM and not affine.field.axes()
    if not draft.wiring.uses_of(value) and value not in draft.wiring.captured:
        return Refusal(Reason.EDGE, f"no layer reads {value}")
    for start, part in (*behind.items(), *((value, part) for part in parts or [scale])):
        found = ForwardWalk(draft, trail, uniform).follow(start, part)
        refusal = found if isinstance(found, Refusal) else trail.join(found, again=True)
        if refusal is not None:
            return refusal
    steps = settle(draft, trail, Side.INPUT)
    if isinstance(steps, Refusal):
        return steps
    if rest is not None and not rest.has_shift:  # only constant channels have one, and it is behind
        rest = None
    return worth_it(draft, index, Route(steps, trail.passed(), rest), stage)


def _left_in_front(draft: Draft, index: int, field: Field) -> tuple[Field, Mapping[str, Field]] | Refusal:
    """Return what stays of a batch norm as an Add, and what its constant channels are behind the readers of it."""
    if not (draft.op_type(index) == BATCH_NORM and field.has_scale and field.has_shift):
        return Refusal(Reason.NO_GAIN, f"{draft.name(index)} is no more than an Add")
    behind = constant_behind(draft, draft.wiring.outputs[index][0], field)
    if isinstance(behind, Refusal):
        return behind
    shift = without_dead(field).shift_in_front()
    if shift is None:
        return Refusal(Reason.NO_RULE, f"{draft.name(index)} multiplies some channel by nearly zero")
    rest = Field.of(np.ones_like(shift), shift)
    refusal = storable_shift(draft, index, rest)
    return (rest, behind) if refusal is None else refusal


@dataclass(frozen=True, slots=True)
class ForwardWalk:
    """One part of a map on its way.

    Attributes:
        draft: The graph so far.
        before: What the part that went first has found.
        uniform: Whether it is a plain number, which may belong to a product that it must not go through.
        subject: The node of the map, which no other part of it may go into.
        cancel: What may let another term of a sum take a shift; None where it may not.
    """

    draft: Draft
    before: Trail
    uniform: bool = False
    subject: int | None = None
    cancel: Callable[[int, Field], Trail | Refusal] | None = None

    def follow(self, start: str, field: Field, uses: Sequence[Use] | None = None) -> Trail | Refusal:
        """Follow a part from a value to its readers, each after all that it reads.

        Args:
            start: The value.
            field: The map that has to be applied to what it will hold.
            uses: The readers to ask; None for all.
        """
        draft, wiring = self.draft, self.draft.wiring
        trail = Trail()
        fields: dict[str, Field] = {start: field}
        pending: list[tuple[float, int]] = []
        queued: set[int] = set()

        def spread(value: str) -> Refusal | None:
            if value in wiring.model_outputs:
                return Refusal(Reason.MODEL_OUTPUT, f"{value} is an output of the graph")
            if value in wiring.captured:
                return Refusal(Reason.USED_IN_SUBGRAPH, f"{value} is used in a body")
            for node, _position in wiring.uses_of(value):
                if node not in queued:
                    queued.add(node)
                    heapq.heappush(pending, (draft.order(node), node))
            return None

        refusal = None
        if uses is None:
            refusal = spread(start)
        for node, _position in uses or ():
            if node not in queued:
                queued.add(node)
                heapq.heappush(pending, (draft.order(node), node))
        last = -1.0
        while pending and refusal is None:
            place, node = heapq.heappop(pending)
            if place < last or len(queued) > _MOST_NODES or node == self.subject:
                return Refusal(Reason.NO_RULE, "the way to the next layer is too long, or leads back")
            last = place
            taken = {
                position: fields[name]
                for position, name in enumerate(wiring.reads(node))
                if name and name in fields and (name != start or uses is None or (node, position) in uses)
            }
            onward = self._through(node, taken, trail)
            if isinstance(onward, Refusal):
                return onward
            for position, carried in onward.items():
                value = wiring.outputs[node][position]
                if value and (carried.has_scale or carried.has_shift):
                    fields[value] = carried
                    refusal = refusal or spread(value)
        return refusal or trail

    def _through(self, index: int, fields: Mapping[int, Field], trail: Trail) -> Mapping[int, Field] | Refusal:
        """Let a node take in what reaches it, or say what becomes of its outputs."""
        draft = self.draft
        op_type = draft.op_type(index)
        own = draft.affines.get(index)
        absorber = draft.rules.absorbers.get((op_type, Side.INPUT))
        carrier = draft.rules.carriers.get(op_type)
        (position, field), *others = fields.items()
        if own is not None and not own.assumed and position == own.data_input and not others:
            if index in draft.fixed:
                return Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(index)} is to stay as it is")
            if absorber is None:
                return self._past_own(index, field, trail)
        if absorber is not None:
            reached = [draft.reach(index, absorber, each, at) for at, each in fields.items()]
            refusal = next((each for each in reached if isinstance(each, Refusal)), None)
            if refusal is None and others:
                refusal = Refusal(Reason.NO_RULE, f"{draft.name(index)} reads it twice")
            if refusal is not None:
                return refusal
            return trail.take_leaf(index, Leaf(absorber, field, position)) or {}
        if carrier is None or (self.uniform and is_known_product(draft, index)):
            return Refusal(Reason.NO_RULE, f"{op_type} {draft.name(index)} reads it")
        node = draft.node(index, self.before.constants.get(index))
        carried = carrier.forward(node, fields)
        if isinstance(carried, Refusal):
            return carried
        if carried.becomes:
            return Refusal(Reason.NO_RULE, f"{op_type} {draft.name(index)} reads it")
        onward = carried.fields.get(0)
        if self.cancel is not None and op_type in _SUMS and onward is not None and not onward.has_scale:
            cancelled = self.cancel(index, onward)
            if isinstance(cancelled, Trail):
                trail.path[index] = None
                return trail.join(cancelled) or {}
        if carried.constants:
            trail.constants[index] = carried.constants
        trail.path[index] = None
        return carried.fields

    def _past_own(self, index: int, field: Field, trail: Trail) -> Mapping[int, Field] | Refusal:
        """Let a constant Add take in a shift, a constant factor a scale; what they cannot take in goes on."""
        draft = self.draft
        own = draft.affines[index].field
        if draft.is_shift(index):
            if field.has_shift:
                trail.own[index] = field
                return {}
            with np.errstate(all="ignore"):
                inverse = np.asarray(1.0 / field.scale)
            if not np.isfinite(inverse).all():
                return Refusal(Reason.NO_RULE, f"{draft.name(index)} adds to a channel that is multiplied by zero")
            trail.own[index] = Field.of(inverse, np.zeros_like(inverse))
            return {0: field}
        if draft.is_factor(index) and not field.has_shift:
            trail.own[index] = field
            return {}
        trail.path[index] = None
        if field.has_shift:
            moved = np.asarray(own.scale * field.shift)
            return {0: Field.of(np.ones_like(moved), moved)}
        if own.has_shift:
            return Refusal(Reason.NO_RULE, f"{draft.op_type(index)} {draft.name(index)} reads it")
        return {0: field}
