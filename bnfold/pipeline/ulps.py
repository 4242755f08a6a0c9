"""How far two tensors are apart, in units in the last place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Distance", "distance", "ulps"]

Array = npt.NDArray[Any]

_CHUNK = 1 << 20
"""Elements that are compared at a time: the arrays beside a tensor stay small."""
_FLOATS = {
    np.dtype(np.float64): 64,
    np.dtype(np.float32): 32,
    np.dtype(np.float16): 16,
    np.dtype(ml_dtypes.bfloat16): 16,
}


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two tensors of one shape are apart.

    Attributes:
        elements: How many there are.
        changed: How many differ.
        ulps: The largest difference in units in the last place; NaN for types that are no floats, infinite where one of
            two is not finite.
        largest: The largest difference of two finite elements.
    """

    elements: int
    changed: int
    ulps: float
    largest: float


def distance(a: TensorProto, b: TensorProto) -> Distance:
    """Compare two tensors of one shape, element by element; of two float types, in the narrower one.

    Args:
        a: One tensor, with its bytes.
        b: The other.
    """
    elements = math.prod(a.dims)
    if a.data_type == b.data_type:
        if a.HasField("raw_data") and b.HasField("raw_data") and a.raw_data == b.raw_data:
            return Distance(elements, 0, math.nan, 0.0)
        if a.data_type == TensorProto.STRING:
            changed = sum(one != other for one, other in zip(a.string_data, b.string_data, strict=True))
            return Distance(elements, changed, math.nan, math.nan)
    elif TensorProto.STRING in {a.data_type, b.data_type}:
        return Distance(elements, elements, math.nan, math.nan)
    one, other = (np.asarray(numpy_helper.to_array(tensor)).reshape(-1) for tensor in (a, b))
    changed, furthest, largest = 0, math.nan, 0.0
    for part, beside in _parts(one, other):
        differs = _differs(part, beside)
        if not differs.any():
            continue
        changed += int(differs.sum())
        pair = part[differs], beside[differs]
        far = ulps(*pair)
        if far is not None:
            furthest = far if math.isnan(furthest) else max(furthest, far)
        largest = max(largest, _largest(*pair))
    return Distance(elements, changed, furthest, largest)


def ulps(a: Array, b: Array) -> float | None:
    """Return by how many representable numbers two arrays are apart at most; None for types that are no floats.

    Args:
        a: Floats of some type; not empty.
        b: Floats of the same or another type, as many.
    """
    if a.dtype not in _FLOATS or b.dtype not in _FLOATS:
        return None
    if a.dtype != b.dtype:
        narrow = min(a.dtype, b.dtype, key=lambda dtype: float(-ml_dtypes.finfo(dtype).eps))  # type: ignore[no-untyped-call]
        with np.errstate(over="ignore", under="ignore"):
            a, b = a.astype(narrow), b.astype(narrow)
    finite = np.isfinite(a) & np.isfinite(b)
    if not (finite | _same(a, b)).all():
        return math.inf
    one, other = _ordered(a[finite]), _ordered(b[finite])
    if not one.size:
        return 0.0
    # Unsigned, because two numbers of either sign are further apart than a signed integer counts.
    apart = np.where(one > other, one - other, other - one)
    return float(apart.max())


def _ordered(values: Array) -> Array:
    """Return floats as unsigned integers in the same order, neighbours one apart; both zeros are the same."""
    width = _FLOATS[values.dtype]
    bits = values.view(f"u{width // 8}").astype(np.uint64)
    sign, magnitude = bits >> np.uint64(width - 1), bits & np.uint64((1 << (width - 1)) - 1)
    middle = np.uint64(1 << 63)
    return np.where(sign == 1, middle - magnitude, middle + magnitude)


def _parts(one: Array, other: Array) -> Iterator[tuple[Array, Array]]:
    for start in range(0, one.size, _CHUNK):
        yield one[start : start + _CHUNK], other[start : start + _CHUNK]


def _differs(one: Array, other: Array) -> Array:
    return np.asarray(~_same(one, other))


def _same(one: Array, other: Array) -> Array:
    """Say where two arrays have the same number; NaN is the same as NaN, and the two zeros are not."""
    with np.errstate(invalid="ignore"):
        same = np.asarray(one == other)
        if one.dtype.kind in "fV" or other.dtype.kind in "fV" or one.dtype in _FLOATS:
            wide, beside = one.astype(np.float64), other.astype(np.float64)
            same = same & (np.signbit(wide) == np.signbit(beside))
            same |= np.isnan(wide) & np.isnan(beside)
    return same


def _largest(one: Array, other: Array) -> float:
    wide = np.complex128 if "c" in (one.dtype.kind, other.dtype.kind) else np.float64
    with np.errstate(all="ignore"):
        apart = np.abs(one.astype(wide) - other.astype(wide))
    finite = apart[np.isfinite(apart)]
    return float(finite.max()) if finite.size else math.nan
