"""Cutting the piece between some values out of a model, constants included."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

__all__ = ["OpenPiece", "extract"]


@dataclass(frozen=True, slots=True)
class OpenPiece:
    """Why a piece cannot be cut out: in words, with names."""

    detail: str


def extract(
    model: ModelProto,
    *,
    inputs: Collection[str],
    outputs: Collection[str],
    elements: Mapping[str, int],
    scope: tuple[str, ...] = (),
) -> tuple[ModelProto, ...] | OpenPiece:
    """Return what computes ``outputs`` from ``inputs``, as a model of its own.

    What stands in a body of an If, a Loop or a Scan comes out of it. Branches may use the same names: then there is one
    piece for each branch that computes the outputs, in the order of the branches.

    Args:
        model: The model; it is not changed.
        inputs: Values at which to stop.
        outputs: Values to compute.
        elements: Element types of the inputs, as ``TensorProto`` numbers.
        scope: Names of the control-flow nodes around the piece, outermost first.
    """
    pieces = []
    for chain in _chains((model.graph,), scope):
        computed = {name for node in chain[-1].node for name in node.output}
        if not computed.issuperset(outputs):
            continue
        piece = _cut(model, chain, inputs, outputs, elements)
        if isinstance(piece, OpenPiece):
            return piece
        pieces.append(piece)
    if not pieces:
        where = f" in {' / '.join(scope)}" if scope else ""
        return OpenPiece(f"nothing computes {', '.join(sorted(outputs))}{where}")
    return tuple(pieces)


def _chains(graphs: tuple[GraphProto, ...], scope: tuple[str, ...]) -> Iterator[tuple[GraphProto, ...]]:
    """Yield the graphs from the main one to every body that a scope names."""
    if not scope:
        yield graphs
        return
    for node in graphs[-1].node:
        if (node.name or next((name for name in node.output if name), "")) == scope[0]:
            for body in _bodies(node):
                yield from _chains((*graphs, body), scope[1:])


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _cut(
    model: ModelProto,
    chain: tuple[GraphProto, ...],
    inputs: Collection[str],
    outputs: Collection[str],
    elements: Mapping[str, int],
) -> ModelProto | OpenPiece:
    producers: dict[str, tuple[int, int]] = {}
    tensors: dict[str, tuple[int, TensorProto]] = {}
    for depth, graph in enumerate(chain):
        for index, node in enumerate(graph.node):
            producers.update({name: (depth, index) for name in node.output if name})
        tensors.update({tensor.name: (depth, tensor) for tensor in graph.initializer})
    places, constants, reached = set(), {}, set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name in inputs or name in reached:
            continue
        reached.add(name)
        if name in producers:
            place = producers[name]
            if place not in places:
                places.add(place)
                pending.extend(_reads(chain[place[0]].node[place[1]]))
        elif name in tensors:
            constants[name] = tensors[name][1]
        else:
            return OpenPiece(f"{', '.join(sorted(outputs))} also depends on {name}, which is no constant")
    graph = GraphProto(name="piece")
    graph.node.extend(chain[depth].node[index] for depth, index in sorted(places))
    read = {name for node in graph.node for name in _reads(node)}
    for name in inputs:
        if name in read or name in outputs:
            graph.input.append(helper.make_tensor_value_info(name, elements.get(name, TensorProto.FLOAT), None))
    graph.initializer.extend(constants.values())
    graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    piece = ModelProto(ir_version=max(model.ir_version, 4), graph=graph)
    piece.opset_import.extend(model.opset_import)
    piece.functions.extend(model.functions)
    return piece


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield what a node reads; of its bodies, only what they do not compute themselves."""
    yield from (name for name in node.input if name)
    for body in _bodies(node):
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        own |= {name for inner in body.node for name in inner.output}
        read = [name for inner in body.node for name in _reads(inner)] + [value.name for value in body.output]
        yield from (name for name in read if name not in own)
