"""Servers of PostgreSQL and RabbitMQ for all tests of a session, and a new database of either kind for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from tests.service.cluster.deployment import Deployment, deployed, in_order
from tests.service.cluster.servers import Broker, MissingProgramError, PostgreSQL, broker, postgresql

T = TypeVar("T")
_NUMBERS = itertools.count(1)
_COMMON = {"sandbox": "limits", "stop_seconds": "60"}


@contextmanager
def _there(server: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Start a server; where its program is missing, skip the test, or fail where everything has to be tested."""
    starting = server()
    try:
        started = starting.__enter__()
    except MissingProgramError as error:
        if os.environ.get("BNFOLD_TEST_EVERYTHING"):
            raise
        pytest.skip(str(error))
    try:
        yield started
    finally:
        starting.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A server of PostgreSQL; who stops it starts it again."""
    with _there(postgresql) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Broker]:
    """A server of RabbitMQ; who stops it starts it again."""
    with _there(broker) as server:
        yield server


def new_database(server: PostgreSQL) -> str:
    """Make room for tables of one's own, and return its address: a schema, because a database is many files."""
    name = f"test{next(_NUMBERS)}"
    with psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{server.url()}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database with nothing in it, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.sqlite'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One service that works on two jobs at a time itself, with SQLite."""
    folder = tmp_path_factory.mktemp("alone")
    with deployed(folder, f"sqlite:///{folder / 'service.sqlite'}", {**_COMMON, "jobs": "2"}) as deployment:
        deployment.add(0)
        yield deployment


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory, postgres: PostgreSQL, rabbit: Broker) -> Iterator[Deployment]:
    """Two services, and two workers that work on one job at a time each."""
    settings = {**_COMMON, "engine": "celery", "broker": rabbit.url, "jobs": "1", "queue": "100"}
    with deployed(tmp_path_factory.mktemp("several"), new_database(postgres), settings) as deployment:
        for number in range(2):
            deployment.add(number)
            deployment.add(number, "worker")
        yield deployment


@pytest.fixture(params=["alone", "several"], ids=["local", "celery"])
def on(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment in which everybody runs, and in which everything has to be in order at the end."""
    with in_order(request.getfixturevalue(request.param)) as deployment:
        yield deployment
