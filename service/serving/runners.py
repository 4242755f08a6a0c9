"""The models that are loaded, each in a runner: a process of its own that is started when it is first needed.

A model is loaded when it is first asked, and may be loaded before. Only so many are; the one that was not asked for the
longest time makes room. A model that was unloaded by name stays so until it is loaded by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.problems import (
    CrashedError,
    NotReadyError,
    NotRunnableError,
    QueueFullError,
    ServiceError,
    TimeLimitError,
    storage_error,
)
from service.registry.cards import Card
from service.sandbox import Limits, child_command, child_environment, level_for
from service.serving.frames import Question
from service.serving.line import LOG, Line, LineError, open_line
from service.serving.model import Model, Told
from service.serving.runner import REWRITE
from service.serving.source import ModelSource, Room
from service.serving.statistics import Statistics
from service.settings import Settings

__all__ = ["Ask", "Runners"]

_LOG = logging.getLogger("service.serving")
_LARGEST_ANSWER = 2**28
_LARGEST_LOG = 2**20
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as far as the service looks at it; the fields are those of ``Question``."""

    form: int
    length: str | None = None
    encoding: str = ""
    accepts: str = ""
    seconds: float | None = None


@dataclass(slots=True)
class Runners:
    """All loaded models of a service.

    Attributes:
        settings: Of the service.
        source: Where models come from.
        room: Where runners have their temporary folders.
    """

    settings: Settings
    source: ModelSource
    room: Room
    statistics: dict[tuple[str, str, str], Statistics] = field(default_factory=dict, init=False)
    _models: dict[str, Model] = field(default_factory=dict, init=False)
    _unloaded: set[tuple[str, str]] = field(default_factory=set, init=False)
    _closing: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def infer(self, tenant: str, card: Card, ask: Ask, body: Sequence[bytes]) -> Told:
        """Run a model and return the answer.

        Raises:
            ServiceError: If there is none.
        """
        began = time.monotonic_ns()
        statistics = self.statistics_of(tenant, card)
        try:
            answer, content = await self._ask(tenant, card, ask, body)
        except ServiceError as error:
            statistics.failed(error.code, time.monotonic_ns() - began)
            raise
        statistics.answered(answer, time.monotonic_ns() - began, int(time.time() * 1000))
        return answer, content

    async def load(self, tenant: str, card: Card) -> None:
        """Load a model, and run it once, if that was not done yet.

        Raises:
            ServiceError: If it cannot be loaded.
        """
        self._check(tenant, card, by_name=True)
        self._unloaded.discard((tenant, card.name))
        await self._loaded(card)

    async def ready(self, tenant: str, card: Card) -> None:
        """Return when a model can be asked without waiting for it to be loaded.

        Raises:
            ServiceError: If it was unloaded, or cannot be loaded.
        """
        self._check(tenant, card)
        await self._loaded(card)

    async def unload(self, tenant: str, card: Card) -> None:
        """Stop a model when those who wait for it have their answers; it stays so until it is loaded by name."""
        self._unloaded.add((tenant, card.name))
        await self.stop(card)

    async def stop(self, card: Card) -> None:
        """Stop the runner of a model when those who wait for it have their answers."""
        model = self._models.get(card.sha256)
        if model is None:
            return
        deadline = time.monotonic() + self.settings.infer_seconds
        while not model.is_idle and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._models.get(card.sha256) is model:
            del self._models[card.sha256]
        await model.close()

    def is_loaded(self, card: Card) -> bool:
        """Say whether a model is loaded and was run once."""
        model = self._models.get(card.sha256)
        return model is not None and model.is_loaded

    def is_unloaded(self, tenant: str, card: Card) -> bool:
        """Say whether a model was unloaded by name."""
        return (tenant, card.name) in self._unloaded

    def may_batch(self, card: Card) -> bool:
        """Say whether requests to a loaded model are run together where they come together."""
        model = self._models.get(card.sha256)
        return model is not None and model.batches

    def statistics_of(self, tenant: str, card: Card) -> Statistics:
        """Return what was counted of a model since the service started."""
        key = (tenant, card.name, str(card.version))
        found = self.statistics.get(key)
        if found is None:
            found = self.statistics[key] = Statistics()
        return found

    def loaded(self) -> Iterator[str]:
        """Return the sha256 of each model that is loaded."""
        return (key for key, model in self._models.items() if model.is_loaded)

    async def close(self) -> None:
        """Stop every runner."""
        models = list(self._models.values())
        self._models.clear()
        await asyncio.gather(*(model.close() for model in models))
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _ask(self, tenant: str, card: Card, ask: Ask, body: Sequence[bytes]) -> Told:
        model = self._models.get(card.sha256)
        if model is None or self._unloaded:
            self._check(tenant, card)
            model = self._model(card)
        seconds = self.settings.infer_seconds if ask.seconds is None else ask.seconds
        question = Question(
            model.number(),
            ask.form,
            card.name,
            str(card.version),
            time.monotonic() + seconds,
            ask.length,
            ask.encoding,
            ask.accepts,
            int(self.settings.infer_size),
        )
        return await model.ask(question, body, seconds)

    def _check(self, tenant: str, card: Card, *, by_name: bool = False) -> None:
        if card.unrunnable:
            raise NotRunnableError(card.unrunnable, hint="Download the model and run it elsewhere.")
        if not by_name and (tenant, card.name) in self._unloaded:
            raise NotReadyError(
                f"the model {card.name} was unloaded",
                hint=f"POST /v2/repository/models/{card.name}/load loads it again.",
            )

    def _model(self, card: Card) -> Model:
        model = self._models.get(card.sha256)
        if model is None:
            model = Model(card.sha256, lambda model: self._start(model, card), self.settings.infer_queue)
            self._models[card.sha256] = model
        return model

    async def _loaded(self, card: Card) -> None:
        try:
            async with asyncio.timeout(self.settings.load_seconds):
                await self._model(card).load()
        except TimeoutError:
            raise self._slow() from None

    async def _start(self, model: Model, card: Card) -> Line:
        await self._make_room(model)
        settings = self.settings
        level = await asyncio.to_thread(level_for, settings.sandbox)
        path = await self.source.file(card)
        try:
            folder = await asyncio.to_thread(self.room.folder)
        except OSError as error:
            raise storage_error(error) from error
        largest = max(_LARGEST_ANSWER, 16 * int(settings.infer_size))
        line = Line(largest, settings.infer_seconds, model.answered, lambda line: self._ended(model, line, folder))
        try:
            limits = Limits(memory=int(settings.runner_memory), file_size=_LARGEST_LOG, cpu_seconds=0)
            threads = settings.runner_threads or os.cpu_count() or 1
            rewrite = REWRITE if card.may_be_rewritten else "-"
            arguments = [str(path), str(threads), str(settings.infer_batch), str(largest), rewrite]
            command = child_command(
                "service.serving.runner", limits, arguments, level=level, reads=[path], writes=[folder]
            )
            await open_line(command, folder, child_environment(folder), line)
            async with asyncio.timeout(settings.load_seconds):
                hello = await line.greeted
        except LineError as error:
            raise CrashedError(
                "the runner of the model died while it started", hint="Try again; if it stays, report it."
            ) from error
        except TimeoutError:
            line.abort()
            raise self._slow() from None
        except OSError as error:
            self._leave(line, folder)
            raise storage_error(error) from error
        except BaseException:
            self._leave(line, folder)
            raise
        if hello.unrunnable:
            line.abort()
            await self.source.file(card)  # it may have been deleted in the meantime, and then it is not there
            raise NotRunnableError(hello.unrunnable, hint="Download the model and run it elsewhere.")
        model.batches = hello.batches
        return line

    def _slow(self) -> TimeLimitError:
        return TimeLimitError(
            f"loading the model took longer than {self.settings.load_seconds:g} s",
            hint="Set BNFOLD_LOAD_SECONDS higher.",
        )

    def _leave(self, line: Line, folder: Path) -> None:
        """End a runner that is not wanted any more; its folder goes with it."""
        if line.was_open:
            line.abort()
        else:
            self.room.discard(folder)

    def _ended(self, model: Model, line: Line, folder: Path) -> None:
        wanted = line.is_wanted

        async def clear() -> None:
            await line.close()
            if wanted:
                said = await asyncio.to_thread(_tail, folder / LOG)
                _LOG.warning(
                    "the runner of %s ended with status %s: %s", model.key, line.status, said or "without a word"
                )
            await asyncio.to_thread(self.room.discard, folder)

        closing = asyncio.get_running_loop().create_task(clear())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        model.ended(line)

    async def _make_room(self, wanted: Model) -> None:
        """Stop the runner that was not used for the longest time, where there are as many as there may be.

        Raises:
            QueueFullError: If all of them are at work.
        """
        others = [model for model in self._models.values() if model is not wanted]
        taken = [model for model in others if model.is_loaded or model.loading is not None]
        if len(taken) < self.settings.runners:
            return
        idle = [model for model in taken if model.is_idle]
        if not idle:
            raise QueueFullError(
                f"{len(taken)} models are loaded and at work, and no more are loaded",
                hint="Try again in a moment, or set BNFOLD_RUNNERS higher.",
                headers={"Retry-After": "1"},
            )
        oldest = min(idle, key=lambda model: model.used)
        del self._models[oldest.key]
        await oldest.close()


def _tail(path: Path) -> str:
    """Return the end of what a runner wrote where messages go, as one line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return " ".join(file.read(_TAIL).decode("utf-8", "replace").split())
    except OSError:
        return ""
