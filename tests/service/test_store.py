"""A model is kept whole or not at all, whatever fails while it is written, and never changes afterwards."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.store import Store, StoreInUseError, is_name, open_store

NAME = "0123456789abcdef" * 4
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


@pytest.fixture
def opened(store: Path) -> Store:
    return open_store(store)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "report.json").write_text(json.dumps(REPORT), "utf-8")
    return folder


def _is_empty(store: Store) -> bool:
    return not list((store.root / "models").iterdir()) and not list((store.root / "aside").iterdir())


def test_what_is_kept_is_there_after_a_restart(opened: Store, results: Path) -> None:
    card = opened.publish(NAME, results, "net.onnx", OUTCOME)
    assert (card.sha256, card.bytes) == (hashlib.sha256(b"model").hexdigest(), 5)
    os.close(opened.lock)
    again = open_store(opened.root)
    assert again.names() == [NAME]
    assert again.card(NAME) == card
    assert again.model(NAME).read_bytes() == b"model"
    assert json.loads(again.report(NAME).read_bytes()) == REPORT


def test_what_is_kept_first_stays(opened: Store, results: Path) -> None:
    first = opened.publish(NAME, results, "net.onnx", OUTCOME)
    (results / "model.onnx").write_bytes(b"another")
    assert opened.publish(NAME, results, "other.onnx", OUTCOME) == first
    assert opened.model(NAME).read_bytes() == b"model"
    assert not list((opened.root / "aside").iterdir())


def test_a_conversion_cannot_change_what_is_kept(opened: Store, results: Path) -> None:
    with (results / "model.onnx").open("r+b") as still_open:
        opened.publish(NAME, results, "net.onnx", OUTCOME)
        still_open.write(b"XXXXX")
    assert opened.model(NAME).read_bytes() == b"model"


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.rename"])
def test_a_full_disk_leaves_nothing(
    opened: Store, results: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(OSError, match="No space left on device"):
        opened.publish(NAME, results, "net.onnx", OUTCOME)
    monkeypatch.undo()
    assert _is_empty(opened)
    assert opened.publish(NAME, results, "net.onnx", OUTCOME).name == NAME


def test_results_that_are_links_or_pipes_are_refused(opened: Store, results: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (results / "model.onnx").unlink()
    (results / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        opened.publish(NAME, results, "net.onnx", OUTCOME)
    (results / "model.onnx").unlink()
    os.mkfifo(results / "model.onnx")
    with pytest.raises(ValueError, match=r"model.onnx is no file"):
        opened.publish(NAME, results, "net.onnx", OUTCOME)
    assert _is_empty(opened)


@pytest.mark.parametrize(
    "report", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"batch_norms": 3}', b'{"batch_norms": [3]}']
)
def test_a_report_that_is_none_is_refused(opened: Store, results: Path, report: bytes) -> None:
    (results / "report.json").write_bytes(report)
    with pytest.raises(ValueError):  # noqa: PT011  (each way of being none says something else)
        opened.publish(NAME, results, "net.onnx", OUTCOME)
    assert _is_empty(opened)


@pytest.mark.parametrize("change", [{"inputs": 3}, {"inputs": [{"name": 1}]}, {"unrunnable": None}])
def test_an_outcome_that_is_none_is_refused(opened: Store, results: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (as above)
        opened.publish(NAME, results, "net.onnx", {**OUTCOME, **change})
    assert _is_empty(opened)


def test_what_requests_left_is_swept_away(opened: Store) -> None:
    (opened.aside() / "upload").mkdir()
    os.close(opened.lock)
    assert _is_empty(open_store(opened.root))


def test_a_store_is_used_once(opened: Store) -> None:
    with pytest.raises(StoreInUseError):
        open_store(opened.root)


@pytest.mark.parametrize("name", ["", "..", "a" * 63, "A" * 64, "a" * 65, f"../{'a' * 61}", f"{'a' * 64}\n", "é" * 64])
def test_only_a_hash_is_a_name(opened: Store, name: str) -> None:
    assert not is_name(name)
    assert opened.card(name) is None


def test_a_damaged_card_is_no_model(opened: Store, results: Path) -> None:
    opened.publish(NAME, results, "net.onnx", OUTCOME)
    (opened.root / "models" / NAME / "1" / "card.json").write_bytes(b"{")
    assert opened.card(NAME) is None
