"""The tables are made and brought up to date, in SQLite and in PostgreSQL, by whoever comes first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from service.database.connecting import (
    UnusableDatabaseError,
    can_answer,
    migrations,
    open_database,
    reading,
    writing,
)
from service.database.schema import metadata, now
from tests.service.cluster.servers import PostgreSQL, free_port


@contextmanager
def opened(address: str) -> Iterator[Engine]:
    engine = open_database(address)
    try:
        yield engine
    finally:
        engine.dispose()


def _differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))


def test_the_steps_lead_to_the_tables_that_the_code_expects(address: str) -> None:
    with opened(address) as engine:
        assert _differences(engine) == []
        with engine.begin() as connection:
            connection.execute(text("DROP INDEX ix_jobs_expires_at"))
            connection.execute(text("ALTER TABLE jobs DROP COLUMN sandbox"))
        assert len(_differences(engine)) == 2, "differences are found"


def test_a_database_that_is_up_to_date_is_left_as_it_is(address: str) -> None:
    with opened(address) as engine, writing(engine) as connection:
        connection.execute(text("INSERT INTO events VALUES ('a', 1, 0.5, 'state', '{}')"))
    with opened(address) as engine, reading(engine) as connection:
        assert connection.execute(text("SELECT job, at FROM events")).all() == [("a", 0.5)]


def test_each_step_can_be_taken_and_taken_back(address: str) -> None:
    engine = create_engine(address)
    config = migrations()
    for revision in ("head", "base", "+1", "head"):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if revision == "base" else command.upgrade)(config, revision)
        if revision == "base":
            assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    assert _differences(engine) == []
    engine.dispose()


def test_two_services_may_open_an_empty_database_at_once(address: str) -> None:
    together = Barrier(6)

    def open_it(_: int) -> list[str]:
        together.wait()
        with opened(address) as engine, reading(engine) as connection:
            return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())

    with ThreadPoolExecutor(6) as crew:
        assert {tuple(found) for found in crew.map(open_it, range(6))} == {("0003",)}
    with opened(address) as engine:
        assert _differences(engine) == []


class _Contended(sqlite3.Connection):
    """A connection that is told twice that its file is locked, as happens where another one is about to make it."""

    refusals = 2

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and self.refusals:
            self.refusals -= 1
            raise sqlite3.OperationalError("database is locked")
        return super().execute(sql, *arguments)


def test_a_new_file_that_another_one_makes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", partial(connect, factory=_Contended))
    with opened(f"sqlite:///{tmp_path}/service.sqlite") as engine, reading(engine) as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


def test_a_database_of_a_later_version_is_refused(address: str) -> None:
    with opened(address) as engine, writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UnusableDatabaseError) as told:
        open_database(address)
    assert str(told.value) == (
        f"the database {address} is not of this version of the service: Can't locate revision identified by '9999'\n"
        "  hint: Start the version that made it, or a later one."
    )
    engine = create_engine(address)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *metadata.tables}
    engine.dispose()


def test_a_step_that_fails_leaves_nothing(address: str) -> None:
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE models (somebody_elses integer)"))
    with pytest.raises(UnusableDatabaseError, match=r"cannot be used: .*models.* already exists"):
        open_database(address)
    assert inspect(engine).get_table_names() == ["models"]
    engine.dispose()


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnusableDatabaseError) as told:
        open_database(f"sqlite:///{tmp_path}/none/x.sqlite")
    assert str(told.value) == (
        f"the database sqlite:///{tmp_path}/none/x.sqlite cannot be used: unable to open database file\n"
        "  hint: Look at BNFOLD_DATABASE."
    )
    (tmp_path / "text").write_text("no database, and longer than the header of one " * 40)
    with pytest.raises(UnusableDatabaseError, match="cannot be used: file is not a database\n"):
        open_database(f"sqlite:///{tmp_path / 'text'}")
    port = free_port()
    with pytest.raises(UnusableDatabaseError) as told:
        open_database(f"postgresql+psycopg://somebody:secret@127.0.0.1:{port}/x")
    said = str(told.value)
    assert said.startswith(f"the database postgresql+psycopg://somebody:***@127.0.0.1:{port}/x cannot be used: ")
    assert "secret" not in said
    assert "refused" in said.partition("\n")[0]


@pytest.mark.parametrize("address", ["mysql://host/x", "no address", "postgresql+nothing://host/x"])
def test_an_address_of_something_else_is_told(address: str) -> None:
    with pytest.raises(UnusableDatabaseError, match=r"hint: Set (it|BNFOLD_DATABASE) to sqlite:///FILE or postgres"):
        open_database(address)


def test_what_is_written_is_there_or_not_at_all(address: str) -> None:
    with opened(address) as engine:

        def write_and_fail() -> None:
            with writing(engine) as connection:
                connection.execute(text("INSERT INTO events VALUES ('a', 1, 0.5, 'state', '{}')"))
                raise KeyError

        with pytest.raises(KeyError):
            write_and_fail()
        with reading(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM events")).scalar_one() == 0


def test_the_clock_is_that_of_the_database_and_goes_on_inside_a_transaction(address: str) -> None:
    with opened(address) as engine, reading(engine) as connection:
        first = connection.execute(now().select()).scalar_one()
        connection.execute(text("SELECT 1"))
        seen = first
        while seen == first:
            seen = connection.execute(now().select()).scalar_one()
    assert seen > first > 1_700_000_000


def test_a_server_that_was_started_again_is_used_again(postgres: PostgreSQL) -> None:
    with opened(postgres.url()) as engine:
        assert can_answer(engine)
        postgres.stop()
        assert not can_answer(engine)
        postgres.start()
        assert can_answer(engine)
