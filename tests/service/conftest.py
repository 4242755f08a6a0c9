"""One service for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.server import Server, conv_model, post, serving

if TYPE_CHECKING:
    import httpx


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("store"), upload_size="4MiB", infer_size="1MiB") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="session")
def folded(server: Server) -> dict[str, object]:
    """What the service says of a small model with one convolution that it has folded."""
    with server.client() as client:
        answer = post(client, conv_model(1))
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body
