"""The graph around batch norms that stay: what their owner has to look at to change that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.graph.shapes import subgraphs
from bnfold.parity.program import called, reads_of
from bnfold.report import BatchNorm, Neighbour, Surroundings

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

__all__ = ["with_surroundings"]

_STEPS = 2
"""Edges that are followed in either direction."""
_BESIDE = 3
"""Nodes that are shown of one step; the others are counted."""
_MOST = 100
"""Batch norms whose surroundings are looked at: nobody reads more."""


def with_surroundings(model: ModelProto, batch_norms: Sequence[BatchNorm]) -> tuple[BatchNorm, ...]:
    """Return the batch norms, those that stay with the graph around them.

    Args:
        model: The unfolded model.
        batch_norms: What became of them.
    """
    staying = [row.output for row in batch_norms if row.outcome != "folded"][:_MOST]
    found = dict(_found(model, frozenset(staying)))
    return tuple(replace(row, around=found.get(row.output)) for row in batch_norms)


def _found(model: ModelProto, outputs: frozenset[str]) -> Iterator[tuple[str, Surroundings]]:
    for graph in _graphs(model):
        here = {name for node in graph.node for name in node.output[:1] if name in outputs}
        if here:
            index = _Index(graph)
            for name in here:
                yield name, index.around(name)


def _graphs(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    pending: list[GraphProto] = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        pending.extend(body for _place, body in subgraphs(graph))
    yield from model.functions


class _Index:
    """Who computes and who reads the values of one graph; constants are not seen."""

    def __init__(self, graph: GraphProto | FunctionProto) -> None:
        self._nodes: list[NodeProto] = list(graph.node)
        ends = [(value if isinstance(value, str) else value.name) for value in graph.input]
        constants = {tensor.name for tensor in getattr(graph, "initializer", ())}
        self._inputs = [name for name in ends if name not in constants]
        self._outputs = {value if isinstance(value, str) else value.name for value in graph.output}
        self._producers = {name: number for number, node in enumerate(self._nodes) for name in node.output if name}
        self._readers: dict[str, list[int]] = {}
        for number, node in enumerate(self._nodes):
            for name in dict.fromkeys(reads_of(node)):
                self._readers.setdefault(name, []).append(number)

    def around(self, output: str) -> Surroundings:
        """Return what stands around the node that computes a value, a few nodes a step."""
        start = self._producers[output]
        steps: dict[int | str, int] = {start: 0}
        more = 0
        for direction in (-1, 1):
            reached: list[int | str] = [start]
            for step in range(1, _STEPS + 1):
                near = self._next(reached, steps, direction)
                more += max(0, len(near) - _BESIDE)
                reached = near[:_BESIDE]
                steps.update(dict.fromkeys(reached, direction * step))
        # Who else reads what the batch norm reads, and what else its readers read: often the reason why it stays.
        beside = self._next([place for place, step in steps.items() if step == -1], steps, 1)
        beside += self._next([place for place, step in steps.items() if step == 1], steps, -1)
        beside = list(dict.fromkeys(beside))
        more += max(0, len(beside) - _BESIDE + 1)
        steps.update(dict.fromkeys(beside[: _BESIDE - 1], 0))
        places = {place: number for number, place in enumerate(steps)}
        edges = dict.fromkeys(
            (places[place], places[other]) for place in steps for other in self._targets(place) if other in places
        )
        return Surroundings(
            nodes=tuple(self._neighbour(place, step) for place, step in steps.items()),
            edges=tuple(edges),
            more=more,
        )

    def _next(self, reached: Sequence[int | str], known: Mapping[int | str, int], direction: int) -> list[int | str]:
        """Return what is one edge further and not known yet."""
        follow = self._sources if direction < 0 else self._targets
        return list(dict.fromkeys(other for place in reached for other in follow(place) if other not in known))

    def _sources(self, place: int | str) -> Iterator[int | str]:
        if isinstance(place, str):
            return
        for name in dict.fromkeys(reads_of(self._nodes[place])):
            if name in self._producers:
                node = self._producers[name]
                if self._nodes[node].op_type != "Constant":
                    yield node
            elif name in self._inputs:
                yield f"input {name}"

    def _targets(self, place: int | str) -> Iterator[int | str]:
        if isinstance(place, str):
            kind, _space, name = place.partition(" ")
            yield from self._readers.get(name, ()) if kind == "input" else ()
            return
        for name in self._nodes[place].output:
            yield from self._readers.get(name, ())
            if name in self._outputs:
                yield f"output {name}"

    def _neighbour(self, place: int | str, step: int) -> Neighbour:
        if isinstance(place, str):
            kind, _space, name = place.partition(" ")
            return Neighbour(name, kind, step)
        node = self._nodes[place]
        return Neighbour(called(node), node.op_type, step)
