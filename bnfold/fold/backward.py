"""Follow an affine map backward, to the layers whose outputs it changes.

A map ``s·x + o`` travels as two: first its scale, through every branch in front, then its shift, along any one path
that has a place for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Field
from bnfold.fold.constants import rewritten
from bnfold.fold.patterns import belongs_to_function
from bnfold.fold.quantised import scale_step
from bnfold.fold.stage import Stage, worth_it
from bnfold.fold.step import Step
from bnfold.fold.storable import storable_shift
from bnfold.fold.trail import Leaf, Route, Trail, settle
from bnfold.rules import BATCH_NORM, Carried, Reason, Refusal, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bnfold.fold.draft import Draft
    from bnfold.graph.wiring import Use

__all__ = ["BackwardWalk", "Onward", "toward_producer"]

_MOST_NODES = 256
"""No map is followed through more nodes than this."""

_MOST_BLIND = 8
"""Of more readers than this, none is asked whether it looks away."""

_DEEPEST = 64
"""No more forks than this are followed one inside another."""


@dataclass(frozen=True, slots=True)
class Onward:
    """A value that has to take a map, who asks for it, and who else asks for the same one."""

    value: str
    use: Use
    field: Field
    also: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True)
class _Option:
    """One way past a node: what it changes there, and what its inputs have to take."""

    trail: Trail
    onward: tuple[Onward, ...] = ()


def toward_producer(draft: Draft, index: int, stage: Stage) -> Route | Refusal:
    """Follow a map backward.

    Every value on the way must be read by nothing but the way itself.

    Args:
        draft: The graph so far.
        index: The node of the map.
        stage: What the fold may leave behind.
    """
    affine = draft.affines[index]
    walk = BackwardWalk(draft, stage, Trail(), bool(affine.assumed))
    value, use = draft.wiring.reads(index)[affine.data_input], (index, affine.data_input)
    if not stage.scale_only:
        steps = _into_neighbour(walk, Onward(value, use, affine.field))
        if isinstance(steps, tuple):
            return worth_it(draft, index, Route(steps, tuple(walk.trail.path)), stage)
    scale, shift = affine.field.scale_only(), affine.field.shift_only()
    if stage.scale_only and not (draft.op_type(index) == BATCH_NORM and scale.has_scale and shift.has_shift):
        return Refusal(Reason.NO_GAIN, f"{draft.name(index)} is no more than an Add")
    parts = [part for part, there in ((scale, scale.has_scale), (shift, shift.has_shift)) if there]
    if stage.scale_only:
        parts = [scale]
    for part in parts or [scale]:
        found = walk.follow(Onward(value, use, part), 0)
        refusal = found if isinstance(found, Refusal) else walk.trail.join(found, again=True)
        if refusal is not None:
            return refusal
    steps = settle(draft, walk.trail, Side.OUTPUT)
    if isinstance(steps, Refusal):
        return steps
    rest = None
    if stage.scale_only:
        refusal = storable_shift(draft, index, shift)
        if refusal is not None:
            return refusal
        rest = shift
    return worth_it(draft, index, Route(steps, walk.trail.passed(), rest), stage)


def _into_neighbour(walk: BackwardWalk, onward: Onward) -> tuple[Step, ...] | Refusal | None:
    """Let the layer right in front take in a whole map, as most do, without taking the map apart."""
    draft = walk.draft
    producer = draft.wiring.producers.get(onward.value)
    if producer is None or producer in draft.affines or draft.wiring.outputs[producer][0] != onward.value:
        return None
    absorber = draft.rules.absorbers.get((draft.op_type(producer), Side.OUTPUT))
    if absorber is None:
        return None
    refusal = walk.in_the_way(onward, walk.trail)
    if refusal is not None:
        return refusal
    step = draft.absorb(producer, absorber, onward.field)
    if isinstance(step, Refusal):
        return step
    scales = scale_step(draft, step)
    if isinstance(scales, Refusal):
        return scales
    return (step,) if scales is None else (step, scales)


@dataclass(slots=True)
class BackwardWalk:
    """One map on its way.

    Attributes:
        draft: The graph so far.
        stage: What the fold may leave behind.
        trail: What the part that went first has found.
        assumed: Whether the map itself might enlarge a value.
        seen: How many nodes were visited.
        subject: The node of the map, which no other part of it may go into.
        compensate: What may let other readers of a value on the way take the opposite; None where they may not.
    """

    draft: Draft
    stage: Stage
    trail: Trail
    assumed: bool = False
    seen: int = 0
    subject: int | None = None
    compensate: Callable[[Onward, Sequence[Use]], Trail | Refusal] | None = None

    def follow(self, onward: Onward, depth: int) -> Trail | Refusal:
        """Follow one part of the map from a value to all its ends, by the cheapest of all ways."""
        trail = Trail()
        while True:
            self.seen += 1
            if self.seen > _MOST_NODES or depth > _DEEPEST:
                return Refusal(Reason.NO_RULE, "the way to the next layer is too long")
            options = self._options(onward, trail)
            if isinstance(options, Refusal):
                return options
            if len(options) == 1 and len(options[0].onward) == 1:
                refusal = trail.join(options[0].trail)
                if refusal is not None:
                    return refusal
                (onward,) = options[0].onward
                continue
            best = self._best(options, depth)
            if isinstance(best, Refusal):
                return best
            return trail.join(best) or trail

    def _best(self, options: tuple[_Option, ...], depth: int) -> Trail | Refusal:
        best: Trail | None = None
        first: Refusal | None = None
        for option in options:
            found = self._whole(option, depth)
            if isinstance(found, Refusal):
                first = first or found
            elif best is None or found.adds < best.adds:
                best = found
            if best is not None and not best.adds:
                break
        return best or first or Refusal(Reason.NO_RULE, "there is no way past it")

    def _whole(self, option: _Option, depth: int) -> Trail | Refusal:
        trail = option.trail
        for onward in option.onward:
            found = self.follow(onward, depth + 1)
            refusal = found if isinstance(found, Refusal) else trail.join(found)
            if refusal is not None:
                return refusal
        return trail

    def _options(self, onward: Onward, trail: Trail) -> tuple[_Option, ...] | Refusal:
        """Say what a value's producer makes of a map that its output has to take."""
        draft, wiring, field = self.draft, self.draft.wiring, onward.field
        value = onward.value
        producer = wiring.producers.get(value)
        if producer is None or producer == self.subject:
            return Refusal(Reason.EDGE, f"nothing computes {value} but the graph's input")
        own = draft.affines.get(producer)
        op_type = self.trail.becomes.get(producer) or draft.op_type(producer)
        absorber = draft.rules.absorbers.get((op_type, Side.OUTPUT))
        carrier = draft.rules.carriers.get(op_type)
        position = wiring.outputs[producer].index(value)
        if (position and carrier is None) or (own is None and absorber is None and carrier is None):
            return Refusal(Reason.NO_RULE, f"its input comes from {op_type} {draft.name(producer)}")
        refusal = self.in_the_way(onward, trail)
        if refusal is not None:
            return refusal
        here = Trail()
        if own is not None and belongs_to_function(draft, producer):
            return Refusal(Reason.NO_GAIN, f"{draft.name(producer)} ends a function that runtimes compute in one go")
        if own is not None and (draft.is_shift(producer) or draft.is_factor(producer)):
            here.own[producer] = field
            ends = field.has_shift if draft.is_shift(producer) else not field.has_shift
            if ends:
                return (_Option(here),)
        if absorber is not None:
            affine = draft.reach(producer, absorber, field, None)
            if not isinstance(affine, Refusal):
                here.take_leaf(producer, Leaf(absorber, field, None))
                here.adds = int(field.has_shift and not draft.has_room(producer, absorber))
                return (_Option(here),)
            if carrier is None:
                return affine
        if own is not None and (carrier is None or draft.is_shift(producer) or not own.field.has_shift):
            return self._past_own(producer, field, here)
        assert carrier is not None
        node = draft.node(producer, self.trail.constants.get(producer), self.trail.becomes.get(producer, ""))
        carried = carrier.backward(node, position, field)
        if isinstance(carried, Refusal):
            return carried
        computed = sum(1 for name in wiring.reads(producer) if name and not draft.view.is_constant(name))
        if self.assumed and computed > 1:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the constant may enlarge what {node.name} computes")
        return self._past_carrier(producer, carried if isinstance(carried, tuple) else (carried,))

    def _past_own(self, index: int, field: Field, here: Trail) -> tuple[_Option, ...] | Refusal:
        """Let a map pass a constant Add (the scale) or a constant factor (the shift, divided by it)."""
        draft, own = self.draft, self.draft.affines[index]
        if own.assumed:
            return Refusal(Reason.UNKNOWN_SHAPE, f"{draft.name(index)} may enlarge its value")
        if index in draft.fixed:
            return Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(index)} is to stay as it is")
        before = field
        if field.has_shift:
            scaled = self.trail.own[index].after(own.field) if index in self.trail.own else own.field
            with np.errstate(all="ignore"):
                shift = np.asarray(field.shift / scaled.scale)
            if not np.isfinite(shift).all():
                return Refusal(Reason.NO_RULE, f"{draft.name(index)} multiplies by zero")
            here.own.pop(index, None)
            before = Field.of(np.ones_like(shift), shift)
        elif own.field.has_shift and index not in here.own:
            return Refusal(Reason.NO_RULE, f"its input comes from {draft.op_type(index)} {draft.name(index)}")
        here.path[index] = None
        return (_Option(here, (self._onward(index, own.data_input, before),)),)

    def _past_carrier(self, index: int, ways: tuple[Carried, ...]) -> tuple[_Option, ...] | Refusal:
        """Turn a carrier's ways into options; constants among its inputs are rewritten on the spot."""
        draft = self.draft
        node = draft.node(index, self.trail.constants.get(index), self.trail.becomes.get(index, ""))
        options: list[_Option] = []
        first: Refusal | None = None
        for carried in ways:
            if carried.becomes and not self.stage.max_form:
                first = first or Refusal(Reason.NO_RULE, f"{draft.op_type(index)} {draft.name(index)} bends the shift")
                continue
            here = Trail(path={index: None})
            constants = dict(carried.constants)
            onward = []
            refusal = None
            for position, field in carried.fields.items():
                if node.is_constant(position):
                    changed = rewritten(node, position, field)
                    if isinstance(changed, Refusal):
                        refusal = changed
                        break
                    constants[position] = changed
                elif not node.has_input(position):
                    refusal = Refusal(Reason.NO_RULE, f"{node.name} lacks input {position}")
                    break
                else:
                    onward.append(self._onward(index, position, field))
            if refusal is not None:
                first = first or refusal
                continue
            if constants or carried.becomes:
                here.constants[index] = constants
            if carried.becomes:
                here.becomes[index] = carried.becomes
            options.append(_Option(here, _together(onward)))
        if options:
            return tuple(options)
        return first or Refusal(Reason.NO_RULE, f"its input comes from {draft.op_type(index)} {draft.name(index)}")

    def _onward(self, index: int, position: int, field: Field) -> Onward:
        return Onward(self.draft.wiring.reads(index)[position], (index, position), field)

    def in_the_way(self, onward: Onward, trail: Trail) -> Refusal | None:
        """Say what else reads a value that would change its meaning."""
        draft, wiring, value = self.draft, self.draft.wiring, onward.value
        if value in wiring.model_outputs:
            return Refusal(Reason.MODEL_OUTPUT, f"{value} is an output of the graph")
        if value in wiring.captured:
            return Refusal(Reason.USED_IN_SUBGRAPH, f"{value} is used in a body")
        uses = wiring.uses_of(value)
        others = [use for use in uses if use != onward.use and use not in onward.also]
        seeing = others if len(others) > _MOST_BLIND else [use for use in others if not self._is_blind(use, onward)]
        if seeing and (self.compensate is None or onward.field.has_scale):
            readers = ", ".join(sorted({draft.name(node) for node, _position in uses}))
            return Refusal(Reason.USED_ELSEWHERE, f"{value} is read by {readers}")
        if seeing:
            assert self.compensate is not None
            found = self.compensate(onward, seeing)
            refusal = found if isinstance(found, Refusal) else trail.join(found)
            if refusal is not None:
                return refusal
        for node, _position in others:
            trail.path[node] = None
        return None

    def _is_blind(self, use: Use, onward: Onward) -> bool:
        """Tell whether a reader picks only such elements as the map leaves alone."""
        node, position = use
        carrier = self.draft.rules.carriers.get(self.draft.op_type(node))
        if carrier is None or node == onward.use[0] or node in self.draft.affines:
            return False
        carried = carrier.forward(self.draft.node(node), {position: onward.field})
        if isinstance(carried, Refusal) or carried.constants or carried.becomes:
            return False
        return not any(field.has_scale or field.has_shift for field in carried.fields.values())


def _together(onward: Sequence[Onward]) -> tuple[Onward, ...]:
    """Let a value that a node reads several times take a map once, where it is the same at each of its places."""
    found: dict[str, Onward] = {}
    for each in onward:
        first = found.get(each.value)
        if first is None:
            found[each.value] = each
            continue
        if not (
            np.array_equal(first.field.scale, each.field.scale) and np.array_equal(first.field.shift, each.field.shift)
        ):
            return tuple(onward)
        found[each.value] = replace(first, also=(*first.also, each.use))
    return tuple(found.values())
