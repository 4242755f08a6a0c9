"""A node as a rule sees it while its graph changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bnfold.affine.per_channel import Float64Array
from bnfold.graph.extent import Extent, extent
from bnfold.graph.view import NodeView

if TYPE_CHECKING:
    from bnfold.graph.constants import Constant
    from bnfold.graph.shapes import Shape

__all__ = ["ChangedNode"]


@dataclass(frozen=True, slots=True)
class ChangedNode(NodeView):
    """A node some of whose constants are not what they are in the model any more.

    Attributes:
        constants: The new ones, by input.
        now: Its operation.
    """

    constants: Mapping[int, Float64Array] = field(default_factory=dict)
    now: str = ""

    @property
    def op_type(self) -> str:
        """What the node has turned into."""
        return self.now

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its attributes; a node that has turned into something else has none."""
        return {} if self.now != self.proto.op_type else self.view.attributes(self.index)

    def has_input(self, position: int) -> bool:
        """Whether an optional input is given."""
        return position in self.constants or NodeView.has_input(self, position)

    def is_constant(self, position: int) -> bool:
        """Whether an input is the same in every run."""
        return position in self.constants or NodeView.is_constant(self, position)

    def constant(self, position: int) -> Constant | None:
        """Return an input that is constant, floats as float64."""
        changed = self.constants.get(position)
        return NodeView.constant(self, position) if changed is None else changed

    def extent(self, position: int) -> Extent | None:
        """Return between which magnitudes the numbers of a constant input lie."""
        changed = self.constants.get(position)
        return NodeView.extent(self, position) if changed is None else extent(changed)

    def shape(self, position: int) -> Shape | None:
        """Return the shape of an input."""
        changed = self.constants.get(position)
        return NodeView.shape(self, position) if changed is None else changed.shape
