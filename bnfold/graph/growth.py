"""Sequences that a few nodes make very long: inference that follows values would write out every element of them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

__all__ = ["makes_long_sequences"]

_LONGEST = 1 << 20
_PASSING = frozenset({"Add", "Cast", "Gather", "Identity", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"})
_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_FOLLOWED = _PASSING | _WITH_BODIES | {"Concat", "Constant", "Range"}
_STANDARD = ("", "ai.onnx")


def makes_long_sequences(graph: GraphProto) -> bool:
    """Say whether a graph joins or counts integers to a sequence that no shape and no index needs.

    Args:
        graph: With its bodies. Lengths are counted from constants on, along the operations whose values are followed.
    """
    return _grows(graph, {}, {})


def _grows(graph: GraphProto, outer: Mapping[str, int], values: Mapping[str, TensorProto]) -> bool:
    lengths, known = dict(outer), {**values, **{tensor.name: tensor for tensor in graph.initializer}}
    lengths |= {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    for node in graph.node:
        kind = node.op_type
        if kind not in _FOLLOWED or node.domain not in _STANDARD:
            continue  # a length of 1, as everything has that is not told
        for attribute in node.attribute if kind in _WITH_BODIES else ():
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
            if any(_grows(body, lengths, known) for body in bodies):
                return True
        length = _length(node, lengths, known)
        if length > _LONGEST:
            return True
        lengths.update(dict.fromkeys(node.output, length))
    return False


def _length(node: NodeProto, lengths: Mapping[str, int], known: dict[str, TensorProto]) -> int:
    read = [lengths.get(name, 1) for name in node.input]
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                known[node.output[0]] = attribute.t
                return attribute.t.dims[0] if len(attribute.t.dims) == 1 else 1
            if attribute.name == "value_ints":
                return len(attribute.ints)
        return 1
    if node.op_type == "Concat":
        return sum(read)
    if node.op_type == "Range":
        return _count([known.get(name) for name in node.input])
    return max(read, default=1) if node.op_type in _PASSING else 1


def _count(tensors: list[TensorProto | None]) -> int:
    """Return how many numbers a Range of constants has; 1 where they are not all known."""
    numbers = []
    for tensor in tensors:
        if tensor is None or list(tensor.dims) not in ([], [1]):
            return 1
        try:
            numbers.append(float(numpy_helper.to_array(tensor).reshape(-1)[0]))
        except (TypeError, ValueError, IndexError):
            return 1
    if len(numbers) != 3 or not all(abs(number) < 1e300 for number in numbers) or numbers[2] == 0:
        return 1
    return int(min(max((numbers[1] - numbers[0]) / numbers[2], 1.0), 2.0**62))
