"""What a walk has found: who takes in which part of a map, and which constants change on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.fold.quantised import scale_step
from bnfold.fold.step import CONSTANT_RULE, FACTOR_RULE, SHIFT_RULE, Step
from bnfold.fold.storable import storable, storable_constants
from bnfold.rules import Absorber, Reason, Refusal, Side

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft

__all__ = ["Leaf", "Route", "Trail", "settle"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A layer that a map has reached.

    Attributes:
        absorber: The rule by which it takes it in.
        field: The map, over the axes of the value on that side.
        at: The input that it comes by; None on the output side.
    """

    absorber: Absorber
    field: Field
    at: int | None

    def joined_to(self, first: Leaf) -> Leaf:
        """Return the whole that a part, which came later, is with the part that came first.

        Behind a layer the later part acts on what the first has made; in front of it, the first acts on the later.
        """
        whole = self.field.after(first.field) if self.at is None else first.field.after(self.field)
        return Leaf(self.absorber, whole, self.at)


@dataclass(frozen=True, slots=True)
class Route:
    """Where an affine map can go.

    Attributes:
        steps: The layers that take it in, and the nodes whose constants change.
        path: The nodes that it passes through unchanged.
        rest: The shift that stays behind as an Add in the place of the map; None where nothing stays.
    """

    steps: tuple[Step, ...]
    path: tuple[int, ...]
    rest: Field | None = None


@dataclass(slots=True)
class Trail:
    """A walk's findings, of which several can be put together.

    Attributes:
        leaves: The layers at its ends, by index and side.
        own: What is applied to the maps of constant Adds and Muls, by index.
        constants: New constants of carriers, by index and input.
        becomes: What carriers turn into, by index.
        path: Nodes that it went through, in order.
        adds: How many layers without a bias would get a new Add.
    """

    leaves: dict[tuple[int, Side], Leaf] = field(default_factory=dict)
    own: dict[int, Field] = field(default_factory=dict)
    constants: dict[int, Mapping[int, Float64Array]] = field(default_factory=dict)
    becomes: dict[int, str] = field(default_factory=dict)
    path: dict[int, None] = field(default_factory=dict)
    adds: int = 0

    def passed(self) -> tuple[int, ...]:
        """Return the nodes that it went through and that are not changed themselves."""
        return tuple(index for index in self.path if index not in self.own and index not in self.constants)

    def take_leaf(self, index: int, leaf: Leaf) -> Refusal | None:
        """Note that a layer takes in a map, behind whatever it took in before."""
        place = (index, leaf.absorber.side)
        first = self.leaves.get(place)
        if first is not None and (first.at != leaf.at or first.absorber is not leaf.absorber):
            return Refusal(Reason.NO_RULE, "it reaches a layer by two inputs")
        self.leaves[place] = leaf if first is None else leaf.joined_to(first)
        return None

    def join(self, later: Trail, *, again: bool = False) -> Refusal | None:
        """Take over what another walk found.

        Args:
            later: What was found.
            again: Whether the other walk started from the constants that this one found.
        """
        for (index, _side), leaf in later.leaves.items():
            refusal = self.take_leaf(index, leaf)
            if refusal is not None:
                return refusal
        for index, applied in later.own.items():
            self.own[index] = applied.after(self.own[index]) if index in self.own else applied
        for index, constants in later.constants.items():
            if index in self.constants and not again:
                return Refusal(Reason.NO_RULE, "it reaches the constants of a node twice")
            # What a node has turned into has none of the constants that it had before.
            earlier = {} if index in later.becomes else self.constants.get(index, {})
            self.constants[index] = {**earlier, **constants}
        self.becomes |= later.becomes
        self.path |= later.path
        self.adds += later.adds
        return None


def settle(draft: Draft, trail: Trail, side: Side) -> tuple[Step, ...] | Refusal:
    """Try on real weights what a walk found, and return it as steps.

    Args:
        draft: The graph so far.
        trail: What was found.
        side: The side of the layers on which the map stood.
    """
    steps: list[Step] = []
    for (index, _side), leaf in trail.leaves.items():
        step = draft.absorb(index, leaf.absorber, leaf.field, at=leaf.at)
        if isinstance(step, Refusal):
            return step
        steps.append(step)
        scales = scale_step(draft, step)
        if isinstance(scales, Refusal):
            return scales
        if scales is not None and any(other.index == scales.index for other in steps):
            return Refusal(Reason.NO_RULE, f"it reaches the quantised weights of {step.node} twice")
        steps += [scales] if scales is not None else []
    for index, applied in trail.own.items():
        own = applied.after(draft.affines[index].field)
        rule = SHIFT_RULE
        if draft.is_shift(index):
            own = own.shift_only()
        else:
            own, rule = own.scale_only(), FACTOR_RULE
        refusal = storable(draft, index, own)
        if refusal is not None:
            return refusal
        steps.append(Step(draft.name(index), draft.op_type(index), rule, side, index, own=own))
    for index in dict.fromkeys((*trail.constants, *trail.becomes)):
        constants = trail.constants.get(index, {})
        becomes = trail.becomes.get(index, "")
        refusal = storable_constants(draft, index, constants, becomes)
        if refusal is not None:
            return refusal
        name, op_type = draft.name(index), draft.op_type(index)
        steps.append(Step(name, op_type, CONSTANT_RULE, side, index, constants=constants, becomes=becomes))
    return tuple(steps)
