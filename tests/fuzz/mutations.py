"""Ways to spoil a file: cut, flipped, repeated, spliced, and with lengths that lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["MUTATIONS", "mutate"]

Mutation = Callable[[bytes, np.random.Generator], bytes]

_LIES = (
    b"\xff\xff\xff\xff\x0f",  # 4 GiB
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -1, or 2⁶⁴ - 1
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # longer than any number
    b"\x00",
    b"\x7f",
    b"\xff\xff\xff\x7f",
)


def _cut(content: bytes, random: np.random.Generator) -> bytes:
    return content[: random.integers(len(content))]


def _cut_start(content: bytes, random: np.random.Generator) -> bytes:
    return content[random.integers(len(content)) :]


def _flip_bits(content: bytes, random: np.random.Generator) -> bytes:
    spoilt = bytearray(content)
    for place in random.integers(len(content) * 8, size=random.integers(1, 9)):
        spoilt[place // 8] ^= 1 << place % 8
    return bytes(spoilt)


def _flip_bit(content: bytes, random: np.random.Generator) -> bytes:
    spoilt = bytearray(content)
    place = int(random.integers(len(content) * 8))
    spoilt[place // 8] ^= 1 << place % 8
    return bytes(spoilt)


def _flip_early(content: bytes, random: np.random.Generator) -> bytes:
    return _flip_bits(content[:200], random) + content[200:]


def _lie(content: bytes, random: np.random.Generator) -> bytes:
    """Write another number where one may stand: behind a protobuf tag, in a header, in a table of contents."""
    place = int(random.integers(len(content)))
    lie = _LIES[random.integers(len(_LIES))]
    return content[:place] + lie + content[place + int(random.integers(0, len(lie) + 1)) :]


def _lie_about_a_length(content: bytes, random: np.random.Generator) -> bytes:
    """Change only numbers behind bytes that look like the tag of a length."""
    places = [place for place, byte in enumerate(content[:4000]) if byte & 7 == 2 and byte >> 3]
    if not places:
        return _lie(content, random)
    place = places[random.integers(len(places))] + 1
    return content[:place] + _LIES[random.integers(len(_LIES))] + content[place + 1 :]


def _repeat(content: bytes, random: np.random.Generator) -> bytes:
    start, end = sorted(random.integers(len(content) + 1, size=2))
    return content[:end] + content[start:end] * int(random.integers(1, 4)) + content[end:]


def _remove(content: bytes, random: np.random.Generator) -> bytes:
    start, end = sorted(random.integers(len(content) + 1, size=2))
    return content[:start] + content[min(end, start + 64) :]


def _noise(content: bytes, random: np.random.Generator) -> bytes:
    start = int(random.integers(len(content)))
    return content[:start] + random.bytes(int(random.integers(1, 64))) + content[start:]


def _zero(content: bytes, random: np.random.Generator) -> bytes:
    start = int(random.integers(len(content)))
    length = int(random.integers(1, 64))
    return content[:start] + bytes(length) + content[start + length :]


MUTATIONS: Sequence[Mutation] = (
    _cut,
    _cut_start,
    _flip_bits,
    _flip_early,
    _lie,
    _lie_about_a_length,
    _repeat,
    _remove,
    _noise,
    _zero,
)


def mutate(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return a spoilt file: one bit, or one to three mutations, now and then with the end of another file."""
    if random.random() < 0.4:
        return _flip_bit(content, random)
    for _step in range(int(random.integers(1, 4))):
        if content:
            content = MUTATIONS[int(random.integers(len(MUTATIONS)))](content, random)
    if random.random() < 0.1:
        content = content[: random.integers(len(content) + 1)] + other[random.integers(len(other)) :]
    return content
