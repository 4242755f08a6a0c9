"""The engine of a service that is alone: it works on jobs itself, each in a child of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from service.database.connecting import first_line
from service.jobs.work import Workplace, run_job

__all__ = ["LocalEngine"]

_LOG = logging.getLogger("service.engines.local")
_LOOK = 1.0  # seconds between two looks at the table when nobody rings


@dataclass(slots=True)
class LocalEngine:
    """Works on as many jobs at a time as it may. No other service uses its database."""

    place: Workplace
    most: int
    _bell: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _running: dict[str, asyncio.Task[bool]] = field(default_factory=dict, init=False)
    _loop: asyncio.Task[None] | None = field(default=None, init=False)
    _draining: bool = field(default=False, init=False)

    async def start(self) -> None:
        """Take up what ran when the service ended, and begin to work."""
        left = await asyncio.to_thread(self.place.table.disown)
        if left:
            _LOG.warning("%d jobs ran when the service ended; they are begun again", left)
        self._loop = asyncio.create_task(self._work())

    async def submit(self, job: str) -> None:
        """Look at the table now."""
        del job
        self._bell.set()

    async def drain(self) -> None:
        """Begin no more jobs, and return when those that run have ended."""
        self._draining = True
        while self._running:
            await asyncio.wait(set(self._running.values()))
            await asyncio.sleep(0)  # their callbacks

    async def close(self) -> None:
        """Stop what runs and give it back."""
        self._draining = True
        tasks = [*self._running.values(), *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                await self._begin()
            except SQLAlchemyError as error:
                _LOG.warning("the table of jobs cannot be read: %s", first_line(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), _LOOK)
            self._bell.clear()

    async def _begin(self) -> None:
        if self._draining or len(self._running) >= self.most:
            return
        waiting = await asyncio.to_thread(self.place.table.waiting, self.most)
        for job in waiting[: self.most - len(self._running)]:
            if job not in self._running:
                task = asyncio.create_task(run_job(self.place, job))
                self._running[job] = task
                task.add_done_callback(partial(self._ended, job))

    def _ended(self, job: str, task: asyncio.Task[bool]) -> None:
        del self._running[job]
        self._bell.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("work on job %s broke off", job, exc_info=error)
