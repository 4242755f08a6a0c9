"""One layer's part of a fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bnfold.affine import Field, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.rules import Side
from bnfold.rules.chains import Block

__all__ = ["CONSTANT_RULE", "FACTOR_RULE", "SHIFT_RULE", "Branch", "Chain", "Step"]

SHIFT_RULE = "add-output"
"""The rule by which a constant Add takes a shift in and lets the scale pass: s·(x + c) + o = s·x + (s·c + o)."""

FACTOR_RULE = "mul-constant"
"""The rule by which a constant Mul takes a scale in: s·(c·x) = (s·c)·x."""

CONSTANT_RULE = "constant"
"""The rule by which a constant that a carrier reads becomes another."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A parallel branch that goes into the convolution beside it.

    Attributes:
        node: The branch's last node; None where the branch is the value itself.
        pool: The average pooling in front of it, where the branch is a map behind one.
        total: The sum that loses an input.
        position: Which of its inputs.
        stays: Which other input takes the sum's place, where only that is left; None where more are left.
        renames: Whether that other input takes over the name of the sum.
        sign: With which sign the branch counts.
        turns: Whether the convolution changes its own sign then, because it is what was taken away.
    """

    node: int | None
    pool: int | None
    total: int
    position: int
    stays: int | None
    renames: bool
    sign: float
    turns: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A layer that goes into the one behind it, or in front of it.

    Attributes:
        layer: The layer that goes.
        behind: Whether it stands behind the one that takes it in.
        most: How many weights the two have.
        block: How large they are as one; None before that is known.
    """

    layer: int
    behind: bool
    most: int
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One layer that takes a map in, or a node on the way whose constants change with it.

    Attributes:
        node: The layer's name.
        op_type: Its operation.
        rule: The id of the rule.
        side: On which side of the layer the map stood.
        index: The layer's place among the graph's nodes.
        affine: What a linear layer takes in; None for all others.
        own: The new map of a constant Add, Sub or Mul; None for all others.
        constants: New constants of a carrier, by input.
        becomes: The operation that a carrier turns into; empty where it stays what it is.
        branch: The branch beside it that a convolution takes in; None for all others.
        chain: The layer in front of it or behind it that a layer takes in; None for all others.
    """

    node: str
    op_type: str
    rule: str
    side: Side
    index: int
    affine: PerChannelAffine | None = None
    own: Field | None = None
    constants: Mapping[int, Float64Array] = field(default_factory=dict)
    becomes: str = ""
    branch: Branch | None = None
    chain: Chain | None = None
