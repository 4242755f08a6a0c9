"""The one rounding of a fold: from float64 to the type in which the model stores its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bnfold.affine.per_channel import Float64Array

__all__ = ["Unstorable", "round_to", "surely_storable"]

_LOSS_LIMIT = 8
"""How many units of round-off, relative to all weights of one output channel, rounding may cost that channel."""


@cache
def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float, float]:
    """Return a type's largest number, its smallest normal one, and twice its unit round-off."""
    limits: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(limits.max), float(limits.smallest_normal), float(limits.eps)


@dataclass(frozen=True, slots=True)
class Unstorable:
    """Why an array cannot be stored in a type: in words, with numbers."""

    detail: str


def round_to(array: Float64Array, dtype: npt.DTypeLike, channel_axis: int = 0) -> npt.NDArray[np.generic] | Unstorable:
    """Round an array to the stored type, once, or say why that would lose what it holds.

    Rounding to nearest loses at most u·|w| of each normal number (u = unit round-off). A number that overflows is
    lost altogether, and numbers below the type's normal range lose more; the latter is accepted only while the sum of
    what one output channel loses stays below 8u of the sum of its magnitudes.

    Args:
        array: float64, any shape.
        dtype: A floating type: float16, bfloat16, float32 or float64.
        channel_axis: The axis of the output channel.
    """
    target = np.dtype(dtype)
    if target == np.float64:
        return array if np.isfinite(array).all() else Unstorable("a folded value is not finite in float64")
    most, smallest, epsilon = _limits(target)
    magnitude = np.abs(array)
    largest = float(magnitude.max(initial=0.0))
    if not largest <= most:
        return Unstorable(f"a folded value of magnitude {largest:.3g} overflows {target.name}")
    rounded = array.astype(target)
    if magnitude.min(initial=smallest) < smallest and np.any((magnitude > 0) & (magnitude < smallest)):
        others = tuple(axis for axis in range(array.ndim) if axis != channel_axis % max(array.ndim, 1))
        lost = np.abs(array - rounded.astype(np.float64)).sum(axis=others)
        allowed = _LOSS_LIMIT * epsilon / 2 * magnitude.sum(axis=others)
        if np.any(lost > allowed):
            channel = int(np.argmax(lost - allowed)) if lost.ndim else 0
            return Unstorable(f"folded values of channel {channel} fall below what {target.name} can hold")
    return rounded


def surely_storable(largest: float, smallest: float, factors: Float64Array, dtype: npt.DTypeLike) -> bool:
    """Tell from their magnitudes alone that numbers can be stored once they are multiplied; False leaves it open.

    Args:
        largest: The largest magnitude among the numbers.
        smallest: The smallest among them that is not zero; infinity where there is none.
        factors: What they may be multiplied by, each by one of them; shape ``(C,)``.
        dtype: A floating type, as for ``round_to``.
    """
    most, least, _epsilon = _limits(np.dtype(dtype))
    magnitudes = np.abs(factors)
    grown, shrunk = float(np.maximum.reduce(magnitudes)), float(np.minimum.reduce(magnitudes))
    if shrunk == 0.0:
        shrunk = float(np.minimum.reduce(magnitudes, initial=np.inf, where=magnitudes > 0))
    return largest * grown <= most / 2 and smallest * shrunk >= 2 * least
