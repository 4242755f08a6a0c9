"""Weights that an ONNX file keeps in files beside it.

A model file is a program that somebody else wrote, and the names of its data files are part of it. So they may only
lead to plain files below the model's own folder, never through a link, and never beyond a file's end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from onnx import ModelProto, TensorProto

from bnfold.errors import CorruptModelError
from bnfold.graph.outside import Outside
from bnfold.graph.tensors import byte_length, model_tensors

__all__ = ["LARGEST_REPETITION", "load_external_data"]

LARGEST_REPETITION = 4
"""All tensors together may read this many times the size of their files: more is a bomb, not shared weights."""

_FREE = 64 << 20
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_HINT = "Keep the data files of a model in the model's own folder, as plain files, and name them relative to it."


def load_external_data(model: ModelProto, folder: Path, outside: Outside | None = None) -> None:
    """Read every tensor that a model keeps in other files into the model itself.

    Args:
        model: The model; its tensors are filled in place.
        folder: The folder that the model's file is in.
        outside: Where large initializers stay out of memory; None reads all of them.

    Raises:
        CorruptModelError: If a location leaves the folder or is a link, or if the bytes it names are not all there.
        OSError: If a data file exists and cannot be read.
    """
    sizes: dict[str, int] = {}
    read = 0
    initializers = len(model.graph.initializer)
    for number, tensor in enumerate(model_tensors(model)):  # the main graph's initializers come first
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = _entries(tensor)
        expected = byte_length(tensor)
        if expected is None or tensor.data_type == TensorProto.STRING:
            raise CorruptModelError(
                f"tensor '{tensor.name}' is kept in an external file, which its type {tensor.data_type} or its shape "
                f"{list(tensor.dims)} does not allow",
                hint="Export the model again.",
            )
        location = entries.get("location", "")
        offset, length = _number(tensor, entries, "offset", 0), _number(tensor, entries, "length", expected)
        if length != expected:
            raise CorruptModelError(
                f"tensor '{tensor.name}' of shape {list(tensor.dims)} takes {expected} bytes, and its external data "
                f"has {length}",
                hint="Export the model again.",
            )
        with _opened(folder, location, tensor.name) as descriptor:
            size = sizes[location] = os.fstat(descriptor).st_size
            if offset + length > size:
                raise CorruptModelError(
                    f"tensor '{tensor.name}' is bytes {offset} to {offset + length} of '{location}', which has {size}",
                    hint="Download or copy the data file again: it is incomplete, or belongs to another model.",
                )
            read += length
            if read > max(_FREE, LARGEST_REPETITION * sum(sizes.values())):
                raise CorruptModelError(
                    f"its tensors read more than {LARGEST_REPETITION} times the {sum(sizes.values())} bytes of their "
                    "data files",
                    hint="Export the model again, each weight with bytes of its own.",
                )
            stays = outside is not None and number < initializers and outside.takes(length)
            if stays and outside is not None and outside.leave(tensor, descriptor, offset, length):
                continue
            tensor.raw_data = _read(descriptor, offset, length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _entries(tensor: TensorProto) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            raise CorruptModelError(
                f"the external data of tensor '{tensor.name}' states its '{entry.key}' twice",
                hint="Export the model again.",
            )
        entries[entry.key] = entry.value
    return entries


def _number(tensor: TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CorruptModelError(
            f"the external data of tensor '{tensor.name}' has the {key} '{text[:40]}'", hint="Export the model again."
        )
    return int(text)


@contextmanager
def _opened(folder: Path, location: str, tensor: str) -> Iterator[int]:
    """Open a data file, one folder after the other, so that no link is followed even if one appears meanwhile."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    if not parts or location.startswith(("/", "\\")) or ".." in parts or ":" in location or "\0" in location:
        raise CorruptModelError(
            f"tensor '{tensor}' is kept in '{location}', which is not a file below the model's folder", hint=_HINT
        )
    opened: list[int] = []
    try:
        if os.open in os.supports_dir_fd:
            opened.append(os.open(folder, os.O_RDONLY))
            for part in parts[:-1]:
                opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=opened[-1]))
            opened.append(os.open(parts[-1], os.O_RDONLY | _NO_LINK, dir_fd=opened[-1]))
        else:
            # Without such calls links are looked for beforehand: all that is left to do.
            path = folder.joinpath(*parts)
            if any(step.is_symlink() for step in (path, *path.parents[: len(parts) - 1])):
                raise OSError(0, "a link")  # noqa: TRY301 - the same refusal as below
            opened.append(os.open(path, os.O_RDONLY | _NO_LINK))
        about = os.fstat(opened[-1])
    except FileNotFoundError:
        _close(opened)
        raise CorruptModelError(
            f"tensor '{tensor}' is kept in '{location}', and that file is not beside the model",
            hint="Put the data file that was exported with the model into the model's folder.",
        ) from None
    except PermissionError:
        _close(opened)
        raise
    except OSError:
        _close(opened)
        raise CorruptModelError(
            f"tensor '{tensor}' is kept in '{location}', which is a link or no file", hint=_HINT
        ) from None
    try:
        # A second name of the same file may lie anywhere: it is a link too.
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise CorruptModelError(
                f"tensor '{tensor}' is kept in '{location}', which is a link or no file", hint=_HINT
            )
        yield opened[-1]
    finally:
        _close(opened)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _read(descriptor: int, offset: int, length: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        content = file.read(length)
    if len(content) != length:
        raise CorruptModelError(
            f"a data file ended after {len(content)} of {length} bytes while it was read",
            hint="Try again when nobody writes to the model's folder.",
        )
    return content
