"""The tables. A row of ``jobs`` is the truth about a job; whoever works on it holds a lease on the row.

Moments are seconds since 1970 by the clock of the database, so that machines need not agree on theirs.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

__all__ = ["events", "jobs", "metadata", "models", "now", "tallies", "usage"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("key", String(64), nullable=False),  # hash of content, options and versions
    Column("idempotency", String(255)),  # what the client called its request
    Column("name", String(100), nullable=False),  # under which the model is going to be kept
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", String(64)),  # the claim that may write; None where nobody works on it
    Column("lease_until", Double),
    Column("cancel", Boolean, nullable=False),  # somebody asked for the end of a job that runs
    Column("rung", Integer, nullable=False),  # how often an engine was told of it
    Column("ring_after", Double, nullable=False),  # when it is told again, if nobody has begun by then
    Column("upload", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("bytes", Double, nullable=False),
    Column("format", String(32)),
    Column("step", String(200)),
    Column("done", Double),
    Column("error", JSON),
    Column("version", Integer),
    Column("sandbox", String(32)),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("upload_expires_at", Double),
    Column("expires_at", Double),
    Column("trace", JSON(none_as_null=True)),  # of the request that it came with, where requests are traced
    # Of the same work, one job at a time.
    Index(
        "uq_jobs_tenant_key_unfinished",
        "tenant",
        "key",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index("uq_jobs_tenant_idempotency", "tenant", "idempotency", unique=True),
    Index("ix_jobs_state_ring_after", "state", "ring_after"),
    Index("ix_jobs_tenant_created_id", "tenant", "created", "id"),
    Index("ix_jobs_expires_at", "expires_at"),
)
"""Every job that was accepted."""

events = Table(
    "events",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),  # 1, 2, 3 … for each job, without gaps
    Column("at", Double, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", JSON, nullable=False),
)
"""What happened to each job, in order."""

models = Table(
    "models",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", String(64), nullable=False),
    Column("job", String(32), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("report", String(64), nullable=False),  # sha256 of the report as JSON
    Column("page", String(64), nullable=False),  # sha256 of the report as HTML
    Column("card", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("deleted", Double),  # the row stays, so that the number is not given again
    Index("ix_models_tenant_key", "tenant", "key"),
)
"""Every version of every model that is, or was, kept."""


usage = Table(
    "usage",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # since 1970
    Column("bytes", Double, nullable=False),
)
"""How much each tenant has sent to be folded; jobs may be forgotten, this is not."""

tallies = Table(
    "tallies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Double, nullable=False),
    Column("body", JSON, nullable=False),
    Index("ix_tallies_at", "at"),
)
"""What the metrics have still to count; a row is gone when some service has counted it."""


class now(FunctionElement[float]):  # noqa: N801  (it reads as the SQL function that it is)
    """The moment by the clock of the database, in seconds since 1970."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_in_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_in_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"
