"""What may happen to a row of ``jobs``, each as one transaction.

Engines and workers come and go, messages arrive late, twice or never: whatever they believe, only these steps change
a job. A step that does not apply any more changes nothing and says so.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from service.database.connecting import reading, writing
from service.database.schema import events, jobs, now
from service.jobs.job import CANCELLED, ENDED, FAILED, QUEUED, RUNNING, SUCCEEDED, Event, Job, State, Wanted
from service.jobs.rows import COLUMNS, alone, claimed_as, free, of_row, row_of, tell
from service.jobs.tally import hour_of, leave_end, leave_kill, note_bytes, sent_bytes

__all__ = ["Accepted", "JobTable", "OtherRequestError"]

_RING_AGAIN = 10.0  # seconds until an engine is told of a job again that nobody has begun; doubled each time
_RING_AT_LEAST = 600.0  # the longest such wait
_DAY = 24  # hours


class OtherRequestError(Exception):
    """The client called two different requests by the same name."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job for what a client wants, and whether it was made for it; otherwise it was there already."""

    job: Job
    new: bool


@dataclass(frozen=True, slots=True)
class JobTable:
    """All jobs.

    Attributes:
        engine: The database.
        lease_seconds: How long a claim holds that is not renewed.
        attempts: How often a job is begun before it is given up.
        keep_seconds: How long a job is remembered after its end.
        upload_seconds: How long its upload is kept after its end.
    """

    engine: Engine
    lease_seconds: float
    attempts: int
    keep_seconds: float
    upload_seconds: float

    def accept(self, wanted: Wanted, most: int, check: Callable[[int, int], None] | None = None) -> Accepted | None:
        """Make a job, or find the one that does the same work already; None where as many wait as may.

        Args:
            wanted: What is asked for.
            most: How many jobs may be unfinished.
            check: Called before a job is made, with how many unfinished ones its tenant has, and how many bytes it has
                sent in a day; what it raises keeps the job from being made.

        Raises:
            OtherRequestError: If the client used the same ``Idempotency-Key`` for something else.
        """
        while True:
            try:
                with writing(self.engine) as connection:
                    found = self._same(connection, wanted)
                    if found is not None:
                        return Accepted(found, new=False)
                    unfinished = select(func.count()).where(jobs.c.state.in_((QUEUED, RUNNING)))
                    if connection.execute(unfinished).scalar_one() >= most:
                        return None
                    hour = hour_of(connection)
                    if check is not None:
                        alone(connection, wanted.tenant)
                        own = connection.execute(unfinished.where(jobs.c.tenant == wanted.tenant)).scalar_one()
                        check(own, sent_bytes(connection, wanted.tenant, hour, _DAY))
                    note_bytes(connection, wanted.tenant, wanted.bytes, hour)
                    connection.execute(
                        insert(jobs).values(
                            id=wanted.id,
                            tenant=wanted.tenant,
                            key=wanted.key,
                            idempotency=wanted.idempotency,
                            name=wanted.name,
                            state=QUEUED,
                            attempt=0,
                            cancel=False,
                            rung=0,
                            ring_after=now() + 1.0,
                            upload=dict(wanted.upload),
                            options=dict(wanted.options),
                            bytes=wanted.bytes,
                            trace=None if wanted.trace is None else dict(wanted.trace),
                            created=now(),
                        )
                    )
                    tell(connection, wanted.id, "state", {"state": QUEUED})
                    return Accepted(row_of(connection, wanted.id), new=True)
            except IntegrityError:
                continue  # somebody else made it in the meantime: now it is found

    def _same(self, connection: Connection, wanted: Wanted) -> Job | None:
        if wanted.idempotency is not None:
            row = connection.execute(
                select(*COLUMNS).where(jobs.c.tenant == wanted.tenant, jobs.c.idempotency == wanted.idempotency)
            ).one_or_none()
            if row is not None:
                if row.key != wanted.key:
                    raise OtherRequestError(wanted.idempotency)
                return of_row(row)
        row = connection.execute(
            select(*COLUMNS).where(
                jobs.c.tenant == wanted.tenant, jobs.c.key == wanted.key, jobs.c.state.in_((QUEUED, RUNNING))
            )
        ).one_or_none()
        return None if row is None else of_row(row)

    def claim(self, job: str) -> Job | None:
        """Begin to work on a job; None where there is nothing to begin: it is unknown, ended, or somebody works on it.

        A job that was begun as often as it may be is ended as failed, and None is returned.
        """
        with writing(self.engine) as connection:
            begun = select(*COLUMNS).where(jobs.c.id == job, free()).with_for_update()
            row = connection.execute(begun).one_or_none()
            if row is None:
                return None
            if row.cancel:
                self._end(connection, job, CANCELLED)
                return None
            if row.attempt >= self.attempts:
                self._end(connection, job, FAILED, error=_given_up(row.attempt))
                return None
            owner = secrets.token_hex(16)
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job)
                .values(
                    state=RUNNING,
                    attempt=jobs.c.attempt + 1,
                    owner=owner,
                    lease_until=now() + self.lease_seconds,
                    rung=0,
                    ring_after=now(),
                    started=now(),
                    step=None,
                    done=None,
                )
            )
            tell(connection, job, "state", {"state": RUNNING, "attempt": row.attempt + 1})
            return row_of(connection, job)

    def lease(self, job: str) -> float | None:
        """Return for how many seconds a job is still somebody's; None where it does not run."""
        with reading(self.engine) as connection:
            left = select(jobs.c.lease_until - now()).where(jobs.c.id == job, jobs.c.state == RUNNING)
            return connection.execute(left).scalar_one_or_none()

    def renew(self, job: Job) -> bool | None:
        """Keep a claim for another while.

        Returns:
            Whether the job is still wanted; None where the claim was lost: then nothing may be written any more.
        """
        with writing(self.engine) as connection:
            kept = connection.execute(
                update(jobs)
                .where(claimed_as(job))
                .values(lease_until=now() + self.lease_seconds)
                .returning(jobs.c.cancel)
            ).one_or_none()
            return None if kept is None else not kept.cancel

    def tell_step(self, job: Job, step: str, done: float | None) -> None:
        """Note what is being done, and how much of it is done."""
        with writing(self.engine) as connection:
            noted = connection.execute(update(jobs).where(claimed_as(job)).values(step=step[:200], done=done))
            if noted.rowcount == 1:
                tell(connection, job.id, "step", {"step": step[:200], "done": done})

    def succeed(self, connection: Connection, job: Job, version: int, **about: Any) -> bool:
        """End a job with its model, inside the transaction that keeps the model; False where the claim was lost."""
        return self._end(connection, job.id, SUCCEEDED, claim=job, version=version, **about)

    def fail(self, job: Job, error: Mapping[str, Any], **about: Any) -> bool:
        """End a job with a problem; False where the claim was lost."""
        with writing(self.engine) as connection:
            return self._end(connection, job.id, FAILED, claim=job, error=dict(error), **about)

    def end_cancelled(self, job: Job) -> bool:
        """End a job that runs because somebody asked for it; False where the claim was lost."""
        with writing(self.engine) as connection:
            return self._end(connection, job.id, CANCELLED, claim=job)

    def release(self, job: Job, *, blameless: bool) -> bool:
        """Give a job back that was begun, for somebody else to begin; False where the claim was lost.

        Args:
            job: What was claimed.
            blameless: Whether the attempt does not count: the worker has to go, and the job has nothing to do with it.
        """
        with writing(self.engine) as connection:
            attempt = jobs.c.attempt - 1 if blameless else jobs.c.attempt
            values = {"state": QUEUED, "owner": None, "lease_until": None, "attempt": attempt, "ring_after": now()}
            if connection.execute(update(jobs).where(claimed_as(job)).values(**values)).rowcount != 1:
                return False
            tell(connection, job.id, "state", {"state": QUEUED})
            if not blameless:
                leave_kill(connection)
            return True

    def cancel(self, job: str) -> Job | None:
        """Ask for the end of a job: at once where it waits, soon where it runs; None where it is unknown."""
        with writing(self.engine) as connection:
            row = connection.execute(select(jobs.c.state).where(jobs.c.id == job).with_for_update()).one_or_none()
            if row is None:
                return None
            if row.state == QUEUED:
                self._end(connection, job, CANCELLED)
            elif row.state == RUNNING:
                connection.execute(update(jobs).where(jobs.c.id == job).values(cancel=True))
            return row_of(connection, job)

    def purge(self, job: str) -> None:
        """Forget a job that has ended."""
        with writing(self.engine) as connection:
            gone = connection.execute(delete(jobs).where(jobs.c.id == job, jobs.c.state.in_(ENDED)))
            if gone.rowcount:
                connection.execute(delete(events).where(events.c.job == job))

    def to_ring(self, most: int = 1000) -> list[str]:
        """Return jobs that an engine has to be told of (again), oldest first."""
        due = select(jobs.c.id).where(free(), jobs.c.ring_after <= now()).order_by(jobs.c.created).limit(most)
        with reading(self.engine) as connection:
            return list(connection.execute(due).scalars())

    def rang(self, job: str) -> None:
        """Note that an engine was told of a job, unless somebody has begun already."""
        with writing(self.engine) as connection:
            told = select(jobs.c.rung).where(jobs.c.id == job, free()).with_for_update()
            rung = connection.execute(told).scalar_one_or_none()
            if rung is not None:
                wait = min(_RING_AGAIN * 2 ** min(rung, 16), _RING_AT_LEAST)
                connection.execute(update(jobs).where(jobs.c.id == job).values(rung=rung + 1, ring_after=now() + wait))

    def disown(self) -> int:
        """Give back all jobs that run: nobody works on any, as only one service ever uses this database."""
        with writing(self.engine) as connection:
            rows = connection.execute(select(jobs.c.id).where(jobs.c.state == RUNNING)).all()
            for row in rows:
                values = {"state": QUEUED, "owner": None, "lease_until": None, "ring_after": now()}
                connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
                tell(connection, row.id, "state", {"state": QUEUED})
            return len(rows)

    def waiting(self, most: int) -> list[str]:
        """Return the jobs that nobody works on, oldest first."""
        with reading(self.engine) as connection:
            oldest = select(jobs.c.id).where(free()).order_by(jobs.c.created, jobs.c.id).limit(most)
            return [row.id for row in connection.execute(oldest)]

    def job(self, job: str) -> Job | None:
        """Return a job; None where it is unknown."""
        with reading(self.engine) as connection:
            row = connection.execute(select(*COLUMNS).where(jobs.c.id == job)).one_or_none()
            return None if row is None else of_row(row)

    def listed(
        self, tenant: str | None, state: State | None, most: int, before: tuple[float, str] | None
    ) -> Sequence[Job]:
        """Return jobs, the newest first.

        Args:
            tenant: Whose; None means everybody's.
            state: In which state; None means any.
            most: How many.
            before: The ``created`` and ``id`` of the last one of the page before.
        """
        query = select(*COLUMNS).order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(most)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if before is not None:
            created, job = before
            query = query.where(or_(jobs.c.created < created, and_(jobs.c.created == created, jobs.c.id < job)))
        with reading(self.engine) as connection:
            return [of_row(row) for row in connection.execute(query)]

    def events(self, job: str, after: int, most: int = 500) -> list[Event]:
        """Return what happened to a job after the ``after``-th event."""
        query = select(events).where(events.c.job == job, events.c.number > after).order_by(events.c.number).limit(most)
        with reading(self.engine) as connection:
            return [Event(row.number, row.at, row.kind, row.body) for row in connection.execute(query)]

    def counts(self, tenant: str | None = None) -> dict[str, int]:
        """Return how many jobs there are in each state."""
        query = select(jobs.c.state, func.count().label("count")).group_by(jobs.c.state)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        with reading(self.engine) as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def asked(self, tenant: str) -> tuple[int, int]:
        """Return how many unfinished jobs a tenant has, and how many bytes it has sent in a day."""
        query = select(func.count()).where(jobs.c.tenant == tenant, jobs.c.state.in_((QUEUED, RUNNING)))
        with reading(self.engine) as connection:
            unfinished = connection.execute(query).scalar_one()
            return unfinished, sent_bytes(connection, tenant, hour_of(connection), _DAY)

    def expired_uploads(self, most: int = 100) -> list[Job]:
        """Return jobs whose uploads are to be thrown away."""
        query = select(*COLUMNS).where(jobs.c.upload_expires_at <= now()).limit(most)
        with reading(self.engine) as connection:
            return [of_row(row) for row in connection.execute(query)]

    def forget_upload(self, job: str) -> None:
        """Note that the upload of a job is not there any more."""
        with writing(self.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job).values(upload_expires_at=None))

    def expired(self, most: int = 100) -> list[Job]:
        """Return jobs that are to be forgotten."""
        query = select(*COLUMNS).where(jobs.c.expires_at <= now()).limit(most)
        with reading(self.engine) as connection:
            return [of_row(row) for row in connection.execute(query)]

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of some jobs that are there."""
        with reading(self.engine) as connection:
            return set(connection.execute(select(jobs.c.id).where(jobs.c.id.in_(ids))).scalars())

    def _end(
        self,
        connection: Connection,
        job: str,
        state: State,
        *,
        claim: Job | None = None,
        steps: Mapping[str, float] | None = None,
        **values: Any,
    ) -> bool:
        ended = update(jobs).where(
            claimed_as(claim) if claim is not None else and_(jobs.c.id == job, jobs.c.state.not_in(ENDED))
        )
        values |= {
            "state": state,
            "owner": None,
            "lease_until": None,
            "step": None,
            "done": None,
            "finished": now(),
            "expires_at": now() + self.keep_seconds,
            "upload_expires_at": now() + self.upload_seconds,
        }
        if connection.execute(ended.values(**values)).rowcount != 1:
            return False
        body = {"state": state}
        if values.get("error") is not None:
            body["error"] = values["error"]
        tell(connection, job, "state", body)
        leave_end(connection, job, steps or {})
        return True


def _given_up(attempts: int) -> dict[str, Any]:
    return {
        "code": "crashed",
        "status": 500,
        "detail": f"the conversion was begun {attempts} times, and whoever worked on it died each time",
        "hint": "Convert the model with the command line, and report this with the model if you can.",
    }
