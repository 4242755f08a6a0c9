"""Every tensor of a model, wherever it stands, and how many bytes it must have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from bnfold.errors import CorruptModelError
from bnfold.graph.outside import is_outside

__all__ = [
    "EXPORT_AGAIN",
    "attribute_tensors",
    "byte_length",
    "check_tensor",
    "check_tensors",
    "graph_initializers",
    "model_tensors",
    "stored_elements",
]

EXPORT_AGAIN = "Export the model again, or download it again if it came from elsewhere."

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
}
_YOUNGER = {"FLOAT4E2M1": 4, "FLOAT8E8M0": 8, "UINT2": 2, "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
# Types that younger versions of the format added; an older onnx package does not know their names.
_BITS |= {
    TensorProto.DataType.Value(name): bits
    for name, bits in _YOUNGER.items()
    if name in frozenset(TensorProto.DataType.keys())
}


def model_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors of the main graph, of all bodies in it and of the model's functions."""
    yield from graph_initializers(model.graph)
    yield from attribute_tensors(model.graph.node)
    for function in model.functions:
        yield from attribute_tensors(function.node)
        for body in _bodies(function.node):
            yield from graph_initializers(body)


def graph_initializers(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield the initializers of a graph and of the bodies in it, the parts of sparse ones included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for body in _bodies(graph.node):
        yield from graph_initializers(body)


def attribute_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    """Yield the tensors in the attributes of nodes, and of the nodes in their bodies."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices
            for sparse in attribute.sparse_tensors:
                yield sparse.values
                yield sparse.indices
            for body in _attribute_bodies(attribute):
                yield from attribute_tensors(body.node)


def byte_length(tensor: TensorProto) -> int | None:
    """Return the bytes that a tensor's elements take as raw data; None where its type or its shape is none."""
    bits = _BITS.get(tensor.data_type)
    dims: list[int] = list(tensor.dims)
    if bits is None or any(size < 0 for size in dims):
        return None
    return (math.prod(dims) * bits + 7) // 8


def stored_elements(tensor: TensorProto) -> tuple[int, int | None]:
    """Return how many entries a tensor's typed field has, and must have (None where packing leaves that open)."""
    field = helper.tensor_dtype_to_field(tensor.data_type)
    elements = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        elements *= 2
    packed = _BITS.get(tensor.data_type, 8) < 8
    return len(getattr(tensor, field)), None if packed else elements


def check_tensors(model: ModelProto) -> None:
    """Check every tensor of a model.

    Raises:
        CorruptModelError: If one has not the bytes that its type and its shape ask for.
    """
    for tensor in model_tensors(model):
        if not is_outside(tensor):  # its bytes were counted where it was left
            check_tensor(tensor)


def check_tensor(tensor: TensorProto) -> None:
    """Check that a tensor has the bytes that its type and its shape ask for; a string has any.

    Raises:
        CorruptModelError: If it has more or less.
    """
    shape = list(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return
    expected = byte_length(tensor)
    if expected is None:
        raise CorruptModelError(
            f"tensor '{tensor.name}' has the unknown type {tensor.data_type} or the impossible shape {shape}",
            hint=EXPORT_AGAIN,
        )
    if tensor.HasField("raw_data"):
        found: int = len(tensor.raw_data)
        unit = "bytes"
    else:
        found, elements = stored_elements(tensor)
        if elements is None:
            return
        expected, unit = elements, "values"
    if found != expected:
        raise CorruptModelError(
            f"tensor '{tensor.name}' of shape {shape} takes {expected} {unit}, and the file has {found}",
            hint=EXPORT_AGAIN,
        )


def _bodies(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_bodies(attribute)


def _attribute_bodies(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs
