"""Inputs and outputs of a converted model under the names that their framework gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import onnx

from bnfold.frontends.loaded import TensorSpec

__all__ = ["nodes_in", "rename_io", "specs_of"]


def rename_io(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give inputs and outputs other names, everywhere in a model; whoever has such a name already makes way."""
    wanted = set(names.values())
    inner = {value for graph in _graphs(model.graph) for node in graph.node for value in node.output}
    inner |= {tensor.name for graph in _graphs(model.graph) for tensor in graph.initializer}
    inner |= {value.name for value in model.graph.input}
    moved = {name: f"{name}/inner" for name in inner & wanted if name not in names}
    assert not inner & set(moved.values())
    table = {**moved, **names}
    for graph in _graphs(model.graph):
        for node in graph.node:
            node.input[:] = [table.get(name, name) for name in node.input]
            node.output[:] = [table.get(name, name) for name in node.output]
        for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
            value.name = table.get(value.name, value.name)
    for value in [*model.graph.input, *model.graph.output]:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = "batch" if axis == 0 else f"{re.sub(r'[^0-9A-Za-z]+', '_', value.name)}_{axis}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    stack = [graph]
    while stack:
        found = stack.pop()
        yield found
        for node in found.node:
            for attribute in node.attribute:
                stack.extend([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs)


def nodes_in(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs inside it."""
    for inner in _graphs(graph):
        yield from inner.node


def specs_of(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Return inputs or outputs of an ONNX model as plain facts."""
    return tuple(
        TensorSpec(
            value.name,
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(
                dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or None
                for dimension in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    )
