"""What holds for every engine: each accepted job has one result, whatever is killed, lost, doubled or started again.

The same tests run against ``local`` (one service that works itself, SQLite) and ``celery`` (PostgreSQL, RabbitMQ, two
services, two workers).
"""

from __future__ import annotations

import os
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor

from service.database.connecting import open_database
from service.jobs.job import Wanted
from service.jobs.table import JobTable
from tests.service.cluster.deployment import SEEDS, Deployment, ask, let_go, submitted, succeeded, until
from tests.service.server import conv_model


def test_a_job_runs_and_its_model_is_there_for_all(on: Deployment) -> None:
    body = succeeded(on, submitted(on))
    for number in range(len(on.services)):
        with on.client(number) as client:
            model = client.get(body["model"]["links"]["model"])
            assert (model.status_code, len(model.content)) == (200, body["model"]["bytes"])
            told = client.get(f"/jobs/{body['id']}/events").text
            assert [line for line in told.splitlines() if line.startswith("event: state")] == ["event: state"] * 3


def test_a_client_that_waits_gets_the_model(on: Deployment) -> None:
    content = conv_model(next(SEEDS))
    with on.client() as client:
        answer = client.post("/fold", files={"model": ("network.onnx", content)}, headers={"Prefer": "wait=30"})
        while answer.status_code == 202:
            succeeded(on, answer.json()["id"])
            answer = client.post("/fold", files={"model": ("network.onnx", content)})
        assert answer.json()["version"] == 1


def test_the_same_asked_of_all_at_once_is_one_job(on: Deployment) -> None:
    content = conv_model(next(SEEDS))
    with ThreadPoolExecutor(6) as crew:
        answers = list(crew.map(lambda number: ask(on, content, number), range(6)))
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(ids) == 1, [answer.text for answer in answers]
    body = succeeded(on, ids.pop())
    assert body["model"]["version"] == 1
    again = ask(on, content, 1)
    assert (again.status_code, again.json()["cached"]) == (200, True)


def test_a_request_with_a_name_is_one_job_also_when_it_is_sent_again_later(on: Deployment) -> None:
    content, name = conv_model(next(SEEDS)), secrets.token_hex(8)
    first = ask(on, content, 0, Idempotency_Key=name)
    job = first.json()["id"]
    _, child = on.held()
    assert ask(on, content, 1, Idempotency_Key=name).json()["id"] == job
    other = ask(on, conv_model(next(SEEDS)), 1, Idempotency_Key=name)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency")
    let_go(child)
    succeeded(on, job)


def test_a_job_that_waits_is_cancelled(on: Deployment) -> None:
    busy = [submitted(on) for _ in range(2)]
    _, first = on.held()
    _, second = on.held((first,))
    waiting = submitted(on)
    with on.client(1) as client:
        assert client.delete(f"/jobs/{waiting}").json()["state"] == "cancelled"
    let_go(first, second)
    for job in busy:
        succeeded(on, job)
    body = on.ended(waiting)
    assert (body["state"], body["attempt"]) == ("cancelled", 0)


def test_a_job_that_runs_is_cancelled_and_its_child_dies(on: Deployment) -> None:
    job = submitted(on)
    program, child = on.held()
    with on.client(1) as client:
        assert client.delete(f"/jobs/{job}").status_code == 202
    assert on.ended(job)["state"] == "cancelled"
    until(lambda: child not in program.conversions())
    succeeded(on, submitted(on))


def test_a_conversion_that_was_killed_is_begun_again(on: Deployment) -> None:
    job = submitted(on)
    _, child = on.held()
    os.kill(child, signal.SIGKILL)
    assert succeeded(on, job)["attempt"] >= 2


def test_a_conversion_that_is_killed_each_time_is_given_up(on: Deployment) -> None:
    job = submitted(on)
    killed: list[int] = []
    for _ in range(3):
        _, child = on.held(tuple(killed))
        killed.append(child)
        os.kill(child, signal.SIGKILL)
    body = on.ended(job)
    assert (body["state"], body["attempt"], body["error"]["code"]) == ("failed", 3, "killed")


def test_when_a_worker_is_killed_with_all_it_started_its_job_is_begun_again(on: Deployment) -> None:
    job = submitted(on)
    program, _ = on.held()
    program.kill()
    if not on.workers:
        on.start()
    assert succeeded(on, job)["attempt"] >= 2


def test_a_job_that_no_engine_was_told_of_runs(on: Deployment) -> None:
    """A service was killed after it made the row, and before it sent a message."""
    table = JobTable(open_database(on.database), 4, 3, 1000, 1000)
    job = secrets.token_hex(16)
    upload = {"name": "network.onnx", "files": {"model": f"uploads/{job}/model"}}
    (on.storage / "uploads" / job).mkdir(parents=True)
    (on.storage / "uploads" / job / "model").write_bytes(conv_model(next(SEEDS)))
    wanted = Wanted(job, "local", secrets.token_hex(8), None, f"m{job}", upload, {"verify": "off"}, 1)
    assert table.accept(wanted, 100) is not None
    table.engine.dispose()
    succeeded(on, job)


def test_a_service_that_is_killed_loses_no_job_that_it_accepted(on: Deployment) -> None:
    jobs = [submitted(on) for _ in range(3)]
    _, child = on.held()
    on.services[0].kill()
    if on.workers:
        let_go(child)
        succeeded(on, jobs[0])
    on.start()
    for job in jobs:
        succeeded(on, job)


def test_a_worker_that_has_to_end_lets_its_job_end(on: Deployment) -> None:
    job = submitted(on)
    program, child = on.held()
    with ThreadPoolExecutor(1) as crew:
        stopped = crew.submit(program.stop)
        until(lambda: "as soon as the jobs that run have ended" in program.log, "the worker knows")
        let_go(child)
        assert stopped.result() == 0, program.log
    on.start()
    succeeded(on, job)
