"""One conversion: a child of its own with limits, what it tells while it runs, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.problems import (
    CrashedError,
    InternalError,
    KilledError,
    LimitError,
    RefusedError,
    SandboxError,
    StorageError,
    TimeLimitError,
)
from service.processes import end_group
from service.reading import blame
from service.sandbox import NOT_CONFINED, Choice, Limits, child_command, child_environment, ended
from service.settings import Settings

__all__ = ["Tell", "convert"]

Tell = Callable[[str, float | None], None]
"""Told the step that runs, and how much of it is done."""

_LOG = logging.getLogger("service.jobs")
_LARGEST_OUTCOME = 2**20
_LONGEST_LINE = 2**14
_TAIL = 8192


async def convert(
    folder: Path, upload: str, options: Mapping[str, Any], tell: Tell, *, settings: Settings, sandbox: Choice
) -> dict[str, Any]:
    """Convert an upload, and return what the child says of the model that now lies in the folder ``out``.

    Cancelling it kills the child and everything that the child started.

    Args:
        folder: Holds the folder ``upload`` with the file; everything else is made here.
        upload: The name of the file.
        options: What ``read_options`` returned.
        tell: Told the steps as they come.
        settings: For the limits.
        sandbox: How strictly the child is confined.

    Raises:
        KilledError: If the child was killed from outside, or by a fault of native code.
        ServiceError: If there is no model for another reason.
        OSError: If the folder cannot be written.
    """
    for name in ("out", "tmp"):
        (folder / name).mkdir()
    (folder / "job.json").write_text(json.dumps({"upload": upload, "options": dict(options)}), "utf-8")
    return _outcome(folder, upload, await _child(folder, settings, sandbox, tell), settings)


async def _child(folder: Path, settings: Settings, sandbox: Choice, tell: Tell) -> int:
    assert sandbox.level is not None  # nothing is taken otherwise
    limits = Limits(
        memory=int(settings.job_memory),
        file_size=int(settings.job_file_size),
        cpu_seconds=int(settings.job_seconds * (os.cpu_count() or 1)) + 1,
    )
    command = child_command(
        "service.child",
        limits,
        [str(folder)],
        level=sandbox.level,
        reads=[folder],
        writes=[folder / "out", folder / "tmp"],
    )
    with (folder / "log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=folder / "upload",
            env=child_environment(folder / "tmp"),
            start_new_session=True,
            limit=_LONGEST_LINE,
        )
    assert child.stdout is not None
    listening = asyncio.create_task(_listen(child.stdout, tell))
    try:
        async with asyncio.timeout(settings.job_seconds):
            return ended(await child.wait())
    except TimeoutError:
        raise _too_long(settings) from None
    finally:
        end_group(child.pid)
        await asyncio.shield(child.wait())
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _listen(steps: asyncio.StreamReader, tell: Tell) -> None:
    """Pass on what the child tells; it may have been taken over by what it read, so nothing is believed unseen."""
    while True:
        try:
            line = await steps.readline()
        except ValueError:  # a line without end
            continue
        if not line:
            return
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(line):
                case {"step": str(step), "done": float() | int() | None as done} if done is None or 0 <= done <= 1:
                    tell("".join(c for c in step if c.isprintable())[:200], done)


def _outcome(folder: Path, upload: str, status: int, settings: Settings) -> dict[str, Any]:
    """Return what the child said of a model that is there.

    Raises:
        ServiceError: What it said, or what became of it, where there is no model.
    """
    log = _tail(folder / "log")
    if blamed := blame(upload, (folder / "upload" / upload).stat().st_size, folder / "out", status):
        message, hint = blamed
        raise RefusedError(message, hint=hint, refusal="corrupt")
    if status == -signal.SIGXCPU:
        raise _too_long(settings)
    if status == NOT_CONFINED:
        _LOG.error("a conversion could not be confined, and did not begin\n%s", log)
        raise SandboxError(
            "this machine cannot keep foreign files apart from all else any more, so none are taken",
            hint="Look at docs/sandbox.md, or set BNFOLD_SANDBOX=off if every file that is sent is trusted.",
        )
    if status != 0:
        _LOG.error("a conversion ended with status %d\n%s", status, log)
        if "bad_alloc" in log:
            raise _over("memory", settings)
        kind = KilledError if status < 0 else CrashedError
        raise kind(f"the conversion {_death(status)}", hint="Send the model again; if that happens twice, report it.")
    # The child may have been taken over, and what it leaves may be no file: a pipe would keep the service waiting.
    descriptor = os.open(folder / "out" / "outcome.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        outcome: Any = json.loads(file.read(_LARGEST_OUTCOME))
    match outcome:
        case {"kind": "done"}:
            return dict(outcome)
        case {"kind": "refused", "code": str(code), "message": str(message), "hint": str(hint)}:
            raise RefusedError(message, hint=hint, refusal=code)
        case {"kind": "memory" | "file-size" as kind}:
            raise _over(str(kind), settings)
        case {"kind": "storage", "message": str(message)}:
            raise StorageError(f"the store cannot be written: {message}", hint="Make room on the disk of BNFOLD_STORE.")
    _LOG.error("a conversion met a defect\n%s", log)
    what = f": {outcome['message']}" if isinstance(outcome, dict) and "message" in outcome else ""
    raise InternalError(f"the conversion met a defect of bnfold{what}", hint="Report this, with the model if you can.")


def _too_long(settings: Settings) -> TimeLimitError:
    return TimeLimitError(
        f"the conversion took longer than {settings.job_seconds:g} s and was stopped",
        hint="Set BNFOLD_JOB_SECONDS higher, or send verify=fast.",
    )


def _over(kind: str, settings: Settings) -> LimitError:
    if kind == "memory":
        limit, setting, what = int(settings.job_memory), "BNFOLD_JOB_MEMORY", "more memory"
    else:
        limit, setting, what = int(settings.job_file_size), "BNFOLD_JOB_FILE_SIZE", "a larger file"
    return LimitError(
        f"the conversion takes {what} than the {limit} bytes it is given",
        hint=f"Set {setting} higher, or convert the model with the command line.",
        members={"limit": limit},
    )


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status} and no result"
    try:
        name = f"{signal.Signals(-status).name}"
    except ValueError:
        name = "?"
    return f"was killed by signal {-status} ({name}) before it ended"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read(_TAIL).decode("utf-8", "replace")
