"""How large and how small the numbers of a tensor are: what a plan needs to know of weights without a copy of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Extent", "extent"]

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
