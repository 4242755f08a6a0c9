"""Calling a model's inputs and outputs by other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import AttributeProto, GraphProto, ModelProto

__all__ = ["renamed"]


def renamed(model: ModelProto, names: Mapping[str, str]) -> ModelProto:
    """Return a copy of a model in which inputs and outputs have other names; an inner value makes way.

    Args:
        model: Any model; it is not changed.
        names: The new name of every value that gets one, by the old one.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    used = {name for graph in _graphs(copy.graph) for name in _names(graph)}
    table = dict(names)
    for name in sorted(used & set(names.values()) - set(names)):
        free = f"{name}.inner"
        while free in used or free in table.values():
            free += "_"
        table[name] = free
    for graph in _graphs(copy.graph):
        for node in graph.node:
            node.input[:] = [table.get(name, name) for name in node.input]
            node.output[:] = [table.get(name, name) for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = table.get(value.name, value.name)
        for tensor in graph.sparse_initializer:
            tensor.values.name = table.get(tensor.values.name, tensor.values.name)
    return copy


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    pending = [graph]
    while pending:
        found = pending.pop()
        yield found
        for node in found.node:
            for attribute in node.attribute:
                pending.extend([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)


def _names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
