"""What a rule is: a frozen value with its algebra in one line, a pure function, and its own examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from bnfold.affine import Field, Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["Absorber", "Affine", "Carrier", "Direction", "Example", "Form", "Side", "Source"]


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
    """

    title: str
    graph: str
    refused: Reason | None = None
    stays: int = 0


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
    """

    op_type: str
    algebra: str
    read: Callable[[NodeView], Affine | Refusal | None]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Carrier:
    """A node through which an affine map may travel unchanged in kind.

    Attributes:
        op_type: The operation.
        algebra: What becomes of the map, in one line.
        carry: The field on one side to the field on the other, or a refusal.
        examples: Folding ones and refusing ones.
    """

    op_type: str
    algebra: str
    carry: Callable[[NodeView, Field, Direction], Field | Refusal]
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
    """

    data: int
    weight: int
    bias: int | None
    axis: int
    channels: int
    output_axis: int
    fan_in: int


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
    """

    op_type: str
    side: Side
    algebra: str
    form: Callable[[NodeView], Form | Refusal]
    absorb: Callable[[Linear, PerChannelAffine], Linear | Refusal]
    examples: tuple[Example, ...] = ()

    @property
    def id(self) -> str:
        """The rule's stable name, for example ``conv-output``."""
        return f"{self.op_type.lower()}-{self.side}"
