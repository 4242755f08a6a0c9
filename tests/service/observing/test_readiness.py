"""``/readyz`` says whether the service can work, and what is in the way."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from service.database.connecting import open_database
from service.jobs.table import JobTable
from service.observing import readiness
from service.observing.readiness import Readiness
from service.scratch import Scratch, open_scratch
from service.storage import Storage, open_storage
from tests.service.server import conv_model, post, serving, wait_for


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    opened = open_scratch(tmp_path / "store")
    yield opened
    os.close(opened.lock)


@pytest.fixture
def ready(tmp_path: Path, scratch: Scratch) -> Iterator[Readiness]:
    engine = open_database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    storage = open_storage("", tmp_path / "store", 10**9)
    yield Readiness(JobTable(engine, 60, 3, 1000, 1000), scratch, storage, confines=True, ends=lambda: False)
    engine.dispose()


def lacks(ready: Readiness) -> str:
    return asyncio.run(ready.lacks())


def test_it_says_what_is_in_the_way(ready: Readiness, tmp_path: Path) -> None:
    assert lacks(ready) == ""
    ready.ends = lambda: True
    assert lacks(ready) == "draining"
    ready.ends, ready.confines = lambda: False, False
    assert lacks(ready) == "sandbox"
    ready.confines = True
    shutil.rmtree(tmp_path / "store" / "aside")
    assert lacks(ready) == "disk"
    (tmp_path / "store" / "aside").mkdir()
    ready.table.engine.dispose()
    for name in ("x.sqlite-wal", "x.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "x.sqlite").write_bytes(b"no database any more" * 100)
    assert lacks(ready) == "database"


class _Far:
    """Stands for a storage over the network."""

    folder = None

    def __init__(self) -> None:
        self.asked = 0
        self.answers = True
        self.hangs = False

    async def check(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if not self.answers:
            raise OSError("the storage cannot write checks/x: connection refused")


def test_a_full_disk_is_told_and_questions_after_it_leave_nothing_there(
    ready: Readiness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert [lacks(ready) for _ in range(3)] == ["disk"] * 3
    assert list((tmp_path / "store" / "aside").iterdir()) == []


def test_a_storage_far_away_is_asked_seldom_while_it_answers(ready: Readiness, monkeypatch: pytest.MonkeyPatch) -> None:
    far = _Far()
    storage: Storage = far  # type: ignore[assignment]
    far_ready = replace(ready, storage=storage)
    assert [lacks(far_ready) for _ in range(3)] == ["", "", ""]
    assert far.asked == 1
    monkeypatch.setattr(readiness, "_FRESH", 0.0)
    far.answers = False
    assert [lacks(far_ready) for _ in range(2)] == ["storage", "storage"]
    assert far.asked == 3
    far.answers = True
    assert lacks(far_ready) == ""
    monkeypatch.setattr(readiness, "_PATIENCE", 0.2)
    far.hangs = True
    assert not asyncio.run(far_ready._stores())


def test_a_service_that_is_about_to_end_says_so_and_finishes_what_runs(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server, server.client() as client, ThreadPoolExecutor(1) as crew:
        assert client.get("/readyz").json() == {"ready": True, "live": True, "sandbox": server.sandbox}
        answer = crew.submit(post, client, conv_model(1), verify="off")
        child = server.held_child()
        try:
            server.process.terminate()
            wait_for(lambda: client.get("/readyz").status_code == 503)
            for path in ("/readyz", "/v2/health/ready"):
                told = client.get(path)
                assert told.status_code == 503
                assert told.json() == {"ready": False, "live": True, "sandbox": server.sandbox, "reason": "draining"}
            assert client.get("/livez").json() == {"live": True}
            refused = post(client, conv_model(2))
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert int(refused.headers["retry-after"]) > 0
        finally:
            os.kill(child, signal.SIGCONT)
        assert answer.result().status_code == 200
        assert server.process.wait(timeout=60) == 0
    assert any("as soon as the jobs that run have ended" in line["message"] for line in server.logged())
