"""Tensors as the Open Inference Protocol writes them: raw little-endian bytes, or numbers in JSON.

Everything here takes foreign input, so every size is computed in Python's unbounded integers and compared before use.
BF16 is a pattern of 16 bits here, because numpy has no such numbers; elements of BYTES are text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.problems import TensorError

__all__ = [
    "DATATYPES",
    "Array",
    "Raw",
    "Spec",
    "fits",
    "flat_from_json",
    "from_json",
    "from_raw",
    "joined",
    "sizes_of",
    "to_json",
    "to_raw",
]

Array: TypeAlias = npt.NDArray[Any]
Raw: TypeAlias = bytes | bytearray | memoryview

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
    "BF16": "uint16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""The protocol's datatypes, with numpy's names for their elements."""

_KINDS = {name: np.dtype(kind).newbyteorder("<") for name, kind in DATATYPES.items()}
_ONLY_BINARY = ("FP16", "BF16")
_LARGEST = 2**40
_MOST_AXES = 64
_LENGTH = 4  # bytes before each element of BYTES


@dataclass(frozen=True, slots=True)
class Spec:
    """What a model takes or answers: a name, a datatype, and a size for each axis, with -1 where any will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def fits(spec: Spec, datatype: object, shape: object) -> bool:
    """Say whether a tensor that comes with this datatype and this shape is one that the model takes."""
    if datatype != spec.datatype or not isinstance(shape, list) or len(shape) != len(spec.shape):
        return False
    elements = 1
    for size, wanted in zip(shape, spec.shape, strict=True):
        if type(size) is not int or size < 0 or wanted not in (size, -1):
            return False
        elements *= size or 1
    return elements <= _LARGEST >> 3


def sizes_of(name: str, spec: Spec, datatype: object, shape: object) -> tuple[int, ...]:
    """Return the shape of a foreign tensor after checking that it is one, and one that the model takes.

    Raises:
        TensorError: If the datatype or the shape are none, or not those of the model.
    """
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise TensorError(f"{name} has the datatype {_short(datatype)}", hint=f"Use one of {', '.join(DATATYPES)}.")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise TensorError(
            f"{name} has the shape {_short(shape)}", hint="Give the shape as a list of whole numbers from 0."
        )
    # An axis of size 0 must not hide others that no array could have.
    if len(shape) > _MOST_AXES or math.prod(size or 1 for size in shape) > _LARGEST >> 3:
        raise TensorError(
            f"{name} has the shape {_short(shape)}, which is beyond any tensor", hint="Send a smaller tensor."
        )
    if datatype != spec.datatype:
        raise TensorError(
            f"{name} is {datatype}, and the model takes {spec.datatype}", hint=f"Send it as {spec.datatype}."
        )
    if not fits(spec, datatype, shape):
        raise TensorError(
            f"{name} has the shape {_short(shape)}, and the model takes {list(spec.shape)}",
            hint="Send the shape that the model takes; -1 stands for any size.",
        )
    return tuple(shape)


def from_raw(name: str, datatype: str, sizes: Sequence[int], raw: Raw) -> Array:
    """Return the array that foreign raw bytes are, after checking that they are exactly as many as its shape says.

    Raises:
        TensorError: If the bytes are too few or too many, or none of the datatype.
    """
    if datatype == "BYTES":
        elements = _split(name, raw)
        if len(elements) != math.prod(sizes):
            raise _count(name, sizes, len(elements))
        return _texts(name, sizes, elements)
    kind = _KINDS[datatype]
    wanted = math.prod(sizes) * kind.itemsize
    if len(raw) != wanted:
        raise TensorError(
            f"{name} of shape {list(sizes)} and datatype {datatype} takes {wanted} bytes, and {len(raw)} came",
            hint="Send the elements in row-major order, little-endian, without padding.",
        )
    if datatype == "BOOL":
        if bytes(raw).strip(b"\0\1"):
            raise TensorError(
                f"{name} is BOOL and has a byte that is neither 0 nor 1", hint="Send one byte 0 or 1 per element."
            )
        return np.frombuffer(raw, dtype=kind).reshape(sizes)
    array = np.frombuffer(raw, dtype=kind).astype(DATATYPES[datatype], copy=False)
    # The bytes begin wherever the JSON before them ended, and native code must not be given numbers at odd addresses.
    return (array if array.flags.aligned else array.copy()).reshape(sizes)


def flat_from_json(datatype: str, sizes: Sequence[int], elements: Sequence[Any]) -> Array | None:
    """Return the array of a flat list of the right type, or None where something about it is not right.

    It is the fast way for numbers that a typed decoder has read; ``from_json`` says what is wrong.
    """
    if len(elements) != math.prod(sizes):
        return None
    try:
        if datatype.startswith("FP"):
            # By way of float64, so that a number beyond float32 is found instead of becoming infinite.
            array: Array = np.fromiter(elements, np.float64, len(elements))
        else:
            array = np.array(elements, dtype=DATATYPES[datatype])
    except (OverflowError, ValueError, TypeError):
        return None
    if datatype.startswith("FP"):
        if datatype == "FP32":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        if not np.isfinite(array).all():
            return None
    return array.reshape(sizes)


def from_json(name: str, datatype: str, sizes: Sequence[int], content: object) -> Array:
    """Return the array of numbers that came in JSON, nested by axis or flat.

    Raises:
        TensorError: If they are not of the datatype, or not as many as the shape says.
    """
    if datatype in _ONLY_BINARY:
        raise TensorError(
            f"{name} is {datatype}, which JSON has no form for", hint="Send it as binary, with binary_data_size."
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
        return _texts(name, sizes, [_encoded(name, str(element)) for element in elements])
    try:
        array = flat_from_json(datatype, sizes, elements)
    except OverflowError:
        array = None
    if array is None:
        raise _range(name, datatype)
    return array


def to_json(name: str, datatype: str, array: Array) -> list[Any]:
    """Return the elements of an array as JSON has them, flat.

    Raises:
        TensorError: If JSON has no form for them.
    """
    if datatype in _ONLY_BINARY:
        raise _no_json(name, datatype)
    if datatype == "BYTES":
        elements = [_bytes(element) for element in array.ravel().tolist()]
        try:
            return [element.decode("utf-8") for element in elements]
        except UnicodeDecodeError:
            raise _no_json(name, "bytes that are no text") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _no_json(name, "NaN or infinity")
    numbers: list[Any] = array.ravel().tolist()
    return numbers


def to_raw(datatype: str, array: Array) -> Raw:
    """Return the elements of an array of our own as raw bytes."""
    if datatype == "BYTES":
        return joined([_bytes(element) for element in array.ravel().tolist()])
    plain = np.ascontiguousarray(array, dtype=_KINDS[datatype])
    return plain.reshape(-1).view(np.uint8).data


def joined(elements: Sequence[bytes]) -> bytes:
    """Return elements of BYTES as raw bytes."""
    return b"".join(len(element).to_bytes(_LENGTH, "little") + element for element in elements)


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


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise TensorError(
            f"{name} holds text that is no Unicode", hint="Send whole characters, no single surrogates."
        ) from None


def _bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode("utf-8", "surrogateescape")


def _texts(name: str, sizes: Sequence[int], elements: Sequence[bytes]) -> Array:
    array = np.empty(len(elements), dtype=object)
    try:
        array[:] = [element.decode("utf-8") for element in elements]
    except UnicodeDecodeError:
        raise TensorError(f"{name} holds bytes that are no UTF-8", hint="Encode text as UTF-8.") from None
    return array.reshape(sizes)


def _split(name: str, raw: Raw) -> list[bytes]:
    elements, at = [], 0
    while at < len(raw):
        start = at + _LENGTH
        end = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or end > len(raw):
            raise TensorError(
                f"{name} is BYTES, and an element at byte {at} of {len(raw)} goes beyond the end",
                hint="Send each element as its length in 4 bytes, little-endian, and then its bytes.",
            )
        elements.append(bytes(raw[start:end]))
        at = end
    return elements
