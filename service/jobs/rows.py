"""Rows of ``jobs`` and ``events``, as the steps of ``JobTable`` read and write them inside their transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select

from service.database.schema import events, jobs, now
from service.jobs.job import QUEUED, RUNNING, Job

__all__ = ["COLUMNS", "alone", "claimed_as", "free", "of_row", "row_of", "tell"]

COLUMNS = [jobs.c[field.name] for field in fields(Job)]
"""What a ``Job`` has of its row."""

_STEPS_KEPT = 2000  # events of one job


def free() -> ColumnElement[bool]:
    """Return the condition that nobody works on a job: it waits, or the claim of whoever did has run out."""
    return or_(jobs.c.state == QUEUED, and_(jobs.c.state == RUNNING, jobs.c.lease_until < now()))


def claimed_as(job: Job) -> ColumnElement[bool]:
    """Return the condition that a job is still claimed by whoever claimed it as this."""
    return and_(jobs.c.id == job.id, jobs.c.state == RUNNING, jobs.c.owner == job.owner)


def alone(connection: Connection, tenant: str) -> None:
    """Let nobody else count what a tenant has until this transaction has ended; with SQLite nobody does."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(tenant, 0))))


def tell(connection: Connection, job: str, kind: str, body: Mapping[str, Any]) -> None:
    """Write the next event of a job. Whoever does holds the row of the job, so nobody takes the same number."""
    last = connection.execute(select(func.coalesce(func.max(events.c.number), 0)).where(events.c.job == job))
    number = last.scalar_one() + 1
    if kind == "step" and number > _STEPS_KEPT:
        return
    connection.execute(insert(events).values(job=job, number=number, at=now(), kind=kind, body=dict(body)))


def row_of(connection: Connection, job: str) -> Job:
    """Return a job that is there."""
    return of_row(connection.execute(select(*COLUMNS).where(jobs.c.id == job)).one())


def of_row(row: Row[Any]) -> Job:
    """Return the job that a row tells of."""
    told = dict(row._mapping)  # noqa: SLF001  (a public name of SQLAlchemy's, in spite of its look)
    return Job(**{**told, "bytes": int(told["bytes"])})
