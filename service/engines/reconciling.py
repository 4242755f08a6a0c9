"""Tell an engine again of jobs that nobody began: their message was lost, or whoever should have sent it died."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from service.database.connecting import first_line
from service.engines.engine import Engine, EngineAwayError
from service.jobs.table import JobTable

__all__ = ["reconcile"]

_LOG = logging.getLogger("service.engines.reconciling")


async def reconcile(table: JobTable, engine: Engine, seconds: float) -> None:
    """Look again and again, with so many seconds in between, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            for job in await asyncio.to_thread(table.to_ring):
                await engine.submit(job)
                await asyncio.to_thread(table.rang, job)
        except EngineAwayError as error:
            _LOG.warning("%s", error)
        except SQLAlchemyError as error:
            _LOG.warning("the table of jobs cannot be read: %s", first_line(error))
