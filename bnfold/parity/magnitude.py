"""The magnitude ``S = |W|⊛|x| + |b|`` that a piece sums up: what its rounding errors are measured against.

A piece becomes the piece that computes its own magnitude: constants by their absolute values, differences as sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper

from bnfold.parity.kernels import Array
from bnfold.parity.nodes import STANDARD, attributes_of
from bnfold.parity.reference import run_float64

__all__ = ["Unbounded", "magnitudes"]

_INDEX_MAPS = frozenset(
    {
        *("Cast", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
_SUMS = frozenset(
    {
        *("Add", "AveragePool", "Conv", "ConvTranspose", "Einsum", "GlobalAveragePool", "MatMul", "Mean", "Mul"),
        *("ReduceMean", "ReduceSum", "Sum"),
    }
)
_LARGEST_OF = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax"})
_SHRINKING = frozenset({"Relu", "ThresholdedRelu"})
_AS = {"Sub": "Add", "Max": "Sum", "Min": "Sum"}
"""|a − b| ≤ |a| + |b|, and so are the larger and the smaller of both."""


@dataclass(frozen=True, slots=True)
class Unbounded:
    """An operation that is not linear, so that there is no error bound."""

    op_type: str


def magnitudes(piece: ModelProto) -> ModelProto | Unbounded:
    """Return a model that computes the magnitude of a piece's outputs from the magnitudes of its inputs.

    It is meant for the float64 reference; its types are not declared.
    """
    moving, sizes = {value.name for value in piece.graph.input}, set[str]()
    computing, constant = [], []
    for node in piece.graph.node:
        if not moving.isdisjoint(node.input):
            # A size is read off what moves, and is a number of its own from there on.
            target = sizes if node.op_type in {"Shape", "Size"} and node.domain in STANDARD else moving
        elif not sizes.isdisjoint(node.input):
            target = sizes
        else:
            constant.append(node)
            continue
        target.update(name for name in node.output if name)
        computing.append(node)
    known = _constants(piece, constant, {name for node in computing for name in node.input})
    graph = GraphProto(name="magnitudes")
    for node in computing:
        bound = node if moving.isdisjoint(node.output) else _bound(node, known)
        if bound is None:
            return Unbounded(node.op_type)
        graph.node.append(bound)
    for name in sorted({name for node in graph.node for name in node.input}):
        bare = name if name in known else name.removeprefix("-").strip("|")
        if bare in known:
            value = known[bare] if bare == name else np.abs(known[bare])
            graph.initializer.append(numpy_helper.from_array(-value if name.startswith("-|") else value, name))
    graph.input.extend(piece.graph.input)
    graph.output.extend(ValueInfoProto(name=value.name) for value in piece.graph.output)
    model = ModelProto(ir_version=piece.ir_version, graph=graph)
    model.opset_import.extend(piece.opset_import)
    return model


def _constants(piece: ModelProto, nodes: list[NodeProto], read: set[str]) -> dict[str, Array]:
    """Compute every constant that the rest of the piece reads, signs and all."""
    names = {name for node in nodes for name in node.output} | {tensor.name for tensor in piece.graph.initializer}
    graph = GraphProto(name="constants")
    graph.node.extend(nodes)
    graph.initializer.extend(piece.graph.initializer)
    model = ModelProto(ir_version=piece.ir_version, graph=graph)
    model.opset_import.extend(piece.opset_import)
    model.functions.extend(piece.functions)
    wanted = sorted(read & names)
    return {name: np.asarray(value) for name, value in run_float64(model, {}, wanted).items()}


def _absolute(name: str) -> str:
    return f"|{name}|"


def _bound(node: NodeProto, known: dict[str, Array]) -> NodeProto | None:
    """Return the node on magnitudes; None if it is not linear in what moves."""
    if node.domain not in STANDARD:
        return None
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [
        _absolute(name) if name in known and known[name].dtype.kind == "f" else name for name in node.input
    ]
    if node.op_type == "Where":
        copy.input[0] = node.input[0]
    if node.op_type in _INDEX_MAPS | _SUMS | _LARGEST_OF:
        return copy
    if node.op_type in _AS:
        copy.op_type = _AS[node.op_type]
        return copy
    if node.op_type in {"Neg", "Abs"} | _SHRINKING:
        copy.op_type = "Identity"
        del copy.attribute[:]
        return copy
    if node.op_type == "LeakyRelu" and abs(float(attributes_of(node).get("alpha", 0.01))) <= 1:
        copy.op_type = "Identity"
        del copy.attribute[:]
        return copy
    if node.op_type == "Div" and node.input[1] in known:
        return copy
    if node.op_type == "Gemm":
        for attribute in copy.attribute:
            if attribute.name in {"alpha", "beta"}:
                attribute.f = abs(attribute.f)
        return copy
    if node.op_type == "BatchNormalization" and all(name in known for name in node.input[1:5]):
        # |γ|·(|x| + |μ|)/√(σ² + ε) + |β|: the mean is subtracted, so it turns negative.
        copy.input[3], copy.input[4] = f"-{_absolute(node.input[3])}", node.input[4]
        return copy
    return None
