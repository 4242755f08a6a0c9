"""Open the database, and bring its tables to what this version of the service expects."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as TimeoutOfPoolError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

__all__ = [
    "UnusableDatabaseError",
    "can_answer",
    "first_line",
    "is_outage",
    "migrations",
    "open_database",
    "reading",
    "writing",
]

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY = 30.0  # seconds that a writer of SQLite waits for another one
_LOCK = 0x626E666F6C64  # of PostgreSQL's advisory locks: one service at a time brings the tables up to date


class UnusableDatabaseError(Exception):
    """The database cannot be used; the text says which and what to do."""


def open_database(url: str) -> Engine:
    """Connect to a database, and make or update its tables.

    Args:
        url: As SQLAlchemy has it: ``sqlite:////var/lib/bnfold/service.sqlite``, ``postgresql+psycopg://user@host/name``.

    Raises:
        UnusableDatabaseError: If it cannot be reached, or is of a later version of the service.
    """
    try:
        address = make_url(url)
        backend = address.get_backend_name()
        if backend not in {"sqlite", "postgresql"}:
            raise UnusableDatabaseError(
                f"{backend} is no database that the service knows\n"
                "  hint: Set BNFOLD_DATABASE to sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            )
        engine = _sqlite(url) if backend == "sqlite" else _postgresql(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UnusableDatabaseError(
            f"BNFOLD_DATABASE cannot be used: {error}\n"
            "  hint: Set it to sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME; PostgreSQL takes "
            "pip install 'bnfold[cluster]'."
        ) from error
    try:
        with writing(engine) as connection:
            if backend == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config = migrations()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        engine.dispose()
        raise UnusableDatabaseError(
            f"the database {_bare(address)} is not of this version of the service: {error}\n"
            "  hint: Start the version that made it, or a later one."
        ) from error
    except SQLAlchemyError as error:
        engine.dispose()
        raise UnusableDatabaseError(
            f"the database {_bare(address)} cannot be used: {first_line(error)}\n  hint: Look at BNFOLD_DATABASE."
        ) from error
    return engine


def migrations() -> Config:
    """Return what Alembic needs to know of the steps between versions of the tables."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that may write; SQLite takes its write lock at once, so that it never has to be upgraded."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection = connection.execution_options(begin="IMMEDIATE")  # noqa: PLW2901
        with connection.begin():
            yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads."""
    with engine.connect() as connection, connection.begin():
        yield connection


def first_line(error: SQLAlchemyError) -> str:
    """Return what the database itself said, without what was asked of it."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def is_outage(error: BaseException) -> bool:
    """Say whether the database was away, or too busy: what is asked of it once more may work."""
    if isinstance(error, TimeoutOfPoolError):
        return True  # all connections wait for an answer
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    )


def can_answer(engine: Engine) -> bool:
    """Say whether the database answers."""
    try:
        with reading(engine) as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY})

    @event.listens_for(engine, "connect")
    def connected(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # transactions begin where we say so, not where the driver guesses
        _set_up(raw)

    @event.listens_for(engine, "begin")
    def begins(connection: Connection) -> None:
        how = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {how}")

    return engine


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


# Where two open a new file at once, one of them may be told that it is locked without having waited.
@retry(retry=retry_if_exception(_is_locked), stop=stop_after_delay(_BUSY), wait=wait_random(0.005, 0.1), reraise=True)
def _set_up(raw: sqlite3.Connection) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        raw.execute(f"PRAGMA {pragma}").close()


def _postgresql(url: str) -> Engine:
    # A server that was started anew leaves dead connections in the pool, and one whose machine is gone says nothing.
    patience = {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
    }
    return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=patience)


def _bare(address: Any) -> str:
    return str(address.render_as_string(hide_password=True))
