"""The folder that keeps folded models: each is there whole or not at all, and never changes.

``models/<name>/1/`` holds ``model.onnx``, ``report.json`` and ``card.json``; all is written under ``aside/`` first.
Everything under ``aside/`` belongs to a request that runs, and is swept away when the service starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.cards import Card, TensorCard, summary_of

__all__ = ["VERSION", "Store", "StoreInUseError", "is_name", "open_store"]

VERSION = "1"
_NAME = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20
_LARGEST_REPORT = 64 * 2**20


class StoreInUseError(Exception):
    """Another service uses the folder."""


def is_name(name: str) -> bool:
    """Say whether a text can be the name of a model; nothing else ever becomes part of a path."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Store:
    """An open store.

    Attributes:
        root: The folder.
        lock: The descriptor that keeps other services out for as long as this one lives.
    """

    root: Path
    lock: int

    def aside(self) -> Path:
        """Make a folder for a request that runs.

        Raises:
            OSError: If the disk is full, for example.
        """
        folder = self.root / "aside" / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder that ``aside`` made, with what is in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names of all kept models, sorted."""
        return sorted(entry.name for entry in os.scandir(self.root / "models") if is_name(entry.name))

    def card(self, name: str) -> Card | None:
        """Return what is known of a model; None where there is none of that name."""
        if not is_name(name):
            return None
        try:
            return Card.model_validate_json((self._version(name) / "card.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    def model(self, name: str) -> Path:
        """Return where the file of a kept model lies."""
        return self._version(name) / "model.onnx"

    def report(self, name: str) -> Path:
        """Return where the report of a kept model lies."""
        return self._version(name) / "report.json"

    def publish(self, name: str, results: Path, upload: str, outcome: dict[str, Any]) -> Card:
        """Keep what a conversion wrote, under its name, in one step that happens or does not.

        The files are copied, not moved: what a conversion had open it cannot change any more.

        Args:
            name: The hash of what was converted, and how.
            results: The folder with ``model.onnx`` and ``report.json``.
            upload: The name that the upload had.
            outcome: What the child said about the model.

        Raises:
            OSError: If the disk is full, for example.
            ValueError: If the results are not what a conversion writes.
        """
        folder = self.aside()
        try:
            version = folder / VERSION
            version.mkdir()
            digest, size = _copy(results / "model.onnx", version / "model.onnx", None)
            _copy(results / "report.json", version / "report.json", _LARGEST_REPORT)
            try:
                summary = summary_of(json.loads((version / "report.json").read_bytes()))
                card = Card(
                    name=name,
                    version=VERSION,
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                    upload=upload,
                    sha256=digest,
                    bytes=size,
                    unrunnable=outcome["unrunnable"],
                    inputs=tuple(TensorCard.model_validate(item) for item in outcome["inputs"]),
                    outputs=tuple(TensorCard.model_validate(item) for item in outcome["outputs"]),
                    summary=summary,
                )
            except (KeyError, TypeError, RecursionError) as error:
                raise ValueError(f"a report that lacks {error}") from error
            _write(version / "card.json", card.model_dump_json(indent=1).encode("utf-8"))
            _sync(version)
            _sync(folder)
            try:
                folder.rename(self.root / "models" / name)
            except OSError:
                kept = self.card(name)  # somebody else was first: what is kept never changes
                if kept is None:
                    raise
                return kept
            _sync(self.root / "models")
            return card
        finally:
            self.discard(folder)

    def _version(self, name: str) -> Path:
        assert is_name(name)
        return self.root / "models" / name / VERSION


def open_store(root: Path) -> Store:
    """Open a store, make it where there is none, and sweep away what requests left that did not end.

    Raises:
        StoreInUseError: If another service uses it.
        OSError: If it cannot be written.
    """
    root = root.resolve()
    for folder in (root, root / "models", root / "aside"):
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
    return Store(root, lock)


def _copy(source: Path, target: Path, most: int | None) -> tuple[str, int]:
    """Copy a regular file, links not followed, and return the sha256 and the size of what was written."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as reader, target.open("xb") as writer:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{source.name} is no file")
        while chunk := reader.read(_CHUNK):
            size += len(chunk)
            if most is not None and size > most:
                raise ValueError(f"{source.name} is larger than {most} bytes")
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest(), size


def _write(target: Path, content: bytes) -> None:
    with target.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
