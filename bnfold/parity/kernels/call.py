"""What a kernel is told about the node that it computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Call", "Inputs", "Kernel", "computes_with", "given", "required", "roundoff", "spare", "widen"]

Array = npt.NDArray[Any]
Inputs = Sequence[Array | None]
Kernel = Callable[["Call", Inputs], tuple[Array, ...]]

_FLOATS = frozenset({np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64), np.dtype(ml_dtypes.bfloat16)})


def computes_with(array: Array) -> bool:
    """Whether the reference computes with it: float16, bfloat16, float32 or float64; eight-bit floats are storage."""
    return array.dtype in _FLOATS


def widen(array: Array) -> Array:
    """Return numbers that the reference computes with as float64 (or complex128), everything else as it is."""
    if array.dtype in _FLOATS:
        return array.astype(np.float64, copy=False)
    return array.astype(np.complex128) if array.dtype == np.complex64 else array


def roundoff(dtype: np.dtype[np.generic]) -> float:
    """Return the unit round-off of a floating type: 2⁻⁵³, 2⁻²⁴, 2⁻¹¹ or 2⁻⁸; 0 for every other type."""
    if dtype.kind == "c":
        return roundoff(np.dtype(np.float32 if dtype.itemsize == 8 else np.float64))
    return float(ml_dtypes.finfo(dtype).eps) / 2 if computes_with(np.empty(0, dtype)) else 0.0  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Call:
    """One node, without its inputs.

    Attributes:
        op_type: The operation, of the standard domain.
        version: The version of the operation's definition that the model uses; its semantics follow from it.
        attributes: The node's attributes over the definition's defaults. Float attributes have their exact float32
            value, because that is what the file holds.
        outputs: The node's output names, empty ones included.
    """

    op_type: str
    version: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("",)

    def integer(self, name: str, default: int = 0) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name)
        return default if value is None else int(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers; empty if the node has none."""
        value = self.attributes.get(name)
        return () if value is None else tuple(int(item) for item in value)

    def number(self, name: str, default: float) -> float:
        """Return a number: the exact float32 value that the file holds, the default rounded to it."""
        value = self.attributes.get(name)
        return float(np.float32(default if value is None else value))

    def text(self, name: str, default: str = "") -> str:
        """Return a text attribute."""
        value = self.attributes.get(name)
        return default if value is None else str(value)

    def asks_for(self, position: int) -> bool:
        """Whether somebody can read an output."""
        return position < len(self.outputs) and bool(self.outputs[position])


def given(inputs: Inputs, position: int) -> Array | None:
    """Return an optional input."""
    return inputs[position] if position < len(inputs) else None


def _holders(inputs: Inputs, position: int) -> int:
    return sys.getrefcount(inputs[position])


_ALONE = _holders([np.empty(0)], 0)
"""How many references are counted to what one list alone holds."""


def spare(inputs: Inputs, position: int) -> Array | None:
    """Return a float64 input that nobody but the list holds, so that an output may take its memory; None otherwise.

    New memory costs as much as what is computed into it. Whoever asks must not hold the input already; a view of it
    does, too.
    """
    if _holders(inputs, position) > _ALONE:
        return None
    value = inputs[position]
    if type(value) is not np.ndarray or value.dtype != np.float64:
        return None
    return value if value.flags.owndata and value.flags.writeable and value.flags.c_contiguous else None


def required(inputs: Inputs, position: int) -> Array:
    """Return an input that the operation cannot do without.

    Raises:
        ValueError: If it is absent.
    """
    value = given(inputs, position)
    if value is None:
        raise ValueError(f"input {position} is absent")
    return value
