"""Whatever is sent, by the description of the interface or as a damaged file, the service answers and stays well."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from tests.fuzz.mutations import mutate
from tests.service.server import Server, conv_model, post, serving, wait_for

if TYPE_CHECKING:
    import httpx

MODELS = Path(__file__).parents[3] / "models"

# How many damaged forms of each file are sent: those that TensorFlow reads take seconds each.
DAMAGED = {
    "torch_conv/digits.onnx": 8,
    "keras_dense/tuned.keras": 2,
    "keras_dense/tuned.h5": 2,
    "tf_keras_dense/tuned.h5": 2,
    "tf1_cond/frozen_v2.pb": 1,
    "keras_depthwise/saved_model": 2,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("damaged")
    limits = {"attempts": "1", "upload_size": "4MiB", "infer_size": "1MiB", "queue": "200", "job_seconds": "240"}
    with serving(folder, **limits) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def _content(path: Path) -> bytes:
    if path.is_file():
        return path.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(path, arcname="m")
    return packed.getvalue()


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    time.sleep(0.05)
    body: dict[str, Any] = client.get(job).json()
    return body if body["state"] in {"succeeded", "failed"} else {}


@pytest.mark.tensorflow
def test_a_damaged_file_is_answered_and_leaves_nothing(client: httpx.Client, server: Server) -> None:
    random = np.random.default_rng(2026)
    contents = {name: _content(MODELS / name) for name in DAMAGED}
    sent = {}
    for name, count in DAMAGED.items():
        for _form in range(count):
            spoilt = mutate(contents[name], contents["torch_conv/digits.onnx"], random)
            filename = Path(name).name if (MODELS / name).is_file() else "m.tar"
            answer = client.post(
                "/fold",
                params={"filename": filename, "verify": "fast"},
                content=spoilt,
                headers={"Prefer": "respond-async", "Content-Type": "application/octet-stream"},
            )
            assert answer.status_code in {200, 202, 400}, answer.text
            if answer.status_code == 202:
                sent[answer.headers["location"]] = name
    assert len(sent) > sum(DAMAGED.values()) / 2
    for job, name in sent.items():
        told = wait_for(partial(_ended, client, job), 900)
        if told["state"] == "failed":
            problem = told["error"]
            # A library may die of a damaged file, and the child with it; it must not be a defect of ours.
            died = problem["code"] in {"crashed", "killed", "time-limit"}
            assert 400 <= problem["status"] < 500 or died, (name, problem)
            assert problem["detail"]
            assert problem["hint"]
    assert client.get("/readyz").json()["ready"] is True
    assert wait_for(lambda: post(client, conv_model(1)).status_code == 200, 300)
    wait_for(lambda: server.aside() == [], 120)


@pytest.mark.filterwarnings("ignore")
def test_whatever_the_description_allows_is_answered(server: Server, client: httpx.Client) -> None:
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    told: dict[str, int] = {}
    for found in described.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @given(operation.as_strategy())
        @settings(
            max_examples=4,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def _is_answered(case: Any) -> None:
            answer = case.call(timeout=300)
            told[case.operation.label] = answer.status_code
            if answer.status_code >= 400:
                _is_clear(answer.status_code, answer.content)

        _is_answered()
    assert "POST /fold" in told
    assert len(told) > 15
    assert client.get("/readyz").json()["ready"] is True
    assert post(client, conv_model(2)).status_code in {200, 202}


def _is_clear(status: int, content: bytes) -> None:
    assert status in {400, 403, 404, 405, 406, 408, 409, 411, 413, 415, 416, 422, 503}, content
    problem = json.loads(content)
    assert problem["detail"]
    assert problem["hint"]
    assert problem["code"]
    assert status != 503 or problem["code"] == "queue-full"
