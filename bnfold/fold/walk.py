"""Follow an affine map along the wires until layers take it in, or until something is in the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.affine import Field
from bnfold.fold.draft import SHIFT_RULE, Draft, Step
from bnfold.rules import BATCH_NORM, Direction, Reason, Refusal, Side

__all__ = ["Route", "toward_consumers", "toward_producer"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where an affine map can go.

    Attributes:
        steps: The layers that take it in.
        path: The nodes that it passes through unchanged.
    """

    steps: tuple[Step, ...]
    path: tuple[int, ...]


def toward_producer(draft: Draft, index: int, *, may_add: bool) -> Route | Refusal:
    """Follow a map backward, to the layer whose output it changes.

    Every value on the way must be read by nothing but the way itself.

    Args:
        draft: The graph so far.
        index: The node of the map.
        may_add: Whether a batch norm may leave a new Add behind a layer that has no bias.
    """
    affine = draft.affines[index]
    field, wiring = affine.field, draft.wiring
    value = wiring.reads(index)[affine.data_input]
    steps: list[Step] = []
    path: list[int] = []
    while True:
        refusal = _in_the_way(draft, value, uses_allowed=1)
        producer = wiring.producers.get(value)
        if producer is None:
            return Refusal(Reason.EDGE, f"nothing computes {value} but the graph's input")
        op_type = draft.op_type(producer)
        absorber = draft.rules.absorbers.get((op_type, Side.OUTPUT))
        carrier = draft.rules.carriers.get(op_type)
        shifts = draft.is_shift(producer)
        if wiring.outputs[producer][0] != value or (absorber is None and carrier is None and not shifts):
            return Refusal(Reason.NO_RULE, f"{op_type} {draft.name(producer)} stands behind it")
        if refusal is not None:
            return refusal
        if shifts:
            together = field.after(draft.affines[producer].field)
            shift = Field.of(np.ones_like(together.scale), together.shift)
            steps.append(Step(draft.name(producer), op_type, SHIFT_RULE, Side.OUTPUT, producer, shift=shift))
            field = field.scale_only()
            if not field.has_scale:
                return _worth_it(draft, index, Route(tuple(steps), tuple(path)), may_add=may_add)
            value = wiring.reads(producer)[draft.affines[producer].data_input]
            continue
        if absorber is not None:
            step = draft.absorb(producer, absorber, field)
            if isinstance(step, Refusal):
                return step
            return _worth_it(draft, index, Route((*steps, step), tuple(path)), may_add=may_add)
        assert carrier is not None
        carried = carrier.carry(draft.view.node(producer), field, Direction.BACKWARD)
        if isinstance(carried, Refusal):
            return carried
        path.append(producer)
        field, value = carried, wiring.reads(producer)[0]


def toward_consumers(draft: Draft, index: int, *, may_add: bool) -> Route | Refusal:
    """Follow a map forward, to all the layers that read what it computes; each of them must take it in.

    Args:
        draft: The graph so far.
        index: The node of the map.
        may_add: Whether a batch norm may leave a new Add behind a layer that has no bias.
    """
    affine, wiring = draft.affines[index], draft.wiring
    if affine.assumed:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{draft.name(index)} may enlarge a value whose size is not known")
    steps: list[Step] = []
    path: list[int] = []
    pending = [(wiring.outputs[index][0], affine.field)]
    while pending:
        value, field = pending.pop()
        uses = wiring.uses_of(value)
        if not uses and value not in wiring.captured:
            return Refusal(Reason.EDGE, f"no layer reads {value}")
        refusal = _in_the_way(draft, value, uses_allowed=None)
        if refusal is not None:
            return refusal
        for node, position in uses:
            if sum(1 for other, _position in uses if other == node) > 1:
                return Refusal(Reason.NO_RULE, f"{draft.name(node)} reads {value} twice")
            op_type = draft.op_type(node)
            absorber = draft.rules.absorbers.get((op_type, Side.INPUT))
            carrier = draft.rules.carriers.get(op_type)
            if absorber is not None:
                step = draft.absorb(node, absorber, field, at=position)
                if isinstance(step, Refusal):
                    return step
                steps.append(step)
            elif carrier is not None and position == 0:
                carried = carrier.carry(draft.view.node(node), field, Direction.FORWARD)
                if isinstance(carried, Refusal):
                    return carried
                path.append(node)
                pending.append((wiring.outputs[node][0], carried))
            else:
                return Refusal(Reason.NO_RULE, f"{op_type} {draft.name(node)} stands in front of it")
    return _worth_it(draft, index, Route(tuple(steps), tuple(path)), may_add=may_add)


def _in_the_way(draft: Draft, value: str, uses_allowed: int | None) -> Refusal | None:
    """Say what else reads a value that would change its meaning."""
    wiring = draft.wiring
    if value in wiring.model_outputs:
        return Refusal(Reason.MODEL_OUTPUT, f"{value} is an output of the graph")
    if value in wiring.captured:
        return Refusal(Reason.USED_IN_SUBGRAPH, f"{value} is used in a body")
    uses = wiring.uses_of(value)
    if uses_allowed is not None and len(uses) > uses_allowed:
        readers = ", ".join(sorted({draft.name(node) for node, _position in uses}))
        return Refusal(Reason.USED_ELSEWHERE, f"{value} is read by {readers}")
    return None


def _worth_it(draft: Draft, index: int, route: Route, *, may_add: bool) -> Route | Refusal:
    """Take a route that puts a new Add somewhere only for a batch norm, and only where that is allowed."""
    added = sum(1 for step in route.steps if draft.needs_new_add(step, index))
    if added and not (may_add and draft.op_type(index) == BATCH_NORM):
        return Refusal(Reason.NO_GAIN, f"{added} new Add would take the place of {draft.name(index)}")
    return route
