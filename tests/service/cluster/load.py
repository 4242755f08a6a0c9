"""Many jobs over two services and two workers, while somebody kills at random: each ends once, with one result.

It takes a minute or two and is no part of ``make test``; ``make cluster-test`` runs it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from service.database.connecting import writing
from service.jobs.job import ENDED
from tests.service.cluster.conftest import new_database
from tests.service.cluster.deployment import SEEDS, Deployment, ask, below, deployed, in_order, until
from tests.service.cluster.servers import PostgreSQL, broker
from tests.service.server import conv_model

JOBS = 60


@pytest.fixture
def stubborn(tmp_path: Path, postgres: PostgreSQL) -> Iterator[Deployment]:
    """Services and workers that do not give up a job because its workers were killed, with a broker of their own."""
    with broker() as rabbit:
        settings = {"engine": "celery", "broker": rabbit.url, "jobs": "1", "queue": "100", "attempts": "10"}
        with deployed(tmp_path, new_database(postgres), settings | {"sandbox": "limits"}) as deployment:
            for number in range(2):
                deployment.add(number)
                deployment.add(number, "worker")
            yield deployment


def test_a_load_with_kills_loses_nothing(stubborn: Deployment) -> None:
    """Conversions, processes of pools, workers and services are killed; clients send again what got no answer."""
    rng, over = random.Random(7), threading.Event()

    def kill() -> None:
        while not over.wait(rng.uniform(0.5, 2.0)):
            with contextlib.suppress(ProcessLookupError, OSError):
                victim = rng.choice((*stubborn.workers, *stubborn.services))
                children = below(victim.pid)
                if children and rng.random() < 0.7:
                    os.kill(rng.choice(children), signal.SIGKILL)
                else:
                    victim.kill()
                    victim.start()
                    victim.ready()

    def submit(number: int) -> str:
        content, headers = conv_model(next(SEEDS)), {"Idempotency_Key": f"load {number}"}

        def accepted() -> str | None:
            try:
                answer = ask(stubborn, content, rng.randrange(2), **headers)
            except httpx.TransportError:
                return None  # whoever was asked was killed: the same is sent again
            if answer.status_code == 200:
                return str(answer.json()["links"]["job"]).rpartition("/")[2]
            return str(answer.json()["id"]) if answer.status_code == 202 else None

        found = until(accepted, f"request {number} is accepted")
        assert found is not None
        return found

    with in_order(stubborn), ThreadPoolExecutor(9) as crew:
        killer = crew.submit(kill)
        try:
            jobs = list(crew.map(submit, range(JOBS)))
        finally:
            over.set()
            killer.result()
        stubborn.start()
        for job in jobs:
            until(lambda job=job: stubborn.state(job) in ENDED, f"the end of {job}", 600)  # type: ignore[misc]
        with writing(stubborn.engine) as connection:
            made = connection.execute(text("SELECT id, state FROM jobs")).all()
    assert {row.id for row in made} == set(jobs), "no request made two jobs"
    assert len(set(jobs)) == JOBS
    assert [row.state for row in made] == ["succeeded"] * JOBS
