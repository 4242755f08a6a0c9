"""Many jobs over two services and two workers, while somebody kills at random: each ends once, with one result.

It takes a minute or two and is no part of ``make test``; ``make cluster-test`` runs it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
from sqlalchemy import text

from service.database.connecting import writing
from service.jobs.job import ENDED
from tests.service.cluster.deployment import SEEDS, Deployment, ask, below, in_order, until
from tests.service.server import conv_model

JOBS = 60


def test_a_load_with_kills_loses_nothing(several: Deployment) -> None:
    """Conversions, processes of pools, workers and services are killed; clients send again what got no answer."""
    rng, over = random.Random(7), threading.Event()

    def kill() -> None:
        while not over.wait(rng.uniform(0.5, 2.0)):
            with contextlib.suppress(ProcessLookupError, OSError):
                victim = rng.choice((*several.workers, *several.services))
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
                answer = ask(several, content, rng.randrange(2), **headers)
            except httpx.TransportError:
                return None  # whoever was asked was killed: the same is sent again
            if answer.status_code == 200:
                return str(answer.json()["links"]["job"]).rpartition("/")[2]
            return str(answer.json()["id"]) if answer.status_code == 202 else None

        found = until(accepted, f"request {number} is accepted")
        assert found is not None
        return found

    with in_order(several), ThreadPoolExecutor(9) as crew:
        with writing(several.engine) as connection:
            before = {row.id for row in connection.execute(text("SELECT id FROM jobs"))}
        killer = crew.submit(kill)
        try:
            jobs = list(crew.map(submit, range(JOBS)))
        finally:
            over.set()
            killer.result()
        several.start()
        # Whose workers were killed too often were given up, as they should be: what is tried here is that none is lost.
        for job in jobs:
            until(lambda job=job: several.state(job) in ENDED, f"the end of {job}", 600)  # type: ignore[misc]
        states = [several.state(job) for job in jobs]
        with writing(several.engine) as connection:
            made = {row.id for row in connection.execute(text("SELECT id FROM jobs"))} - before
    assert made == set(jobs), "no request made two jobs"
    assert len(set(jobs)) == JOBS
    assert states.count("succeeded") + states.count("failed") == JOBS
    assert states.count("succeeded") >= JOBS - 3, states
