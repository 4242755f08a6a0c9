"""The runner's end of the line to the service: whole rounds of questions come in, answers go out together."""

from __future__ import annotations

import os
import select
import time
from typing import Any

import msgspec

from service.serving.frames import PREFIX, Answer, Body, Hello, Question, head_of, pack

__all__ = ["Channel"]

_BUFFER = 2**20
_MOST_TOGETHER = 64  # buffers in one call of the system; it takes at least 1024
_PATIENCE = 0.0003  # seconds that an answer waits for others to go out with


class Channel:
    """Reads frames of questions from a descriptor, and writes frames of answers to one.

    Args:
        questions: The descriptor that is read.
        answers: The descriptor that is written.
    """

    __slots__ = ("_answers", "_buffer", "_decoder", "_end", "_poll", "_questions", "_since", "_start", "_waiting")

    def __init__(self, questions: int, answers: int) -> None:
        self._questions = questions
        self._answers = answers
        self._decoder = msgspec.msgpack.Decoder(Question)
        self._poll = select.poll()
        self._poll.register(questions, select.POLLIN)
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._waiting: list[Body] = []
        self._since = 0.0

    def round(self, most: int) -> list[tuple[Question, Body]]:
        """Wait for a question, and return it with those that have come, too; nothing where no more will come.

        What is returned is only good until the next round.

        Args:
            most: How many to return at most.

        Raises:
            FrameError: If what comes are no questions.
        """
        found: list[tuple[Question, Body]] = []
        while len(found) < most:
            frame = self._next()
            if frame is not None:
                found.append(frame)
            # What was found lies in the buffer, so more can only be read behind it.
            elif (found and (self._end == _BUFFER or not self._poll.poll(0))) or not self._read(keep=bool(found)):
                break
        return found

    def hello(self, hello: Hello) -> None:
        """Say how loading went."""
        self._waiting.append(pack(hello))
        self.flush()

    def answer(self, answer: Answer, pieces: list[Any]) -> None:
        """Send an answer, at once or with the next ones."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(pack(answer, sum(len(piece) for piece in pieces)))
        self._waiting += pieces
        if time.monotonic() - self._since > _PATIENCE or len(self._waiting) > _MOST_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        pieces, self._waiting = self._waiting, []
        while pieces:
            written = os.writev(self._answers, pieces[:_MOST_TOGETHER])
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if written:
                pieces[0] = memoryview(pieces[0])[written:]

    def _next(self) -> tuple[Question, Body] | None:
        here = self._end - self._start
        if here < PREFIX.size:
            return None
        length, size = PREFIX.unpack_from(self._buffer, self._start)
        if here < PREFIX.size + length:
            return None
        start = self._start + PREFIX.size + length
        if here < PREFIX.size + length + size and PREFIX.size + length + size <= _BUFFER:
            return None
        head = head_of(self._decoder, self._buffer[self._start + PREFIX.size : start])
        if start + size <= self._end:
            self._start = start + size
            return head, self._buffer[start : start + size]
        # It is larger than the buffer, and gets one of its own.
        body = memoryview(bytearray(size))
        came = self._end - start
        body[:came] = self._buffer[start : self._end]
        self._start = self._end
        while came < size:
            read = os.readv(self._questions, [body[came:]])
            if not read:
                return None
            came += read
        return head, body

    def _read(self, *, keep: bool) -> bool:
        """Read what is there, waiting for the first byte; False where no more will come."""
        if not keep:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        if self._end == _BUFFER:
            return False
        read = os.readv(self._questions, [self._buffer[self._end :]])
        self._end += read
        return read > 0
