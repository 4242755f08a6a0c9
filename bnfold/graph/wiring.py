"""The wires of a graph alone, in a form that can be changed: a plan tries its changes here, and applying repeats them.

Nodes are numbers: those of the graph keep theirs, new ones get the next. No weight and no attribute is held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bnfold.graph.view import GraphView

__all__ = ["Use", "Wiring"]

Use = tuple[int, int]
"""A node that reads a value, and at which of its inputs."""

_SHAPE_READERS = frozenset({"Shape", "Size"})


@dataclass(slots=True)
class Wiring:
    """Who reads and who writes which value.

    Attributes:
        inputs: For each node the names that it reads; None once it is removed.
        outputs: For each node the names that it writes.
        producers: The node that writes a value.
        uses: The places where a value is read, in order.
        model_outputs: The graph's outputs.
        captured: Values that bodies inside the graph read.
        shape_readers: Nodes that ask only for the shape of what they read.
        taken: Every name that is in use somewhere in the model; shared by the wirings of its graphs.
        inserted: New nodes, by the node that each stands directly behind.
        places: Where new nodes stand, as numbers between those of the graph's nodes.
    """

    inputs: list[list[str] | None]
    outputs: list[list[str]]
    producers: dict[str, int]
    uses: dict[str, list[Use]]
    model_outputs: frozenset[str]
    captured: frozenset[str]
    shape_readers: set[int]
    taken: set[str]
    inserted: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    places: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, view: GraphView, taken: set[str]) -> Wiring:
        """Return the wires of a graph."""
        return cls(
            inputs=[list(reads) for reads in view.reads],
            outputs=[list(writes) for writes in view.writes],
            producers=dict(view.producers),
            uses=defaultdict(list, {name: list(uses) for name, uses in view.consumers.items()}),
            model_outputs=frozenset(view.outputs),
            captured=frozenset(view.captured),
            shape_readers={index for index, op_type in enumerate(view.op_types) if op_type in _SHAPE_READERS},
            taken=taken,
        )

    def reads(self, node: int) -> list[str]:
        """Return the names that a node reads.

        Raises:
            KeyError: If the node was removed.
        """
        names = self.inputs[node]
        if names is None:
            raise KeyError(node)
        return names

    def is_fixed(self, value: str) -> bool:
        """Whether something that cannot be rewired reads the value."""
        return value in self.model_outputs or value in self.captured

    def uses_of(self, value: str) -> Sequence[Use]:
        """Return the places that read what a value holds; asking for its shape is not reading it."""
        return [use for use in self.uses.get(value, ()) if use[0] not in self.shape_readers]

    def rename(self, old: str, new: str) -> None:
        """Let the producer of ``old`` write ``new`` instead, and all that read ``old`` read ``new``."""
        producer = self.producers.pop(old)
        self.outputs[producer] = [new if name == old else name for name in self.outputs[producer]]
        self.producers[new] = producer
        self.reroute(old, new)

    def reroute(self, old: str, new: str) -> None:
        """Let all that read ``old`` read ``new`` instead."""
        for node, position in self.uses.pop(old, []):
            self.reads(node)[position] = new
            self.uses[new].append((node, position))

    def remove(self, node: int) -> None:
        """Remove a node; what it wrote has no producer any more."""
        for position, name in enumerate(self.reads(node)):
            if name:
                self.uses[name].remove((node, position))
        for name in self.outputs[node]:
            if self.producers.get(name) == node:
                del self.producers[name]
        self.inputs[node] = None
        self.outputs[node] = []

    def drop_behind(self, node: int, position: int) -> None:
        """Remove a node whose work its producer does now: the value in front takes the name of the value behind."""
        before, after = self.reads(node)[position], self.outputs[node][0]
        self.remove(node)
        self.rename(before, after)

    def drop_before(self, node: int, position: int) -> None:
        """Remove a node whose work its consumers do now: they read what it read."""
        before, after = self.reads(node)[position], self.outputs[node][0]
        self.remove(node)
        self.reroute(after, before)

    def remove_input(self, node: int, position: int) -> None:
        """Remove one input of a node; those behind it move up."""
        names = self.reads(node)
        for place in range(position, len(names)):
            if names[place]:
                self.uses[names[place]].remove((node, place))
        del names[position]
        for place in range(position, len(names)):
            if names[place]:
                self.uses[names[place]].append((node, place))

    def keep_inputs(self, node: int, count: int) -> None:
        """Let a node read only its first inputs."""
        names = self.reads(node)
        for position in range(len(names) - 1, count - 1, -1):
            if names[position]:
                self.uses[names[position]].remove((node, position))
            del names[position]

    def set_input(self, node: int, position: int, name: str) -> None:
        """Let a node read another constant at an input, which may be one that it does not have yet."""
        names = self.reads(node)
        while len(names) <= position:
            names.append("")
        if names[position]:
            self.uses[names[position]].remove((node, position))
        names[position] = name
        self.uses[name].append((node, position))

    def insert_after(self, node: int, constant: str) -> int:
        """Put a new node with two inputs behind a node's first output, and return its number.

        The new node takes over the name of the value; it reads the value, under a new name, and ``constant``.
        """
        value = self.outputs[node][0]
        inner = self.fresh(f"{value}_unshifted")
        self.outputs[node][0] = inner
        self.producers[inner] = node
        number = len(self.inputs)
        self.inputs.append([inner, constant])
        self.outputs.append([value])
        self.inserted[node].append(number)
        self.places[number] = node + 0.5 ** len(self.inserted[node])
        self.producers[value] = number
        self.uses[inner].append((number, 0))
        self.uses[constant].append((number, 1))
        return number

    def fresh(self, wanted: str) -> str:
        """Return a name that nothing in the model has: the wanted one, or that with a number behind it."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name
