"""Weights that are not in memory: in the data files of a model, and in a nameless file beside the result.

A tensor of this kind is a ``TensorProto`` with external data whose location no file has: it names an open ``Outside``.
So models can be copied, planned for and folded as always, and the few places that read a tensor's content ask here.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from onnx import ModelProto, TensorProto

from bnfold.errors import BnfoldError, CorruptModelError

__all__ = ["Outside", "content", "in_memory", "is_outside", "outside_bytes", "pieces"]

_PREFIX = "bnfold-outside:"
_FROM = 1 << 16
"""Tensors with fewer bytes are in memory all the same."""

_CAN = hasattr(os, "preadv")
_PIECE = 1 << 22
_MOST_FILES = 128
_OPEN: dict[str, Outside] = {}
_NUMBERS = itertools.count()


class Outside:
    """A context in which a model's large weights stay out of memory. Models that refer to it end with it.

    Attributes:
        folder: Where weights that are new are kept meanwhile: a nameless file, which is gone when the process is.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Prepare a context; nothing is opened yet."""
        self.folder = Path(folder)
        self._name = str(next(_NUMBERS))
        self._files: list[int] = []
        self._known: dict[tuple[int, int], int] = {}
        self._new: BinaryIO | None = None
        self._new_number = 0

    def __enter__(self) -> Self:
        """Open it."""
        _OPEN[self._name] = self
        return self

    def __exit__(self, *_error: object) -> None:
        """Close all files."""
        del _OPEN[self._name]
        while self._files:
            os.close(self._files.pop())
        if self._new is not None:
            self._new.close()
        self._new = None

    def takes(self, length: int) -> bool:
        """Tell whether a tensor of so many bytes stays out of memory."""
        return _CAN and length >= _FROM

    def leave(self, tensor: TensorProto, descriptor: int, offset: int, length: int) -> bool:
        """Leave a tensor where it is in a file; False if that takes one open file too many.

        Args:
            tensor: Changed in place.
            descriptor: The open file; the caller may close it.
            offset: Where the tensor begins, in bytes.
            length: How many bytes it has.
        """
        about = os.fstat(descriptor)
        number = self._known.get((about.st_dev, about.st_ino))
        if number is None:
            if len(self._files) >= _MOST_FILES:
                return False
            number = self._known[about.st_dev, about.st_ino] = len(self._files)
            self._files.append(os.dup(descriptor))
        self._refer(tensor, number, offset, length)
        return True

    def put(self, tensor: TensorProto) -> TensorProto:
        """Write the raw content of a new tensor out of memory, and return a tensor that refers to it.

        A tensor of which only the content is cleared would hold the memory all the same.

        Raises:
            OSError: If the disk is full; its ``filename`` is the folder.
        """
        bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        self.put_content(bare, tensor.raw_data)
        return bare

    def put_content(self, tensor: TensorProto, raw: bytes | bytearray) -> None:
        """Write the content of a new tensor out of memory, and let the tensor, which has none, refer to it.

        Raises:
            OSError: If the disk is full; its ``filename`` is the folder.
        """
        try:
            offset = self._append(raw)
        except OSError as error:
            raise type(error)(error.errno, error.strerror or str(error), str(self.folder)) from error
        self._refer(tensor, self._new_number, offset, len(raw))

    def _append(self, new: bytes | bytearray) -> int:
        """Write to the end of the nameless file, and return where."""
        if self._new is None:
            # Nameless where the system can: nothing is left of it, even if the process is killed.
            self._new = tempfile.TemporaryFile(dir=self.folder, prefix=".bnfold-", buffering=0)  # noqa: SIM115
            self._new_number = len(self._files)
            self._files.append(os.dup(self._new.fileno()))
        offset = self._new.seek(0, os.SEEK_END)
        view = memoryview(new)
        while view:
            view = view[self._new.write(view) :]
        return offset

    def read(self, number: int, offset: int, length: int) -> bytearray:
        """Return bytes of a file.

        Raises:
            CorruptModelError: If the file has become shorter.
            OSError: If it cannot be read.
        """
        found = bytearray(length)
        rest = memoryview(found)
        while rest:
            count = os.preadv(self._files[number], [rest], offset + length - len(rest))
            if not count:
                raise CorruptModelError(
                    "a data file became shorter while it was read",
                    hint="Try again when nobody writes to the model's folder.",
                )
            rest = rest[count:]
        return found

    def _refer(self, tensor: TensorProto, number: int, offset: int, length: int) -> None:
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=f"{_PREFIX}{self._name}:{number}")
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(length))


def is_outside(tensor: TensorProto) -> bool:
    """Tell whether a tensor's content is out of memory."""
    return (
        tensor.data_location == TensorProto.EXTERNAL
        and len(tensor.external_data) == 3
        and tensor.external_data[0].value.startswith(_PREFIX)
    )


def _place(tensor: TensorProto) -> tuple[Outside, int, int, int]:
    location, offset, length = (entry.value for entry in tensor.external_data)
    name, number = location.removeprefix(_PREFIX).split(":")
    if name not in _OPEN:
        raise BnfoldError(
            f"the content of tensor '{tensor.name}' was left in a file that is closed",
            hint="Save the model before the Outside that it was read with is closed.",
        )
    return _OPEN[name], int(number), int(offset), int(length)


def content(tensor: TensorProto) -> bytearray:
    """Return all bytes of a tensor that is out of memory, little-endian as in a file.

    Raises:
        BnfoldError: If the context that it was left in is closed.
        CorruptModelError: If its file has become shorter.
        OSError: If it cannot be read.
    """
    outside, number, offset, length = _place(tensor)
    return outside.read(number, offset, length)


def in_memory(tensor: TensorProto) -> TensorProto:
    """Return a tensor with its content: itself, or a copy where it is out of memory.

    Raises:
        BnfoldError: If the context that it was left in is closed.
        CorruptModelError: If its file has become shorter.
        OSError: If it cannot be read.
    """
    if not is_outside(tensor):
        return tensor
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(content(tensor)))


def pieces(tensor: TensorProto) -> Iterator[bytearray]:
    """Yield the bytes of a tensor that is out of memory, a few million at a time.

    Raises:
        BnfoldError: If the context that it was left in is closed.
        CorruptModelError: If its file has become shorter.
        OSError: If it cannot be read.
    """
    outside, number, offset, length = _place(tensor)
    for start in range(0, length, _PIECE):
        yield outside.read(number, offset + start, min(_PIECE, length - start))


def outside_bytes(model: ModelProto) -> int:
    """Return how many bytes of a model's weights are out of memory."""
    return sum(int(tensor.external_data[2].value) for tensor in model.graph.initializer if is_outside(tensor))
