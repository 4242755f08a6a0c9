"""What else can happen to services, workers and the broker; it takes long, so only ``make cluster-test`` runs it."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.service.cluster.deployment import Deployment, in_order, let_go, submitted, succeeded, until
from tests.service.cluster.servers import Broker
from tests.service.cluster.test_broker import QUEUE, channel, ring_now


def test_when_a_worker_is_killed_alone_what_it_started_dies_with_it(on: Deployment) -> None:
    job = submitted(on)
    program, child = on.held()
    program.kill(tree=False)
    until(lambda: not Path(f"/proc/{child}").exists(), "the end of the conversion")
    on.start()
    assert succeeded(on, job)["attempt"] >= 2


def test_a_job_whose_worker_dies_each_time_is_given_up(on: Deployment) -> None:
    job = submitted(on)
    for _ in range(3):
        program, _ = on.held()
        program.kill()
        program.start()
    on.start()
    body = on.ended(job)
    assert (body["state"], body["attempt"]) == ("failed", 3)
    assert body["error"]["detail"] == "the conversion was begun 3 times, and whoever worked on it died each time"


def test_a_worker_that_has_to_end_begins_nothing_new(on: Deployment) -> None:
    busy = [submitted(on) for _ in range(2)]
    _, first = on.held()
    _, second = on.held((first,))
    waiting = submitted(on)
    with ThreadPoolExecutor(2) as crew:
        stopped = [crew.submit(program.stop) for program in on.crew]
        for program in on.crew:
            until(lambda program=program: "as soon as the jobs" in program.log, "the worker knows")  # type: ignore[misc]
        let_go(first, second)
        assert [one.result() for one in stopped] == [0] * len(on.crew)
    assert on.state(waiting) == "queued"
    on.start()
    for job in (*busy, waiting):
        succeeded(on, job)


def test_a_queue_that_was_deleted_is_made_again(several: Deployment, rabbit: Broker) -> None:
    with in_order(several):
        with channel(rabbit) as open_channel:
            open_channel.queue_delete(QUEUE)
        job = submitted(several)

        def ends() -> bool:
            ring_now(several)
            return several.state(job) == "succeeded"

        until(ends)


def test_while_the_broker_says_nothing_jobs_are_taken(several: Deployment, rabbit: Broker) -> None:
    with in_order(several):
        rabbit.signal(signal.SIGSTOP)
        try:
            jobs = [submitted(several, number) for number in range(2)]
        finally:
            rabbit.signal(signal.SIGCONT)
        for job in jobs:
            succeeded(several, job)


def test_a_worker_that_may_not_wait_gives_its_job_back(several: Deployment) -> None:
    with in_order(several):
        hurried = several.add(2, "worker", stop_seconds="0")
        try:
            for worker in several.workers[:2]:
                worker.stop()
            hurried.start()
            hurried.ready()
            job = submitted(several)
            several.held()
            hurried.stop()
            assert (several.state(job), several.attempts(job)) == ("queued", 0), "it was not to blame"
        finally:
            several.workers.remove(hurried)
            if hurried.alive:
                hurried.kill()
        assert hurried.left() == []
        several.start()
        succeeded(several, job)
