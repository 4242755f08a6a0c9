"""Archives: what is in them, found with bounded effort, and unpacked without being led astray."""

from __future__ import annotations

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from bnfold.errors import CorruptModelError, SourceError, UnknownFormatError

__all__ = [
    "LARGEST_UNPACKED",
    "MOST_ENTRIES",
    "Content",
    "archive_names",
    "is_gzip",
    "is_tar",
    "is_zip",
    "model_in",
    "unpack",
]

Content = Literal["saved-model", "onnx", "checkpoint"]
"""What an archive may hold: a model that is several files."""

MOST_ENTRIES = 4096
"""Files and folders that an archive may hold."""

LARGEST_UNPACKED = 4 << 30
"""Bytes that an archive may hold once unpacked."""

_RATIO = 100
_FREE = 64 << 20
_LARGEST_DIRECTORY = 4 << 20
_LONGEST_HEADER = 1 << 20
_ABOUT_ANOTHER = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_CHUNK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
    LookupError,
    RuntimeError,
    NotImplementedError,
)
_PROGRAMS = frozenset({"saved_model.pb", "saved_model.pbtxt"})
_AGAIN = "Download or pack it again."


def is_zip(head: bytes) -> bool:
    """Say whether a file begins like a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def is_gzip(head: bytes) -> bool:
    """Say whether a file begins like gzip."""
    return head[:2] == b"\x1f\x8b"


def is_tar(head: bytes) -> bool:
    """Say whether a file begins like an uncompressed tar archive."""
    return head[257:262] == b"ustar"


def archive_names(path: Path, head: bytes) -> list[str]:
    """Return the names of an archive's files; those of a tar archive as far as it takes to know what it is.

    Raises:
        CorruptModelError: If it breaks off, or holds more than the limits of this module.
    """
    try:
        if is_zip(head):
            _check_directory(path)
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        return list(_tar_names(path))
    except (*_BROKEN, OSError) as error:
        raise _broken(path, error) from None


def model_in(names: Iterable[str], path: Path) -> tuple[Content, str] | None:
    """Return what an archive holds, and where in it: the folder of a SavedModel or a checkpoint, or the ONNX file.

    Args:
        names: Of the archive's files.
        path: Of the archive, for messages.

    Returns:
        None where it holds neither.

    Raises:
        UnknownFormatError: If it holds several models.
    """
    plain = [PurePosixPath(name) for name in names if not name.endswith("/")]
    for one in plain:
        if one.name in _PROGRAMS:
            return "saved-model", _text(one.parent)
    held = set(plain)
    models: list[tuple[Content, PurePosixPath]] = [("onnx", one) for one in plain if one.suffix.lower() == ".onnx"]
    # Of the checkpoints of one training run, which stand in one folder, the newest is taken.
    steps = [one for one in plain if one.suffix == ".meta" and one.with_suffix(".index") in held]
    folders: list[tuple[Content, PurePosixPath]] = [
        ("checkpoint", one) for one in dict.fromkeys(s.parent for s in steps)
    ]
    if len(models) + len(folders) > 1:
        listed = [str(one) for _, one in models] + [str(one) for one in steps]
        raise UnknownFormatError(
            f"{path} is an archive of several models: {', '.join(listed[:4])}{', …' if len(listed) > 4 else ''}",
            hint="Pack the one that is meant alone.",
        )
    for content, one in (*models, *folders):
        return content, _text(one)
    return None


def _text(path: PurePosixPath) -> str:
    return "" if str(path) == "." else str(path)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive into an empty folder, and return the folder of the SavedModel or checkpoint, or the ONNX file.

    Only plain files and folders are unpacked, below the folder, and within ``LARGEST_UNPACKED``, ``MOST_ENTRIES`` and
    a hundred times the archive's own size: running totals, because an archive's own account of itself may lie.

    Raises:
        CorruptModelError: If it breaks off, exceeds a limit, leads out of its folder or holds links.
        UnknownFormatError: If it holds several models.
        SourceError: If it holds none.
    """
    with path.open("rb") as file:
        head = file.read(512)
    budget = min(LARGEST_UNPACKED, max(_FREE, _RATIO * path.stat().st_size))
    names: list[str] = []
    try:
        members = _zip_members(path) if is_zip(head) else _tar_members(path)
        for name, content in members:
            names.append(name)
            if len(names) > MOST_ENTRIES:
                raise CorruptModelError(
                    f"{path} is an archive of more than {MOST_ENTRIES} files", hint="Pack the model alone."
                )
            target = _inside(folder, name, path)
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                while chunk := content.read(_CHUNK):
                    budget -= len(chunk)
                    if budget < 0:
                        raise CorruptModelError(
                            f"{path} unpacks to more than {_RATIO} times its size, or than {LARGEST_UNPACKED} bytes",
                            hint="Unpack it yourself if you trust it, and name the folder.",
                        )
                    out.write(chunk)
    except (*_BROKEN, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _broken(path, error) from None
    except OSError as error:
        # A place before the file's beginning: what else goes wrong with reading and writing is no fault of the archive.
        if error.errno == errno.EINVAL:
            raise _broken(path, error) from None
        raise
    found = model_in(names, path)
    if found is None:
        raise SourceError(f"{path} is an archive without a model", hint="Unpack it and name the model inside.")
    return folder / found[1].replace("\\", "/")


def _zip_members(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                yield entry.filename, None
                continue
            kind = (entry.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000):
                raise CorruptModelError(
                    f"{path} holds '{entry.filename}', which is neither a file nor a folder", hint=_AGAIN
                )
            if entry.flag_bits & 1:
                raise CorruptModelError(
                    f"{path} is encrypted", hint="Unpack it with its password, and name the folder."
                )
            with archive.open(entry) as content:
                yield entry.filename, content


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        for entry in archive:
            if entry.isdir():
                yield entry.name, None
            elif entry.isreg():
                content = archive.extractfile(entry)
                assert content is not None
                yield entry.name, content
            else:
                raise CorruptModelError(
                    f"{path} holds '{entry.name}', which is neither a file nor a folder", hint=_AGAIN
                )


def _tar_names(path: Path) -> Iterator[str]:
    most = min(LARGEST_UNPACKED, max(_FREE, _RATIO * path.stat().st_size))
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        for count, entry in enumerate(archive):
            yield entry.name
            # The variables, which can be large, may come before the graph; their names are evidence enough.
            if PurePosixPath(entry.name).name in _PROGRAMS:
                return
            if count >= MOST_ENTRIES or archive.offset > most:
                return


class _Member(tarfile.TarInfo):
    """A member of a tar archive, whose own account of itself is no longer than a name may be."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:  # tarfile calls it by this name
        """Read what a header says; the library would read names of gigabytes, and maps of holes without end."""
        if self.type in _ABOUT_ANOTHER and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a file with holes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]

    def _proc_gnusparse_00(self, *_: object) -> None:
        raise tarfile.ReadError("a file with holes")

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


def _inside(folder: Path, name: str, path: Path) -> Path:
    plain = PurePosixPath(name.replace("\\", "/"))
    if plain.is_absolute() or ".." in plain.parts or ":" in name or "\0" in name:
        raise CorruptModelError(f"{path} holds '{name}', which leads out of its folder", hint=_AGAIN)
    return folder.joinpath(*plain.parts)


def _check_directory(path: Path) -> None:
    """Refuse a zip archive whose table of contents alone would fill the memory: it is read before it can be counted."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 1024))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("its table of contents is missing")
    (length,) = struct.unpack_from("<I", tail, end + 12)
    large = tail.rfind(b"PK\x06\x06")
    if length == 0xFFFFFFFF and 0 <= large <= len(tail) - 56:
        (length,) = struct.unpack_from("<Q", tail, large + 40)
    if length > _LARGEST_DIRECTORY:
        raise CorruptModelError(
            f"{path} is an archive whose table of contents alone has {length} bytes", hint="Pack the model alone."
        )


def _broken(path: Path, error: BaseException) -> CorruptModelError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return CorruptModelError(f"{path} is an archive that breaks off or is damaged: {reason}", hint=_AGAIN)
