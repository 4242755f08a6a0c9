"""Who waits for a model is answered, whatever becomes of its runner, and pays only for what is their own fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import pytest

from service.problems import CrashedError, NotRunnableError, QueueFullError, ServiceError, TimeLimitError
from service.serving import model as module
from service.serving.frames import Answer, Question
from service.serving.line import Line
from service.serving.model import Model, Told


@dataclass
class _Runner:
    """A runner that does what a test tells it."""

    owner: _Runners
    outstanding: dict[int, float] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    is_open: bool = True
    is_wanted: bool = True

    def send(self, question: Question, pieces: Sequence[bytes]) -> None:
        body = b"".join(pieces)
        self.outstanding[question.number] = question.deadline
        self.sent.append(body)
        self.owner.behave(self, question, body)

    def answer(self, number: int, body: bytes) -> None:
        if self.outstanding.pop(number, None) is not None and self.is_open:
            self.owner.model.answered(Answer(number), body)

    def die(self) -> None:
        if self.is_open:
            self.is_open = False
            self.owner.model.ended(cast("Line", self))

    def abort(self) -> None:
        self.is_open = False

    async def close(self) -> None:
        self.is_open = False


Behaviour = Callable[[_Runner, Question, bytes], None]


@dataclass
class _Runners:
    """Starts runners for one model."""

    behave: Behaviour
    most: int = 64
    failure: ServiceError | None = None
    started: list[_Runner] = field(default_factory=list)
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        self.model = Model("key", self.start, self.most)

    async def start(self, _: Model) -> Line:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.started.append(_Runner(self))
        return cast("Line", self.started[-1])

    async def ask(self, body: bytes, seconds: float = 30) -> bytes:
        number = self.model.number()
        question = Question(number, 0, "m", "1", time.monotonic() + seconds, None, "", "", 1)
        told: Told = await self.model.ask(question, (body[:1], body[1:]), seconds)
        return told[1]


def _soon(runner: _Runner, action: Callable[[], None]) -> None:
    del runner
    asyncio.get_running_loop().call_soon(action)


def _echo(runner: _Runner, question: Question, body: bytes) -> None:
    _soon(runner, lambda: runner.answer(question.number, body.upper()))


def _run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def within() -> Any:
        async with asyncio.timeout(60):
            return await scenario()

    return asyncio.run(within())


def test_each_gets_its_own_answer_from_one_runner() -> None:
    async def scenario() -> None:
        runners = _Runners(_echo)
        answers = await asyncio.gather(*(runners.ask(b"q%d" % n) for n in range(50)))
        assert answers == [b"Q%d" % n for n in range(50)]
        assert len(runners.started) == 1
        assert runners.model.is_idle

    _run(scenario)


def test_who_asks_while_too_many_wait_is_told_to_come_again() -> None:
    async def scenario() -> None:
        runners = _Runners(lambda *_: None, most=2)
        waiting = [asyncio.create_task(runners.ask(b"x", 0.3)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError, match=r"^3 requests wait for this model, and no more are taken$"):
            await runners.ask(b"y")
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in ended] == [TimeLimitError] * 3

    _run(scenario)


def test_only_the_question_that_kills_runners_is_blamed() -> None:
    def behave(runner: _Runner, question: Question, body: bytes) -> None:
        if body == b"poison":
            _soon(runner, runner.die)
        else:
            # The others take longer, so they are there when it dies.
            asyncio.get_running_loop().call_later(0.02, runner.answer, question.number, body.upper())

    async def scenario() -> None:
        runners = _Runners(behave)
        asked = [b"a", b"b", b"poison", b"c", b"d"]
        ended = await asyncio.gather(*(runners.ask(body) for body in asked), return_exceptions=True)
        assert [str(one) if isinstance(one, Exception) else one for one in ended] == [
            b"A",
            b"B",
            "the runner of the model died twice on this request",
            b"C",
            b"D",
        ]
        assert isinstance(ended[2], CrashedError)
        # Behind the first death they came one at a time, and the poison took only its own runner along.
        assert [runner.sent for runner in runners.started[:2]] == [asked, [b"a", b"b", b"poison"]]
        assert sorted(chain.from_iterable(runner.sent for runner in runners.started[2:])) == [b"c", b"d"]
        assert await runners.ask(b"e") == b"E"

    _run(scenario)


def test_new_questions_wait_until_the_suspects_are_answered() -> None:
    async def scenario() -> None:
        deaths = []

        def behave(runner: _Runner, question: Question, body: bytes) -> None:
            if body == b"poison":
                deaths.append(list(runner.outstanding))
                _soon(runner, runner.die)
            else:
                asyncio.get_running_loop().call_later(0.01, runner.answer, question.number, body)

        runners = _Runners(behave)
        poison = asyncio.create_task(runners.ask(b"poison"))
        await asyncio.sleep(0.005)
        later = await asyncio.gather(*(runners.ask(b"x%d" % n) for n in range(20)))
        assert later == [b"x%d" % n for n in range(20)]
        with pytest.raises(CrashedError):
            await poison
        assert len(deaths) == 2
        assert len(deaths[1]) == 1, "nobody else was there when it died again"

    _run(scenario)


def test_a_runner_that_hangs_is_replaced_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.05)
    monkeypatch.setattr(module, "_LOOK", 0.01)

    def behave(runner: _Runner, question: Question, body: bytes) -> None:
        if runner is runner.owner.started[0]:
            return  # it does nothing, for ever
        _echo(runner, question, body)

    async def scenario() -> None:
        runners = _Runners(behave)
        hanging = asyncio.create_task(runners.ask(b"first", 0.1))
        others = [asyncio.create_task(runners.ask(b"n%d" % n, 20)) for n in range(5)]
        with pytest.raises(TimeLimitError, match=r"^the inference took longer than 0.1 s$"):
            await hanging
        assert await asyncio.gather(*others) == [b"N%d" % n for n in range(5)]
        assert len(runners.started) == 2
        assert not runners.started[0].is_open
        assert runners.started[1].sent == [b"n%d" % n for n in range(5)]

    _run(scenario)


def test_who_waits_behind_somebody_slow_is_told_without_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.05)
    monkeypatch.setattr(module, "_LOOK", 0.01)
    first: list[int] = []

    def behave(runner: _Runner, question: Question, body: bytes) -> None:
        if not first:
            first.append(question.number)
            asyncio.get_running_loop().call_later(0.3, runner.answer, question.number, body)

    async def scenario() -> None:
        runners = _Runners(behave)
        slow = asyncio.create_task(runners.ask(b"slow", 20))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeLimitError):
            await runners.ask(b"behind", 0.05)
        assert await slow == b"slow"
        assert len(runners.started) == 1

    _run(scenario)


def test_a_failure_to_load_is_told_to_all_and_tried_again_for_the_next() -> None:
    async def scenario() -> None:
        runners = _Runners(_echo, failure=NotRunnableError("cannot", hint="h"))
        ended = await asyncio.gather(*(runners.ask(b"x") for _ in range(3)), return_exceptions=True)
        assert [str(one) for one in ended] == ["cannot"] * 3
        with pytest.raises(NotRunnableError):
            await runners.model.load()
        runners.failure = None
        assert await runners.ask(b"y") == b"Y"
        await runners.model.load()
        assert len(runners.started) == 1

    _run(scenario)


def test_who_goes_away_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        runners = _Runners(lambda *_: None)
        gone = asyncio.create_task(runners.ask(b"x"))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        (runner,) = runners.started
        assert not runners.model.is_idle, "the runner is still at it"
        runner.answer(next(iter(runner.outstanding)), b"for nobody")
        assert not runner.outstanding
        runners.behave = _echo
        assert await runners.ask(b"y") == b"Y"

    _run(scenario)


def test_a_runner_that_died_while_nobody_asked_is_replaced_for_the_next() -> None:
    async def scenario() -> None:
        runners = _Runners(_echo)
        assert await runners.ask(b"x") == b"X"
        runners.started[0].die()
        await asyncio.sleep(0.02)
        assert len(runners.started) == 1
        assert await runners.ask(b"y") == b"Y"
        assert len(runners.started) == 2

    _run(scenario)


def test_a_model_that_is_closed_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        runners = _Runners(lambda *_: None)
        waiting = asyncio.create_task(runners.ask(b"x"))
        await asyncio.sleep(0.02)
        await runners.model.close()
        with pytest.raises(CrashedError, match=r"^the model was unloaded while it was asked$"):
            await waiting

    _run(scenario)
