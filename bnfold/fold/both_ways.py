"""Take a batch norm apart: its scale one way, its shift the other, so that nothing of it is left.

``s·x + o`` is ``s·(x + o/s)``: behind a residual sum and in front of a rectifier, the scale goes forward, and the shift
backward into a bias. Where another reader of the sum would see that shift, as the next skip connection does, it is
taken away again from the next term that the skip is added to: the residual stream carries a constant with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field
from bnfold.fold.backward import BackwardWalk, Onward
from bnfold.fold.forward import ForwardWalk
from bnfold.fold.stage import Stage, worth_it
from bnfold.fold.trail import Route, Trail, settle
from bnfold.rules import BATCH_NORM, Carried, Reason, Refusal, Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.affine.per_channel import Float64Array
    from bnfold.fold.draft import Draft
    from bnfold.graph.wiring import Use

__all__ = ["both_ways"]

_LARGEST_DETOUR = 8.0
"""A stream carries no constant that is larger than so many times what is in it: rounding would be seen elsewhere."""

_DEEPEST = 3
"""So often may making up for a shift call for making up for another one."""


def both_ways(draft: Draft, index: int, stage: Stage) -> Route | Refusal:
    """Move the scale of a batch norm one way and its shift the other.

    Args:
        draft: The graph so far.
        index: The node of the map.
        stage: What the fold may leave behind.
    """
    affine = draft.affines[index]
    if draft.op_type(index) != BATCH_NORM or affine.assumed:
        return Refusal(Reason.NO_RULE, f"{draft.name(index)} is no batch norm")
    scale, shift = affine.field.scale_only(), affine.field.shift_only()
    if not shift.has_shift:
        return Refusal(Reason.NO_GAIN, f"{draft.name(index)} has no shift")
    route = _apart(draft, index, scale, shift)
    if isinstance(route, Refusal):
        first = affine.field.shift_in_front()
        if first is None:
            return route
        other = _apart_shift_first(
            draft, index, scale, Field.of(np.ones_like(first), first), modest=_modest(draft, index, first)
        )
        if isinstance(other, Refusal):
            return other
        route = other
    return worth_it(draft, index, route, stage)


def _apart(draft: Draft, index: int, scale: Field, shift: Field) -> Route | Refusal:
    """Move the scale backward and the shift forward."""
    gauge = _Gauge(draft, index)
    trail = Trail()
    found = gauge.backward(index, draft.affines[index].data_input, scale)
    refusal = found if isinstance(found, Refusal) else trail.join(found)
    if refusal is not None:
        return refusal
    return gauge.settled(
        trail, ForwardWalk(draft, Trail(), cancel=gauge.cancel).follow(draft.wiring.outputs[index][0], shift)
    )


def _modest(draft: Draft, index: int, shift: Float64Array) -> bool:
    """Tell whether a shift is of the size of what the batch norm normalises, by its own statistics."""
    mean, variance = draft.view.node(index).constant(3), draft.view.node(index).constant(4)
    if mean is None or variance is None or mean.size != shift.size:
        return False
    with np.errstate(over="ignore"):
        usual = np.abs(mean).reshape(-1) + np.sqrt(np.abs(variance)).reshape(-1)
        return bool(np.all(np.abs(shift).reshape(-1) <= _LARGEST_DETOUR * usual))


def _apart_shift_first(draft: Draft, index: int, scale: Field, shift: Field, *, modest: bool) -> Route | Refusal:
    """Move the scale forward and the shift, which then stands in front of it, backward."""
    gauge = _Gauge(draft, index, modest)
    trail = Trail()
    found = ForwardWalk(draft, Trail()).follow(draft.wiring.outputs[index][0], scale)
    refusal = found if isinstance(found, Refusal) else trail.join(found)
    if refusal is not None:
        return refusal
    return gauge.settled(trail, gauge.backward(index, draft.affines[index].data_input, shift))


@dataclass(slots=True)
class _Gauge:
    """Shifts on their way, and what makes up for them.

    Attributes:
        draft: The graph so far.
        subject: The node of the map.
        detours: Whether values that others read may carry a shift.
        active: The values whose readers are being asked.
    """

    draft: Draft
    subject: int
    detours: bool = True
    active: set[str] = field(default_factory=set)

    def backward(self, index: int, position: int, part: Field) -> Trail | Refusal:
        """Follow a part of a map backward from an input of a node."""
        compensate = self.compensate if self.detours else None
        walk = BackwardWalk(self.draft, Stage(), Trail(), subject=self.subject, compensate=compensate)
        value = self.draft.wiring.reads(index)[position]
        return walk.follow(Onward(value, (index, position), part), 0)

    def compensate(self, onward: Onward, uses: Sequence[Use]) -> Trail | Refusal:
        """Let other readers of a value take the opposite of a shift."""
        value = onward.value
        if value in self.active or len(self.active) >= _DEEPEST:
            return Refusal(Reason.USED_ELSEWHERE, f"{value} is read elsewhere")
        opposite = Field.of(onward.field.scale, -onward.field.shift)
        self.active.add(value)
        found = ForwardWalk(self.draft, Trail(), subject=self.subject, cancel=self.cancel).follow(value, opposite, uses)
        self.active.discard(value)
        return found

    def cancel(self, index: int, shift: Field) -> Trail | Refusal:
        """Let another term of a sum take a shift that one of them lacks.

        Args:
            index: The sum.
            shift: What has to be applied to the sum as it would be.
        """
        node = self.draft.node(index)
        if index in self.draft.affines:
            return Refusal(Reason.NO_RULE, f"{node.name} adds a constant")
        ways = self.draft.rules.carriers[node.op_type].backward(node, 0, shift)
        if isinstance(ways, Refusal):
            return ways
        first: Refusal | None = None
        for way in ways if isinstance(ways, tuple) else (ways,):
            found = self._by(index, way)
            if isinstance(found, Trail) and not found.adds:
                return found
            first = first or (found if isinstance(found, Refusal) else None)
        return first or Refusal(Reason.NO_RULE, f"no term of {node.name} can take a shift")

    def _by(self, index: int, way: Carried) -> Trail | Refusal:
        if len(way.fields) != 1 or way.constants or way.becomes:
            return Refusal(Reason.NO_RULE, "the shift would have to be split")
        ((position, part),) = way.fields.items()
        name = self.draft.wiring.reads(index)[position]
        if name in self.active or self.draft.view.is_constant(name):
            return Refusal(Reason.USED_ELSEWHERE, f"{name} is where the shift comes from")
        return self.backward(index, position, part)

    def settled(self, trail: Trail, found: Trail | Refusal) -> Route | Refusal:
        """Put the two parts together and try them on real weights."""
        if isinstance(found, Refusal):
            return found
        changed = [{*one.path, *one.own, *one.constants} for one in (trail, found)]
        if changed[0] & changed[1] or trail.leaves.keys() & found.leaves.keys():
            return Refusal(Reason.NO_RULE, "its scale and its shift would meet again")
        refusal = trail.join(found)
        if refusal is not None:
            return refusal
        if trail.adds:
            return Refusal(Reason.NO_GAIN, "an Add would take its place")
        steps = settle(self.draft, trail, Side.OUTPUT)
        return steps if isinstance(steps, Refusal) else Route(steps, trail.passed())
