"""Work on one job, from the claim to its end: whoever calls this is a worker, wherever it runs.

The claim is renewed while the child runs. Whatever happens to this process in between, somebody else may begin anew
once the claim has run out, and only who holds the claim can write a result: so each job ends once.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from service.database.connecting import first_line, is_outage, open_database
from service.jobs.conversion import convert
from service.jobs.job import Job
from service.jobs.table import JobTable
from service.observing.logs import begin_about
from service.observing.tracing import UNTRACED, JobTrace, Tracing
from service.problems import InternalError, KilledError, ServiceError, body_of, storage_error
from service.registry.registry import Registry
from service.sandbox import Choice, choose
from service.scratch import Scratch
from service.settings import Settings
from service.storage import Storage, open_storage

__all__ = ["Workplace", "open_workplace", "run_job"]

T = TypeVar("T")
_LOG = logging.getLogger("service.jobs")
_OUTAGE = 600.0  # seconds without a database after which a result is given up
_FASTEST = 0.5  # seconds between two notes of what is being done


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker needs."""

    settings: Settings
    table: JobTable
    storage: Storage
    registry: Registry
    scratch: Scratch
    sandbox: Choice
    tracing: Tracing = UNTRACED


def open_workplace(settings: Settings, scratch: Scratch, tracing: Tracing = UNTRACED) -> Workplace:
    """Open what a worker needs.

    Raises:
        UnusableDatabaseError: If the database cannot be used.
        UnusableStorageError: If the storage cannot be used.
        OSError: If a folder cannot be made.
    """
    database = open_database(settings.database or f"sqlite:///{scratch.root / 'service.sqlite'}")
    storage = open_storage(settings.storage, scratch.root, int(settings.copies_size))
    table = JobTable(
        database, settings.lease_seconds, settings.attempts, settings.keep_job_seconds, settings.keep_upload_seconds
    )
    choice = choose(settings.sandbox)
    return Workplace(settings, table, storage, Registry(database, storage), scratch, choice, tracing)


async def run_job(place: Workplace, job_id: str) -> bool:
    """Begin a job if nobody works on it, and end it; False where there was nothing to begin.

    When this is cancelled, the child is killed and the job given back for somebody else.
    """
    job = await _claimed(place, job_id)
    if job is None:
        return False
    begin_about(job=job.id, tenant=job.tenant)
    _LOG.info("job %s begins, attempt %d", job.id, job.attempt)
    with place.tracing.job(job) as trace:
        return await _run(place, job, trace)


async def _run(place: Workplace, job: Job, trace: JobTrace) -> bool:
    working = asyncio.create_task(_work(place, job, trace))
    keeping = asyncio.create_task(_keep(place, job))
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not keeping.result() and await _is_over(place, job):
            await asyncio.wait({working})  # it was ended here, and what is left to do comes after that
        if working.done():
            await _ended(place, job, working, trace)
            return True
        await _stopped(working)
        if keeping.result():
            await _written(lambda: place.table.end_cancelled(job))
            trace.end("cancelled")
            _LOG.info("job %s was cancelled", job.id)
        else:
            _LOG.warning("job %s was taken over by somebody else", job.id)
            trace.end("taken-over")
    except asyncio.CancelledError:
        trace.end("given-back")
        await _stopped(working)
        await asyncio.shield(asyncio.to_thread(place.table.release, job, blameless=True))
        raise
    finally:
        await _stopped(keeping)
        await _stopped(working)
    return True


async def _is_over(place: Workplace, job: Job) -> bool:
    """Say whether a job whose claim is gone was ended by who had it."""
    seen = await _written(lambda: place.table.job(job.id))
    return seen is not None and seen.ended and seen.attempt == job.attempt


async def _claimed(place: Workplace, job_id: str) -> Job | None:
    claiming = asyncio.ensure_future(asyncio.to_thread(place.table.claim, job_id))
    try:
        return await asyncio.shield(claiming)
    except asyncio.CancelledError:  # the claim goes on in its thread, and nobody would know of it
        if (job := await claiming) is not None:
            await asyncio.to_thread(place.table.release, job, blameless=True)
        raise


async def _ended(place: Workplace, job: Job, working: asyncio.Task[None], trace: JobTrace) -> None:
    error = working.exception()
    trace.end("ok" if error is None else str(body_of(error)["code"]) if isinstance(error, ServiceError) else "internal")
    if error is None:
        _LOG.info("job %s has ended", job.id)
        return
    if isinstance(error, KilledError) and job.attempt < place.table.attempts:
        # It may not have been the model's fault: somebody out of memory may have been killed in its stead.
        _LOG.warning("job %s: %s; it is begun again", job.id, error)
        await _written(lambda: place.table.release(job, blameless=False))
        return
    if not isinstance(error, ServiceError):
        _LOG.error("job %s met a defect", job.id, exc_info=error)
        error = InternalError("the service met a defect of bnfold", hint="Report this, with what the service logged.")
    told = error
    _LOG.info("job %s failed: %s", job.id, told)
    await _written(lambda: place.table.fail(job, body_of(told), sandbox=place.sandbox.name))


async def _work(place: Workplace, job: Job, trace: JobTrace) -> None:
    folder = None
    try:
        folder = await asyncio.to_thread(place.scratch.folder)
        await _bring(place.storage, job, folder)
        with _Steps(place.table, job) as note:

            def tell(step: str, done: float | None) -> None:
                trace.step(step)
                note(step, done)

            outcome = await convert(
                folder, job.upload["name"], job.options, tell, settings=place.settings, sandbox=place.sandbox
            )
        trace.step("")
        # What was converted must not be lost because the database is away for a moment.
        await _written_async(lambda: place.registry.keep(place.table, job, folder, outcome, place.sandbox.name))
    except OSError as error:
        raise storage_error(error) from error
    except (ValueError, RecursionError) as error:
        _LOG.exception("job %s left results that cannot be kept", job.id)
        raise InternalError(
            f"the conversion left results that cannot be kept: {error}", hint="Report this, with the model if you can."
        ) from error
    finally:
        if folder is not None:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def _bring(storage: Storage, job: Job, folder: Path) -> None:
    for field, key in job.upload["files"].items():
        name, target = (job.upload["name"], "upload") if field == "model" else (f"{field}.json", field)
        (folder / target).mkdir()
        await storage.fetch(key, folder / target / name)


async def _keep(place: Workplace, job: Job) -> bool:
    """Renew the claim until somebody wants the job to end (True), or somebody else has it (False)."""
    pause = min(0.5, place.table.lease_seconds / 4)
    while True:
        await asyncio.sleep(pause)
        try:
            wanted = await asyncio.to_thread(place.table.renew, job)
        except SQLAlchemyError as error:
            # The work goes on: as long as nobody else has begun, the claim can be renewed when the database is back.
            _LOG.warning("the claim of job %s could not be renewed: %s", job.id, first_line(error))
            continue
        if wanted is None:
            return False
        if not wanted:
            return True


async def _stopped(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class _Steps:
    """Notes steps as they come, no more often than somebody could read them, and never in the way of the work."""

    def __init__(self, table: JobTable, job: Job) -> None:
        self._table, self._job = table, job
        self._latest: tuple[str, float | None] | None = None
        self._there = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Callable[[str, float | None], None]:
        self._task = asyncio.create_task(self._write())
        return self._take

    def __exit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    def _take(self, step: str, done: float | None) -> None:
        self._latest = (step, done)
        self._there.set()

    async def _write(self) -> None:
        while True:
            await self._there.wait()
            self._there.clear()
            assert self._latest is not None
            try:
                await asyncio.to_thread(self._table.tell_step, self._job, *self._latest)
            except SQLAlchemyError as error:
                _LOG.warning("a step of job %s could not be noted: %s", self._job.id, first_line(error))
            await asyncio.sleep(_FASTEST)


_insisting = retry(
    retry=retry_if_exception(is_outage),
    wait=wait_random_exponential(multiplier=0.2, max=2.0),
    stop=stop_after_delay(_OUTAGE),
    reraise=True,
)


@_insisting
async def _written(step: Callable[[], T]) -> T:
    return await asyncio.to_thread(step)


@_insisting
async def _written_async(step: Callable[[], Any]) -> Any:
    return await step()
