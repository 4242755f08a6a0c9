"""A read-only look at one node of a graph: all that a rule sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

    from bnfold.graph.constants import Constant
    from bnfold.graph.extent import Extent
    from bnfold.graph.shapes import Shape
    from bnfold.graph.view import GraphView

__all__ = ["NodeView"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a rule sees of a node.

    Attributes:
        view: The graph that it stands in.
        index: Its place there.
        proto: The node itself, for reading.
        reads: The names that it reads.
    """

    view: GraphView
    index: int
    proto: NodeProto
    reads: Sequence[str]

    @property
    def op_type(self) -> str:
        """The operation; with its domain in front where that is not the standard one."""
        return self.view.op_types[self.index]

    @property
    def name(self) -> str:
        """Its name, or that of its first output where it has none."""
        return self.proto.name or next((output for output in self.proto.output if output), "")

    @property
    def opset(self) -> int:
        """The version of the standard operator set."""
        return self.view.opset

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its attributes as Python values; lists are tuples, bytes are text."""
        return self.view.attributes(self.index)

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """Return a number attribute: ONNX keeps it as float32, and so it is returned exactly."""
        value = self.attributes.get(name, default)
        return float(np.float32(value)) if isinstance(value, (int, float)) else float(np.float32(default))

    def has_input(self, position: int) -> bool:
        """Whether an optional input is given."""
        return position < len(self.reads) and bool(self.reads[position])

    def is_constant(self, position: int) -> bool:
        """Whether an input is the same in every run, as far as can be told without a copy of it where it is large."""
        return self.has_input(position) and self.view.is_constant(self.reads[position])

    def constant(self, position: int) -> Constant | None:
        """Return an input that is constant, floats as float64."""
        return self.view.constant(self.reads[position]) if self.has_input(position) else None

    def extent(self, position: int) -> Extent | None:
        """Return between which magnitudes the numbers of a constant input lie; None if it is none, or no floats."""
        return self.view.extent(self.reads[position]) if self.has_input(position) else None

    def is_weight(self, position: int) -> bool:
        """Whether an input is constant, or is dequantised from constants."""
        if self.is_constant(position):
            return True
        return self.has_input(position) and bool(self.view.dequantising(self.reads[position]))

    def weight(self, position: int) -> Constant | None:
        """Return an input that is constant, or is dequantised from constants, floats as float64."""
        return self.view.weight(self.reads[position]) if self.has_input(position) else None

    def shape(self, position: int) -> Shape | None:
        """Return the shape of an input."""
        return self.view.shape(self.reads[position]) if self.has_input(position) else None

    def output_shape(self, position: int = 0) -> Shape | None:
        """Return the shape of an output."""
        return self.view.shape(self.proto.output[position])
