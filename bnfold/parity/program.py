"""A graph or a function body, taken apart once so that it can be run many times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper

from bnfold.parity.kernels import Array
from bnfold.parity.nodes import STANDARD

__all__ = [
    "Compiled",
    "Frame",
    "Scope",
    "Step",
    "called",
    "dense",
    "order",
    "reads_of",
    "resolved",
    "versions_of",
    "weights_of",
]

Scope = tuple[str, ...]
"""Names of the control-flow nodes around a graph, outermost first; empty for the main graph."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node, what it reads (its bodies included), how it is computed, and whether it has no bodies."""

    node: NodeProto
    reads: frozenset[str]
    run: Callable[[Frame, list[Any]], Sequence[Any]]
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Compiled:
    """A graph or a function body, ready to run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, TensorProto | SparseTensorProto]
    declared: Mapping[str, onnx.TypeProto]


@dataclass(slots=True)
class Frame:
    """The values of one graph while it runs, inside those of the graph around it."""

    graph: Compiled
    values: dict[str, Any]
    outer: Frame | None = None
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    scope: Scope = ()

    def inside(self, graph: Compiled, values: dict[str, Any], name: str) -> Frame:
        """Return the frame of a body that stands in this one's graph, in the node of that name."""
        return Frame(graph, values, self, self.attributes, (*self.scope, name))


def order(
    steps: Sequence[Step], wanted: Collection[str], *, everything: bool
) -> tuple[list[int], Mapping[int, list[str]]]:
    """Return the steps to run, and which values nobody reads after each of them."""
    live, needed, last = set(wanted), [], {}
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        if not everything and not any(name in live for name in step.node.output):
            continue
        needed.append(index)
        # Going backwards, a name that is not live yet is read here for the last time.
        last[index] = [name for name in {*step.reads, *step.node.output} if name and name not in live]
        live.update(step.reads)
    computed = {name for step in steps for name in step.node.output}
    return needed[::-1], {index: [name for name in names if name in computed] for index, names in last.items()}


def reads_of(node: NodeProto) -> Iterator[str]:
    """Yield every name that a node reads, those that its bodies take from around them included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.type == AttributeProto.GRAPH else ()), *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from reads_of(inner)


_WEIGHTED = frozenset(
    {
        *("Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "GroupNormalization", "GRU"),
        *("InstanceNormalization", "LayerNormalization", "LSTM", "MatMul", "Mul", "PRelu", "RNN", "Sub"),
    }
)
"""Operations whose constants are weights; those of others may be sizes, which nobody rounds."""


def weights_of(model: ModelProto) -> Iterator[str]:
    """Yield the names that operations with weights read."""
    pending: list[NodeProto] = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        if node.op_type in _WEIGHTED:
            yield from node.input
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
            pending.extend(inner for graph in attribute.graphs for inner in graph.node)


def resolved(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> NodeProto:
    """Return a function's node with the attributes that the call of the function gives."""
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        source = attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if source is not None:  # an attribute that the call leaves out is left out
            copy.attribute.add().CopyFrom(source)
            copy.attribute[-1].name = attribute.name
    return copy


def versions_of(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Return the operator sets' versions by domain; the standard one is the empty name."""
    return {"" if entry.domain in STANDARD else entry.domain: entry.version for entry in imports}


def dense(tensor: SparseTensorProto) -> Array:
    """Return a sparse constant with its zeros."""
    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    full = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    if indices.ndim == 1:
        full.reshape(-1)[indices] = values
    else:
        full[tuple(indices.T)] = values
    return full


def called(node: NodeProto) -> str:
    """Return the name of a node, or that of its first output."""
    return node.name or next((name for name in node.output if name), node.op_type)
