"""What every engine does."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Engine", "EngineAwayError"]


class EngineAwayError(Exception):
    """The engine cannot be reached at the moment; the job is safe, and it is told again later."""


class Engine(Protocol):
    """Tells workers that a job waits. It may tell late, twice or never: the row decides, and somebody tells again."""

    async def start(self) -> None:
        """Begin to bring jobs to workers."""

    async def submit(self, job: str) -> None:
        """Tell a worker that a job waits.

        Raises:
            EngineAwayError: If that is not possible now.
        """

    async def drain(self) -> None:
        """Begin no more jobs here, and return when those that run here have ended."""

    async def close(self) -> None:
        """Stop what runs here and give it back."""
