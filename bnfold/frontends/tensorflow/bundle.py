"""A checkpoint's values without TensorFlow: the table in its ``.index`` file, and numbers from its ``.data`` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.glance import Array
from bnfold.frontends.tensorflow.messages import dtype_name, parsed

__all__ = ["Bundle", "open_bundle"]

_FOOTER = 48
_LARGEST_INDEX = 1 << 28
_AGAIN = "Get the files again: they are incomplete or damaged."


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checkpoint whose index was read.

    Attributes:
        prefix: What the names of its files begin with.
        shards: How many ``.data`` files it has.
        entries: What is stored, by name.
    """

    prefix: Path
    shards: int
    entries: Mapping[str, _Entry]

    def read(self, name: str) -> Array | None:
        """Return a value; None where numpy lacks its type.

        Raises:
            CorruptModelError: If its file does not hold it.
            OSError: If its file cannot be read.
        """
        entry = self.entries[name]
        if entry.dtype not in {"float16", "float32", "float64"}:
            return None
        dtype = np.dtype(entry.dtype).newbyteorder("<")
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.shards:05d}")
        if entry.size != dtype.itemsize * int(np.prod(entry.shape, dtype=np.float64)) or not path.is_file():
            raise CorruptModelError(f"{path.name} does not hold what the index says of {name}", hint=_AGAIN)
        with path.open("rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
        if len(content) != entry.size:
            raise CorruptModelError(f"{path.name} ends before the values of {name}", hint=_AGAIN)
        return np.frombuffer(content, dtype).reshape(entry.shape)


def open_bundle(prefix: Path) -> Bundle:
    """Return what a checkpoint holds.

    Args:
        prefix: What the names of its files begin with.

    Raises:
        CorruptModelError: If its index is no whole one.
        OSError: If it cannot be read.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    if path.stat().st_size > _LARGEST_INDEX:
        raise CorruptModelError(f"{path.name} is too large for an index", hint=_AGAIN)
    content = path.read_bytes()
    shards, entries = 1, {}
    try:
        _, at = _handle(content, len(content) - _FOOTER)
        index, _ = _handle(content, at)
        for _key, where in _block(content, *index):
            block, _ = _handle(where, 0)
            for key, value in _block(content, *block):
                if not key:
                    shards = max(1, int(parsed(value, "Header").num_shards))
                    continue
                entries[key.decode()] = _entry(value)
    except (IndexError, ValueError) as error:
        raise CorruptModelError(f"{path.name} is no whole index of a checkpoint: {error}", hint=_AGAIN) from error
    return Bundle(prefix, shards, entries)


def _entry(content: bytes) -> _Entry:
    entry = parsed(content, "Entry")
    shape = tuple(int(dimension.size) for dimension in entry.shape.dim)
    if min((*shape, entry.offset, entry.shard_id, entry.size)) < 0:
        raise ValueError("a size is negative")
    return _Entry(dtype_name(entry.dtype), shape, int(entry.shard_id), int(entry.offset), int(entry.size))


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Return where a block begins and how long it is, and where the next number stands."""
    if at < 0:
        raise ValueError("it is too short")
    start, at = _number(content, at)
    size, at = _number(content, at)
    return (start, size), at


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block: each key says how much of the one before it shares."""
    end = start + size
    if end + 1 > len(content) or size < 4:
        raise ValueError("a block stands outside of it")
    if content[end] != 0:
        raise ValueError("a block is compressed")
    restarts = int.from_bytes(content[end - 4 : end], "little")
    limit = end - 4 * (restarts + 1)
    key, at = b"", start
    while at < limit:
        shared, at = _number(content, at)
        more, at = _number(content, at)
        length, at = _number(content, at)
        if at + more + length > limit or shared > len(key):
            raise ValueError("an entry stands outside of its block")
        key = key[:shared] + content[at : at + more]
        yield key, content[at + more : at + more + length]
        at += more + length


def _number(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
