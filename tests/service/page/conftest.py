"""A real browser for the tests of the page, and a page of it that notes all that went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.service.page.models import drop
from tests.service.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-dev-shm-usage",
]
_PATIENCE = 120_000  # ms, which only a page that hangs reaches


@dataclass(slots=True)
class Visit:
    """A page, and what it did.

    Attributes:
        page: Of the browser.
        url: Of the service.
        requests: Addresses that it asked for.
        wrong: What it wrote on its console as an error, what it raised, and what its policy forbade.
    """

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def drop(self, content: bytes, name: str) -> None:
        drop(self.page, content, name)

    def send(self) -> None:
        self.page.get_by_role("button", name="Fold it").click()

    def verdict(self) -> str:
        """Wait for a verdict, and return all that it says."""
        return self.page.locator(".verdict").inner_text()

    def elsewhere(self) -> list[str]:
        """Return what it asked others for than the service."""
        own = urlsplit(self.url).netloc
        return [url for url in self.requests if urlsplit(url).netloc != own and not url.startswith(("data:", "blob:"))]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(
            self.page.evaluate(
                "Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"
            )
        )


Visiting = Callable[..., Visit]


def _note(visit: Visit, kind: str, text: str) -> None:
    # Answers like 404 stand on the console, too, and are expected by whoever asks for them.
    if kind == "error" and "Failed to load resource" not in text:
        visit.wrong.append(text)


# Of a module, not of the session: while it is there, no other test of this thread could run a loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("BNFOLD_TEST_EVERYTHING") == "1":
            pytest.fail("there is no chromium: apt-get install chromium")
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield opened
        opened.close()
    with contextlib.suppress(RuntimeError):
        assert asyncio.get_running_loop() is None, "a loop is left behind, and no other test could run one"


@pytest.fixture
def visiting(browser: Browser) -> Iterator[Visiting]:
    """Opens windows at a service; at the end, nothing may have gone wrong in them that was not expected."""
    opened: list[Any] = []
    visits: list[Visit] = []

    def visit(server: Server | str, **settings: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **settings})
        context.set_default_timeout(_PATIENCE)
        opened.append(context)
        one = Visit(context.new_page(), server if isinstance(server, str) else server.url)
        one.page.on("request", lambda request: one.requests.append(request.url))
        one.page.on("pageerror", lambda error: one.wrong.append(str(error)))
        one.page.on("dialog", lambda dialog: dialog.accept())
        one.page.on("console", lambda said: _note(one, said.type, said.text))
        visits.append(one)
        return one

    yield visit
    for context in opened:
        context.close()
    assert [said for one in visits for said in one.wrong] == []
    assert [url for one in visits for url in one.elsewhere()] == []


@pytest.fixture
def visit(visiting: Visiting, server: Server) -> Visit:
    return visiting(server)
