"""A job is accepted at once, tells what happens to it, and is the same for the same request."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.server import Server, conv_model, post, wait_for

if TYPE_CHECKING:
    import httpx

ASYNC = {"Prefer": "respond-async"}


def _accepted(client: httpx.Client, content: bytes, **headers: str) -> dict[str, Any]:
    answer = client.post("/fold?verify=off", content=content, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == body["links"]["self"] == f"/jobs/{body['id']}"
    assert answer.headers["retry-after"] == "1"
    return body


def _ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(job["links"]["self"]).json()
        return body if body["state"] in {"succeeded", "failed", "cancelled"} else None

    found = wait_for(ended)
    assert found is not None
    return found


def _events(client: httpx.Client, job: dict[str, Any], **headers: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Listen until the stream ends."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    told: dict[str, str] = {}
    with client.stream("GET", job["links"]["events"], headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                told[name] = value
                continue
            if "data" in told:
                found.append((int(told["id"]), told["event"], json.loads(told["data"])))
            told = {}
    return found


def test_a_job_is_accepted_at_once_and_ends(client: httpx.Client) -> None:
    job = _accepted(client, conv_model(200))
    assert job["state"] in {"queued", "running"}
    ended = _ended(client, job)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    assert ended["created"] <= ended["started"] <= ended["finished"] < ended["upload_expires_at"] < ended["expires_at"]
    model = ended["model"]
    assert client.get(model["links"]["model"]).status_code == 200
    assert model["batch_norms"]["folded"] == 1
    assert ended["sandbox"] in {"bubblewrap", "landlock", "limits", "off"}


def test_what_happens_is_told_in_order_and_again(client: httpx.Client) -> None:
    job = _accepted(client, conv_model(201))
    live = _events(client, job)
    numbers = [number for number, _, _ in live]
    assert numbers == list(range(1, len(live) + 1))
    states = [body["state"] for _, kind, body in live if kind == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert [body["step"] for _, kind, body in live if kind == "step"]
    assert _events(client, job) == live
    assert _events(client, job, **{"Last-Event-ID": "2"}) == live[2:]
    assert _events(client, job, **{"Last-Event-ID": str(len(live))}) == []
    assert _events(client, job, **{"Last-Event-ID": "x"}) == live


def test_a_failed_job_says_why(client: httpx.Client) -> None:
    job = _accepted(client, b"no model at all")
    ended = _ended(client, job)
    assert (ended["state"], ended["error"]["code"], ended["error"]["status"]) == ("failed", "unknown-format", 415)
    assert ended["error"]["hint"]
    assert _events(client, job)[-1][2]["error"] == ended["error"]
    assert "model" not in ended


def test_a_job_that_did_not_change_is_not_sent_again(client: httpx.Client) -> None:
    job = _ended(client, _accepted(client, conv_model(202)))
    first = client.get(job["links"]["self"])
    again = client.get(job["links"]["self"], headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(job["links"]["self"], headers={"If-None-Match": '"other"'}).json() == first.json()


def test_a_request_by_the_same_name_is_the_same_job(client: httpx.Client) -> None:
    called = {"Idempotency-Key": str(uuid.uuid4())}
    job = _accepted(client, conv_model(203), **called)
    assert _ended(client, job)["id"] == job["id"]
    again = client.post("/fold?verify=off", content=conv_model(203), headers={**ASYNC, **called})
    assert again.status_code == 200
    assert again.json()["job"] == job["id"]
    other = client.post("/fold?verify=off", content=conv_model(204), headers={**ASYNC, **called})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency")
    failing = {"Idempotency-Key": str(uuid.uuid4())}
    first = client.post("/fold", content=b"nothing", headers=failing)
    second = client.post("/fold", content=b"nothing", headers=failing)
    assert first.json() == second.json()
    assert first.headers["link"] == second.headers["link"]


def test_jobs_are_listed_page_by_page_the_newest_first(client: httpx.Client) -> None:
    mine = [_ended(client, _accepted(client, conv_model(seed)))["id"] for seed in (205, 206, 207)]
    seen: list[str] = []
    following: str | None = "/jobs?limit=2&state=succeeded"
    while following:
        page = client.get(following).json()
        assert 0 < len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        following = page["next"]
    assert len(seen) == len(set(seen))
    assert [job for job in seen if job in mine] == mine[::-1]


@pytest.mark.parametrize("query", ["cursor=x", "cursor=eCB5", "cursor=%00", "limit=0", "limit=x", "state=odd"])
def test_a_page_that_cannot_be_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("job", ["0" * 32, "x", "%00", "..%2f.."])
def test_a_job_that_is_not_there_is_not_found(client: httpx.Client, job: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = client.request(method, f"/jobs/{job}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), (method, path)


def test_a_client_may_wait_less(client: httpx.Client, server: Server) -> None:
    answer = client.post("/fold", content=conv_model(208), headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert _ended(client, answer.json())["state"] == "succeeded"
    wait_for(lambda: server.aside() == [])
    assert post(client, conv_model(208), "model").json()["cached"] is True
