"""What the metrics of jobs count, exactly once however many services there are.

Whoever ends a job leaves a row beside it in the same transaction; whichever service is asked for metrics next takes the
row away and counts it. So the sum over all services is right, workers need no port for metrics of their own, and a job
that was forgotten in the meantime is counted all the same. What a service has taken and not yet told is lost when it is
killed in that moment, like every count that is kept in memory.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from service.database.connecting import reading, writing
from service.database.schema import events, jobs, now, tallies, usage

__all__ = [
    "STEPS",
    "Tally",
    "hour_of",
    "leave_end",
    "leave_kill",
    "note_bytes",
    "sent_bytes",
    "steps_of",
    "take_tallies",
]

_KEPT = 86400.0  # seconds after which what nobody has asked for is not counted any more
_MOST = 500
_HOUR = 3600
_KILLS: Mapping[str, str] = {"time-limit": "time", "limit": "memory", "crashed": "signal", "killed": "signal"}

STEPS: Mapping[str, str] = {
    "read": "read",
    "inference mode": "inference-mode",
    "plan": "plan",
    "fold": "fold",
    "verify": "verify",
    "look for the fault": "look-for-the-fault",
}
"""Steps of a conversion, and what the metrics call them."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Something to be counted.

    Attributes:
        state: In which a job ended; empty where none did.
        format: Of the model that was uploaded; empty where it is not known.
        waited: How many seconds the job waited for its first begin; None where it never began.
        steps: How many seconds each step took, and ``total``, from the last begin to the end.
        kill: Why the conversion was ended by the limits it was given, or by a signal; empty where it was not.
    """

    state: str
    format: str
    waited: float | None
    steps: Mapping[str, float]
    kill: str


def steps_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Return how long each step took, by a report that a conversion wrote, which may say anything."""
    found: dict[str, float] = {}
    for timing in report.get("timings", ()):
        match timing:
            case {"step": str(step), "seconds": float() | int() as seconds} if step in STEPS:
                if math.isfinite(seconds) and seconds >= 0:
                    found[STEPS[step]] = found.get(STEPS[step], 0.0) + float(seconds)
    return found


def leave_end(connection: Connection, job: str, steps: Mapping[str, float]) -> None:
    """Leave the end of a job to be counted."""
    row = connection.execute(
        select(jobs.c.state, jobs.c.format, jobs.c.created, jobs.c.started, jobs.c.finished, jobs.c.error).where(
            jobs.c.id == job
        )
    ).one()
    # The first thing that happens to a job is that it waits, the second one that somebody begins, if anybody does.
    second = select(events.c.at).where(events.c.job == job, events.c.number == 2)
    first = connection.execute(second).scalar_one_or_none() if row.started is not None else None
    error: Mapping[str, Any] = row.error or {}
    kill = _KILLS.get(str(error.get("code")), "")
    if kill == "memory" and "larger file" in str(error.get("detail")):
        kill = "file-size"
    body: dict[str, Any] = {
        "state": row.state,
        "format": row.format or "",
        "waited": None if first is None else max(first - row.created, 0.0),
        "steps": dict(steps),
        "kill": kill,
    }
    if row.started is not None:
        body["steps"]["total"] = max(row.finished - row.started, 0.0)
    _leave(connection, body)


def leave_kill(connection: Connection) -> None:
    """Leave to be counted that something killed a conversion which is going to be begun again."""
    _leave(connection, {"state": "", "format": "", "waited": None, "steps": {}, "kill": "signal"})


def _leave(connection: Connection, body: Mapping[str, Any]) -> None:
    connection.execute(delete(tallies).where(tallies.c.at < now() - _KEPT))
    connection.execute(insert(tallies).values(id=secrets.token_hex(16), at=now(), body=dict(body)))


def take_tallies(engine: Engine) -> Sequence[Tally]:
    """Take what is to be counted; nobody else gets the same."""
    some = select(tallies.c.id, tallies.c.body).order_by(tallies.c.at).limit(_MOST)
    with reading(engine) as connection:
        if connection.execute(some.limit(1)).first() is None:
            return ()
    with writing(engine) as connection:
        rows = connection.execute(some.with_for_update(skip_locked=True)).all()
        connection.execute(delete(tallies).where(tallies.c.id.in_([row.id for row in rows])))
    return [Tally(**row.body) for row in rows]


def note_bytes(connection: Connection, tenant: str, size: int, hour: int) -> None:
    """Add to what a tenant has sent in an hour."""
    where = (usage.c.tenant == tenant) & (usage.c.hour == hour)
    added = connection.execute(update(usage).where(where).values(bytes=usage.c.bytes + size))
    if added.rowcount == 0:
        connection.execute(delete(usage).where(usage.c.hour < hour - 2 * 24))
        connection.execute(insert(usage).values(tenant=tenant, hour=hour, bytes=size))


def sent_bytes(connection: Connection, tenant: str, hour: int, hours: int) -> int:
    """Return how many bytes a tenant has sent in this hour and the ``hours - 1`` before it."""
    query = select(usage.c.bytes).where(usage.c.tenant == tenant, usage.c.hour > hour - hours)
    return int(sum(connection.execute(query).scalars()))


def hour_of(connection: Connection) -> int:
    """Return the hour by the clock of the database, in hours since 1970."""
    return int(connection.execute(select(now())).scalar_one() // _HOUR)
