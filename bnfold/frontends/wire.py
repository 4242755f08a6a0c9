"""What kind of protobuf message a file holds, from its wire format alone.

Protobuf messages do not name their type, and the same bytes parse as several. So the fields on top are compared with
the four types that models come in, and the first message inside with the one that must stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from mmap import mmap

__all__ = ["Field", "Kind", "fields", "kind_of"]

Buffer = bytes | mmap

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST = 256
"""Fields that are looked at on each level; a graph of a million nodes tells what it is by its first ones."""

_LONGEST_NAME = 4096
_NODE_NAME = re.compile(rb"[\w.^\\/>-][\w.\\/>:-]*", re.ASCII)
_OP_NAME = re.compile(rb"[A-Za-z_][\w>.]*", re.ASCII)


class Kind(Enum):
    """The protobuf messages that models come in."""

    ONNX = "ModelProto"
    GRAPH = "GraphDef"
    META_GRAPH = "MetaGraphDef"
    SAVED_MODEL = "SavedModel"
    OTHER = "another message"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: Its number in the message's type.
        wire: How it is written: 0 a number, 2 a piece with a length, 1 and 5 eight and four bytes.
        value: The number, for numbers.
        start: Where its content begins.
        end: Where its content ends, by what it says itself: possibly beyond the end of the file.
    """

    number: int
    wire: int
    value: int
    start: int
    end: int


_MODEL = {1: _VARINT, 2: _LENGTH, 3: _LENGTH, 4: _LENGTH, 5: _VARINT, 6: _LENGTH, 7: _LENGTH, 8: _LENGTH}
_MODEL |= dict.fromkeys((14, 20, 25, 26), _LENGTH)
_MODEL_GRAPH = dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 14, 15, 16), _LENGTH)
_SAVED = {1: _VARINT, 2: _LENGTH}
_META = dict.fromkeys(range(1, 8), _LENGTH)
_GRAPH = {1: _LENGTH, 2: _LENGTH, 3: _VARINT, 4: _LENGTH, 5: _LENGTH}
_NODE = dict.fromkeys(range(1, 8), _LENGTH)


def kind_of(buffer: Buffer) -> Kind | None:
    """Return the kind of message that a file holds, or begins to hold; None where the bytes are no protobuf at all.

    Looks at a bounded number of fields, whatever the size. A file that breaks off in the middle has the kind that its
    beginning shows: to find that it is incomplete is left to whoever reads it.
    """
    top = _begin(buffer, 0, len(buffer))
    if not top:
        return None
    if _is_model(buffer, top):
        return Kind.ONNX
    if _fits(top, _SAVED) and top[0].number == 1 and top[0].value == 1:
        metas = [field for field in top if field.number == 2]
        if metas and _is_meta_graph(buffer, _begin(buffer, metas[0].start, metas[0].end)):
            return Kind.SAVED_MODEL
    if _is_meta_graph(buffer, top):
        return Kind.META_GRAPH
    if _is_graph(buffer, top):
        return Kind.GRAPH
    whole = len(top) == _MOST or top[-1].end == len(buffer)
    return Kind.OTHER if whole else None


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """Yield the fields between two positions; the last one may say that it ends further on.

    Raises:
        ValueError: If the bytes are not in protobuf's wire format.
    """
    at, limit = start, min(end, len(buffer))
    while at < limit:
        tag, at = _number(buffer, at, limit)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"no field has the number {number}")
        value = 0
        begin = at
        if wire == _VARINT:
            value, at = _number(buffer, at, limit)
        elif wire == _LENGTH:
            length, begin = _number(buffer, at, limit)
            at = begin + length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"no field is written as {wire}")
        yield Field(number, wire, value, begin, at)


def _number(buffer: Buffer, at: int, limit: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= limit:
            break
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")


def _begin(buffer: Buffer, start: int, end: int) -> list[Field]:
    """Return the first fields of a message; none where it is no message. A file's end may cut the last one short."""
    found: list[Field] = []
    try:
        for field in fields(buffer, start, end):
            if field.end > end:
                # Only the end of the file excuses this.
                return [*found, field] if end >= len(buffer) else []
            found.append(field)
            if len(found) == _MOST:
                break
    except ValueError:
        return found if end >= len(buffer) and found and found[-1].end + 10 > len(buffer) else []
    return found


def _fits(found: list[Field], schema: dict[int, int]) -> bool:
    return bool(found) and all(schema.get(field.number) == field.wire for field in found)


def _is_model(buffer: Buffer, top: list[Field]) -> bool:
    graphs = [field for field in top if field.number == 7]
    versions = [field.value for field in top if field.number == 1]
    return (
        _fits(top, _MODEL)
        and bool(graphs)
        and all(0 < version < 1 << 32 for version in versions)
        and _fits(_begin(buffer, graphs[0].start, graphs[0].end), _MODEL_GRAPH)
    )


def _is_meta_graph(buffer: Buffer, top: list[Field]) -> bool:
    if not _fits(top, _META) or sum(field.number == 1 for field in top) > 1:
        return False
    return any(_is_graph(buffer, _begin(buffer, field.start, field.end)) for field in top if field.number == 2)


def _is_graph(buffer: Buffer, top: list[Field]) -> bool:
    nodes = [field for field in top if field.number == 1]
    if not nodes or not _fits(top, _GRAPH):
        return False
    inner = _begin(buffer, nodes[0].start, nodes[0].end)
    if not _fits(inner, _NODE):
        return False
    name = [field for field in inner if field.number == 1]
    op_type = [field for field in inner if field.number == 2]
    return (
        len(name) == len(op_type) == 1
        and _matches(buffer, name[0], _NODE_NAME)
        and _matches(buffer, op_type[0], _OP_NAME)
    )


def _matches(buffer: Buffer, field: Field, pattern: re.Pattern[bytes]) -> bool:
    return field.end - field.start < _LONGEST_NAME and pattern.fullmatch(buffer[field.start : field.end]) is not None
