"""How far an output is from its float64 reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from bnfold.parity.kernels import Array

__all__ = ["Errors", "Match", "allowed", "joined", "match", "shapes"]

_OWN_SCALE = 8
"""A channel of fewer elements has no root mean square worth the name: its scale is that of its sample."""
_FAINTEST = 2.0**-5
"""A channel fainter than this, relative to the whole output, is measured against this: below lies what the rounding of
its neighbours leaves, and a channel that the reference has at exactly 0 has no scale at all."""


_LARGE = 1000


def allowed(baseline: float, elements: int, u: float) -> float:
    """Return the error that rounding explains: ``3·E(unfolded) + 8u``, or 4 times below 1000 elements.

    Args:
        baseline: The error of the unfolded model.
        elements: How many elements the value has.
        u: The unit round-off of its type.
    """
    return (3 if elements >= _LARGE else 4) * baseline + 8 * u


@dataclass(frozen=True, slots=True)
class Errors:
    """Three relative errors of one output on one probe.

    Attributes:
        whole: ``‖y − r‖₂ / ‖r‖₂``.
        sample: The same of the worst sample (axis 0).
        channel: The worst channel's largest error over that channel's root mean square (axis 1).
    """

    whole: float = 0.0
    sample: float = 0.0
    channel: float = 0.0

    @property
    def worst(self) -> float:
        """The largest of the three: ``E(y)``."""
        return max(self.whole, self.sample, self.channel)


@dataclass(frozen=True, slots=True)
class Match:
    """An output beside its reference.

    Attributes:
        errors: Of the elements that can be compared.
        compared: How many those are: finite in the reference, and within the range of the output's type.
        misplaced: NaN or infinity where the reference has none, or the other way round.
    """

    errors: Errors
    compared: int
    misplaced: int


def joined(value: object) -> Array:
    """Return the elements of a sequence, or of an optional that may be empty, in one row; a tensor is as it is."""
    if isinstance(value, list | tuple):
        rows = [np.reshape(joined(item), -1) for item in value]
        return np.concatenate(rows) if rows else np.zeros(0)
    return np.zeros(0) if value is None else np.asarray(value)


def shapes(value: object) -> object:
    """Return the shape of a tensor, or the shapes of what a sequence holds; None where an optional is empty."""
    if isinstance(value, list | tuple):
        return [shapes(item) for item in value]
    return None if value is None else np.shape(np.asarray(value))


def match(value: Array, reference: Array, *, excused: Array | None = None) -> Match:
    """Compare a floating output with its reference.

    Args:
        value: What a program computed, any floating type.
        reference: float64, the same shape.
        excused: Elements to leave out: there the unfolded model itself overflows.

    Raises:
        ValueError: If the shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shape {value.shape} is not the reference's {reference.shape}")
    if value.dtype.kind == "c":
        pairs = [(value.real, reference.real), (value.imag, reference.imag)]
        value, reference = (np.stack([pair[side] for pair in pairs], axis=-1) for side in (0, 1))
        excused = None if excused is None else np.stack([excused, excused], axis=-1)
    limit = float(ml_dtypes.finfo(value.dtype).max)  # type: ignore[no-untyped-call]
    wide = value.astype(np.float64)
    beyond = np.isfinite(reference) & (np.abs(reference) > limit)
    expected = np.where(beyond, np.copysign(np.inf, reference), reference)
    counted = np.isfinite(expected)
    counted &= True if excused is None else ~excused
    with np.errstate(invalid="ignore"):
        same = (expected == wide) | (np.isnan(expected) & np.isnan(wide))
    # Next to the edge of the type's range, the largest number and infinity are both right.
    edge = beyond & (np.abs(wide) >= limit) & (np.signbit(wide) == np.signbit(reference))
    wrong = np.where(np.isfinite(expected), ~np.isfinite(wide), ~same & ~edge)
    wrong &= True if excused is None else ~excused
    usable = counted & np.isfinite(wide)
    return Match(_errors(wide, expected, usable), int(usable.sum()), int(wrong.sum()))


def _errors(value: Array, reference: Array, usable: Array) -> Errors:
    if not usable.any():
        return Errors()
    r = np.where(usable, reference, 0.0)
    difference = np.abs(np.where(usable, value, 0.0) - r)
    # Scaled first: squares of very small or very large numbers leave the range.
    top = float(np.abs(r).max())
    if top == 0:
        return Errors() if not difference.any() else Errors(math.inf, math.inf, math.inf)
    r, difference = r / top, difference / top
    whole = float(np.sqrt((difference * difference).sum() / (r * r).sum()))
    if r.ndim < 2:
        return Errors(whole, whole, whole)
    rows, deviations = (r * r).reshape(r.shape[0], -1), (difference * difference).reshape(r.shape[0], -1)
    count = np.maximum(usable.reshape(r.shape[0], -1).sum(axis=1), 1)
    rms = math.sqrt(float((r * r).sum()) / max(int(usable.sum()), 1))
    floor = _FAINTEST * rms
    sample = np.sqrt(deviations.sum(axis=1) / count) / np.maximum(np.sqrt(rows.sum(axis=1) / count), floor)
    return Errors(whole, float(sample.max()), _channel_error(r, difference, usable, rms))


def _channel_error(r: Array, difference: Array, usable: Array, rms: float) -> float:
    others = (0, *range(2, r.ndim))
    count = usable.sum(axis=others)
    square = (r * r).sum(axis=others) / np.maximum(count, 1)
    scale = np.where(count >= _OWN_SCALE, np.maximum(np.sqrt(square), _FAINTEST * rms), rms)
    return float((difference.max(axis=others) / scale).max())
