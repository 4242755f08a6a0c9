"""Values that a trained artifact holds by name: a checkpoint's tensors, or the constants of a frozen graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bnfold.frontends.tensorflow.net import Net, Value, attribute, value_of

__all__ = ["Stored", "constants_of"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Values by name, read when they are asked for.

    Attributes:
        shapes: The shape of every value by its name.
        read: Returns the value of a name.
        names: Under which name the value of a variable of the graph is stored, where that is another than its own.
        place: What holds the values, in words.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Value]
    names: Mapping[str, str]
    place: str

    def name_of(self, variable: str) -> str | None:
        """Return the name that a variable's value is stored under; None where it is not stored."""
        name = self.names.get(variable, variable)
        return name if name in self.shapes else None


def constants_of(net: Net) -> Stored:
    """Return the constants of a graph, as a store of values by the names of their nodes."""
    shapes = {
        name: tuple(dimension.size for dimension in attribute(node, "value").tensor.tensor_shape.dim)
        for name, node in net.nodes.items()
        if node.op == "Const"
    }
    return Stored(shapes, lambda name: value_of(net.nodes[name]), {}, "the graph")
