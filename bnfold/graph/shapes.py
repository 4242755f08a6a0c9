"""What is known about the shape and the type of every value, without a copy of any weight.

onnx's own inference does the work, on a skeleton of the model: shapes that the file merely claims for inner values are
not believed, because nothing checks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from bnfold.graph.growth import makes_long_sequences

__all__ = ["BODIES", "Dimension", "GraphPath", "LazyTypes", "Shape", "ValueType", "bodies_of", "infer", "subgraphs"]

BODIES = frozenset({AttributeProto.GRAPH, AttributeProto.GRAPHS})
"""The kinds of attributes that hold bodies."""

Dimension = int | str | None
Shape = tuple[Dimension, ...]
GraphPath = tuple[tuple[int, str], ...]
"""Where a graph stands: ``(node index, attribute name)`` from the main graph inwards; ``()`` is the main graph."""

_SMALL = 1024
"""Constants up to this many elements stay in the skeleton: shapes and axes are among them."""

_STANDARD = frozenset({"", "ai.onnx"})

_KEEPING = frozenset({"GroupNormalization"})
"""Operations that keep shape and type, which onnx's inference knows nothing about."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """What is known of one value: its element type (``TensorProto``'s number, 0 unknown) and its shape, if any."""

    element: int = 0
    shape: Shape | None = None


def subgraphs(graph: GraphProto) -> Iterator[tuple[tuple[int, str], GraphProto]]:
    """Yield the bodies that stand directly in a graph's nodes, each with its place."""
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.type in BODIES:
                yield from bodies_of(index, attribute)


def bodies_of(index: int, attribute: AttributeProto) -> Iterator[tuple[tuple[int, str], GraphProto]]:
    """Yield the bodies that an attribute of the node ``index`` holds, each with its place."""
    if attribute.type == AttributeProto.GRAPH:
        yield (index, attribute.name), attribute.g
    else:
        for number, body in enumerate(attribute.graphs):
            yield (index, f"{attribute.name}[{number}]"), body


class LazyTypes:
    """The types of a model's values, inferred when somebody first asks for one that a layer alone does not tell."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._types: Mapping[GraphPath, Mapping[str, ValueType]] | None = None

    def get(self, path: GraphPath, default: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        """Return the types of one graph's values."""
        if self._types is None:
            self._types = infer(self._model)
        return self._types.get(path, default)


def infer(model: ModelProto) -> Mapping[GraphPath, Mapping[str, ValueType]]:
    """Return the types of the values of every graph in a model, by the graph's place.

    What cannot be inferred is absent. A model that inference rejects has no types at all: rules that need them refuse.
    """
    skeleton = ModelProto()
    skeleton.ir_version = max(model.ir_version, 4)  # so that initializers need not be inputs
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    _copy_graph(model.graph, skeleton.graph)
    try:
        # The values of shapes and indices are followed, too, but not where that alone would fill the memory.
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=not makes_long_sequences(model.graph))
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        inferred = skeleton
    types: dict[GraphPath, Mapping[str, ValueType]] = {}
    _collect(inferred.graph, (), types)
    return types


def _copy_graph(graph: GraphProto, skeleton: GraphProto, outer: Mapping[str, TensorProto] | None = None) -> None:
    skeleton.name = graph.name or "graph"
    outermost = outer is None
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    skeleton.input.extend(value for value in graph.input if value.name not in initializers)
    for tensor in graph.initializer:
        _copy_tensor(tensor, skeleton)
    constants = {**(outer or {}), **initializers}
    if next(subgraphs(graph), None) is not None:
        constants |= dict(_small_constants(graph))
    for node in graph.node:
        _copy_node(node, skeleton, constants)
    if outer is not None:
        _copy_captured(graph, skeleton, outer)
    custom = {name for node in graph.node if node.domain not in _STANDARD for name in node.output}
    # Only for values that inference knows nothing about is the file's own word taken.
    skeleton.value_info.extend(value for value in graph.value_info if value.name in custom)
    fed = {value.name: value for value in skeleton.input}
    for value in graph.output:
        bare = skeleton.output.add(name=value.name)
        if value.name in fed:  # an input that is given out as well
            bare.CopyFrom(fed[value.name])
        elif outermost and value.name in custom:
            bare.CopyFrom(value)
        elif value.type.HasField("tensor_type"):
            bare.type.tensor_type.elem_type = value.type.tensor_type.elem_type
        else:
            bare.CopyFrom(value)
    for value in (*skeleton.input, *skeleton.value_info, *skeleton.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_value < 0:  # onnx's inference may crash on it, the whole process with it
                dimension.ClearField("dim_value")


def _small_constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD:
            for attribute in node.attribute:
                if attribute.name == "value" and _is_small(attribute.t):
                    tensor = TensorProto()
                    tensor.CopyFrom(attribute.t)
                    tensor.name = node.output[0]
                    yield tensor.name, tensor


def _copy_captured(graph: GraphProto, skeleton: GraphProto, outer: Mapping[str, TensorProto]) -> None:
    """Tell a body of the constants around it that it reads: inference does not look for them there."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    for name in dict.fromkeys(name for node in graph.node for name in node.input):
        if name in outer and name not in own:
            if _is_small(outer[name]):
                skeleton.initializer.append(outer[name])
            else:
                skeleton.value_info.append(_typed(name, outer[name]))


def _copy_node(node: NodeProto, skeleton: GraphProto, constants: Mapping[str, TensorProto]) -> None:
    large = [a.t for a in node.attribute if a.HasField("t") and _size(a.t) > _SMALL]
    if large:  # a large Constant node becomes a typed input, like a large initializer
        skeleton.input.extend(_typed(node.output[0], tensor) for tensor in large[:1])
        return
    if any(_crashes(node, attribute) for attribute in node.attribute):
        return
    copy = skeleton.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
    if node.op_type in _KEEPING and node.domain in _STANDARD:
        copy.op_type = "Identity"
        copy.input.extend(node.input[:1])
        copy.output.extend(node.output[:1])
        return
    copy.input.extend(node.input)
    copy.output.extend(node.output)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            body = copy.attribute.add(name=attribute.name, type=attribute.type)
            _copy_graph(attribute.g, body.g, constants)
        else:
            copy.attribute.append(attribute)


def _crashes(node: NodeProto, attribute: AttributeProto) -> bool:
    """Tell whether onnx's inference would take the whole process down: it believes these two attributes."""
    if node.op_type == "GatherND" and attribute.name == "batch_dims":
        return attribute.i < 0  # it reads in front of the shape
    if node.op_type == "Split" and attribute.name == "num_outputs":
        return attribute.i != len(node.output)  # it makes room for so many
    return False


def _size(tensor: TensorProto) -> int:
    size = 1
    for dimension in tensor.dims:
        size *= dimension
    return size


def _copy_tensor(tensor: TensorProto, skeleton: GraphProto) -> None:
    if _is_small(tensor):
        skeleton.initializer.append(tensor)
    else:
        skeleton.input.append(_typed(tensor.name, tensor))


def _is_small(tensor: TensorProto) -> bool:
    return min(tensor.dims, default=0) >= 0 and _size(tensor) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL


def _typed(name: str, tensor: TensorProto) -> ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))


def _collect(graph: GraphProto, path: GraphPath, types: dict[GraphPath, Mapping[str, ValueType]]) -> None:
    known = {tensor.name: ValueType(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type"):
            known[value.name] = _read(value)
    types[path] = known
    for place, body in subgraphs(graph):
        _collect(body, (*path, place), types)


def _read(value: ValueInfoProto) -> ValueType:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type)
    shape: list[Dimension] = []
    for dimension in tensor.shape.dim:
        if dimension.HasField("dim_value"):
            shape.append(dimension.dim_value)
        else:
            shape.append(dimension.dim_param or None)
    return ValueType(tensor.elem_type, tuple(shape))
