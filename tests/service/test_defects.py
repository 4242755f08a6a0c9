"""A full disk and our own defects are told as problems, without a traceback, and by what the child said of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import child, upload
from service.app import make_app
from service.jobs import conversion
from service.problems import KilledError, ServiceError, problem
from service.routes import health
from service.scratch import open_scratch
from service.settings import read_settings
from service.state import make_state


def _asked(store: Path, method: str, path: str, **told: Any) -> httpx.Response:
    """Ask the application itself, without a server around it."""

    async def ask() -> httpx.Response:
        opened = open_scratch(store)
        state = make_state(read_settings({"BNFOLD_SANDBOX": "off"}), opened)
        transport = httpx.ASGITransport(make_app(state), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.request(method, path, **told)
        state.table.engine.dispose()
        os.close(opened.lock)
        return answer

    return asyncio.run(ask())


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_upload_to_a_full_disk_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload._Form, "_takes", _full)
    answer = _asked(store, "POST", "/fold", files={"model": ("m.onnx", b"x")})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage")
    assert answer.json()["detail"] == "the store cannot be written: No space left on device"
    assert answer.json()["hint"] == "Make room on the disk of BNFOLD_STORE."
    assert list((store / "aside").iterdir()) == []


def test_a_store_that_cannot_be_written_is_not_ready(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", _full)
    for path in ("/health", "/readyz", "/v2/health/ready"):
        answer = _asked(store, "GET", path)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)


def test_a_defect_is_told_as_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("secret numbers")

    monkeypatch.setattr(health, "state_of", broken)
    answer = _asked(store, "GET", "/v2/health/ready")
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "the service met a defect of bnfold",
        "code": "internal",
        "hint": "Report this, with what the service logged.",
        "error": "the service met a defect of bnfold. Report this, with what the service logged.",
    }


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), "storage"),
        (OSError(errno.EFBIG, "large"), "file-size"),
        (OSError(errno.ENOMEM, "none"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("std::bad_alloc"), "memory"),
        (ImportError("x.so: failed to map segment from shared object"), "memory"),
        (FileNotFoundError(errno.ENOENT, "x"), "defect"),
        (ZeroDivisionError(), "defect"),
    ],
)
def test_the_child_says_what_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: str
) -> None:
    def failing(*_: object) -> None:
        raise raised

    (tmp_path / "job.json").write_text("{}")
    monkeypatch.setattr(child, "_convert", failing)
    assert child._outcome(tmp_path, lambda *_: None)["kind"] == kind


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        ({"kind": "refused", "code": "unknown-format", "message": "m", "hint": "h"}, 415, "unknown-format"),
        ({"kind": "refused", "code": "signature", "message": "m", "hint": "h"}, 422, "signature"),
        ({"kind": "refused", "code": "parity", "message": "m", "hint": "h"}, 409, "parity"),
        ({"kind": "refused", "code": "inconclusive", "message": "m", "hint": "h"}, 409, "inconclusive"),
        ({"kind": "memory"}, 422, "limit"),
        ({"kind": "file-size"}, 422, "limit"),
        ({"kind": "storage", "message": "full"}, 507, "storage"),
        ({"kind": "defect", "message": "KeyError"}, 500, "internal"),
        ({"kind": "refused"}, 500, "internal"),
        ({}, 500, "internal"),
        ([], 500, "internal"),
    ],
)
def test_what_the_child_says_is_told(tmp_path: Path, outcome: Any, status: int, code: str) -> None:
    for name in ("upload", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "upload" / "m").write_bytes(b"")
    (tmp_path / "log").write_bytes(b"")
    (tmp_path / "out" / "outcome.json").write_text(json.dumps(outcome))
    with pytest.raises(ServiceError) as caught:
        conversion._outcome(tmp_path, "m", 0, read_settings({}))
    answer = problem(caught.value)
    assert (answer.status_code, json.loads(bytes(answer.body))["code"]) == (status, code)


@pytest.mark.parametrize(
    ("status", "log", "code", "detail"),
    [
        (-9, b"", "killed", "the conversion was killed by signal 9 (SIGKILL) before it ended"),
        (-11, b"", "killed", "the conversion was killed by signal 11 (SIGSEGV) before it ended"),
        (-6, b"std::bad_alloc", "limit", "the conversion takes more memory than the 17179869184 bytes it is given"),
        (-24, b"", "time-limit", "the conversion took longer than 300 s and was stopped"),
        (1, b"", "crashed", "the conversion ended with status 1 and no result"),
        (
            121,
            b"sandbox: Landlock: x",
            "sandbox",
            "this machine cannot keep foreign files apart from all else any more, so none are taken",
        ),
    ],
)
def test_how_the_child_ended_is_told(tmp_path: Path, *, status: int, log: bytes, code: str, detail: str) -> None:
    for name in ("upload", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "upload" / "m").write_bytes(b"")
    (tmp_path / "log").write_bytes(log)
    with pytest.raises(ServiceError) as caught:
        conversion._outcome(tmp_path, "m", status, read_settings({}))
    assert (caught.value.code, str(caught.value)) == (code, detail)
    # What killed it may not have been its own doing: only then is it begun again.
    assert isinstance(caught.value, KilledError) == (status in {-9, -11})
