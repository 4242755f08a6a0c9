"""The bytes of a model some of whose weights are out of memory, piece by piece: the same that protobuf would write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import ModelProto, TensorProto

from bnfold.graph.outside import is_outside, pieces

__all__ = ["encoded", "encoded_size"]

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = ModelProto.DESCRIPTOR.fields_by_name["graph"].message_type.fields_by_name["initializer"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_REFERENCE = frozenset({"external_data", "data_location"})
_BYTES = 2
"""Protobuf's wire type of anything with a length in front."""


def encoded_size(model: ModelProto) -> int:
    """Return how many bytes ``encoded`` yields, without reading a weight that is out of memory."""
    return _Model(model).size


def encoded(model: ModelProto) -> Iterator[bytes | bytearray]:
    """Yield the bytes of a model; its fields in the order of their numbers, as protobuf's deterministic writer does."""
    return _Model(model).parts()


class _Model:
    """The parts of a model's message: what stands before its graph, the graph, and what stands behind."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._front, self._behind = _around(model, _GRAPH)
        self._graph_front, self._graph_behind = _around(graph, _INITIALIZER)
        self._tensors = [_Tensor(tensor) for tensor in graph.initializer]
        inner = len(self._graph_front) + len(self._graph_behind)
        self._graph_size = inner + sum(len(tensor.head) + tensor.size for tensor in self._tensors)
        self._graph_head = _head(_GRAPH, self._graph_size)
        self.size = len(self._front) + len(self._graph_head) + self._graph_size + len(self._behind)

    def parts(self) -> Iterator[bytes | bytearray]:
        yield self._front
        yield self._graph_head
        yield self._graph_front
        for tensor in self._tensors:
            yield tensor.head
            yield from tensor.parts()
        yield self._graph_behind
        yield self._behind


class _Tensor:
    """One initializer's message."""

    def __init__(self, tensor: TensorProto) -> None:
        self._tensor = tensor
        self._outside = is_outside(tensor)
        if self._outside:
            self._front, self._behind = _around(tensor, _RAW_DATA, without=_REFERENCE)
            length = int(tensor.external_data[2].value)
            self._raw_head = _head(_RAW_DATA, length)
            self.size = len(self._front) + len(self._raw_head) + length + len(self._behind)
        else:
            self.size = tensor.ByteSize()
        self.head = _head(_INITIALIZER, self.size)

    def parts(self) -> Iterator[bytes | bytearray]:
        if not self._outside:
            yield self._tensor.SerializeToString(deterministic=True)
            return
        yield self._front
        yield self._raw_head
        yield from pieces(self._tensor)
        yield self._behind


def _around(message: Any, number: int, without: Iterable[str] = ()) -> tuple[bytes, bytes]:
    """Return a message's fields with lower numbers, and those with higher ones, in bytes."""
    found = []
    for front in (True, False):
        part: Any = type(message)()
        for field, value in message.ListFields():
            if field.number == number or (field.number < number) != front or field.name in without:
                continue
            if field.is_repeated:
                getattr(part, field.name).extend(value)
            elif field.message_type is not None:
                getattr(part, field.name).CopyFrom(value)
            else:
                setattr(part, field.name, value)
        found.append(part.SerializeToString(deterministic=True))
    return found[0], found[1]


def _head(number: int, length: int) -> bytes:
    """Return the bytes that stand in front of a field's content."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
