"""One round in a runner: questions are read, run, by themselves or together, and answered."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.problems import InternalError, ServiceError, TensorError, TimeLimitError
from service.serving.frames import Answer, Body, Form, Question
from service.serving.questions import Asked, Signature, deflated, inflated, read_question, write_answer
from service.serving.session import run
from service.serving.tensors import Array, Raw, Spec

__all__ = ["Rounds"]

_LOOK = 0.05  # seconds between two looks at whether a run takes too long
_WORTH_DEFLATING = 1024
_ROUND = 16
_TRIAL = 10.0  # seconds that a run may take which nobody asked for

Send = Callable[[Answer, list[Any]], None]


@dataclass(slots=True)
class _Turn:
    """A question that was read, on its way to its answer."""

    question: Question
    asked: Asked
    read: int
    rows: int


class Rounds:
    """A loaded model that answers questions.

    Args:
        session: The model.
        signature: Its inputs and outputs.
        largest: The most bytes that an answer may have.
    """

    def __init__(self, session: Any, signature: tuple[Sequence[Spec], Sequence[Spec]], largest: int) -> None:
        inputs, outputs = signature
        self._session = session
        self._signature = Signature({spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})
        self._bf16 = [spec.name for spec in inputs if spec.datatype == "BF16"]
        self._rows = 1
        self._largest = largest
        self._watch = _Watch()
        self.most = _ROUND

    def warm_up(self) -> None:
        """Run the model once, so that the first request does not wait for what a first run makes."""
        feeds = {name: _blank(spec) for name, spec in self._signature.inputs.items()}
        if sum(array.nbytes for array in feeds.values()) > 2**28:
            return
        # Zeros, or one row, may be what it cannot compute: requests will say what they are.
        with contextlib.suppress(ServiceError):
            self._run(tuple(self._signature.outputs), feeds, time.monotonic() + _TRIAL)

    def may_batch(self, path: Path, rows: int) -> bool:
        """Find out whether rows of different requests may be run together, up to that many."""
        from service.serving.rows import rows_together

        self._rows = rows_together(path, self._signature, self._alone, rows)
        return self._rows > 1

    def answer(self, asked: Sequence[tuple[Question, Body]], send: Send) -> None:
        """Answer a round of questions."""
        turns = []
        for question, body in asked:
            began = time.perf_counter_ns()
            try:
                read = self._read(question, body)
            except ServiceError as error:
                send(*_error(question, error))
                continue
            except Exception as error:  # a defect of ours must not end the runner, and with it other requests
                send(*_error(question, _defect(error)))
                continue
            turns.append(_Turn(question, read, time.perf_counter_ns() - began, self._rows_of(read)))
        for group in self._groups(turns):
            self._answer_group(group, send)

    def _read(self, question: Question, body: Body) -> Asked:
        content: Raw = body
        if question.encoding:
            content = inflated(body, question.encoding, question.most)
        if question.form == Form.RPC:
            from service.serving.rpc_questions import read_rpc

            return read_rpc(content, self._signature)
        return read_question(content, question.length, self._signature)

    def _rows_of(self, asked: Asked) -> int:
        """Return how many rows a request has; 0 where it must be run by itself."""
        if self._rows == 1:
            return 0
        counts = {array.shape[0] for array in asked.feeds.values()}
        return counts.pop() if len(counts) == 1 else 0

    def _groups(self, turns: Sequence[_Turn]) -> list[list[_Turn]]:
        if self._rows == 1 or len(turns) == 1:
            return [[turn] for turn in turns]
        groups: list[list[_Turn]] = []
        open_groups: dict[object, tuple[list[_Turn], int]] = {}
        for turn in turns:
            if not 0 < turn.rows < self._rows:
                groups.append([turn])
                continue
            tails = tuple((name, array.shape[1:]) for name, array in sorted(turn.asked.feeds.items()))
            key = (turn.asked.outputs, tails)
            group, rows = open_groups.get(key, ([], self._rows))
            if rows + turn.rows > self._rows:
                group, rows = [], 0
                groups.append(group)
            group.append(turn)
            open_groups[key] = (group, rows + turn.rows)
        return groups

    def _answer_group(self, group: Sequence[_Turn], send: Send) -> None:
        first = group[0]
        deadline = min(turn.question.deadline for turn in group)
        feeds = first.asked.feeds
        if len(group) > 1:
            feeds = {name: np.concatenate([turn.asked.feeds[name] for turn in group]) for name in feeds}
        began = time.perf_counter_ns()
        try:
            arrays = self._run(first.asked.outputs, feeds, deadline)
        except ServiceError as error:
            if len(group) > 1:  # one of them may be at fault, and the others must not pay for it
                for turn in group:
                    self._answer_group([turn], send)
            else:
                send(*_error(first.question, error))
            return
        ran = time.perf_counter_ns() - began
        at = 0
        for turn in group:
            rows = slice(at, at + turn.rows)
            at = rows.stop
            own = arrays if len(group) == 1 else [array[rows] for array in arrays]
            self._write(turn, own, ran, len(group), first=turn is first, send=send)

    def _write(self, turn: _Turn, arrays: Sequence[Array], ran: int, together: int, *, first: bool, send: Send) -> None:
        question, began = turn.question, time.perf_counter_ns()
        encoding = ""
        try:
            if question.form == Form.RPC:
                from service.serving.rpc_questions import write_rpc

                pieces, length = write_rpc(question.model, question.version, turn.asked, self._signature, arrays), -1
            else:
                pieces, length = write_answer(question.model, question.version, turn.asked, self._signature, arrays)
            size = sum(len(piece) for piece in pieces)
            if size > self._largest:
                send(*_error(question, _too_large(size, self._largest)))
                return
            if question.accepts and size >= _WORTH_DEFLATING:
                pieces, encoding = [deflated(b"".join(pieces), question.accepts)], question.accepts
        except ServiceError as error:
            send(*_error(question, error))
            return
        except Exception as error:
            send(*_error(question, _defect(error)))
            return
        wrote = time.perf_counter_ns() - began
        told = Answer(question.number, "", "", "", length, encoding, together, first, turn.read, ran, wrote)
        send(told, pieces)

    def _alone(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run the model for all its outputs."""
        return self._run(tuple(self._signature.outputs), feeds, time.monotonic() + _TRIAL)

    def _run(self, outputs: Sequence[str], feeds: Mapping[str, Array], deadline: float) -> list[Array]:
        if time.monotonic() >= deadline:
            raise _late()
        options = self._watch.begin(deadline)
        try:
            specs = [self._signature.outputs[name] for name in outputs]
            arrays: list[Array] = run(self._session, specs, feeds, self._bf16, options)
        except Exception as error:  # onnxruntime's have no common class, and the next question may be fine
            if time.monotonic() >= deadline:
                raise _late() from error
            told = " ".join(str(error).split())[:500] or type(error).__name__
            raise TensorError(
                f"onnxruntime cannot run the model on this: {told}", hint="Send other shapes or values."
            ) from error
        finally:
            self._watch.end()
        return arrays


class _Watch(threading.Thread):
    """Ends runs that take too long, as far as onnxruntime looks up between two operations."""

    def __init__(self) -> None:
        import onnxruntime

        super().__init__(daemon=True)
        self._options = onnxruntime.RunOptions
        self._running: tuple[Any, float] | None = None
        self.start()

    def begin(self, deadline: float) -> Any:
        """Return the options of a run that begins."""
        options = self._options()
        self._running = (options, deadline)
        return options

    def end(self) -> None:
        """Take note that the run has ended."""
        self._running = None

    def run(self) -> None:
        """Look at the clock from time to time."""
        while True:
            time.sleep(_LOOK)
            running = self._running
            if running is not None and time.monotonic() >= running[1]:
                running[0].terminate = True


def _blank(spec: Spec) -> Array:
    """Return zeros of the least size that an input may have."""
    from service.serving.tensors import DATATYPES

    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=DATATYPES[spec.datatype])


def _error(question: Question, error: ServiceError) -> tuple[Answer, list[Any]]:
    return Answer(question.number, error.code, str(error), error.hint), []


def _too_large(size: int, most: int) -> TensorError:
    return TensorError(
        f"the answer would have {size} bytes, and {most} are sent at most", hint="Send fewer rows at a time."
    )


def _late() -> TimeLimitError:
    return TimeLimitError("the inference took too long", hint="Send fewer rows at a time.")


def _defect(error: Exception) -> InternalError:
    return InternalError(
        f"the runner met a defect of bnfold: {type(error).__name__}", hint="Report this, with the request if you can."
    )
