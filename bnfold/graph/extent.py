"""How large and how small the numbers of a tensor are: what a plan needs to know of weights without a copy of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

__all__ = ["Extent", "extent", "read_small"]

_MOST_ELEMENTS = 1 << 11
"""Tensors of more elements than this are no small ones."""

_AT_ONCE = 1 << 20
"""So many elements of small tensors are read in one go."""

_PIECE = 1 << 17
"""So many elements of a large tensor are looked at in one go: they stay in the processor's cache."""


class Extent(NamedTuple):
    """Between which magnitudes a tensor's numbers lie.

    Attributes:
        largest: The largest magnitude; NaN or infinity where some number is that, 0 where there is none.
        smallest: The smallest magnitude that is not zero; infinity where there is none.
    """

    largest: float
    smallest: float

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return math.isfinite(self.largest)


def extent(array: npt.NDArray[np.generic]) -> Extent:
    """Return the extent of an array of any floating type, piece by piece."""
    flat: npt.NDArray[Any] = array.reshape(-1)
    largest, smallest = 0.0, math.inf
    for start in range(0, flat.size, _PIECE):
        magnitudes = np.abs(flat[start : start + _PIECE])
        most, least = float(magnitudes.max()), float(magnitudes.min())
        if not math.isfinite(most):
            return Extent(most, smallest)
        if least == 0.0:
            least = float(magnitudes.min(initial=np.inf, where=magnitudes > 0))
        largest, smallest = max(largest, most), min(smallest, least)
    return Extent(largest, smallest)


def read_small(tensors: Iterable[TensorProto]) -> Iterator[tuple[str, npt.NDArray[np.float64], Extent]]:
    """Read the small ones among tensors, many at a time: yields name, numbers and extent of each.

    Only what most of them are is read, float32 stored as raw bytes; the others are left out.
    """
    if sys.byteorder != "little":
        return
    names: list[str] = []
    shapes: list[tuple[int, ...]] = []
    contents: list[bytes] = []
    total = 0
    for tensor in tensors:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        shape, content = tuple(tensor.dims), tensor.raw_data
        if not 0 < len(content) <= 4 * _MOST_ELEMENTS or 4 * math.prod(shape) != len(content):
            continue
        names.append(tensor.name)
        shapes.append(shape)
        contents.append(content)
        total += len(content) // 4
        if total >= _AT_ONCE:
            yield from _decoded(names, shapes, contents)
            names, shapes, contents, total = [], [], [], 0
    yield from _decoded(names, shapes, contents)


def _decoded(
    names: list[str], shapes: list[tuple[int, ...]], contents: list[bytes]
) -> Iterator[tuple[str, npt.NDArray[np.float64], Extent]]:
    if not names:
        return
    ends = np.cumsum([len(content) // 4 for content in contents])
    starts = np.concatenate(([0], ends[:-1]))
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
        numbers = np.frombuffer(b"".join(contents), np.float32).astype(np.float64)
    magnitudes = np.abs(numbers)
    largest = np.maximum.reduceat(magnitudes, starts).tolist()
    magnitudes[magnitudes == 0] = np.inf
    smallest = np.minimum.reduceat(magnitudes, starts).tolist()
    numbers.setflags(write=False)
    extents = map(Extent, largest, smallest)
    for name, shape, start, end, known in zip(names, shapes, starts.tolist(), ends.tolist(), extents, strict=True):
        yield name, numbers[start:end].reshape(shape), known
