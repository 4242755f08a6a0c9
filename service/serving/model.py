"""One loaded model: its runner, whoever waits for an answer of it, and what becomes of them when the runner dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from service.problems import CrashedError, QueueFullError, ServiceError, TimeLimitError
from service.serving.frames import Answer, Question
from service.serving.line import Line

__all__ = ["Model", "Told"]

_LOG = logging.getLogger("service.serving")
_LOOK = 0.1  # seconds between two looks at who waited for too long
_GRACE = 1.0  # seconds that a runner may take longer than it was given, before it is killed
_TRIES = 2  # runners that may die on a question before the question is blamed

Told = tuple[Answer, bytes]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A question that somebody waits for the answer of."""

    question: Question
    body: Sequence[bytes]
    seconds: float
    answer: asyncio.Future[Told]
    deaths: int = 0


@dataclass(slots=True)
class Model:
    """A model that somebody asked for.

    Questions go to the runner at once, and it takes them in turn. When it dies, nobody knows which of them it died on:
    from then on they go to the next runner one at a time, until all that were there are answered.

    Attributes:
        key: The sha256 of its file.
        start: Starts a runner that calls what it is given.
        most: How many questions may wait.
    """

    key: str
    start: Callable[[Model], Awaitable[Line]]
    most: int
    line: Line | None = None
    used: float = 0.0
    loading: asyncio.Task[None] | None = None
    batches: bool = False
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _unsent: deque[_Waiting] = field(default_factory=deque)
    _suspects: deque[_Waiting] = field(default_factory=deque)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _looking: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for it, and it is not being loaded."""
        return not self._waiting and self.loading is None and (self.line is None or not self.line.outstanding)

    @property
    def is_loaded(self) -> bool:
        """Whether its runner is there and ready."""
        return self.line is not None

    def number(self) -> int:
        """Return a number for the next question."""
        return next(self._numbers)

    async def ask(self, question: Question, body: Sequence[bytes], seconds: float) -> Told:
        """Return the answer of the runner to a question.

        Args:
            question: Numbered by ``number``.
            body: Of the request, in pieces.
            seconds: How long it may take, as the client is told it.

        Raises:
            ServiceError: If there is no answer.
        """
        if len(self._waiting) > self.most:
            raise QueueFullError(
                f"{len(self._waiting)} requests wait for this model, and no more are taken",
                hint="Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(question, body, seconds, loop.create_future())
        self._waiting[question.number] = waiting
        if self._looking is None:
            self._looking = loop.call_later(_LOOK, self._look)
        try:
            if self.line is not None and not self._suspects and not self._unsent:
                self.line.send(question, body)
            else:
                self._unsent.append(waiting)
                self._go_on()
            return await waiting.answer
        finally:
            del self._waiting[question.number]
            self.used = loop.time()

    async def load(self) -> None:
        """Return when the runner is there and ready.

        Raises:
            ServiceError: If it cannot be started.
        """
        if self.line is not None:
            return
        if self.loading is None:
            self.loading = asyncio.get_running_loop().create_task(self._load())
        await asyncio.shield(self.loading)

    async def close(self) -> None:
        """End the runner; whoever waits is told that it died."""
        if self.loading is not None:
            self.loading.cancel()
            await asyncio.gather(self.loading, return_exceptions=True)
        line, self.line = self.line, None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if line is not None:
            await line.close()
        self._fail(CrashedError("the model was unloaded while it was asked", hint="Try again."))

    def answered(self, answer: Answer, body: bytes) -> None:
        """Hand an answer to whoever waits for it."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result((answer, body))
        if self._suspects or self._unsent:
            self._go_on()

    def ended(self, line: Line) -> None:
        """Take note that a runner died, and have the questions that it left put to another one."""
        if self.line is not line:
            return
        self.line = None
        left = [self._waiting[number] for number in line.outstanding if number in self._waiting]
        for waiting in left:
            waiting.deaths += 1
            if waiting.answer.done():
                continue
            if waiting.deaths >= _TRIES:
                waiting.answer.set_exception(
                    CrashedError(
                        "the runner of the model died twice on this request",
                        hint="Report this, with the model and the request.",
                    )
                )
            else:
                self._suspects.append(waiting)
        if self._suspects or self._unsent:
            self._go_on()

    async def _load(self) -> None:
        try:
            self.line = await self.start(self)
        except ServiceError as error:
            self._fail(error)
            raise
        finally:
            self.loading = None
        if not self.line.is_open:  # it died between its greeting and now
            self.ended(self.line)
        elif self._suspects or self._unsent:
            self._go_on()

    def _go_on(self) -> None:
        """Send what can be sent."""
        if self.line is None:
            if self.loading is None:
                self.loading = asyncio.get_running_loop().create_task(self._load())
                self.loading.add_done_callback(_seen)
            return
        while self._suspects and not self.line.outstanding:
            suspect = self._suspects.popleft()
            if not suspect.answer.done():
                self.line.send(suspect.question, suspect.body)
        if not self._suspects:
            while self._unsent:
                waiting = self._unsent.popleft()
                if not waiting.answer.done():
                    self.line.send(waiting.question, waiting.body)

    def _look(self) -> None:
        """Tell those who waited for too long, and kill a runner that does not come back to its next question."""
        self._looking = None
        now = time.monotonic()
        for waiting in self._waiting.values():
            if now >= waiting.question.deadline and not waiting.answer.done():
                waiting.answer.set_exception(
                    TimeLimitError(
                        f"the inference took longer than {waiting.seconds:g} s",
                        hint="Send fewer rows at a time, or set BNFOLD_INFER_SECONDS higher.",
                    )
                )
        line = self.line
        if line is not None and line.outstanding:
            first = next(iter(line.outstanding.values()))
            if now >= first + _GRACE:
                _LOG.warning("the runner of %s takes too long and is stopped", self.key)
                self._replace(line)
        if self._waiting or (self.line is not None and self.line.outstanding):
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _replace(self, line: Line) -> None:
        """Kill a runner that hangs; the first question was its fault, and the others are put to the next runner."""
        self.line = None
        left = [self._waiting[number] for number in line.outstanding if number in self._waiting]
        self._unsent.extendleft(reversed([waiting for waiting in left if not waiting.answer.done()]))
        line.abort()
        if self._suspects or self._unsent:
            self._go_on()

    def _fail(self, error: ServiceError) -> None:
        """Tell all that wait that there will be no answer."""
        self._suspects.clear()
        self._unsent.clear()
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error)


def _seen(task: asyncio.Task[None]) -> None:
    """Look at how a task ended, so that nothing is logged of it: whoever waits was told already."""
    if not task.cancelled():
        task.exception()
