"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection  # noqa: TC002  (FastAPI reads the annotations)

__all__ = ["LOCAL", "Caller", "caller_of"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask.

    Attributes:
        tenant: Whose things are seen; those of others are not there.
    """

    tenant: str


LOCAL = Caller("local")
"""Everybody, where nobody is asked for a key."""


def caller_of(request: HTTPConnection) -> Caller:
    """Return who asks."""
    caller = request.scope.get("state", {}).get("caller", LOCAL)
    assert isinstance(caller, Caller)
    return caller
