"""The kept models, as whoever serves or shows them asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from service.database.connecting import is_outage
from service.problems import NotFoundError, no_answer, storage_error
from service.registry.cards import Card
from service.registry.registry import LATEST, Registry, is_name

__all__ = ["KeptModels"]

P = ParamSpec("P")
T = TypeVar("T")
_SHOWN = 20
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class KeptModels:
    """All kept models of a registry, with errors that a client can be told."""

    registry: Registry

    async def card(self, tenant: str, name: str, version: str = LATEST) -> Card:
        """Return the card of a version of a model.

        Args:
            tenant: Who asks.
            name: Of the model.
            version: A number, or ``latest``; the same for an empty text.

        Raises:
            NotFoundError: If there is none of that name and version.
        """
        version = version or LATEST
        found = await _asked(self.registry.card, tenant, name, version) if is_name(name) else None
        if found is not None:
            return found
        versions = await self.versions(tenant, name)
        if not versions:
            raise NotFoundError(f"there is no model {name[:100]!r}", hint="GET /models lists those that are kept.")
        there = ", ".join(map(str, versions[-_SHOWN:]))
        raise NotFoundError(
            f"the model has no version {version[:40]!r}",
            hint=f"{'Its version is' if len(versions) == 1 else 'Its versions are'} {there}.",
        )

    async def versions(self, tenant: str, name: str) -> list[int]:
        """Return the versions of a model, ascending; none where there is no such model."""
        return await _asked(self.registry.versions, tenant, name) if is_name(name) else []

    async def cards(self, tenant: str) -> Sequence[Card]:
        """Return the latest version of each model of a tenant, by name."""
        return await _asked(self.registry.latest, tenant, _MOST, "")

    async def file(self, card: Card) -> Path:
        """Return a file of this machine with a model, for reading; it never changes.

        Raises:
            NotFoundError: If it was deleted in the meantime.
            ServiceError: If it cannot be had.
        """
        return await self._brought(card.sha256)

    async def report(self, card: Card, *, page: bool) -> Path:
        """Return a file of this machine with the report of a model, as JSON or as a page, for reading.

        Raises:
            NotFoundError: If it was deleted in the meantime.
            ServiceError: If it cannot be had.
        """
        return await self._brought(card.page if page else card.report)

    async def _brought(self, sha256: str) -> Path:
        gone = NotFoundError("the model was deleted in the meantime", hint="GET /models lists those that are kept.")
        try:
            path = await self.registry.storage.local(sha256)
        except FileNotFoundError:
            raise gone from None
        except OSError as error:
            raise storage_error(error) from error
        if not path.exists():
            raise gone
        return path


async def _asked(question: Callable[P, T], *about: P.args, **options: P.kwargs) -> T:
    """Ask the database.

    Raises:
        DatabaseError: If it does not answer.
    """
    try:
        return await asyncio.to_thread(question, *about, **options)
    except SQLAlchemyError as error:
        if is_outage(error):
            raise no_answer() from error
        raise
