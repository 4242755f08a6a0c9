"""Tensors as the Open Inference Protocol writes them: raw little-endian bytes, or numbers in JSON.

Everything here takes foreign input, so every size is computed in Python's unbounded integers and compared before use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from service.problems import TensorError

__all__ = ["DATATYPES", "Spec", "Tensor", "array_of", "from_json", "of_array", "tensor", "to_json"]

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""The protocol's datatypes, with numpy's names for them."""

_LARGEST = 2**40
_MOST_AXES = 64
_LENGTH = 4  # bytes before each element of BYTES


@dataclass(frozen=True, slots=True)
class Spec:
    """What a model takes or answers: a name, a datatype, and a size for each axis, with -1 where any will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its elements are raw bytes in row-major order, little-endian, and as many as its shape says."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


def tensor(name: str, datatype: object, shape: object, raw: bytes) -> Tensor:
    """Return a tensor of foreign raw bytes after checking that they are exactly what its shape says.

    Raises:
        TensorError: If the datatype is none, the shape is no shape, or the bytes are too few or too many.
    """
    datatype, sizes = _checked(name, datatype, shape)
    if datatype == "BYTES":
        elements = _split(name, raw)
        if len(elements) != math.prod(sizes):
            raise _count(name, sizes, len(elements))
    else:
        wanted = math.prod(sizes) * np.dtype(DATATYPES[datatype]).itemsize
        if len(raw) != wanted:
            raise TensorError(
                f"{name} of shape {list(sizes)} and datatype {datatype} takes {wanted} bytes, and {len(raw)} came",
                hint="Send the elements in row-major order, little-endian, without padding.",
            )
        if datatype == "BOOL" and raw.strip(b"\0\1"):
            raise TensorError(
                f"{name} is BOOL and has a byte that is neither 0 nor 1", hint="Send one byte 0 or 1 per element."
            )
    return Tensor(name, datatype, sizes, raw)


def from_json(name: str, datatype: object, shape: object, content: object) -> Tensor:
    """Return a tensor of numbers that came in JSON, nested by axis or flat.

    Raises:
        TensorError: If they are not of the datatype, or not as many as the shape says.
    """
    datatype, sizes = _checked(name, datatype, shape)
    if datatype == "FP16":
        raise TensorError(
            f"{name} is FP16, which JSON has no form for", hint="Send it as binary, with binary_data_size."
        )
    elements = _flat(name, sizes, content)
    kinds = {type(element) for element in elements}
    allowed = _ALLOWED[datatype[:2]]
    if not kinds <= allowed:
        stray = sorted(_SPOKEN.get(kind, "null") for kind in kinds - allowed)
        raise TensorError(
            f"{name} is {datatype} and holds {' and '.join(stray)}", hint=f"Send {_WANTED[datatype[:2]]}."
        )
    if datatype == "BYTES":
        return Tensor(name, datatype, sizes, _join([_encoded(name, str(element)) for element in elements]))
    with np.errstate(over="ignore"):
        try:
            # By way of float64, so that a number beyond float32 is found instead of becoming infinite.
            wide = np.array(elements, dtype=np.float64 if datatype.startswith("FP") else DATATYPES[datatype])
        except OverflowError:
            raise _range(name, datatype) from None
        array = wide.astype(DATATYPES[datatype])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _range(name, datatype)
    return Tensor(name, datatype, sizes, _little(array).tobytes())


def to_json(answer: Tensor) -> list[Any]:
    """Return the elements of a tensor as JSON has them, flat.

    Raises:
        TensorError: If JSON has no form for them.
    """
    if answer.datatype == "BYTES":
        try:
            return [element.decode("utf-8") for element in _split(answer.name, answer.raw)]
        except UnicodeDecodeError:
            raise _no_json(answer.name, "bytes that are no text") from None
    if answer.datatype == "FP16":
        raise _no_json(answer.name, "FP16")
    array = array_of(answer)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _no_json(answer.name, "NaN or infinity")
    elements: list[Any] = array.ravel().tolist()
    return elements


def array_of(given: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array; elements of BYTES are text.

    Raises:
        TensorError: If an element of BYTES is no text.
    """
    if given.datatype == "BYTES":
        try:
            texts = [element.decode("utf-8") for element in _split(given.name, given.raw)]
        except UnicodeDecodeError:
            raise TensorError(f"{given.name} holds bytes that are no UTF-8", hint="Encode text as UTF-8.") from None
        array = np.empty(len(texts), dtype=object)
        array[:] = texts
    else:
        kind = np.dtype(DATATYPES[given.datatype])
        array = np.frombuffer(given.raw, dtype=kind.newbyteorder("<")).astype(kind, copy=False)
    return array.reshape(given.shape)


def of_array(name: str, datatype: str, array: npt.NDArray[Any]) -> Tensor:
    """Return an array of our own as a tensor."""
    shape = tuple(int(size) for size in array.shape)
    if datatype == "BYTES":
        elements = [
            e if isinstance(e, bytes) else str(e).encode("utf-8", "surrogateescape") for e in array.ravel().tolist()
        ]
        return Tensor(name, datatype, shape, _join(elements))
    return Tensor(name, datatype, shape, _little(np.ascontiguousarray(array, dtype=DATATYPES[datatype])).tobytes())


_SPOKEN: dict[type, str] = {
    bool: "true or false",
    int: "whole numbers",
    float: "numbers with a fraction",
    str: "text",
    list: "lists",
    dict: "objects",
}
_ALLOWED: dict[str, set[type]] = {"BO": {bool}, "BY": {str}, "FP": {int, float}, "IN": {int}, "UI": {int}}
_WANTED = {"BO": "true or false", "BY": "text", "FP": "numbers", "IN": "whole numbers", "UI": "whole numbers"}


def _checked(name: str, datatype: object, shape: object) -> tuple[str, tuple[int, ...]]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise TensorError(f"{name} has the datatype {_short(datatype)}", hint=f"Use one of {', '.join(DATATYPES)}.")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise TensorError(
            f"{name} has the shape {_short(shape)}", hint="Give the shape as a list of whole numbers from 0."
        )
    width = 1 if datatype == "BYTES" else np.dtype(DATATYPES[datatype]).itemsize
    # An axis of size 0 must not hide others that no array could have.
    if len(shape) > _MOST_AXES or math.prod(size or 1 for size in shape) * width > _LARGEST:
        raise TensorError(
            f"{name} has the shape {_short(shape)}, which is beyond any tensor", hint="Send a smaller tensor."
        )
    return datatype, tuple(shape)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flat(name: str, sizes: Sequence[int], content: object) -> list[Any]:
    if not isinstance(content, list):
        raise TensorError(f"{name} has no list as data", hint="Send the elements as a list, flat or nested by axis.")
    if not any(type(element) is list for element in content):
        if len(content) != math.prod(sizes):
            raise _count(name, sizes, len(content))
        return content
    level: list[Any] = [content]
    for axis, size in enumerate(sizes):
        if not all(type(item) is list and len(item) == size for item in level):
            raise TensorError(
                f"the data of {name} is not nested as its shape {list(sizes)}: axis {axis} should have {size} items",
                hint="Send the elements as a list, flat or nested by axis.",
            )
        level = list(chain.from_iterable(level))
    return level


def _count(name: str, sizes: Sequence[int], came: int) -> TensorError:
    return TensorError(
        f"{name} of shape {list(sizes)} has {math.prod(sizes)} elements, and {came} came",
        hint="Send as many elements as the shape says.",
    )


def _range(name: str, datatype: str) -> TensorError:
    return TensorError(
        f"{name} holds a number that {datatype} cannot hold", hint="Send numbers within the datatype's range."
    )


def _no_json(name: str, what: str) -> TensorError:
    return TensorError(
        f"{name} holds {what}, which JSON has no form for", hint="Ask for it as binary, with binary_data: true."
    )


def _little(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise TensorError(
            f"{name} holds text that is no Unicode", hint="Send whole characters, no single surrogates."
        ) from None


def _join(elements: Sequence[bytes]) -> bytes:
    return b"".join(len(element).to_bytes(_LENGTH, "little") + element for element in elements)


def _split(name: str, raw: bytes) -> list[bytes]:
    elements, at = [], 0
    while at < len(raw):
        start = at + _LENGTH
        end = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or end > len(raw):
            raise TensorError(
                f"{name} is BYTES, and an element at byte {at} of {len(raw)} goes beyond the end",
                hint="Send each element as its length in 4 bytes, little-endian, and then its bytes.",
            )
        elements.append(raw[start:end])
        at = end
    return elements
