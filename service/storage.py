"""Where uploads and kept files lie: a folder, or S3, Google's or Azure's storage, by way of obstore.

What is kept is named by its content and never changes; it is there whole or not at all. Machines that share a database
share a storage; each has a folder of its own for what it works on and for copies of what lies elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

__all__ = ["Storage", "UnusableStorageError", "artifact", "digest_of", "is_digest", "open_storage", "upload_folder"]

_CHUNK = 2**20
_ATTEMPTS = 5
_LEFT = 86400.0  # seconds after which a copy that nobody finished is taken for forgotten
_PART = 8 * 2**20  # of what is sent to a storage over the network


class UnusableStorageError(Exception):
    """The storage cannot be used; the text says which and what to do."""


def artifact(sha256: str) -> str:
    """Return where a kept file of that content lies."""
    return f"artifacts/{sha256[:2]}/{sha256}"


def is_digest(name: str) -> bool:
    """Say whether a name is a sha256."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def upload_folder(job: str) -> str:
    """Return where the uploads of a job lie."""
    return f"uploads/{job}"


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Storage:
    """An open storage.

    Attributes:
        store: obstore's own object.
        folder: The folder that holds it; None where it is elsewhere.
        copies: The folder for copies of kept files that lie elsewhere.
        copies_size: How many bytes of them are kept.
    """

    store: Any
    folder: Path | None
    copies: Path
    copies_size: int
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def take(self, path: Path, key: str) -> None:
        """Keep a file under a key that is new, or that has the same content already; the file may be used up.

        Raises:
            OSError: If it cannot be written.
        """
        await asyncio.to_thread(self.take_now, path, key)

    def take_now(self, path: Path, key: str, *, unless_there: bool = False) -> None:
        """Keep a file as ``take`` does, and wait for it.

        Args:
            path: The file.
            key: Where it is kept.
            unless_there: Only look whether it is there, where that is cheaper than to write it once more.

        Raises:
            OSError: If it cannot be written.
        """
        if self.folder is not None:
            _take(path, self.folder / key)
            return
        if unless_there and self._has(key):
            return
        # What is there already under this key has the same content: written once more, it is not taken for forgotten.
        with _as_os_error("write", key):
            obstore.put(self.store, key, path, chunk_size=_PART)

    def _has(self, key: str) -> bool:
        try:
            with _as_os_error("read", key):
                obstore.head(self.store, key)
        except FileNotFoundError:
            return False
        return True

    async def fetch(self, key: str, path: Path) -> None:
        """Copy a file out of the storage.

        Raises:
            FileNotFoundError: If it is not there.
            OSError: If it cannot be read or written.
        """
        if self.folder is not None:
            await asyncio.to_thread(shutil.copyfile, self.folder / key, path)
            return
        with _as_os_error("read", key):
            answer = await obstore.get_async(self.store, key)
            with path.open("xb") as file:
                async for chunk in answer.stream(min_chunk_size=_PART):
                    await asyncio.to_thread(file.write, chunk)

    async def local(self, sha256: str) -> Path:
        """Return a file of this machine with a kept content, for reading.

        Raises:
            FileNotFoundError: If nothing of that content is kept.
            OSError: If it cannot be read, or is not what it was.
        """
        if self.folder is not None:
            return self.folder / artifact(sha256)
        path = self.copies / sha256
        lock = self._fetching.setdefault(sha256, asyncio.Lock())
        try:
            async with lock:
                if not path.exists():
                    aside = self.copies / f".{sha256}.{secrets.token_hex(8)}"
                    try:
                        await self.fetch(artifact(sha256), aside)
                        if await asyncio.to_thread(digest_of, aside) != sha256:
                            raise OSError(f"the storage has something else under {artifact(sha256)}")
                        aside.rename(path)
                    finally:
                        aside.unlink(missing_ok=True)
                    await asyncio.to_thread(_make_room, self.copies, self.copies_size, path)
        finally:
            self._fetching.pop(sha256, None)
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    async def drop(self, key: str) -> None:
        """Remove a file; one that is not there is no error.

        Raises:
            OSError: If it cannot be removed.
        """
        await asyncio.to_thread(self.drop_now, key)

    def drop_now(self, key: str) -> None:
        """Remove a file as ``drop`` does, and wait for it.

        Raises:
            OSError: If it cannot be removed.
        """
        if self.folder is not None:
            (self.folder / key).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (self.folder / key).parent.rmdir()
            return
        with contextlib.suppress(FileNotFoundError), _as_os_error("remove", key):
            obstore.delete(self.store, key)

    async def listed(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        """Yield the keys under a prefix, and when each was written, in seconds since 1970."""
        with _as_os_error("list", prefix):
            async for several in obstore.list(self.store, prefix):
                for one in several:
                    yield one["path"], one["last_modified"].timestamp()

    async def check(self) -> None:
        """Write something and remove it again.

        Raises:
            OSError: If that does not work.
        """
        await asyncio.to_thread(self.check_now)

    def check_now(self) -> None:
        """Do as ``check`` does, and wait for it.

        Raises:
            OSError: If that does not work.
        """
        key = f"checks/{secrets.token_hex(16)}"
        with _as_os_error("write", key):
            obstore.put(self.store, key, b"x")
        self.drop_now(key)


def open_storage(url: str, root: Path, copies_size: int) -> Storage:
    """Open a storage.

    Args:
        url: ``s3://bucket/folder``, ``gs://…``, ``az://…`` or ``file:///folder``; empty means the folder ``objects``
            under ``root``. Keys to it and addresses come from the environment, as their own tools have them.
        root: The folder of this service.
        copies_size: How many bytes of copies are kept where the storage is elsewhere.

    Raises:
        UnusableStorageError: If it cannot be used.
        OSError: If the folder cannot be made.
    """
    copies = root / "copies"
    address = urlsplit(url)
    if not url or address.scheme == "file":
        folder = (Path(unquote(address.path)) if url else root / "objects").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return Storage(LocalStore(folder), folder, copies, copies_size)
    try:
        store = from_url(url)
    except (BaseError, ValueError) as error:
        raise UnusableStorageError(
            f"BNFOLD_STORAGE cannot be {url!r}: {str(error).strip().partition(chr(10))[0]}\n"
            "  hint: Set it to s3://BUCKET/FOLDER, gs://…, az://… or file:///FOLDER, or leave it out."
        ) from error
    copies.mkdir(parents=True, exist_ok=True)
    storage = Storage(store, None, copies, copies_size)
    try:
        storage.check_now()
    except OSError as error:
        raise UnusableStorageError(
            f"BNFOLD_STORAGE cannot be used: {error}\n"
            "  hint: Look at BNFOLD_STORAGE, and at the keys and the address in the environment (AWS_… for s3://)."
        ) from error
    return storage


@contextlib.contextmanager
def _as_os_error(what: str, key: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        said = str(error)
        if isinstance(error, FileNotFoundError) and what != "write" and "NoSuchBucket" not in said:
            raise FileNotFoundError(f"the storage has no {key}") from error
        raise OSError(f"the storage cannot {what} {key}: {_in_short(said)}") from error


def _in_short(said: str) -> str:
    """Return the reason that a storage gives, of a message that tells much more."""
    code = re.search(r"<Code>(\w+)</Code>(?:<Message>([^<]{1,200})</Message>)?", said)
    if code is not None:
        return f"{code[1]}: {code[2]}" if code[2] else code[1]
    return said.strip().partition("\n")[0][:300]


def _take(path: Path, target: Path) -> None:
    """Move a file to where it is kept, in one step that happens or does not, and lasts once it has happened."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    for attempt in range(_ATTEMPTS):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not _linked(path, target):
                return
            break
        except FileNotFoundError:  # whoever removed the last file in the folder removes the folder too
            if attempt == _ATTEMPTS - 1:
                raise
    sync_folder(target.parent)


def _linked(path: Path, target: Path) -> bool:
    """Put a file to where it is kept; False where it is there already."""
    try:
        os.link(path, target)
    except FileExistsError:
        os.utime(target)  # it is as good as new, and not to be swept away as something that nobody wants
        return False
    except OSError:
        # Another file system, or one that knows no links: a copy beside it, and then its name.
        aside = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            with path.open("rb") as reader, aside.open("xb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)
                writer.flush()
                os.fsync(writer.fileno())
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)
    return True


def sync_folder(folder: Path) -> None:
    """Make what was put into a folder last."""
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_room(folder: Path, most: int, keep: Path) -> None:
    """Remove the copies that were not used for the longest time, until the others take no more than so many bytes."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.startswith(".") and status.st_mtime < time.time() - _LEFT:
                path.unlink()
                continue
            found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found, key=lambda one: one[0]):
        if total <= most:
            return
        if path != keep and not path.name.startswith("."):
            path.unlink(missing_ok=True)
            total -= size
