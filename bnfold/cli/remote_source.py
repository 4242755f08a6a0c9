"""What is sent to a service: a file as it is, and what is several files as a zip archive that is made for it."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from bnfold.cli.destination import usage
from bnfold.errors import CorruptModelError, UnknownFormatError

__all__ = ["Parcel", "packed"]

_PROGRAM = ("saved_model.pb", "saved_model.pbtxt")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same folder makes the same archive, whenever its files were written
_CHUNK = 2**20
_VALUES = re.compile(r"\.data-\d+-of-\d+$")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent as the model.

    Attributes:
        name: The name of the file.
        file: Its content, open for reading.
        size: Of its content, in bytes.
    """

    name: str
    file: IO[bytes]
    size: int


@contextlib.contextmanager
def packed(source: Path) -> Iterator[Parcel]:
    """Open what there is to send, while the context lasts.

    Raises:
        UnknownFormatError: If it is a folder, and neither a SavedModel nor a checkpoint.
        CorruptModelError: If a part of it is missing.
        click.UsageError: If a file of it cannot be sent.
        OSError: If it cannot be read, or there is no room for an archive.
    """
    several = _files_of(source)
    if several is not None:
        name, files = several
        with tempfile.TemporaryFile() as archive:
            _pack(name, files, archive)
            yield Parcel(f"{name}.zip", archive, archive.seek(0, os.SEEK_END))
        return
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise usage(f"{source} is no file and no folder", "Write it to a file first.")
        yield Parcel(source.name, file, status.st_size)


def _files_of(source: Path) -> tuple[str, list[tuple[str, Path]]] | None:
    """Return what to call an archive, and the files in it by their names there; None for what is one file."""
    from bnfold.frontends.sniff import checkpoint_prefix

    if source.is_dir():
        if any((source / name).is_file() for name in _PROGRAM):
            return source.resolve().name or "model", list(_below(source))
        prefix = _newest(source)
        if prefix is None:
            raise UnknownFormatError(
                f"{source} is a folder without {_PROGRAM[0]} and without a checkpoint, and of folders a service takes "
                "nothing else",
                hint="Send a single file, or convert it without --server.",
            )
        return prefix.name, _parts(prefix)
    if source.name == "checkpoint" and (prefix := _newest(source.parent)) is not None:
        return prefix.name, _parts(prefix)
    prefix = checkpoint_prefix(source)
    if prefix is not None:
        return prefix.name, _parts(prefix)
    if weights := _weights_beside(source):
        return source.stem, [(source.name, source), *weights]
    return None


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    root = folder.resolve()
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise usage(
                f"{path} is a link to something outside of {folder}",
                "Put the file itself there, or take the link out.",
            )
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def _newest(folder: Path) -> Path | None:
    """Return the prefix of a folder's newest checkpoint; None where there is none that can be packed."""
    from bnfold.frontends.tensorflow.checkpoint import newest

    try:
        prefix = newest(folder)
    except CorruptModelError:
        return None
    return prefix if prefix.with_name(f"{prefix.name}.index").is_file() else None


def _parts(prefix: Path) -> list[tuple[str, Path]]:
    """Return the files of a checkpoint.

    Raises:
        CorruptModelError: If its graph or its values are missing.
    """
    graph = prefix.with_name(f"{prefix.name}.meta")
    if not graph.is_file():
        raise CorruptModelError(
            f"{prefix} is a checkpoint without its graph: {graph.name} is not there",
            hint="Put the .meta file of the same run beside it.",
        )
    data = sorted(
        path
        for path in prefix.parent.iterdir()
        if path.name.startswith(f"{prefix.name}.data-") and _VALUES.sub("", path.name) == prefix.name
    )
    if not data:
        raise CorruptModelError(
            f"{prefix} is a checkpoint without its values: {prefix.name}.data-00000-of-00001 is not there",
            hint="Put the .data files of the same run beside it.",
        )
    return [(path.name, path) for path in (graph, prefix.with_name(f"{prefix.name}.index"), *data)]


def _weights_beside(source: Path) -> list[tuple[str, Path]]:
    """Return the files that an ONNX model names as those of its weights.

    Raises:
        CorruptModelError: If one is not there.
        click.UsageError: If one does not lie below the model's folder.
    """
    if not source.is_file() or source.stat().st_size == 0:
        return []
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") < 0:  # what names another file says so by this word
            return []
    from bnfold.frontends.sniff import Format, sniff
    from bnfold.graph.io import data_files

    if sniff(source) is not Format.ONNX:
        return []
    found = []
    for name in data_files(source):
        path = source.parent / name
        if PurePosixPath(name).is_absolute() or not path.resolve().is_relative_to(source.parent.resolve()):
            raise usage(
                f"{source} keeps weights in {name}, which is not below its folder",
                "Put its weights beside it, and name them relative to it.",
            )
        if not path.is_file():
            raise CorruptModelError(
                f"{source} keeps weights in {name}, which is not there",
                hint="Put the data files of the model beside it.",
            )
        found.append((name, path))
    return found


def _pack(folder: str, files: Iterable[tuple[str, Path]], archive: IO[bytes]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, path in files:
            entry = zipfile.ZipInfo(f"{folder}/{name}", _EPOCH)
            entry.file_size = path.stat().st_size
            with path.open("rb") as reader, file.open(entry, "w") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
