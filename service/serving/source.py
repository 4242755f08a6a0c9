"""What serving knows of the rest of the service: which models are kept, where they lie, and folders to work in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from service.problems import DatabaseError
from service.registry.cards import Card

__all__ = ["ModelSource", "RememberedSource", "Room"]

_FRESH = 1.0  # seconds that a card is not looked up again
_MOST = 10_000


class ModelSource(Protocol):
    """Where models come from. Every name belongs to a tenant; others do not see it."""

    async def card(self, tenant: str, name: str, version: str) -> Card:
        """Return the card of a kept model.

        Args:
            tenant: Who asks.
            name: Of the model.
            version: A number, or ``latest``; the same for an empty text.

        Raises:
            NotFoundError: If there is none of that name and version.
        """

    async def cards(self, tenant: str) -> Sequence[Card]:
        """Return the cards of the latest versions of all models of a tenant."""

    async def versions(self, tenant: str, name: str) -> Sequence[int]:
        """Return the versions that there are of a model."""

    async def file(self, card: Card) -> Path:
        """Return the file of a model on this machine; it never changes.

        Raises:
            OSError: If it cannot be had.
        """


class Room(Protocol):
    """Where runners have their temporary folders."""

    def folder(self) -> Path:
        """Make an empty folder.

        Raises:
            OSError: If the disk is full, for example.
        """

    def discard(self, folder: Path) -> None:
        """Remove a folder, with what is in it."""


@dataclass(slots=True)
class RememberedSource:
    """A source whose cards are looked up once a second at most, so that inference does not wait for a database.

    What this service keeps or deletes is seen at once; what another one does with the same database, within a second.

    Attributes:
        source: What is asked.
        changes: Returns another number after each change that this service made.
    """

    source: ModelSource
    changes: Callable[[], int]
    _known: dict[tuple[str, str, str], tuple[Card, float, int]] = field(default_factory=dict, init=False)

    async def card(self, tenant: str, name: str, version: str) -> Card:
        """Return the card of a kept model, as ``ModelSource`` has it."""
        key = (tenant, name, version)
        known = self._known.get(key)
        now, changes = time.monotonic(), self.changes()
        if known is not None and now < known[1] and changes == known[2]:
            return known[0]
        try:
            card = await self.source.card(tenant, name, version)
        except DatabaseError:
            if known is None:
                raise
            card = known[0]  # what was served goes on to be served while the database is away
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = (card, now + _FRESH, changes)
        return card

    async def cards(self, tenant: str) -> Sequence[Card]:
        """Return the cards of the latest versions of all models of a tenant."""
        return await self.source.cards(tenant)

    async def versions(self, tenant: str, name: str) -> Sequence[int]:
        """Return the versions that there are of a model."""
        return await self.source.versions(tenant, name)

    async def file(self, card: Card) -> Path:
        """Return the file of a model on this machine; it never changes."""
        return await self.source.file(card)
