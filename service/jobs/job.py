"""One job, as its row has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "CANCELLED",
    "ENDED",
    "FAILED",
    "QUEUED",
    "RUNNING",
    "STATES",
    "SUCCEEDED",
    "Event",
    "Job",
    "State",
    "Wanted",
]

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

QUEUED: State = "queued"
RUNNING: State = "running"
SUCCEEDED: State = "succeeded"
FAILED: State = "failed"
CANCELLED: State = "cancelled"

STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for.

    Attributes:
        id: Of the job that is made for it, and of the folder that holds its upload: 32 hexadecimal digits.
        tenant: Whose it is.
        key: Hash of the content, the options and the versions: the same work has the same one.
        idempotency: What the client called its request; None where it did not.
        name: Under which the model is going to be kept.
        upload: ``name`` of the uploaded file, made safe, and ``files``: where each lies in the storage, by field.
        options: What ``read_options`` returned.
        bytes: Size of the upload.
        trace: What the request was called where it is traced, for whoever works on the job.
    """

    id: str
    tenant: str
    key: str
    idempotency: str | None
    name: str
    upload: Mapping[str, Any]
    options: Mapping[str, Any]
    bytes: int
    trace: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Moments are seconds since 1970.

    Attributes:
        id: 32 hexadecimal digits.
        tenant: Whose it is.
        key: Hash of the content, the options and the versions.
        name: Under which the model is kept.
        state: Where it stands.
        attempt: How often somebody began to work on it.
        owner: The claim of whoever works on it; nobody else may write a result.
        cancel: Whether somebody asked for its end while it ran.
        upload: ``name`` of the file, and ``files``: where each lies in the storage.
        options: What ``read_options`` returned.
        bytes: Size of the upload.
        format: Of the model that was uploaded, once it is known.
        step: What is being done.
        done: How much of the step is done, from 0 to 1, where that is known.
        error: The problem that ended it, as its body.
        version: Of the model that came of it.
        sandbox: How the process that converted it was confined.
        created: When it was accepted.
        started: When somebody began to work on it for the last time.
        finished: When it ended.
        upload_expires_at: When the upload is thrown away.
        expires_at: When the job is forgotten.
        trace: What the request that it came with was called where it is traced.
    """

    id: str
    tenant: str
    key: str
    name: str
    state: State
    attempt: int
    owner: str | None
    cancel: bool
    upload: Mapping[str, Any]
    options: Mapping[str, Any]
    bytes: int
    format: str | None
    step: str | None
    done: float | None
    error: Mapping[str, Any] | None
    version: int | None
    sandbox: str | None
    created: float
    started: float | None
    finished: float | None
    upload_expires_at: float | None
    expires_at: float | None
    trace: Mapping[str, str] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is going to happen to it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job: the ``number``-th thing, of a kind (``state`` or ``step``)."""

    number: int
    at: float
    kind: str
    body: Mapping[str, Any]
