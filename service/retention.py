"""Throw away what has had its time: uploads, jobs, and files that no row names because somebody died in between."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy.exc import SQLAlchemyError

from service.jobs.job import Job
from service.jobs.table import JobTable
from service.registry.registry import Registry
from service.storage import Storage, is_digest

__all__ = ["drop_upload", "retain", "sweep", "throw_away"]

_LOG = logging.getLogger("service.retention")
_PAUSE = 60.0
_SWEEPS = 60  # pauses between two looks at every file
_FORGOTTEN = 86400.0  # a file of that age that no row names belongs to nobody


async def retain(table: JobTable, registry: Registry, storage: Storage) -> None:
    """Throw away what has had its time, again and again, until cancelled."""
    turn = 0
    while True:
        try:
            await throw_away(table, storage)
            if turn % _SWEEPS == 0:
                await sweep(table, registry, storage, _FORGOTTEN)
        except (OSError, SQLAlchemyError) as error:
            _LOG.warning("what has had its time cannot be thrown away: %s", error)
        turn += 1
        await asyncio.sleep(_PAUSE)


async def throw_away(table: JobTable, storage: Storage) -> None:
    """Throw away expired uploads, and then expired jobs.

    Raises:
        OSError: If a file cannot be removed.
        SQLAlchemyError: If the database does not answer.
    """
    while jobs := await asyncio.to_thread(table.expired_uploads):
        for job in jobs:
            await drop_upload(storage, job)
            await asyncio.to_thread(table.forget_upload, job.id)
    while jobs := await asyncio.to_thread(table.expired):
        for job in jobs:
            await drop_upload(storage, job)
            await asyncio.to_thread(table.purge, job.id)


async def drop_upload(storage: Storage, job: Job) -> None:
    """Remove the upload of a job; one that is not there any more is no error.

    Raises:
        OSError: If it cannot be removed.
    """
    for key in job.upload["files"].values():
        await storage.drop(key)


async def sweep(table: JobTable, registry: Registry, storage: Storage, age: float) -> int:
    """Remove files older than ``age`` seconds that no job and no model has, and return how many.

    Raises:
        OSError: If the storage does not answer.
        SQLAlchemyError: If the database does not answer.
    """
    gone = 0
    async for key, written in storage.listed(""):
        if time.time() - written < age:
            continue
        match key.split("/"):
            case ["uploads", job, *_]:
                named = bool(await asyncio.to_thread(table.known, [job]))
            case ["artifacts", _, sha256] if is_digest(sha256):
                if await registry.drop(sha256):
                    _LOG.info("%s belonged to nobody and was removed", key)
                    gone += 1
                continue
            case ["checks", _] | ["artifacts", _, _]:  # what somebody did not finish to check or to copy
                named = False
            case _:
                named = True  # none of ours
        if not named:
            _LOG.info("%s belongs to nobody and is removed", key)
            await storage.drop(key)
            gone += 1
    return gone
