"""What many machines need and is not set, or not installed, is told before anything starts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import service.engines.opening
from service.engines.celery import run_worker
from service.engines.opening import check_engine
from service.settings import UnusableSettingsError, read_settings
from tests.service.cluster.servers import Broker
from tests.service.server import ROOT

WHOLE = {
    "BNFOLD_ENGINE": "celery",
    "BNFOLD_BROKER": "amqp://guest@host",
    "BNFOLD_DATABASE": "postgresql+psycopg://bnfold@host/bnfold",
    "BNFOLD_STORAGE": "s3://bucket/folder",
}


def refused(**changes: str) -> str:
    with pytest.raises(UnusableSettingsError) as told:
        check_engine(read_settings(WHOLE | changes))
    return str(told.value)


def test_one_machine_needs_nothing() -> None:
    check_engine(read_settings({}))
    check_engine(read_settings(WHOLE))


def test_what_is_missing_is_told() -> None:
    assert refused(BNFOLD_BROKER="") == (
        "BNFOLD_ENGINE is celery, and BNFOLD_BROKER does not say where RabbitMQ is\n"
        "  hint: Set BNFOLD_BROKER to amqp://USER:PASSWORD@HOST."
    )
    assert refused(BNFOLD_BROKER="redis://host") == (
        "BNFOLD_BROKER begins with 'redis', and only RabbitMQ loses nothing when a worker dies\n"
        "  hint: Set it to amqp://USER:PASSWORD@HOST or amqps://USER:PASSWORD@HOST."
    )
    assert refused(BNFOLD_DATABASE="") == (
        "BNFOLD_ENGINE is celery, and BNFOLD_DATABASE is not set, so each process would have one of its own\n"
        "  hint: Set BNFOLD_DATABASE to postgresql+psycopg://USER:PASSWORD@HOST/NAME."
    )
    assert refused(BNFOLD_STORAGE="") == (
        "BNFOLD_ENGINE is celery, and BNFOLD_STORAGE is not set, so each process would have one of its own\n"
        "  hint: Set BNFOLD_STORAGE to s3://BUCKET/FOLDER, or to file:///FOLDER where all machines have it."
    )


def test_sqlite_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_engine(read_settings(WHOLE | {"BNFOLD_DATABASE": "sqlite:////x/y"}))
    assert caplog.messages == ["BNFOLD_DATABASE is a file of SQLite: services and workers have to run on one machine"]


def test_without_celery_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.engines.opening, "find_spec", lambda _: None)
    assert refused() == (
        "BNFOLD_ENGINE is celery, and Celery is not installed\n  hint: pip install 'bnfold[service,cluster]'"
    )


@pytest.mark.parametrize("words", [[], ["worker"]])
def test_a_program_says_it_and_ends(words: list[str], tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BNFOLD_")}
    told = {"BNFOLD_ENGINE": "celery", "BNFOLD_STORE": str(tmp_path / "store"), "BNFOLD_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "service", *words],
        cwd=ROOT,
        env={**clean, **told, "BNFOLD_GRPC_PORT": "-1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error[settings]: BNFOLD_ENGINE is celery, and BNFOLD_BROKER does not say where")


@pytest.mark.parametrize(("found", "made"), [("guest:guest@", "guest:wrong@"), ("", "/nothing")])
def test_a_worker_that_the_broker_refuses_says_so_and_ends(
    rabbit: Broker, tmp_path: Path, found: str, made: str
) -> None:
    settings = WHOLE | {
        "BNFOLD_BROKER": rabbit.url.replace(found, made) if found else rabbit.url + made,
        "BNFOLD_STORE": str(tmp_path / "store"),
        "BNFOLD_SANDBOX": "limits",
    }
    with pytest.raises(UnusableSettingsError) as told:
        run_worker(read_settings(settings))
    said = str(told.value)
    assert said.startswith("RabbitMQ refuses what BNFOLD_BROKER says: ")
    assert said.endswith("\n  hint: Look at the user, the password and the virtual host in it.")
    assert "wrong" not in said
