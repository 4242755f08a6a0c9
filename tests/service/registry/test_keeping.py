"""A model is kept whole or not at all, whatever fails while it is written, and never changes afterwards."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.database.connecting import open_database
from service.jobs.job import QUEUED, RUNNING, SUCCEEDED, Job, Wanted
from service.jobs.table import JobTable
from service.registry.cards import Card
from service.registry.registry import Registry, is_name, name_for
from service.retention import sweep, throw_away
from service.storage import Storage, artifact, open_storage

OUTCOME: dict[str, Any] = {
    "kind": "done",
    "unrunnable": "",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}
REPORT = {
    "source": {"format": "onnx", "framework": "", "description": "ONNX", "sha256": "0", "bytes": 3},
    "verdict": "pass",
    "batch_norms": [],
    "before": {},
    "after": {},
    "versions": {},
}


@dataclass(frozen=True)
class Place:
    """A database and a storage of its own."""

    table: JobTable
    registry: Registry
    storage: Storage
    folder: Path

    def job(self, name: str = "net", key: str | None = None) -> Job:
        """Accept a job and claim it."""
        job = secrets.token_hex(16)
        files = {"model": f"uploads/{job}/model"}
        upload = self.folder / "upload"
        upload.write_bytes(b"upload")
        asyncio.run(self.storage.take(upload, files["model"]))
        upload.unlink()
        wanted = Wanted(job, "t", key or job, None, name, {"name": "net.onnx", "files": files}, {}, 6)
        accepted = self.table.accept(wanted, 100)
        assert accepted is not None
        claimed = self.table.claim(accepted.job.id)
        assert claimed is not None
        return claimed

    def keep(self, job: Job, results: Path, outcome: dict[str, Any] = OUTCOME) -> Card | None:
        return asyncio.run(self.registry.keep(self.table, job, results, outcome, "off"))

    def content(self, card: Card) -> bytes:
        return asyncio.run(self.storage.local(card.sha256)).read_bytes()

    def files(self) -> set[str]:
        """Return the sha256 of every kept file."""
        return {path.name for path in (self.folder / "objects").glob("artifacts/*/*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    engine = open_database(f"sqlite:///{tmp_path / 'service.sqlite'}")
    storage = open_storage("", tmp_path, 10**9)
    return Place(JobTable(engine, 10, 3, 1000, 1000), Registry(engine, storage), storage, tmp_path)


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Path]:
    """What a conversion leaves."""

    def make(model: bytes = b"model") -> Path:
        folder = tmp_path / secrets.token_hex(4)
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "model.onnx").write_bytes(model)
        (folder / "out" / "report.json").write_text(json.dumps(REPORT), "utf-8")
        (folder / "out" / "report.html").write_text("<html>", "utf-8")
        return folder

    return make


def test_what_is_kept_is_there_after_a_restart(place: Place, results: Callable[..., Path]) -> None:
    job = place.job(key="k" * 64)
    card = place.keep(job, results())
    assert card is not None
    assert (card.name, card.version, card.bytes) == ("net", 1, 5)
    assert card.sha256 == hashlib.sha256(b"model").hexdigest()
    place.table.engine.dispose()
    again = Registry(open_database(f"sqlite:///{place.folder / 'service.sqlite'}"), place.storage)
    assert again.card("t", "net", "latest") == again.card("t", "net", "1") == again.made_by("t", "k" * 64) == card
    assert place.content(card) == b"model"
    assert json.loads(asyncio.run(place.storage.local(card.report)).read_bytes()) == REPORT
    ended = place.table.job(job.id)
    assert ended is not None
    assert (ended.state, ended.version, ended.format) == (SUCCEEDED, 1, "onnx")


def test_another_content_of_the_same_name_is_another_version(place: Place, results: Callable[..., Path]) -> None:
    cards = [place.keep(place.job(), results(model)) for model in (b"one", b"two", b"one")]
    assert [card.version for card in cards if card is not None] == [1, 2, 3]
    latest = place.registry.card("t", "net", "latest")
    assert latest is not None
    assert (latest.version, place.content(latest)) == (3, b"one")
    assert place.registry.versions("t", "net") == [1, 2, 3]
    assert [card.version for card in place.registry.latest("t", 10, "")] == [3]


def test_others_do_not_see_it(place: Place, results: Callable[..., Path]) -> None:
    job = place.job()
    place.keep(job, results())
    assert place.registry.card("other", "net", "1") is None
    assert place.registry.versions("other", "net") == []
    assert place.registry.latest("other", 10, "") == []
    assert place.registry.made_by("other", job.key) is None


def test_a_number_is_not_given_again(place: Place, results: Callable[..., Path]) -> None:
    first, second = (place.keep(place.job(), results(model)) for model in (b"one", b"two"))
    assert first is not None
    assert second is not None
    asyncio.run(place.registry.delete("t", second))
    third = place.keep(place.job(), results(b"three"))
    assert third is not None
    assert (third.version, place.registry.versions("t", "net")) == (3, [1, 3])
    assert place.registry.card("t", "net", "2") is None


def test_a_file_goes_with_the_last_version_that_has_it(place: Place, results: Callable[..., Path]) -> None:
    first, second = (place.keep(place.job(), results()) for _ in range(2))
    assert first is not None
    assert second is not None
    asyncio.run(place.registry.delete("t", first))
    assert place.content(second) == b"model"
    asyncio.run(place.registry.delete("t", second))
    assert place.files() == set()


def test_who_lost_the_claim_keeps_nothing(place: Place, results: Callable[..., Path]) -> None:
    late = place.job()
    place.table.release(late, blameless=True)
    job = place.table.claim(late.id)
    assert job is not None
    assert place.keep(late, results(b"late")) is None
    assert place.registry.versions("t", "net") == []
    kept = place.keep(job, results(b"good"))
    assert kept is not None
    assert place.content(kept) == b"good"
    assert place.keep(job, results(b"again")) is None
    assert place.registry.versions("t", "net") == [1]


def test_the_same_work_done_twice_is_one_version(place: Place, results: Callable[..., Path]) -> None:
    first = place.keep(place.job(key="k" * 64), results())
    late = place.job(key="k" * 64)
    assert place.keep(late, results(b"not quite the same")) == first
    assert place.registry.versions("t", "net") == [1]
    ended = place.table.job(late.id)
    assert ended is not None
    assert (ended.state, ended.version) == (SUCCEEDED, 1)


def test_a_conversion_cannot_change_what_is_kept(place: Place, results: Callable[..., Path]) -> None:
    folder = results()
    with (folder / "out" / "model.onnx").open("r+b") as still_open:
        card = place.keep(place.job(), folder)
        still_open.write(b"XXXXX")
    assert card is not None
    assert place.content(card) == b"model"


def test_what_is_kept_twice_is_not_written_to(place: Place, results: Callable[..., Path]) -> None:
    folder, job = results(), place.job()
    card = place.keep(job, folder)
    (folder / "out" / "model.onnx").write_bytes(b"other")
    assert place.keep(job, folder) is None
    assert card is not None
    assert place.content(card) == b"model"


@pytest.mark.parametrize("failing", ["os.fsync", "os.link"])
def test_a_full_disk_leaves_a_job_that_can_be_done(
    place: Place, results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = place.job()
    monkeypatch.setattr(failing, full)
    if failing == "os.link":  # then it is copied, and that fails
        monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left on device"):
        place.keep(job, results())
    monkeypatch.undo()
    assert place.files() == set()
    assert not list((place.folder / "objects").glob("artifacts/*/.*"))
    found = place.table.job(job.id)
    assert found is not None
    assert found.state == RUNNING
    assert place.keep(job, results()) is not None


def test_a_storage_on_another_disk_takes_copies(
    place: Place, results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    job = place.job()
    monkeypatch.setattr(os, "link", elsewhere)
    card = place.keep(job, results())
    assert card is not None
    assert place.content(card) == b"model"
    assert place.files() == {card.sha256, card.report, card.page}


def test_results_that_are_links_or_pipes_are_refused(
    place: Place, results: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder, job = results(), place.job()
    (folder / "out" / "model.onnx").unlink()
    (folder / "out" / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        place.keep(job, folder)
    (folder / "out" / "model.onnx").unlink()
    os.mkfifo(folder / "out" / "model.onnx")
    with pytest.raises(ValueError, match=r"model.onnx is no file"):
        place.keep(job, folder)
    assert place.files() == set()


@pytest.mark.parametrize(
    "report", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"batch_norms": 3}', b'{"batch_norms": [3]}']
)
def test_a_report_that_is_none_is_refused(place: Place, results: Callable[..., Path], report: bytes) -> None:
    folder = results()
    (folder / "out" / "report.json").write_bytes(report)
    with pytest.raises((ValueError, RecursionError)):
        place.keep(place.job(), folder)
    assert place.files() == set()
    assert place.registry.versions("t", "net") == []


@pytest.mark.parametrize("change", [{"inputs": 3}, {"inputs": [{"name": 1}]}, {"unrunnable": None}])
def test_an_outcome_that_is_none_is_refused(place: Place, results: Callable[..., Path], change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each way of being none says something else)
        place.keep(place.job(), results(), {**OUTCOME, **change})
    assert place.files() == set()


@pytest.mark.parametrize("name", ["", "..", ".a", "-a", "a" * 101, "a/b", "a b", "a\n", "é", "a\0"])
def test_what_could_be_a_path_is_no_name(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    ("upload", "name"),
    [
        ("resnet50.v2.keras", "resnet50-abcdefabcdef"),
        ("model", "model-abcdefabcdef"),
        ("__.onnx", "model-abcdefabcdef"),
        ("a b+c.h5", "a-b-c-abcdefabcdef"),
        ("x" * 200, "x" * 60 + "-abcdefabcdef"),
    ],
)
def test_what_nobody_named_is_called_after_its_file(upload: str, name: str) -> None:
    assert name_for(upload, "abcdef" * 10) == name
    assert is_name(name)


def test_uploads_and_jobs_have_their_time(place: Place, results: Callable[..., Path]) -> None:
    done, waiting = place.job(), place.job("other")
    card = place.keep(done, results())
    short = JobTable(place.table.engine, 10, 3, 1000, -1)
    assert card is not None
    place.table.release(waiting, blameless=True)
    uploads = place.folder / "objects" / "uploads"
    asyncio.run(throw_away(place.table, place.storage))
    assert len(list(uploads.glob("*/model"))) == 2
    ended = place.job("third")
    short.fail(ended, {"code": "x"})
    asyncio.run(throw_away(place.table, place.storage))
    assert {path.name for path in uploads.iterdir()} == {done.id, waiting.id}
    forgetful = JobTable(place.table.engine, 10, 3, -1, 1000)
    last = place.job("fourth")
    forgetful.fail(last, {"code": "x"})
    asyncio.run(throw_away(place.table, place.storage))
    assert place.table.job(last.id) is None
    assert place.table.events(last.id, 0) == []
    assert {path.name for path in uploads.iterdir()} == {done.id, waiting.id}
    found = place.table.job(waiting.id)
    assert found is not None
    assert found.state == QUEUED
    assert place.content(card) == b"model"


def test_what_nobody_names_is_swept_away_when_it_is_old(place: Place, results: Callable[..., Path]) -> None:
    job = place.job()
    card = place.keep(job, results())
    assert card is not None
    stray = place.folder / "stray"
    for key in (artifact("0" * 64), "uploads/nobody/model", "checks/x"):
        stray.write_bytes(b"stray")
        asyncio.run(place.storage.take(stray, key))
        stray.unlink()
    (place.folder / "objects" / "mine.txt").write_bytes(b"not the service's")
    assert asyncio.run(sweep(place.table, place.registry, place.storage, 1000)) == 0
    assert asyncio.run(sweep(place.table, place.registry, place.storage, -1)) == 3
    assert place.files() == {card.sha256, card.report, card.page}
    assert (place.folder / "objects" / "mine.txt").exists()
    assert (place.folder / "objects" / "uploads" / job.id / "model").exists()
