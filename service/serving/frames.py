"""How the service and its runners talk: a length, a JSON header of that length, and raw buffers that the header lists.

Nothing in a frame is ever executed or unpickled, and every length is checked before anything of that size is made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from service.serving.tensors import DATATYPES, Tensor

__all__ = ["FrameError", "pack", "read_async", "read_from", "tensors_of"]

_LENGTH = 4
_LARGEST_HEADER = 16 * 2**20


class FrameError(Exception):
    """What came is no frame."""


def pack(header: dict[str, Any], tensors: Sequence[Tensor] = ()) -> list[bytes]:
    """Return the pieces of a frame, in order."""
    listed = [{"name": t.name, "datatype": t.datatype, "shape": t.shape, "size": len(t.raw)} for t in tensors]
    text = json.dumps({**header, "tensors": listed}).encode("ascii")
    return [len(text).to_bytes(_LENGTH, "little"), text, *(t.raw for t in tensors)]


def read_from(stream: BinaryIO) -> tuple[dict[str, Any], list[Tensor]] | None:
    """Read one frame; None at the end of the stream.

    Raises:
        FrameError: If the stream breaks off, or does not hold a frame.
    """
    start = stream.read(_LENGTH)
    if not start:
        return None
    header = _header(_exactly(stream, _header_length(start)))
    return header, tensors_of(header, [_exactly(stream, size) for size in _sizes(header, None)])


async def read_async(stream: asyncio.StreamReader, most: int) -> tuple[dict[str, Any], list[Tensor]]:
    """Read one frame.

    Args:
        stream: Where from.
        most: The most bytes that its buffers may have together.

    Raises:
        FrameError: If it holds something else than a frame.
        asyncio.IncompleteReadError: If it breaks off.
    """
    header = _header(await stream.readexactly(_header_length(await stream.readexactly(_LENGTH))))
    return header, tensors_of(header, [await stream.readexactly(size) for size in _sizes(header, most)])


def tensors_of(header: dict[str, Any], buffers: Sequence[bytes]) -> list[Tensor]:
    """Return the tensors of a frame."""
    return [
        Tensor(listed["name"], listed["datatype"], tuple(listed["shape"]), buffer)
        for listed, buffer in zip(header["tensors"], buffers, strict=True)
    ]


def _header_length(start: bytes) -> int:
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH or length > _LARGEST_HEADER:
        raise FrameError(f"a header of {length} bytes")
    return length


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("a header that is no JSON") from error
    listed = header.get("tensors") if isinstance(header, dict) else None
    if not isinstance(listed, list) or not all(_is_listing(item) for item in listed):
        raise FrameError("a header that does not list its tensors")
    return dict(header)


def _is_listing(item: object) -> bool:
    match item:
        case {"name": str(), "datatype": str(datatype), "shape": list(shape), "size": int(size)}:
            return datatype in DATATYPES and size >= 0 and all(type(axis) is int and axis >= 0 for axis in shape)
    return False


def _sizes(header: dict[str, Any], most: int | None) -> list[int]:
    sizes = [int(listed["size"]) for listed in header["tensors"]]
    if most is not None and sum(sizes) > most:
        raise FrameError(f"buffers of {sum(sizes)} bytes")
    return sizes


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise FrameError("the stream broke off")
    return content
