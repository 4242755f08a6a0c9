"""What a rule is: a frozen value with its algebra in one line, a pure function, and its own examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bnfold.affine import Field, Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["Absorber", "Affine", "Carried", "Carrier", "Direction", "Example", "Form", "Side", "Source"]


class Side(StrEnum):
    """Where a linear node takes in an affine map: from its input, or from its output."""

    INPUT = "input"
    OUTPUT = "output"


class Direction(StrEnum):
    """Which way an affine map travels: backward to its producers, forward to its consumers."""

    BACKWARD = "backward"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Example:
    """A small graph that shows a rule at work, or refusing.

    Attributes:
        title: What it shows.
        graph: The graph in ONNX text. Initializers without values are drawn at random; those whose name begins with
            ``var`` are positive.
        refused: The reason with which the rule keeps the affine; None where it folds.
        stays: How many other affines stay in it, by algebra.
        opset: The version of the standard operator set that it is written in.
    """

    title: str
    graph: str
    refused: Reason | None = None
    stays: int = 0
    opset: int = 20


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """What a source reads from a node: ``output = field(input)``.

    Attributes:
        data_input: Which input the map applies to.
        field: The map, over the axes of that input.
        assumed: Axes along which the constant has more than one element while the value's dimension is not known: if
            that dimension were 1, the node would enlarge the value.
    """

    data_input: int
    field: Field
    assumed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Source:
    """A node that is an affine map.

    Attributes:
        op_type: The operation.
        algebra: The map, in one line.
        read: Node facts to an affine, or a refusal; None where the node is something else (both operands computed).
        examples: Folding ones and refusing ones.
        read_many: The same for many nodes at once, in their order, where that takes less time; None where it does not.
    """

    op_type: str
    algebra: str
    read: Callable[[NodeView], Affine | Refusal | None]
    examples: tuple[Example, ...] = ()
    read_many: Callable[[Sequence[NodeView]], Sequence[Affine | Refusal | None]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What becomes of a map on the other side of a node.

    Attributes:
        fields: The map that each input (travelling backward) or output (forward) takes, by position; with as many axes
            as that value. A position that is left out takes nothing. A constant input that is named here is rewritten.
        constants: New values of constant inputs that change in another way, by position, in float64. A position that
            the node does not have yet is one that ``becomes`` gives it.
        becomes: The operation that the node turns into where it can keep its own no longer, as ``Relu`` into ``Max``:
            one that reads the same data input and the ``constants``, and has no attributes. A ``Clip`` whose bounds
            vary is written as a ``Max`` and a ``Min``.
    """

    fields: Mapping[int, Field]
    constants: Mapping[int, Float64Array] = field(default_factory=dict)
    becomes: str = ""


Back = Callable[[NodeView, int, Field], Carried | tuple[Carried, ...] | Refusal]
Forth = Callable[[NodeView, Mapping[int, Field]], Carried | Refusal]


@dataclass(frozen=True, slots=True)
class Carrier:
    """A node through which an affine map may travel.

    A map travels as two: its pure scale (``shift`` zero) and its pure shift (``scale`` one), each by itself. A carrier
    is never asked about both at once.

    Attributes:
        op_type: The operation.
        algebra: What becomes of the map, in one line.
        backward: ``(node, position, field)``: the field stands behind the output at ``position``, whose other readers
            are none. Returns what every input takes in its place. A shift often may go into any one of several inputs:
            then a tuple of alternatives.
        forward: ``(node, fields)``: for each input position that carries one, the field that has to be applied to what
            the input will hold to get what it held: ``old = field(new)``. Inputs that are left out are unchanged.
            Returns the same for every output that changes.
        examples: Folding ones and refusing ones.
    """

    op_type: str
    algebra: str
    backward: Back
    forward: Forth
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """Where the parts of a linear node stand among its inputs.

    Attributes:
        data: Input of the activation.
        weight: Input of the constant operand.
        bias: Input of the bias; None where the op has none and a shift takes an Add behind it.
        axis: Axis of the value on the absorbing side that the weight's channels run along.
        channels: How many channels there are along it.
        output_axis: Axis of the *weight* that belongs to one output channel, for judging its rounding.
        fan_in: How many products an output element sums up at most.
        axes: Every axis of the value that the weight varies along, ``axis`` last, where the rule knows of several: the
            map that it takes in is then laid out over them. None where it knows of one. Empty where there is none, so
            that only a map that is the same everywhere can be taken in.
        sizes: The weight's size along each of ``axes``.
        rank: How many axes the output has, where a shift takes an Add behind it.
        shifts: Whether the weight takes in a shift too, so that no bias is needed.
    """

    data: int
    weight: int
    bias: int | None
    axis: int
    channels: int
    output_axis: int
    fan_in: int
    axes: tuple[int, ...] | None = None
    sizes: tuple[int, ...] = ()
    rank: int | None = None
    shifts: bool = False

    def affine(self, field: Field, name: str) -> PerChannelAffine | Refusal:
        """Return what the layer would have to take in, as it is laid out over the layer's weights.

        Args:
            field: The map, over the axes of the value on the absorbing side.
            name: The layer's name.
        """
        if self.axes is None:
            along = field.along(self.axis, self.channels)
            if along is not None:
                return along
        axes, sizes = ((self.axis,), (self.channels,)) if self.axes is None else (self.axes, self.sizes)
        beyond = [axis for axis in axes if not -field.rank <= axis < field.rank]
        if beyond:
            return Refusal(Reason.WRONG_AXIS, f"it has {field.rank} axes, and {name} wants axis {beyond[0]}")
        places = [axis % field.rank for axis in axes]
        if any(axis not in places for axis in field.axes()):
            own = f"the channels of {name} run along axes {sorted(places)}"
            if len(places) < 2:
                own = f"the channels of {name} are axis {places[0]}" if places else f"{name} has but one for all of it"
            return Refusal(Reason.WRONG_AXIS, f"it varies along axes {list(field.axes())}; {own}")
        for place, size in zip(places, sizes, strict=True):
            if size < 1 or field.shape[place] not in (1, size):
                detail = f"it has {field.shape[place]} channels, and {name} has {size}"
                return Refusal(Reason.CHANNEL_MISMATCH, detail)
        assert self.axes is not None, "a field along one axis was taken above"
        laid = tuple(field.shape[place] for place in places)
        order = (*places, *(axis for axis in range(field.rank) if axis not in places))
        scale, shift = (part.transpose(order).reshape(-1) for part in (field.scale, field.shift))
        return PerChannelAffine(scale, shift, laid)


@dataclass(frozen=True, slots=True)
class Absorber:
    """A linear node that takes an affine map into its weights.

    Attributes:
        op_type: The operation.
        side: On which side of it the map stands.
        algebra: What becomes of weight and bias, in one line.
        form: Where its parts are, from the node alone; a refusal where it is not of a kind that can absorb.
        absorb: The new linear node, or a refusal. Pure arithmetic on float64 arrays.
        examples: Folding ones and refusing ones.
        new_bias: The new bias, for a rule that multiplies each number of the weight by one of the scales, never
            refuses, and needs no weight to tell the bias: that of the linear node is empty here. None for the others.
    """

    op_type: str
    side: Side
    algebra: str
    form: Callable[[NodeView], Form | Refusal]
    absorb: Callable[[Linear, PerChannelAffine], Linear | Refusal]
    examples: tuple[Example, ...] = ()
    new_bias: Callable[[Linear, PerChannelAffine], Float64Array] | None = None

    @property
    def id(self) -> str:
        """The rule's stable name, for example ``conv-output``."""
        return f"{self.op_type.lower()}-{self.side}"
