"""Loops that take a value apart: what each step multiplies its part by, all parts are multiplied by at once.

A recurrent layer that has no ONNX operation arrives as a loop: ``x[t] · W`` in every turn. That is row ``t`` of
``x · W``, computed once in front of the loop, where a batch norm that stands there can see the weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

__all__ = ["multiply_steps_at_once"]

_SAME = frozenset({"Identity", "Transpose"})


def multiply_steps_at_once(model: onnx.ModelProto) -> None:
    """Move multiplications by a weight in front of a loop that takes its input from behind a batch norm, part by part.

    Args:
        model: Changed in place. The new nodes stand right in front of their loops.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    added: dict[int, list[onnx.NodeProto]] = {}
    for at, node in enumerate(graph.node):
        if node.op_type == "Loop":
            (body,) = [attribute.g for attribute in node.attribute if attribute.name == "body"]
            added[at] = _moved(body, _outside(node, body), producers, weights)
    if not any(added.values()):
        return
    nodes = [one for at, node in enumerate(graph.node) for one in [*added.get(at, []), node]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _outside(loop: onnx.NodeProto, body: onnx.GraphProto) -> Mapping[str, str]:
    """Return what a loop's body calls the values that no turn changes, with their names in front of it."""
    carried = zip(loop.input[2:], body.input[2:], body.output[1:], strict=False)
    return {inner.name: outer for outer, inner, after in carried if inner.name == after.name}


@dataclass(frozen=True, slots=True)
class _Step:
    taken: onnx.NodeProto
    products: tuple[onnx.NodeProto, ...]


def _moved(
    body: onnx.GraphProto, outside: Mapping[str, str], producers: Mapping[str, onnx.NodeProto], weights: set[str]
) -> list[onnx.NodeProto]:
    found: list[onnx.NodeProto] = []
    changing = _inside(body) - set(outside)
    for step in list(_steps(body)):
        source = step.taken.input[0]
        factors = [outside.get(name, name) for product in step.products if (name := product.input[1]) not in changing]
        if len(factors) < len(step.products):
            continue
        if not _is_behind_batch_norm(source, producers) or not set(factors) <= weights:
            continue
        for product, factor in zip(step.products, factors, strict=True):
            every = f"{product.output[0]}/steps"
            found.append(onnx.helper.make_node("MatMul", [source, factor], [every], name=product.name))
            product.op_type = "Gather"
            product.input[:] = [every, step.taken.input[1]]
            product.attribute.append(onnx.helper.make_attribute("axis", 0))
            product.name = f"{product.name}/step"
        body.node.remove(step.taken)
    return found


def _steps(body: onnx.GraphProto) -> Iterator[_Step]:
    """Yield what takes a part along the first axis of a value from outside, and is only multiplied from the right."""
    inside = _inside(body)
    ends = {value.name for value in body.output}
    for node in body.node:
        if node.op_type != "Gather" or node.input[0] in inside or node.output[0] in ends:
            continue
        if any(attribute.name == "axis" and attribute.i for attribute in node.attribute):
            continue
        readers = [other for other in body.node if node.output[0] in _read(other)]
        if readers and all(_multiplies(reader, node.output[0]) for reader in readers):
            yield _Step(node, tuple(readers))


def _inside(body: onnx.GraphProto) -> set[str]:
    """Return the names of all values that a body itself holds."""
    held = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    return held | {name for node in body.node for name in node.output}


def _read(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, and the bodies in it."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names |= {value.name for value in inner.output}
            for one in inner.node:
                names |= _read(one)
    return names


def _multiplies(node: onnx.NodeProto, name: str) -> bool:
    return node.op_type == "MatMul" and node.input[0] == name and node.input[1] != name


def _is_behind_batch_norm(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Return whether a value is that of a batch norm, and has three axes: the first is no axis that is multiplied."""
    rank = 0
    while (node := producers.get(name)) is not None and node.op_type in _SAME:
        for attribute in node.attribute:
            rank = len(attribute.ints) if attribute.name == "perm" else rank
        name = node.input[0]
    return node is not None and node.op_type == "BatchNormalization" and rank >= 3
