"""The service's end of the line to a runner: one process, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from service.processes import end_group
from service.serving.frames import Answer, FrameError, Frames, Hello, Question, pack

__all__ = ["LOG", "Line", "LineError", "open_line"]

LOG = "log"
"""What a runner's messages are written to, in its folder."""
_SMALL = 2**16  # bytes up to which a copy is cheaper than a second write


class LineError(Exception):
    """The runner ended, or sent something that is no frame."""


class Line(asyncio.Protocol):
    """A runner that lives.

    Args:
        most: The most bytes that an answer may have.
        seconds: How long a question may take, whoever waits for it.
        answered: Called with each answer.
        ended: Called once, when no more answers will come.
    """

    def __init__(
        self, most: int, seconds: float, answered: Callable[[Answer, bytes], None], ended: Callable[[Line], None]
    ) -> None:
        self.outstanding: dict[int, float] = {}
        """Until when each question that was sent should be answered, by number, the oldest first."""
        self.is_wanted = True
        """Whether the runner should be there: it ends by itself only when something is wrong."""
        self._seconds = seconds
        self._hello: Frames[Hello] | None = Frames(Hello, 0)
        self._frames: Frames[Answer] = Frames(Answer, most)
        self._answered = answered
        self._ended = ended
        self._transport: asyncio.WriteTransport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.greeted: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """Whether questions can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def was_open(self) -> bool:
        """Whether there was ever somebody at the other end, whose end is told."""
        return self._transport is not None

    @property
    def status(self) -> int | None:
        """How the process ended."""
        return None if self._process is None else self._process.returncode

    def send(self, question: Question, body: Sequence[bytes]) -> None:
        """Send a question with the pieces of its body; its answer, or the end of the line, will be told."""
        assert self._transport is not None
        self.outstanding[question.number] = time.monotonic() + self._seconds
        size = sum(map(len, body))
        head = pack(question, size)
        if size <= _SMALL:
            self._transport.write(b"".join((head, *body)))
        else:
            self._transport.writelines((head, *body))

    def abort(self) -> None:
        """End the connection; whoever is told of the end of the line should close it."""
        self.is_wanted = False
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End the process, and return when it is gone."""
        self.abort()
        process = self._process
        if process is not None and process.returncode is None:
            # Once it has been waited for, its number may be that of somebody else's group.
            end_group(process.pid)
            await asyncio.shield(process.wait())

    def started(self, process: asyncio.subprocess.Process) -> None:
        """Take note of the process that is at the other end."""
        self._process = process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the connection."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in what the runner sent."""
        try:
            self._take_in(data)
        except FrameError:
            self.abort()

    def _take_in(self, data: bytes) -> None:
        if self._hello is None:
            for answer, body in self._frames.feed(data):
                if self.outstanding.pop(answer.number, None) is None:
                    raise FrameError(f"an answer to question {answer.number}, which was not asked")
                self._answered(answer, body)
            return
        greetings = self._hello.feed(data)
        if not greetings:
            return
        if len(greetings) > 1 or not self._hello.is_empty:
            raise FrameError("more than one word of greeting")
        self._hello = None
        if not self.greeted.done():
            self.greeted.set_result(greetings[0][0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that no more comes."""
        if not self.greeted.done():
            self.greeted.set_exception(LineError(str(exc or "the runner ended")))
            self.greeted.exception()  # seen, also where nobody waits for it any more
        self._ended(self)


async def open_line(command: Sequence[str], folder: Path, environment: Mapping[str, str], line: Line) -> None:
    """Start a runner at the other end of a line.

    Raises:
        OSError: If it cannot be started.
    """
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    try:
        with theirs, (folder / LOG).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=log,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        line.started(process)
        for end in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                ours.setsockopt(socket.SOL_SOCKET, end, 2**20)
        ours.setblocking(False)  # noqa: FBT003  (it has no name)
        await loop.create_unix_connection(lambda: line, sock=ours)
    except BaseException:
        ours.close()
        await line.close()
        raise
