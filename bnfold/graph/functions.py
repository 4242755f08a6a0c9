"""Functions that a model brings along, replaced by what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, inliner

from bnfold.errors import CorruptModelError, SourceError

__all__ = ["MOST_NODES", "inline_functions"]

MOST_NODES = 200_000
"""Nodes that a model may have once its functions are replaced: a few nested ones can stand for billions."""

_LARGE = 1024
_DEEPEST = 64
_Key = tuple[str, str, str]
Calls = tuple[_Key, ...]


def inline_functions(model: ModelProto) -> ModelProto:
    """Return a model without functions of its own; the model itself if it has none.

    Weights are moved around the work, not through it, so that models of any size can be treated.

    Raises:
        CorruptModelError: If the functions call each other in a circle, or stand for too many nodes.
        SourceError: If they cannot be replaced for another reason.
    """
    if not model.functions:
        return model
    count = _expanded(model)
    if count > MOST_NODES:
        raise CorruptModelError(
            f"the model's functions stand for {count} nodes; at most {MOST_NODES} are read",
            hint="Export the model without functions of its own.",
        )
    bare = ModelProto()
    bare.CopyFrom(model)
    kept = []
    for index in reversed(range(len(bare.graph.initializer))):
        tensor = bare.graph.initializer[index]
        if tensor.ByteSize() > _LARGE:
            kept.append(model.graph.initializer[index])
            del bare.graph.initializer[index]
    listed = {value.name for value in bare.graph.input}
    added = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in kept
        if tensor.name not in listed
    ]
    bare.graph.input.extend(added)
    try:
        result = inliner.inline_local_functions(bare)
    except (RuntimeError, ValueError, EncodeError) as error:
        raise SourceError(
            f"the model's functions cannot be replaced by what they stand for: {str(error).partition(chr(10))[0]}",
            hint="Export the model without functions of its own.",
        ) from None
    del result.graph.input[len(result.graph.input) - len(added) :]
    result.graph.initializer.extend(reversed(kept))
    return result


def _expanded(model: ModelProto) -> int:
    """Return how many nodes there are once every call is replaced by its function's."""
    bodies = {(function.domain, function.name, function.overload): function.node for function in model.functions}
    return _count(model.graph.node, bodies, {}, ())


def _count(
    nodes: Iterable[NodeProto], bodies: Mapping[_Key, Iterable[NodeProto]], sizes: dict[_Key, int], calling: Calls
) -> int:
    total = 0
    for node in nodes:
        key = (node.domain, node.op_type, node.overload)
        total += sum(_count(body.node, bodies, sizes, calling) for body in _graphs(node))
        if key not in bodies:
            total += 1
            continue
        if key in calling or len(calling) > _DEEPEST:
            raise CorruptModelError(
                f"the model's function '{key[1]}' calls itself, or is nested deeper than {_DEEPEST}",
                hint="Export the model without functions of its own.",
            )
        if key not in sizes:
            sizes[key] = _count(bodies[key], bodies, sizes, (*calling, key))
        total += sizes[key]
    return total


def _graphs(node: NodeProto) -> list[GraphProto]:
    found: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        found += attribute.graphs
    return found
