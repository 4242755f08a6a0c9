"""Whatever is done to a row of ``jobs``, by however many at once: it ends once, and its story has no gaps."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import text, update

from service.database.connecting import open_database, writing
from service.database.schema import jobs
from service.jobs.job import CANCELLED, ENDED, FAILED, QUEUED, RUNNING, SUCCEEDED, Job, Wanted
from service.jobs.table import Accepted, JobTable, OtherRequestError

LEASE, ATTEMPTS = 3600.0, 3
GIVEN_UP = {
    "code": "crashed",
    "status": 500,
    "detail": "the conversion was begun 3 times, and whoever worked on it died each time",
    "hint": "Convert the model with the command line, and report this with the model if you can.",
}


@pytest.fixture
def table(address: str) -> Iterator[JobTable]:
    engine = open_database(address)
    yield JobTable(engine, LEASE, ATTEMPTS, 1000.0, 100.0)
    engine.dispose()


def wanted(key: str = "k", *, tenant: str = "t", idempotency: str | None = None, size: int = 5) -> Wanted:
    upload = {"name": "m.onnx", "files": {"model": "uploads/x/model"}}
    return Wanted(secrets.token_hex(16), tenant, key, idempotency, "m", upload, {"seed": 1}, size)


def accepted(table: JobTable, key: str = "k", **about: str) -> Job:
    found = table.accept(wanted(key, **about), 100)  # type: ignore[arg-type]
    assert found is not None
    return found.job


def begun(table: JobTable, job: Job | str) -> Job:
    claimed = table.claim(job if isinstance(job, str) else job.id)
    assert claimed is not None
    return claimed


def now_is(table: JobTable, job: Job) -> Job:
    found = table.job(job.id)
    assert found is not None
    return found


def lapse(table: JobTable, job: Job) -> None:
    """Let the claim of a job run out."""
    with writing(table.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(lease_until=jobs.c.lease_until - 2 * LEASE))


def succeed(table: JobTable, job: Job, version: int = 1) -> bool:
    with writing(table.engine) as connection:
        return table.succeed(connection, job, version, format="onnx", sandbox="off")


def story(table: JobTable, job: Job) -> list[str]:
    happened = table.events(job.id, 0, 5000)
    assert [event.number for event in happened] == list(range(1, len(happened) + 1))
    assert [event.at for event in happened] == sorted(event.at for event in happened)
    return [event.body["state"] if event.kind == "state" else event.body["step"] for event in happened]


def test_a_job_is_kept_as_it_was_asked_for(table: JobTable) -> None:
    asked = replace(wanted("ключ"), upload={"name": "снег \u2603\u0000.onnx", "files": {}}, bytes=2**40)
    found = table.accept(asked, 1)
    assert found is not None
    assert found.new
    job = found.job
    assert (job.id, job.tenant, job.key, job.name) == (asked.id, "t", "ключ", "m")
    assert (job.upload, job.options, job.bytes) == (asked.upload, {"seed": 1}, 2**40)
    assert (job.state, job.attempt, job.owner, job.cancel, job.ended) == (QUEUED, 0, None, False, False)
    assert abs(job.created - time.time()) < 3600
    assert story(table, job) == [QUEUED]
    assert table.job("0" * 32) is None


def test_the_same_work_is_one_job_until_it_has_ended(table: JobTable) -> None:
    first = accepted(table)
    again = table.accept(wanted(), 100)
    assert again == Accepted(first, new=False)
    other = table.accept(wanted(tenant="somebody else"), 100)
    assert other is not None
    assert other.new
    assert succeed(table, begun(table, first))
    later = table.accept(wanted(), 100)
    assert later is not None
    assert later.new


def test_a_request_of_the_same_name_is_the_same_job_also_when_it_has_ended(table: JobTable) -> None:
    first = accepted(table, idempotency="a")
    assert succeed(table, begun(table, first))
    again = table.accept(wanted(idempotency="a"), 100)
    assert again is not None
    assert (again.job.id, again.new) == (first.id, False)
    with pytest.raises(OtherRequestError):
        table.accept(wanted("other work", idempotency="a"), 100)
    other = table.accept(wanted(tenant="somebody else", idempotency="a"), 100)
    assert other is not None
    assert other.new


def test_no_more_jobs_wait_than_may(table: JobTable) -> None:
    for key in "abc":
        accepted(table, key)
    assert table.accept(wanted("d"), 3) is None
    found = table.accept(wanted("c"), 3)
    assert found is not None, "the same work takes no place of its own"
    assert succeed(table, begun(table, table.waiting(1)[0]))
    assert table.accept(wanted("d"), 3) is not None


def test_many_who_ask_for_the_same_at_once_get_one_job(table: JobTable) -> None:
    for turn in range(4):
        together = Barrier(8)

        def ask(number: int, turn: int = turn, together: Barrier = together) -> Accepted | None:
            together.wait()
            return table.accept(wanted(f"k{turn}", idempotency=f"{turn}" if number % 2 else None), 100)

        with ThreadPoolExecutor(8) as crew:
            found = [answer for answer in crew.map(ask, range(8)) if answer is not None]
        assert len({answer.job.id for answer in found}) == 1
        assert sum(answer.new for answer in found) == 1
        assert story(table, found[0].job) == [QUEUED]


def test_of_many_who_begin_at_once_one_does(table: JobTable) -> None:
    for turn in range(4):
        job = accepted(table, f"k{turn}")
        together = Barrier(8)

        def begin(_: int, job: Job = job, together: Barrier = together) -> Job | None:
            together.wait()
            return table.claim(job.id)

        with ThreadPoolExecutor(8) as crew:
            claims = [claim for claim in crew.map(begin, range(8)) if claim is not None]
        assert len(claims) == 1
        assert (claims[0].state, claims[0].attempt) == (RUNNING, 1)
        assert story(table, job) == [QUEUED, RUNNING]


def test_who_lost_the_claim_can_write_nothing_any_more(table: JobTable) -> None:
    job = accepted(table)
    first = begun(table, job)
    assert table.claim(job.id) is None
    left = table.lease(job.id)
    assert left is not None
    assert 0 < left <= LEASE
    lapse(table, job)
    left = table.lease(job.id)
    assert left is not None
    assert left < 0
    second = begun(table, job)
    assert (second.attempt, second.owner != first.owner) == (2, True)
    assert table.renew(first) is None
    table.tell_step(first, "of the first", 0.5)
    assert not succeed(table, first)
    assert not table.fail(first, {"code": "x"})
    assert not table.end_cancelled(first)
    assert not table.release(first, blameless=True)
    assert now_is(table, job) == second
    assert table.renew(second) is True
    assert succeed(table, second, 7)
    assert not table.fail(second, {"code": "x"}), "it has ended"
    ended = now_is(table, job)
    assert (ended.state, ended.version, ended.format, ended.sandbox, ended.owner) == (SUCCEEDED, 7, "onnx", "off", None)
    assert story(table, job) == [QUEUED, RUNNING, RUNNING, SUCCEEDED]


def test_a_claim_that_ran_out_can_be_renewed_while_nobody_else_has_begun(table: JobTable) -> None:
    claim = begun(table, accepted(table))
    lapse(table, claim)
    assert table.renew(claim) is True
    assert table.claim(claim.id) is None


def test_a_job_that_was_begun_as_often_as_it_may_be_is_given_up(table: JobTable) -> None:
    job = accepted(table)
    for attempt in range(1, ATTEMPTS + 1):
        assert begun(table, job).attempt == attempt
        lapse(table, job)
    assert table.claim(job.id) is None
    ended = now_is(table, job)
    assert (ended.state, ended.attempt, ended.error) == (FAILED, ATTEMPTS, GIVEN_UP)
    assert story(table, job) == [QUEUED, RUNNING, RUNNING, RUNNING, FAILED]


def test_a_job_that_is_given_back_counts_only_where_it_is_to_blame(table: JobTable) -> None:
    job = accepted(table)
    for _ in range(3 * ATTEMPTS):
        assert table.release(begun(table, job), blameless=True)
    assert (now_is(table, job).state, now_is(table, job).attempt) == (QUEUED, 0)
    assert table.to_ring() == [job.id], "an engine is told at once"
    for _ in range(ATTEMPTS):
        assert table.release(begun(table, job), blameless=False)
    assert table.claim(job.id) is None
    assert now_is(table, job).state == FAILED


def test_a_job_that_waits_is_cancelled_at_once(table: JobTable) -> None:
    job = accepted(table)
    told = table.cancel(job.id)
    assert told is not None
    assert (told.state, told.attempt) == (CANCELLED, 0)
    assert table.claim(job.id) is None
    assert table.cancel(job.id) == told, "once more changes nothing"
    assert story(table, job) == [QUEUED, CANCELLED]
    assert table.cancel("0" * 32) is None


def test_a_job_that_runs_is_cancelled_by_who_runs_it(table: JobTable) -> None:
    claim = begun(table, accepted(table))
    told = table.cancel(claim.id)
    assert told is not None
    assert (told.state, told.cancel) == (RUNNING, True)
    assert table.renew(claim) is False
    assert table.end_cancelled(claim)
    assert now_is(table, claim).state == CANCELLED


def test_a_job_that_was_to_be_cancelled_is_not_begun_again(table: JobTable) -> None:
    died, released = begun(table, accepted(table, "a")), begun(table, accepted(table, "b"))
    for job in (died, released):
        table.cancel(job.id)
    lapse(table, died)
    assert table.release(released, blameless=True)
    for job in (died, released):
        assert table.claim(job.id) is None
        assert now_is(table, job).state == CANCELLED
        assert story(table, job)[-1] == CANCELLED


def test_steps_are_told_in_order_and_not_without_end(table: JobTable) -> None:
    claim = begun(table, accepted(table))
    table.tell_step(claim, "read", None)
    table.tell_step(claim, "x" * 300, 0.5)
    seen = now_is(table, claim)
    assert (seen.step, seen.done) == ("x" * 200, 0.5)
    assert story(table, claim) == [QUEUED, RUNNING, "read", "x" * 200]
    with writing(table.engine) as connection:
        connection.execute(text("INSERT INTO events VALUES (:job, 2000, 9e9, 'step', '{}')"), {"job": claim.id})
    table.tell_step(claim, "one too many", None)
    assert now_is(table, claim).step == "one too many"
    assert succeed(table, claim)
    assert [event.number for event in table.events(claim.id, 4)] == [2000, 2001], "the end is always told"
    again = begun(table, accepted(table))
    assert (again.step, again.done) == (None, None)


def test_an_engine_is_told_again_later_and_later(table: JobTable) -> None:
    job = accepted(table)
    assert table.to_ring() == [], "whoever took it tells the engine now"

    def ring_after() -> float:
        with writing(table.engine) as connection:
            query = text("SELECT ring_after FROM jobs WHERE id = :job")
            return float(connection.execute(query, {"job": job.id}).scalar_one())

    waits = []
    for _ in range(12):
        with writing(table.engine) as connection:
            connection.execute(text("UPDATE jobs SET ring_after = 1"))
        assert table.to_ring() == [job.id]
        before = time.time()
        table.rang(job.id)
        waits.append(ring_after() - before)
        assert table.to_ring() == []
    expected = [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, *([600.0] * 6)]
    assert all(abs(wait - wish) < 5 for wait, wish in zip(waits, expected, strict=True)), waits
    table.rang("0" * 32)


def test_an_engine_is_told_at_once_of_a_job_whose_worker_died_but_not_again_and_again(table: JobTable) -> None:
    job = accepted(table)
    for _ in range(5):
        table.rang(job.id)
    for _ in range(2):
        claim = begun(table, job)
        table.rang(claim.id)  # the worker was faster than whoever notes that it was told
        assert table.to_ring() == []
        lapse(table, claim)
        assert table.to_ring() == [claim.id]
        table.rang(claim.id)
        assert table.to_ring() == [], "it lies in the queue now"


def test_an_engine_is_not_told_of_what_has_ended(table: JobTable) -> None:
    job = accepted(table)
    assert succeed(table, begun(table, job))
    with writing(table.engine) as connection:
        connection.execute(text("UPDATE jobs SET ring_after = 1"))
    assert table.to_ring() == []
    assert table.waiting(10) == []


def test_jobs_are_listed_the_newest_first_page_by_page(table: JobTable) -> None:
    ids = [accepted(table, str(number)).id for number in range(7)]
    accepted(table, "of somebody else", tenant="x")
    seen: list[str] = []
    before: tuple[float, str] | None = None
    while page := table.listed("t", None, 3, before):
        seen += [job.id for job in page]
        before = (page[-1].created, page[-1].id)
    assert seen == ids[::-1]
    assert len(table.listed(None, None, 100, None)) == 8
    table.cancel(ids[2])
    assert [job.id for job in table.listed("t", CANCELLED, 10, None)] == [ids[2]]
    assert table.counts("t") == {QUEUED: 6, CANCELLED: 1}
    assert table.counts() == {QUEUED: 7, CANCELLED: 1}
    assert table.asked("t") == (6, 35)
    assert table.known([ids[0], "0" * 32]) == {ids[0]}


def test_jobs_of_one_moment_are_listed_once_each(table: JobTable) -> None:
    ids = {accepted(table, str(number)).id for number in range(5)}
    with writing(table.engine) as connection:
        connection.execute(text("UPDATE jobs SET created = 1234.5678901234567"))
    seen: list[str] = []
    before: tuple[float, str] | None = None
    while page := table.listed("t", None, 2, before):
        seen += [job.id for job in page]
        before = (page[-1].created, page[-1].id)
    assert (len(seen), set(seen)) == (5, ids)


def test_what_has_had_its_time_is_found_and_forgotten(table: JobTable) -> None:
    job, other = begun(table, accepted(table, "a")), accepted(table, "b")
    assert succeed(table, job)
    ended = now_is(table, job)
    assert ended.finished is not None
    assert ended.upload_expires_at == pytest.approx(ended.finished + 100, abs=5)
    assert ended.expires_at == pytest.approx(ended.finished + 1000, abs=5)
    assert (list(table.expired_uploads()), list(table.expired())) == ([], [])
    with writing(table.engine) as connection:
        connection.execute(text("UPDATE jobs SET upload_expires_at = 1, expires_at = 1 WHERE state = 'succeeded'"))
    assert [one.id for one in table.expired_uploads()] == [job.id]
    table.forget_upload(job.id)
    assert table.expired_uploads() == []
    assert [one.id for one in table.expired()] == [job.id]
    table.purge(job.id)
    table.purge(other.id)
    assert table.job(job.id) is None
    assert table.events(job.id, 0) == []
    assert now_is(table, other).state == QUEUED, "what has not ended is not forgotten"


def test_a_service_that_is_alone_takes_all_back_that_ran(table: JobTable) -> None:
    running, waiting = begun(table, accepted(table, "a")), accepted(table, "b")
    assert table.disown() == 1
    assert table.renew(running) is None
    assert table.waiting(10) == [running.id, waiting.id]
    assert begun(table, running).attempt == 2


@pytest.mark.parametrize("seed", range(3))
def test_whatever_many_do_at_once_each_job_ends_once(table: JobTable, seed: int) -> None:
    """Workers that die, come back from the dead, cancel, tell steps and end jobs, all at random."""
    ids = [accepted(table, str(number)).id for number in range(6)]
    ends: list[str] = []

    def misbehave(number: int) -> None:
        rng = random.Random(1000 * seed + number)
        claims: list[Job] = []
        for _ in range(60):
            job = rng.choice(ids)
            if (claim := table.claim(job)) is not None:
                claims.append(claim)
            if rng.random() < 0.05:
                table.cancel(job)
            if rng.random() < 0.3:
                with writing(table.engine) as connection:
                    lapsed = update(jobs).where(jobs.c.id == job).values(lease_until=0.0)
                    connection.execute(lapsed)
            if not claims:
                continue
            claim = rng.choice(claims)  # also one that was lost long ago
            ways: list[Callable[[], bool]] = [
                lambda claim=claim: succeed(table, claim),  # type: ignore[misc]
                lambda claim=claim: table.fail(claim, {"code": "x"}),  # type: ignore[misc]
                lambda claim=claim: table.end_cancelled(claim),  # type: ignore[misc]
            ]
            chance = rng.random()
            if chance < 0.1:
                if rng.choice(ways)():
                    ends.append(claim.id)
            elif chance < 0.3:
                table.release(claim, blameless=rng.random() < 0.5)
            elif chance < 0.6:
                table.tell_step(claim, f"step {number}", rng.random())
            else:
                table.renew(claim)

    with ThreadPoolExecutor(6) as crew:
        list(crew.map(misbehave, range(6)))
    for job in ids:  # what is left ends now
        while (claim := table.claim(job)) is not None:
            assert succeed(table, claim)
            ends.append(job)
        with writing(table.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job).values(lease_until=0.0))
        if (claim := table.claim(job)) is not None:
            assert succeed(table, claim)
            ends.append(job)
    assert len(ends) == len(set(ends)), "somebody was told twice that it was he who ended a job"
    for job in ids:
        row = table.job(job)
        assert row is not None
        told = story(table, row)
        assert row.state in ENDED
        assert sum(one in ENDED for one in told) == 1
        assert told[-1] == row.state, "nothing is told after the end"
        assert 0 <= row.attempt <= ATTEMPTS
        assert row.owner is None
    assert table.to_ring() == []
