"""Messages are lost, doubled and damaged, and the broker and the database go away: each job still has one result."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from service.database.connecting import writing
from tests.service.cluster.deployment import (
    SEEDS,
    Deployment,
    ask,
    below,
    in_order,
    let_go,
    submitted,
    succeeded,
    until,
)
from tests.service.cluster.servers import Broker, PostgreSQL
from tests.service.server import conv_model

QUEUE = "bnfold.jobs"


@pytest.fixture
def on(several: Deployment) -> Iterator[Deployment]:
    """Services and workers with a broker."""
    with in_order(several) as deployment:
        yield deployment


@contextmanager
def channel(rabbit: Broker) -> Iterator[Any]:
    connection = amqp.Connection(f"127.0.0.1:{rabbit.port}")
    connection.connect()
    try:
        yield connection.channel()
    finally:
        connection.close()


def waiting(rabbit: Broker) -> int:
    """Return how many messages lie in the queue that no worker was given yet."""
    with channel(rabbit) as open_channel:
        return int(open_channel.queue_declare(QUEUE, passive=True).message_count)


def told(rabbit: Broker, body: str | bytes, **about: Any) -> None:
    """Publish a message by hand."""
    with channel(rabbit) as open_channel:
        headers = {"task": "bnfold.run", "id": "by hand", "lang": "py"}
        properties = {"content_type": "application/json", "content_encoding": "utf-8", "application_headers": headers}
        open_channel.basic_publish(amqp.Message(body, **(properties | about)), QUEUE, QUEUE)


def message(job: str) -> str:
    return f'[["{job}"], {{}}, {{}}]'


def ring_now(on: Deployment) -> None:
    """Let the time be over after which the broker is told again."""
    with writing(on.engine) as connection:
        connection.execute(text("UPDATE jobs SET ring_after = 1"))


def all_busy(on: Deployment) -> tuple[list[str], tuple[int, int]]:
    jobs = [submitted(on) for _ in range(2)]
    _, first = on.held()
    _, second = on.held((first,))
    return jobs, (first, second)


def test_a_message_that_was_lost_is_sent_again(on: Deployment, rabbit: Broker) -> None:
    busy, children = all_busy(on)
    lost = submitted(on)
    until(lambda: waiting(rabbit) == 1, "the message")
    with channel(rabbit) as open_channel:
        assert open_channel.queue_purge(QUEUE) == 1
    let_go(*children)
    for job in busy:
        succeeded(on, job)
    ring_now(on)
    succeeded(on, lost)


def test_a_message_that_comes_many_times_is_one_result(on: Deployment, rabbit: Broker) -> None:
    job = submitted(on)
    _, child = on.held()
    for _ in range(5):
        told(rabbit, message(job))
    until(lambda: waiting(rabbit) == 0, "all messages are taken")
    let_go(child)
    succeeded(on, job)
    for _ in range(5):
        told(rabbit, message(job))
    succeeded(on, submitted(on))


def test_messages_that_are_none_stop_nobody(on: Deployment, rabbit: Broker) -> None:
    pickled = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    told(rabbit, b"\x80\x04}q\x00.", **pickled)
    told(rabbit, "no JSON")
    told(rabbit, "{}")
    told(rabbit, "[[], {}, {}]")
    told(rabbit, message("0" * 32))
    told(rabbit, message("\\u0000"))
    told(rabbit, '[[{"a": 1}], {}, {}]')
    told(rabbit, message("x"), application_headers={"task": "os.system", "id": "1"})
    told(rabbit, message("x"), application_headers={})
    for _ in range(2):
        succeeded(on, submitted(on))
    until(lambda: waiting(rabbit) == 0, "all messages are taken")
    assert all(worker.alive for worker in on.workers)


def test_when_a_process_of_the_pool_is_killed_its_job_is_begun_again(on: Deployment) -> None:
    job = submitted(on)
    program, child = on.held()
    (pool,) = [one for one in below(program.pid) if child in below(one)]
    os.kill(pool, signal.SIGKILL)
    assert succeeded(on, job)["attempt"] >= 2
    assert program.alive


def test_when_the_broker_is_started_again_nothing_is_lost(on: Deployment, rabbit: Broker) -> None:
    """One worker is at work meanwhile, and the other one is not."""
    job = submitted(on)
    _, child = on.held()
    rabbit.stop()
    try:
        meanwhile = [submitted(on, number) for number in range(2)]
        let_go(child)
        succeeded(on, job)
        assert [on.state(one) for one in meanwhile] == ["queued", "queued"]
    finally:
        rabbit.start()
    for one in meanwhile:
        succeeded(on, one)
    assert all(worker.alive for worker in on.workers)


def test_when_the_database_is_started_again_what_runs_goes_on(on: Deployment, postgres: PostgreSQL) -> None:
    job = submitted(on)
    _, child = on.held()
    postgres.stop()
    try:
        with on.client() as client:
            assert client.get("/readyz").status_code == 503
            assert client.get("/livez").status_code == 200
            assert client.get(f"/jobs/{job}").status_code == 503
        refused = ask(on, conv_model(next(SEEDS)))
        assert (refused.status_code, refused.json()["code"]) == (503, "database")
        assert refused.headers["retry-after"] == "5"
        let_go(child)
        until(lambda: not any(worker.conversions() for worker in on.workers), "the end of the conversion")
    finally:
        postgres.start()
    succeeded(on, job)
    succeeded(on, submitted(on, 1))
