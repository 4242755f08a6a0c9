"""What all requests share, and how it is opened and closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request  # noqa: TC002  (FastAPI reads the annotations)

from service.access.gate import Access, open_access
from service.callers import caller_in, caller_of
from service.engines.engine import Engine
from service.engines.opening import check_engine, open_engine
from service.engines.reconciling import reconcile
from service.jobs.table import JobTable
from service.jobs.work import open_workplace
from service.observing.metrics import Metrics
from service.observing.readiness import Readiness
from service.observing.tracing import Tracing, open_tracing
from service.problems import QueueFullError
from service.registry.cards import Card
from service.registry.kept import KeptModels
from service.registry.registry import LATEST, Registry
from service.retention import retain
from service.sandbox import Choice
from service.scratch import Scratch
from service.serving.http import Inference
from service.serving.protocol import Protocol
from service.serving.runners import Runners
from service.serving.source import RememberedSource
from service.settings import Settings
from service.storage import Storage

__all__ = ["State", "kept", "make_state", "running", "state_of"]

_RECONCILE = 1.0  # seconds
_THREADS = 32


@dataclass(slots=True)
class Draining:
    """How far the end of the service is.

    Attributes:
        begun: It takes no more work.
        over: It waits no longer for what runs, and nobody should wait for it here.
    """

    begun: bool = False
    over: bool = False


@dataclass(slots=True)
class Arrivals:
    """Counts uploads that arrive."""

    most: int
    now: int = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count an upload while it arrives.

        Raises:
            QueueFullError: If as many arrive as may.
        """
        if self.now >= self.most:
            raise QueueFullError(
                f"{self.now} uploads arrive, and no more are taken",
                hint="Try again in a few seconds.",
                headers={"Retry-After": "5"},
            )
        self.now += 1
        try:
            yield
        finally:
            self.now -= 1


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a running service."""

    settings: Settings
    scratch: Scratch
    table: JobTable
    storage: Storage
    registry: Registry
    models: KeptModels
    engine: Engine
    runners: Runners
    protocol: Protocol
    inference: Inference
    sandbox: Choice
    arrivals: Arrivals
    access: Access
    metrics: Metrics
    readiness: Readiness
    draining: Draining
    tracing: Tracing


def make_state(settings: Settings, scratch: Scratch) -> State:
    """Open all that a service needs.

    Raises:
        UnusableSettingsError: If the engine cannot use what is set.
        UnusableDatabaseError: If the database cannot be used.
        UnusableStorageError: If the storage cannot be used.
        UnusableKeysError: If the file of keys cannot be used.
        OSError: If a folder cannot be made.
    """
    check_engine(settings)
    tracing = open_tracing(os.environ)
    place = open_workplace(settings, scratch, tracing)
    models = KeptModels(place.registry)
    remembered = RememberedSource(models, lambda: place.registry.changes.number)
    runners = Runners(settings, remembered, scratch)
    draining = Draining()
    arrivals = Arrivals(settings.jobs + settings.queue)
    return State(
        settings=settings,
        scratch=scratch,
        table=place.table,
        storage=place.storage,
        registry=place.registry,
        models=models,
        engine=open_engine(settings, place),
        runners=runners,
        protocol=Protocol(remembered, runners),
        inference=Inference(runners, remembered, lambda scope: caller_in(scope).tenant),
        sandbox=place.sandbox,
        arrivals=arrivals,
        access=open_access(settings),
        metrics=Metrics(place.table, runners),
        readiness=Readiness(
            place.table, scratch, place.storage, place.sandbox.level is not None, lambda: draining.begun
        ),
        draining=draining,
        tracing=tracing,
    )


@contextlib.asynccontextmanager
async def running(state: State) -> AsyncIterator[None]:
    """Let the parts of a service work that work by themselves, and stop them at the end."""
    # What waits for the disk or the database must not keep all others waiting while one of the two is slow.
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="service")
    asyncio.get_running_loop().set_default_executor(threads)
    await state.engine.start()
    chores = [
        asyncio.create_task(reconcile(state.table, state.engine, _RECONCILE)),
        asyncio.create_task(retain(state.table, state.registry, state.storage)),
    ]
    try:
        yield
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await state.engine.close()
        await state.runners.close()
        state.table.engine.dispose()
        await asyncio.to_thread(state.tracing.close)


def state_of(request: Request) -> State:
    """Return what a request shares with all others."""
    state = request.app.state.service
    assert isinstance(state, State)
    return state


async def kept(request: Request, name: str, version: str = LATEST) -> Card:
    """Return the card of a version of a kept model that is the caller's.

    Raises:
        NotFoundError: If there is none of that name and version.
    """
    return await state_of(request).models.card(caller_of(request).tenant, name, version)
