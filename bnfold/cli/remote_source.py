"""What is sent to a service: a file as it is, a folder as a zip archive that is made for it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bnfold.cli.destination import usage
from bnfold.errors import UnknownFormatError

__all__ = ["Parcel", "packed"]

_PROGRAM = ("saved_model.pb", "saved_model.pbtxt")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same folder makes the same archive, whenever its files were written
_CHUNK = 2**20


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
        UnknownFormatError: If it is a folder, and no SavedModel.
        click.UsageError: If a file of it cannot be sent.
        OSError: If it cannot be read, or there is no room for an archive.
    """
    if source.is_dir():
        if not any((source / name).is_file() for name in _PROGRAM):
            raise UnknownFormatError(
                f"{source} is a folder without {_PROGRAM[0]}, and of folders a service takes only SavedModels",
                hint="Convert it without --server, or send a single file.",
            )
        with tempfile.TemporaryFile() as archive:
            _pack(source, archive)
            yield Parcel(f"{source.resolve().name or 'model'}.zip", archive, archive.seek(0, os.SEEK_END))
        return
    if _is_checkpoint(source):
        raise usage(
            f"{source} is a checkpoint, which is several files, and a service takes one", "Convert it without --server."
        )
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise usage(f"{source} is no file and no folder", "Write it to a file first.")
        yield Parcel(source.name, file, status.st_size)


def _is_checkpoint(source: Path) -> bool:
    """Say whether a path names a checkpoint, or one of its files."""
    stem = re.sub(r"\.(meta|index|data-\d+-of-\d+)$", "", source.name)
    listed = source.name == "checkpoint" and any(source.parent.glob("*.index"))
    return listed or source.with_name(f"{stem}.index").exists()


def _pack(folder: Path, archive: IO[bytes]) -> None:
    root = folder.resolve()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(root.rglob("*")):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise usage(
                    f"{path} is a link to something outside of {folder}",
                    "Put the file itself there, or take the link out.",
                )
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo(f"{root.name or 'model'}/{path.relative_to(root).as_posix()}", _EPOCH)
            entry.file_size = path.stat().st_size
            with path.open("rb") as reader, file.open(entry, "w") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
