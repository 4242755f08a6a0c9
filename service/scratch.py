"""The folder of one running service: what it works on, and the lock that keeps others out."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Scratch", "StoreInUseError", "open_scratch"]


class StoreInUseError(Exception):
    """Another service uses the folder."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Folders for requests and conversions that run. What is left of them is swept away at the next start.

    Attributes:
        root: The folder of the service.
        lock: The descriptor that keeps other services out for as long as this one lives.
    """

    root: Path
    lock: int

    def folder(self) -> Path:
        """Make an empty folder.

        Raises:
            OSError: If the disk is full, for example.
        """
        folder = self.root / "aside" / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder that ``folder`` made, with what is in it."""
        shutil.rmtree(folder, ignore_errors=True)


def open_scratch(root: Path) -> Scratch:
    """Open the folder of a service, make it where there is none, and sweep away what did not end.

    Raises:
        StoreInUseError: If another service uses it.
        OSError: If it cannot be written.
    """
    root = root.resolve()
    for folder in (root, root / "aside"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreInUseError(
            f"another service uses the store {root}\n"
            "  hint: Stop it, or give this one a store of its own with BNFOLD_STORE."
        ) from None
    for left in (root / "aside").iterdir():
        shutil.rmtree(left, ignore_errors=True)
    return Scratch(root, lock)
