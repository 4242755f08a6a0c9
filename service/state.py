"""What all requests share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request  # noqa: TC002  (FastAPI reads the annotations)

from service.cards import Card
from service.jobs import Jobs
from service.problems import NotFoundError
from service.serving.runners import Runners
from service.settings import Settings
from service.store import VERSION, Store

__all__ = ["State", "kept", "state_of"]


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a running service."""

    settings: Settings
    store: Store
    jobs: Jobs
    runners: Runners


def state_of(request: Request) -> State:
    """Return what a request shares with all others."""
    state = request.app.state.service
    assert isinstance(state, State)
    return state


def kept(request: Request, name: str, version: str = VERSION) -> Card:
    """Return the card of a kept model.

    Raises:
        NotFoundError: If there is none of that name and version.
    """
    card = state_of(request).store.card(name)
    if card is None:
        raise NotFoundError(f"there is no model {name[:80]!r}", hint="GET /models lists those that are kept.")
    if version not in (VERSION, "latest"):
        raise NotFoundError(f"the model has no version {version[:40]!r}", hint=f"Its version is {VERSION}.")
    return card
