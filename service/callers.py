"""Who asks, and what they may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection  # noqa: TC002  (FastAPI reads the annotations)

__all__ = ["ADMIN", "FOLD", "INFER", "LOCAL", "READ", "SCOPES", "Caller", "Limits", "caller_in", "caller_of"]

FOLD, INFER, READ, ADMIN = "fold", "infer", "read", "admin"

SCOPES: Mapping[str, str] = {
    FOLD: "send models to be folded, and see and cancel the jobs that come of it",
    INFER: "run models",
    READ: "see jobs and models, and download them",
    ADMIN: "everything, among it deleting, loading and unloading models, and reading the metrics",
}
"""What a key may be allowed to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a caller may ask for; 0 means as much as there is.

    Attributes:
        jobs: Jobs of the tenant that have not ended.
        bytes_a_day: Bytes of the uploads of the tenant that became jobs in the last 24 hours.
        requests_a_second: Requests with this key to one service.
    """

    jobs: int = 0
    bytes_a_day: int = 0
    requests_a_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask.

    Attributes:
        tenant: Whose things are seen; those of others are not there.
        key: What the key is called with which they asked; it is no secret.
        scopes: What they may do.
        limits: How much of it.
    """

    tenant: str
    key: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    limits: Limits = Limits()


LOCAL = Caller("local")
"""Everybody, where nobody is asked for a key."""


def caller_in(scope: Mapping[str, Any]) -> Caller:
    """Return who asks, by the scope of a request that was let in."""
    caller = scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


def caller_of(request: HTTPConnection) -> Caller:
    """Return who asks."""
    return caller_in(request.scope)
