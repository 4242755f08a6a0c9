"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["Content", "aside", "destination", "is_stream", "publish", "write_atomically"]

Content = bytes | Callable[[BinaryIO], object]


def write_atomically(path: str | os.PathLike[str], content: Content) -> None:
    """Write a file so that any reader, at any moment, finds the old content or the new one, and never a part.

    The content goes into a file aside, in the same folder, is flushed to the disk and renamed into place. Whatever goes
    wrong on the way, Ctrl-C and a full disk included, an existing file stays untouched and nothing new is left behind.
    Several writers may write the same path at once: the last one to finish wins. A link stays a link, and what it
    points to is replaced. A device or a pipe is written to directly. An existing file keeps its permissions.

    Args:
        path: Where to; its folder must exist.
        content: The bytes, or a function that writes them into the open file that it is given.

    Raises:
        OSError: If the file cannot be written; its ``filename`` is the path that was asked for.
    """
    target = destination(path)
    try:
        if is_stream(target):
            with target.open("wb", buffering=0) as stream:
                _fill(stream, content)
            return
        with aside(target) as (file, temporary):
            _fill(file, content)
            publish(file, temporary, target)
    except OSError as error:
        raise _named(error, path) from error


def destination(path: str | os.PathLike[str]) -> Path:
    """Return the path that a rename has to replace: links followed, and known to be neither a folder nor in none.

    Raises:
        OSError: If the path is a folder, or lies in a folder that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder stands where the file should be written", str(path))
    if is_stream(path):
        return path
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, "its links lead in a circle", str(path))
    if not target.parent.is_dir():
        if target.parent.exists():
            raise NotADirectoryError(errno.ENOTDIR, f"{target.parent} is a file, not a folder", str(path))
        raise FileNotFoundError(errno.ENOENT, f"the folder {target.parent} does not exist", str(path))
    return target


@contextlib.contextmanager
def aside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new file beside the target, and see that it is gone when the block is left, however that happens."""
    # The name is short and random: the target's own may already be as long as the file system allows.
    temporary = target.parent / f".bnfold-{secrets.token_hex(8)}.part"
    try:
        # Created inside the block: an interrupt right after the creation must still find its way to the removal.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def publish(file: BinaryIO, temporary: Path, target: Path) -> None:
    """Flush a file that was written aside to the disk, and rename it to the target."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    file.flush()
    os.fsync(file.fileno())
    file.close()
    temporary.replace(target)
    _sync_folder(target.parent)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        view = memoryview(content)
        while view:  # an unbuffered stream may take only a part at a time
            view = view[file.write(view) :]


def is_stream(path: Path) -> bool:
    """Say whether a path is a device, a pipe or a socket: something to write to, and never to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be flushed at all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _named(error: OSError, path: str | os.PathLike[str]) -> OSError:
    """Return the same error about the path that the caller knows, not about the file aside."""
    return type(error)(error.errno, error.strerror or str(error), str(path))
