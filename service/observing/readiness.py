"""Whether the service can work, and why it cannot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from service.database.connecting import can_answer
from service.jobs.table import JobTable
from service.scratch import Scratch
from service.storage import Storage

__all__ = ["Readiness"]

_PATIENCE = 5.0  # seconds until who does not answer is taken for away
_FRESH = 10.0  # seconds that a storage over the network is not asked again


@dataclass(slots=True)
class Readiness:
    """Looks whether what the service needs is there.

    Attributes:
        table: Of the jobs.
        scratch: The folder of the service.
        storage: Of uploads and models.
        confines: Whether foreign files can be kept apart.
        ends: Says whether the service is about to end.
    """

    table: JobTable
    scratch: Scratch
    storage: Storage
    confines: bool
    ends: Callable[[], bool]
    _asked: float = field(default=float("-inf"), init=False)
    _answered: bool = field(default=False, init=False)

    async def lacks(self) -> str:
        """Return what is in the way: ``draining``, ``sandbox``, ``disk``, ``database`` or ``storage``; or nothing."""
        if self.ends():
            return "draining"
        if not self.confines:
            return "sandbox"
        if not await _in_time(asyncio.to_thread(self._writes)):
            return "disk"
        if not await _in_time(asyncio.to_thread(can_answer, self.table.engine)):
            return "database"
        return "" if await self._stores() else "storage"

    def _writes(self) -> bool:
        try:
            folder = self.scratch.folder()
        except OSError:
            return False
        try:
            (folder / "here").write_bytes(b"x")
        except OSError:  # a folder can often still be made where there is no room for a file
            return False
        else:
            return True
        finally:
            self.scratch.discard(folder)

    async def _stores(self) -> bool:
        far = self.storage.folder is None
        if far and self._answered and time.monotonic() - self._asked < _FRESH:
            return True
        self._asked = time.monotonic()
        self._answered = await _in_time(self._checked())
        return self._answered

    async def _checked(self) -> bool:
        try:
            await self.storage.check()
        except OSError:
            return False
        return True


async def _in_time(answer: Coroutine[Any, Any, bool]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await answer
    except TimeoutError:
        return False
