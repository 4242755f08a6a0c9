"""Models made to do harm when they are run: the runner may die, the service answers and goes on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.sandbox import Level
from tests.service.attacks.files import constant_of_shape, endless_loop
from tests.service.sandbox.children import at_level
from tests.service.server import Server, conv_model, serving, strongest_level, wait_for

if TYPE_CHECKING:
    import httpx

LEVELS = [level for level in Level if level is not Level.OFF]


@pytest.fixture(scope="module", params=LEVELS)
def besieged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose runners have little time and little memory."""
    level = at_level(request.param)
    folder = tmp_path_factory.mktemp("served")
    with serving(
        folder, sandbox=level.value, infer_seconds="5", load_seconds="6", runner_memory="2GiB", runner_threads="1"
    ) as server:
        yield server


@pytest.fixture
def client(besieged: Server) -> Iterator[httpx.Client]:
    with besieged.client() as opened:
        yield opened


def _infer(client: httpx.Client, link: str, name: str, datatype: str, shape: list[int], data: list[Any]) -> Any:
    asked = {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}
    return client.post(link, content=json.dumps(asked))


def _kept(client: httpx.Client, content: bytes) -> str:
    sent: Any = {"files": {"model": ("m.onnx", content)}, "data": {"verify": "off"}, "headers": {"Prefer": "wait=30"}}
    answer = wait_for(lambda: _if_fine(client.post("/fold", **sent)), 600)
    return str(answer.json()["links"]["infer"])


def _answered(client: httpx.Client, link: str, name: str, datatype: str, shape: list[int], data: list[Any]) -> Any:
    """Return the first output, however long the machine takes to load the model."""
    answer = wait_for(lambda: _if_fine(_infer(client, link, name, datatype, shape, data)), 300)
    return answer.json()["outputs"][0]["data"]


def _if_fine(answer: httpx.Response) -> Any:
    assert answer.status_code in {200, 202, 503, 504}, answer.text
    return answer if answer.status_code == 200 else None


def _serves(client: httpx.Client) -> None:
    link = _kept(client, conv_model(1))
    assert len(_answered(client, link, "x", "FP32", [1, 3, 8, 8], [0.5] * 192)) == 144
    assert client.get("/readyz").status_code == 200


def test_a_value_of_64_gib_is_not_made(client: httpx.Client) -> None:
    link = _kept(client, constant_of_shape())
    assert _answered(client, link, "n", "INT64", [1], [4]) == [0.0]
    answer = _infer(client, link, "n", "INT64", [1], [2**34])
    assert answer.status_code in {400, 500}, answer.text
    assert answer.json()["error"]
    assert _infer(client, link, "n", "INT64", [1], [-1]).status_code == 400
    _serves(client)


# The clock that stops it is the service's own, and the same at every level.
@pytest.mark.parametrize("besieged", [Level(strongest_level())], indirect=True)
def test_a_loop_without_end_is_stopped(client: httpx.Client, besieged: Server) -> None:
    link = _kept(client, endless_loop())
    answer = _infer(client, link, "x", "FP32", [1, 4], [0.5] * 4)
    assert answer.status_code in {500, 504}, answer.text
    assert answer.json()["error"]
    _serves(client)
    # Nothing goes on behind its back.
    wait_for(lambda: _is_quiet(besieged), 120)


def _is_quiet(server: Server) -> bool:
    before = _spent(server)
    time.sleep(0.2)
    return before == _spent(server)


def _spent(server: Server) -> list[str]:
    """Return the processor time that each runner has taken."""
    found = []
    for runner in sorted(server.children("service.serving.runner")):
        with contextlib.suppress(OSError):
            found.append(" ".join(Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return found
