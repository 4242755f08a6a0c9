"""Versions of models are kept and deleted by many at once, with SQLite and with PostgreSQL: no file is ever missing."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.database.connecting import open_database
from service.jobs.table import JobTable
from service.problems import DatabaseError, NotFoundError
from service.registry.cards import Card
from service.registry.kept import KeptModels
from service.registry.registry import Registry
from service.retention import sweep
from service.serving.source import RememberedSource
from service.storage import Storage, artifact, open_storage
from tests.service.registry.test_keeping import REPORT, Place

Make = Callable[[], Path]


@pytest.fixture
def place(address: str, tmp_path: Path) -> Iterator[Place]:
    engine = open_database(address)
    storage = open_storage("", tmp_path, 10**9)
    yield Place(JobTable(engine, 3600, 3, 1000, 1000), Registry(engine, storage), storage, tmp_path)
    engine.dispose()


@pytest.fixture
def results(tmp_path: Path) -> Make:
    """What conversions leave that all made the same."""

    def make() -> Path:
        folder = tmp_path / "results" / secrets.token_hex(4)
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "model.onnx").write_bytes(b"model")
        (folder / "out" / "report.json").write_text(json.dumps(REPORT), "utf-8")
        (folder / "out" / "report.html").write_text("<html>", "utf-8")
        return folder

    return make


def kept(place: Place, results: Make, name: str) -> Card:
    card = place.keep(place.job(name), results())
    assert card is not None
    return card


def whole(place: Place) -> bool:
    """Say whether all files of all models are there, and no others."""
    cards = place.registry.latest("t", 100, "")
    return place.files() == {digest for card in cards for digest in (card.sha256, card.report, card.page)}


def test_many_who_keep_under_one_name_get_a_number_each(place: Place, results: Make) -> None:
    jobs = [place.job("net") for _ in range(6)]
    with ThreadPoolExecutor(6) as crew:
        cards = list(crew.map(lambda job: place.keep(job, results()), jobs))
    assert sorted(card.version for card in cards if card is not None) == [1, 2, 3, 4, 5, 6]
    assert place.registry.versions("t", "net") == [1, 2, 3, 4, 5, 6]
    latest = place.registry.card("t", "net", "latest")
    assert latest is not None
    assert latest.version == 6


def test_models_are_listed_page_by_page(place: Place, results: Make) -> None:
    for name in ("b", "a", "c", "a"):
        kept(place, results, name)
    assert [(card.name, card.version) for card in place.registry.latest("t", 2, "")] == [("a", 2), ("b", 1)]
    assert [card.name for card in place.registry.latest("t", 2, "b")] == ["c"]
    assert list(place.registry.latest("somebody else", 9, "")) == []


def test_a_file_that_is_kept_while_it_is_deleted_stays(
    place: Place, results: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one begins when the file has been found to belong to nobody, and before it is removed."""
    old, job = kept(place, results, "old"), place.job("new")
    drop, crew = Storage.drop_now, ThreadPoolExecutor(1)
    keeping: list[Future[Card | None]] = []

    def slow(storage: Storage, key: str) -> None:
        if not keeping:
            keeping.append(crew.submit(place.keep, job, results()))
            threading.Event().wait(0.5)
        drop(storage, key)

    monkeypatch.setattr(Storage, "drop_now", slow)
    asyncio.run(place.registry.delete("t", old))
    new = keeping[0].result()
    crew.shutdown()
    assert new is not None
    assert place.content(new) == b"model"
    assert whole(place)


def test_a_file_that_is_deleted_while_it_is_kept_is_there_again(
    place: Place, results: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one removes it when it has been found to be there already, and before something names it."""
    old, job = kept(place, results, "old"), place.job("new")
    insert = Registry._insert

    def late(self: Registry, *arguments: Any) -> Any:
        asyncio.run(place.registry.delete("t", old))
        return insert(self, *arguments)

    monkeypatch.setattr(Registry, "_insert", late)
    new = place.keep(job, results())
    assert new is not None
    assert place.content(new) == b"model"
    assert whole(place)


def test_models_that_come_and_go_at_once_keep_their_files(place: Place, results: Make) -> None:
    uploading = threading.Lock()

    def come_and_go(number: int) -> None:
        for turn in range(6):
            with uploading:
                job = place.job(f"m{number}-{turn}")
            card = place.keep(job, results())
            assert card is not None
            if turn % 2:
                asyncio.run(sweep(place.table, place.registry, place.storage, -1))
            if turn < 5 or number:
                asyncio.run(place.registry.delete("t", card))

    with ThreadPoolExecutor(4) as crew:
        list(crew.map(come_and_go, range(4)))
    (last,) = place.registry.latest("t", 100, "")
    assert last.name == "m0-5"
    assert place.content(last) == b"model"
    assert whole(place)


def test_what_nobody_finished_to_copy_is_swept_away(place: Place, results: Make) -> None:
    card = kept(place, results, "m")
    half = place.folder / "objects" / artifact(card.sha256)
    half = half.with_name(f".{card.sha256}.0123")
    half.write_bytes(b"ha")
    assert asyncio.run(sweep(place.table, place.registry, place.storage, -1)) == 1
    assert not half.exists()
    assert whole(place)


def test_what_was_served_is_served_while_the_database_is_away(
    place: Place, results: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, models = kept(place, results, "m"), KeptModels(place.registry)
    changes = iter(range(100))
    source = RememberedSource(models, lambda: next(changes))  # it asks each time
    assert asyncio.run(source.card("t", "m", "latest")) == card

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server is gone"))

    monkeypatch.setattr(Registry, "card", away)
    monkeypatch.setattr(Registry, "versions", away)
    assert asyncio.run(source.card("t", "m", "latest")) == card
    questions: tuple[Coroutine[Any, Any, object], ...] = (
        source.card("t", "never-asked-for", "1"),
        models.card("t", "m", "1"),
        models.versions("t", "m"),
    )
    for question in questions:
        with pytest.raises(DatabaseError, match=r"^the database does not answer$"):
            asyncio.run(question)
    monkeypatch.undo()
    asyncio.run(place.registry.delete("t", card))
    with pytest.raises(NotFoundError):
        asyncio.run(source.card("t", "m", "latest"))
