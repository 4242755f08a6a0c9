"""Where a result goes: everything that can be known to be wrong is said before the long work, not after it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

__all__ = ["STDOUT", "check_destination", "check_folder", "check_report", "check_stdout", "usage"]

STDOUT = Path("-")


def usage(message: str, hint: str) -> click.UsageError:
    """Return an error of the command line with the next step."""
    error = click.UsageError(message)
    error.hint = hint  # type: ignore[attr-defined]  # read by exits.failure
    return error


def check_destination(path: Path, read: Iterable[Path], *, option: str = "--output") -> None:
    """Refuse a destination that cannot be written, or that is one of the files that are read.

    Args:
        path: Where to write.
        read: Files and folders that the command reads.
        option: The option's name, for the message.

    Raises:
        click.UsageError: If it is one of the files that are read.
        OSError: If nothing can be written there.
    """
    from bnfold.graph.atomic import destination

    for source in read:
        if _same(path, source):
            raise usage(f"{option}: {path} is the file that is read", "Write the result to another path.")
        if path.exists() and _belongs(path.resolve(), source.resolve()):
            raise usage(f"{option}: {path} is one of the files that are read", "Write the result to another folder.")
    target = destination(path)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write in the folder {target.parent}", str(path))


def check_report(report: Path | None, output: Path | None, read: Iterable[Path]) -> None:
    """Refuse a report file that cannot be written, or that is one of the other files."""
    if report is None:
        return
    if report == STDOUT:
        raise usage("--report: standard output is chosen with --format json", "Use: --format json")
    check_destination(report, read, option="--report")
    if output is not None and _same(report, output):
        raise usage(f"--report: {report} is the file of the model", "Give the report a path of its own.")


def check_folder(path: Path | None) -> None:
    """Refuse a folder for a reproduction that is something else, or that cannot be written.

    Raises:
        click.UsageError: If it is a file.
        OSError: If nothing can be written there.
    """
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise usage(f"--repro: {path} is a file", "Name a folder, which may be there already.")
    parent = path if path.is_dir() else path.parent
    if not parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write in the folder {parent}", str(path))


def check_stdout(settings_format: str) -> None:
    """Refuse to write a model to a terminal, or between the lines of a report."""
    if settings_format != "text":
        raise usage("--output -: the model and the report cannot both go to standard output", "Use: --report FILE")
    if sys.stdout.isatty():
        raise usage("--output -: a model is not for a terminal", "Redirect it: -o - > model.onnx")


def _belongs(path: Path, source: Path) -> bool:
    """Say whether a file is part of a source that consists of several: a folder, or the files of a checkpoint."""
    if source.is_dir():
        return path.is_relative_to(source)
    return not source.exists() and path.parent == source.parent and path.name.startswith(f"{source.name}.")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()
