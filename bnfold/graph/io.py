"""ONNX files: read with distrust, written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError, EncodeError
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from bnfold.errors import BnfoldError, CorruptModelError, UnknownFormatError
from bnfold.graph.atomic import Content, aside, destination, is_stream, publish, write_atomically
from bnfold.graph.encoding import encoded, encoded_size
from bnfold.graph.external_data import load_external_data
from bnfold.graph.integrity import check_kind, check_text
from bnfold.graph.outside import Outside, is_outside, outside_bytes, pieces
from bnfold.graph.tensors import (
    EXPORT_AGAIN,
    attribute_tensors,
    byte_length,
    check_tensors,
    graph_initializers,
    model_tensors,
)

__all__ = [
    "LARGEST_FILE",
    "data_files",
    "load_model",
    "parse_model",
    "save_model",
    "serialize",
    "write_atomically",
]

LARGEST_FILE = (1 << 31) - 1
"""Bytes that a single protobuf message may have, so a single ONNX file too."""

_EXTERNAL_FROM = 1024
"""Tensors with fewer bytes stay in the model's file even where the others go beside it."""

_ALIGNED = 4096
_ABOUT = frozenset({"name", "data_type", "dims", "doc_string", "metadata_props"})
"""What a tensor says apart from its content."""


def load_model(path: str | os.PathLike[str], outside: Outside | None = None) -> ModelProto:
    """Read an ONNX file, with the weights that it keeps in files beside it.

    What comes back has text where the format says text, and every tensor has exactly the bytes that its type and its
    shape ask for. At most 2 GiB (``LARGEST_FILE``) are read from the file itself.

    Args:
        path: The file.
        outside: Where large weights in files beside it stay out of memory; None reads all of them.

    Raises:
        UnknownFormatError: If there is no such file, or if its content is no ONNX model.
        CorruptModelError: If it is one that is damaged, incomplete, or reaches outside of its folder.
        OSError: If the file exists and cannot be read.
    """
    path = Path(path)
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnknownFormatError(f"no such file: {path}", hint="Check the path for a typing mistake.") from None
    if stat.S_ISDIR(about.st_mode):
        raise UnknownFormatError(f"{path} is a folder, not an ONNX file", hint="Name the .onnx file inside it.")
    if not stat.S_ISREG(about.st_mode):
        raise UnknownFormatError(
            f"{path} is a device or a pipe, not a file", hint="Write the model to a file first, and name that."
        )
    if about.st_size > LARGEST_FILE:
        raise CorruptModelError(
            f"{path} has {about.st_size} bytes, and one ONNX file can hold {LARGEST_FILE}",
            hint="Export the model with its weights as external data.",
        )
    model = parse_model(path.read_bytes(), path)
    with _about(path):
        load_external_data(model, path.parent, outside)
        check_tensors(model)
    return model


def parse_model(content: bytes, name: str | os.PathLike[str] = "the model") -> ModelProto:
    """Return the model in the bytes of an ONNX file, without its external data and without a look at its tensors.

    Args:
        content: All bytes of the file.
        name: What to call it in errors.

    Raises:
        UnknownFormatError: If the bytes are no ONNX model.
        CorruptModelError: If they are one that is damaged or incomplete.
    """
    name = os.fspath(name)
    if not content:
        raise UnknownFormatError(f"{name} is empty", hint=EXPORT_AGAIN)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        # An ONNX file starts with its IR version, a small number in field 1.
        if content[0] == 0x08 and content[1:2] <= b"\x40":
            raise CorruptModelError(
                f"{name} starts like an ONNX model and breaks off or is damaged within its {len(content)} bytes",
                hint=EXPORT_AGAIN,
            ) from None
        raise UnknownFormatError(
            f"{name} is no ONNX model: its {len(content)} bytes are not in ONNX's binary format",
            hint="Name the file that the ONNX exporter wrote.",
        ) from None
    check_kind(model, name)
    with _about(name):
        check_text(model)
    return model


def serialize(model: ModelProto) -> bytes:
    """Return the bytes of a model, the same for the same model.

    Raises:
        BnfoldError: If it takes more than 2 GiB, which one ONNX file cannot hold; ``save_model`` can write it.
    """
    content = None
    if _payload(model) <= LARGEST_FILE:  # looked up first: encoding what does not fit takes twice the memory
        with contextlib.suppress(EncodeError, ValueError):
            content = b"".join(encoded(model)) if outside_bytes(model) else model.SerializeToString(deterministic=True)
    if content is None or len(content) > LARGEST_FILE:
        raise BnfoldError(
            f"the model has {_payload(model)} bytes of weights, and one ONNX file can hold {LARGEST_FILE}",
            hint="Write the model to a path: its weights then go into a file beside it.",
        )
    return bytes(content)


def save_model(
    model: ModelProto, path: str | os.PathLike[str], *, largest_file: int = LARGEST_FILE
) -> tuple[Path, ...]:
    """Write a model atomically, its weights into a file beside it where one file cannot hold them.

    The file of weights is named after its content. So a reader finds the old model with the old weights or the new one
    with the new weights whenever it looks, and the weights of the model that is replaced are removed at the end.

    Args:
        model: What to write; it is not changed.
        path: Where to.
        largest_file: Bytes from which on the weights go beside the model.

    Returns:
        The files that were written: the model's, and that of its weights if there is one.

    Raises:
        OSError: If a file cannot be written. Then nothing has changed.
    """
    path = Path(path)
    content = _one_file(model, largest_file)
    try:
        target = destination(path)
        if is_stream(target):
            write_atomically(target, serialize(model) if content is None else content)
            return (path,)
        if content is not None:
            _replace(target, content)
            return (path,)
        with aside(target) as (file, temporary):
            bare, digest = _move_out(model, file)
            beside = target.with_name(f"{target.name}.{digest[:16]}.data")
            for tensor in model_tensors(bare):
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = beside.name
            _replace(target, serialize(bare), beside, lambda: publish(file, temporary, beside))
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    return (path, beside)


def _one_file(model: ModelProto, largest_file: int) -> Content | None:
    """Return the content of the one file that holds a model; None if it takes more bytes than such a file may have."""
    if _payload(model) > largest_file:
        return None
    if outside_bytes(model):
        return (lambda file: file.writelines(encoded(model))) if encoded_size(model) <= largest_file else None
    with contextlib.suppress(EncodeError, ValueError):
        content = model.SerializeToString(deterministic=True)
        return content if len(content) <= largest_file else None
    return None


def _replace(
    target: Path, content: Content, beside: Path | None = None, put_beside: Callable[[], object] = lambda: None
) -> None:
    """Put a model into its place, its weights before it, and remove the weights of the model that was there."""
    if beside is None and not any(target.parent.glob(f"{glob.escape(target.name)}.*.data")):
        write_atomically(target, content)
        return
    with _alone_in(target.parent):
        replaced = _own_data(target)
        existed = beside is not None and beside.exists()
        try:
            put_beside()
            write_atomically(target, content)
        except BaseException:
            if beside is not None and not existed:
                beside.unlink(missing_ok=True)
            raise
        for old in replaced - {beside}:
            old.unlink(missing_ok=True)


@contextlib.contextmanager
def _about(name: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file a refusal is about."""
    try:
        yield
    except CorruptModelError as error:
        raise CorruptModelError(f"{os.fspath(name)} is damaged: {error}", hint=error.hint) from None


def _payload(model: ModelProto) -> int:
    """Return how many bytes of weights would stand in a model's own file."""
    return sum(
        byte_length(tensor) or 0
        for tensor in model_tensors(model)
        if tensor.data_location != TensorProto.EXTERNAL or is_outside(tensor)
    )


def _move_out(model: ModelProto, file: BinaryIO) -> tuple[ModelProto, str]:
    """Write a model's weights to a file; return the model with references in their place, and the content's hash."""
    bare = ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _set(bare, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _set(bare.graph, field.name, value)
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        _move_tensor(tensor, bare.graph.initializer.add(), file, digest)
    inner = [*graph_initializers(bare.graph), *attribute_tensors(bare.graph.node)]
    for tensor in inner[len(model.graph.initializer) :]:
        copy = TensorProto()
        _move_tensor(tensor, copy, file, digest)
        tensor.CopyFrom(copy)
    return bare, digest.hexdigest()


def _set(message: ModelProto | GraphProto | TensorProto, field: str, value: object) -> None:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        getattr(message, field).extend(value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, field).CopyFrom(value)
    else:
        setattr(message, field, value)


def _move_tensor(tensor: TensorProto, bare: TensorProto, file: BinaryIO, digest: hashlib._Hash) -> None:
    size = byte_length(tensor)
    if size is None or size < _EXTERNAL_FROM or tensor.data_type == TensorProto.STRING:
        bare.CopyFrom(tensor)
        return
    parts: Iterable[bytes | bytearray] = pieces(tensor) if is_outside(tensor) else (_raw(tensor),)
    offset = file.tell()
    gap = b"\0" * (-offset % _ALIGNED)
    for part in itertools.chain([gap], parts):
        file.write(part)
        digest.update(part)
    for field, value in tensor.ListFields():
        if field.name in _ABOUT:
            _set(bare, field.name, value)
    bare.data_location = TensorProto.EXTERNAL
    for key, value in (("location", ""), ("offset", str(offset + len(gap))), ("length", str(size))):
        bare.external_data.add(key=key, value=value)


def _raw(tensor: TensorProto) -> bytes:
    return (
        tensor.raw_data
        if tensor.HasField("raw_data")
        else numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    )


def data_files(path: Path) -> list[str]:
    """Return the names of the files that an ONNX model keeps weights in, as it tells them, each once.

    Raises:
        CorruptModelError: If the file is damaged.
        OSError: If it cannot be read.
    """
    tensors = [
        tensor
        for tensor in model_tensors(parse_model(path.read_bytes(), path))
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    return sorted({one.value for tensor in tensors for one in tensor.external_data if one.key == "location"})


def _own_data(path: Path) -> set[Path]:
    """Return the files of weights that this module wrote for the model that stands at a path now."""
    try:
        model = parse_model(path.read_bytes(), path)
    except (OSError, BnfoldError):
        return set()
    names = {
        entry.value for tensor in model_tensors(model) for entry in tensor.external_data if entry.key == "location"
    }
    start, end = f"{path.name}.", ".data"
    return {
        path.with_name(name)
        for name in names
        if name.startswith(start) and name.endswith(end) and len(name) == len(start) + 16 + len(end) and "/" not in name
    }


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder while several of its files change together, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
