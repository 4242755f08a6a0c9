"""A service that cannot confine takes nothing, and every account says how it was confined."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import make_app
from service.docs import SETTINGS_PAGE
from service.sandbox import choose, levels
from service.scratch import open_scratch
from service.settings import UnusableSettingsError, read_settings
from service.state import make_state


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    choose.cache_clear()
    yield
    choose.cache_clear()


def _asked(store: Path, sandbox: str, *requests: tuple[str, str]) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        opened = open_scratch(store)
        state = make_state(read_settings({"BNFOLD_SANDBOX": sandbox}), opened)
        transport = httpx.ASGITransport(make_app(state), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            told: dict[str, Any] = {"files": {"model": ("m.onnx", b"x")}}
            answers = [
                await client.request(method, path, **(told if method == "POST" else {})) for method, path in requests
            ]
        state.table.engine.dispose()
        os.close(opened.lock)
        return answers

    return asyncio.run(ask())


@pytest.mark.parametrize("setting", ["auto", "bubblewrap", "landlock"])
def test_uploads_are_refused_where_no_level_can_be_kept(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "tried", lambda _: "it is switched off")
    paths = ("POST", "/fold"), ("GET", "/readyz"), ("GET", "/livez"), ("GET", "/models")
    refused, ready, live, listed = _asked(tmp_path, setting, *paths)
    assert (refused.status_code, refused.json()["code"]) == (503, "sandbox")
    assert refused.json()["detail"] == ("this machine cannot keep foreign files apart from all else, so none are taken")
    assert refused.json()["hint"] == (
        "Look at docs/sandbox.md, or set BNFOLD_SANDBOX=off if every file that is sent is trusted."
    )
    assert (ready.status_code, ready.json()["ready"], ready.json()["sandbox"]) == (503, False, "none")
    assert (live.status_code, listed.status_code) == (200, 200)
    assert not any((tmp_path / "aside").iterdir())


@pytest.mark.parametrize("setting", ["limits", "off"])
def test_what_does_not_isolate_is_taken_only_when_it_is_set(setting: str, tmp_path: Path) -> None:
    ready, health = _asked(tmp_path, setting, ("GET", "/readyz"), ("GET", "/health"))
    assert ready.json()["sandbox"] == health.json()["sandbox"] == setting


def test_a_level_that_does_not_exist_is_no_setting() -> None:
    with pytest.raises(UnusableSettingsError, match="BNFOLD_SANDBOX cannot be 'chroot'"):
        read_settings({"BNFOLD_SANDBOX": "chroot"})


def test_the_page_names_every_level() -> None:
    text = SETTINGS_PAGE.with_name("sandbox.md").read_text("utf-8")
    for level in (*levels.Level, "auto"):
        assert f"| `{level}`" in text
