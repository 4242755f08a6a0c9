"""Small constants of a graph, read many at a time: each becomes an array only when somebody asks for it alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from bnfold.graph.extent import Extent

__all__ = ["SmallConstants"]

_MOST_ELEMENTS = 1 << 11
"""Tensors of more elements than this are no small ones."""

_AT_ONCE = 1 << 20
"""So many elements are read in one go."""


class SmallConstants:
    """The small ones among a graph's constants: float32 in raw bytes, as most of them are.

    A network has four of them a batch norm, and each reading by itself costs more than its numbers.

    Attributes:
        places: The place of each in the tables below, by name.
        lengths: How many numbers each vector has; -1 for what is no vector.
    """

    def __init__(self, tensors: Iterable[tuple[str, TensorProto]]) -> None:
        self.places: dict[str, int] = {}
        self.lengths: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        found: list[TensorProto] = []
        if sys.byteorder == "little":
            for name, tensor in tensors:
                if tensor.data_type != TensorProto.FLOAT:
                    continue
                shape = tuple(tensor.dims)
                if 0 < math.prod(shape) <= _MOST_ELEMENTS and min(shape, default=1) > 0:
                    self.places[name] = len(found)
                    self._shapes.append(shape)
                    found.append(tensor)
        self.lengths = [shape[0] if len(shape) == 1 else -1 for shape in self._shapes]
        sizes = [math.prod(shape) for shape in self._shapes]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._starts = self._ends - np.array(sizes, dtype=np.int64)
        self._numbers = np.empty(int(self._ends[-1]) if sizes else 0)
        self._largest, self._smallest = np.empty(len(sizes)), np.empty(len(sizes))
        self._read(found, sizes)
        self._numbers.setflags(write=False)

    def _read(self, tensors: list[TensorProto], sizes: list[int]) -> None:
        broken: set[int] = set()
        first, contents, total = 0, list[bytes](), 0
        for place, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
            content = tensor.raw_data
            if len(content) != 4 * size:
                broken.add(place)
                content = bytes(4 * size)
            contents.append(content)
            total += size
            if total >= _AT_ONCE:
                self._decode(first, b"".join(contents))
                first, contents, total = place + 1, [], 0
        self._decode(first, b"".join(contents))
        if broken:
            self.places = {name: place for name, place in self.places.items() if place not in broken}

    def _decode(self, first: int, content: bytes) -> None:
        """Read the tensors from the place ``first`` on whose bytes these are."""
        if not content:
            return
        start = int(self._starts[first])
        numbers = self._numbers[start : start + len(content) // 4]
        last = int(np.searchsorted(self._ends, start + numbers.size)) + 1
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
            numbers[:] = np.frombuffer(content, np.float32)
        magnitudes, starts = np.abs(numbers), self._starts[first:last] - start
        self._largest[first:last] = np.maximum.reduceat(magnitudes, starts)
        magnitudes[magnitudes == 0] = np.inf
        self._smallest[first:last] = np.minimum.reduceat(magnitudes, starts)

    def array(self, place: int) -> npt.NDArray[np.float64]:
        """Return one of them, as float64."""
        return self._numbers[self._starts[place] : self._ends[place]].reshape(self._shapes[place])

    def extent(self, place: int) -> Extent:
        """Return between which magnitudes the numbers of one of them lie."""
        return Extent(float(self._largest[place]), float(self._smallest[place]))

    def vectors(self, places: npt.ArrayLike, length: int) -> npt.NDArray[np.float64]:
        """Return vectors of one length, laid out as their places are, with their numbers along one more axis."""
        starts = self._starts[np.asarray(places)]
        return np.asarray(self._numbers[starts[..., None] + np.arange(length)])
