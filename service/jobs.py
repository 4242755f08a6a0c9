"""Conversions: so many at a time, each in a child with a time limit, and none without somebody who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.cards import Card
from service.problems import (
    CrashedError,
    InternalError,
    LimitError,
    QueueFullError,
    RefusedError,
    StorageError,
    TimeLimitError,
    storage_error,
)
from service.processes import end_group
from service.sandbox import Limits, child_command, child_environment
from service.settings import Settings
from service.store import Store

__all__ = ["Job", "Jobs"]

_LOG = logging.getLogger("service.jobs")
_LARGEST_OUTCOME = 2**20
_TAIL = 8192


@dataclass(frozen=True, slots=True)
class Job:
    """What to convert.

    Attributes:
        name: The hash of the upload, the options and the versions.
        upload: The name of the file in the folder ``upload``.
        options: What ``read_options`` returned.
        folder: Holds the upload, and belongs to the job from here on.
    """

    name: str
    upload: str
    options: dict[str, Any]
    folder: Path


@dataclass(slots=True)
class _Flight:
    """A conversion that runs or waits to run, and how many requests want its result."""

    task: asyncio.Task[Card]
    waiting: int = 0


@dataclass(slots=True)
class Jobs:
    """All conversions of a service."""

    settings: Settings
    store: Store
    _slots: asyncio.Semaphore = field(init=False)
    _flights: dict[str, _Flight] = field(default_factory=dict, init=False)
    _ending: set[asyncio.Task[Card]] = field(default_factory=set, init=False)
    _admitted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.jobs)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request while it uploads, waits or is converted.

        Raises:
            QueueFullError: If as many are here as may be.
        """
        most = self.settings.jobs + self.settings.queue
        if self._admitted >= most:
            raise QueueFullError(
                f"{self._admitted} conversions run or wait, and no more are taken",
                hint="Try again in a few seconds.",
                headers={"Retry-After": "5"},
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def convert(self, job: Job) -> Card:
        """Convert, or wait for the same conversion where it runs already, and return the card of the kept model.

        When the last request that waits is cancelled, the conversion is stopped.

        Raises:
            ServiceError: If there is no result.
        """
        flight = self._flights.get(job.name)
        if flight is None:
            flight = _Flight(asyncio.create_task(self._run(job)))
            self._flights[job.name] = flight
            flight.task.add_done_callback(lambda task: self._landed(job, task))
        else:
            self.store.discard(job.folder)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Who asks for the same from now on must not be given a conversion that is being stopped.
                del self._flights[job.name]
                self._ending.add(flight.task)
                flight.task.cancel()

    async def close(self) -> None:
        """Stop whatever runs."""
        tasks = {flight.task for flight in self._flights.values()} | self._ending
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, job: Job, task: asyncio.Task[Card]) -> None:
        self._ending.discard(task)
        flight = self._flights.get(job.name)
        if flight is not None and flight.task is task:
            del self._flights[job.name]
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits for it any more
        asyncio.get_running_loop().run_in_executor(None, self.store.discard, job.folder)

    async def _run(self, job: Job) -> Card:
        async with self._slots:
            return await self._convert(job)

    async def _convert(self, job: Job) -> Card:
        try:
            for name in ("out", "tmp"):
                (job.folder / name).mkdir()
            (job.folder / "job.json").write_text(json.dumps({"upload": job.upload, "options": job.options}), "utf-8")
            status = await self._child(job.folder)
            outcome = self._outcome(job.folder, status)
            return await asyncio.to_thread(self.store.publish, job.name, job.folder / "out", job.upload, outcome)
        except OSError as error:
            raise storage_error(error) from error
        except ValueError as error:
            _LOG.exception("a conversion left results that cannot be kept")
            raise InternalError(
                f"the conversion left results that cannot be kept: {error}",
                hint="Report this, with the model if you can.",
            ) from error

    async def _child(self, folder: Path) -> int:
        settings = self.settings
        limits = Limits(
            memory=int(settings.job_memory),
            file_size=int(settings.job_file_size),
            cpu_seconds=int(settings.job_seconds * (os.cpu_count() or 1)) + 1,
        )
        with (folder / "log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *child_command("service.child", limits, [str(folder)]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                cwd=folder / "upload",
                env=child_environment(folder / "tmp"),
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(settings.job_seconds):
                return await child.wait()
        except TimeoutError:
            raise self._too_long() from None
        finally:
            end_group(child.pid)
            await asyncio.shield(child.wait())

    def _outcome(self, folder: Path, status: int) -> dict[str, Any]:
        """Return what the child said of a model that is there.

        Raises:
            ServiceError: What it said, or what became of it, where there is no model.
        """
        log = _tail(folder / "log")
        if status == -signal.SIGXCPU:
            raise self._too_long()
        if status != 0:
            _LOG.error("a conversion ended with status %d\n%s", status, log)
            if "bad_alloc" in log:
                raise self._over("memory")
            raise CrashedError(
                f"the conversion {_death(status)}", hint="Send the model again; if that happens twice, report it."
            )
        with (folder / "out" / "outcome.json").open("rb") as file:
            outcome: Any = json.loads(file.read(_LARGEST_OUTCOME))
        match outcome:
            case {"kind": "done"}:
                return dict(outcome)
            case {"kind": "refused", "code": str(code), "message": str(message), "hint": str(hint)}:
                raise RefusedError(message, hint=hint, refusal=code)
            case {"kind": "memory" | "file-size" as kind}:
                raise self._over(str(kind))
            case {"kind": "storage", "message": str(message)}:
                raise StorageError(
                    f"the store cannot be written: {message}", hint="Make room on the disk of BNFOLD_STORE."
                )
        _LOG.error("a conversion met a defect\n%s", log)
        what = f": {outcome['message']}" if isinstance(outcome, dict) and "message" in outcome else ""
        raise InternalError(
            f"the conversion met a defect of bnfold{what}", hint="Report this, with the model if you can."
        )

    def _too_long(self) -> TimeLimitError:
        return TimeLimitError(
            f"the conversion took longer than {self.settings.job_seconds:g} s and was stopped",
            hint="Set BNFOLD_JOB_SECONDS higher, or send verify=fast.",
        )

    def _over(self, kind: str) -> LimitError:
        if kind == "memory":
            limit, setting, what = int(self.settings.job_memory), "BNFOLD_JOB_MEMORY", "more memory"
        else:
            limit, setting, what = int(self.settings.job_file_size), "BNFOLD_JOB_FILE_SIZE", "a larger file"
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
