"""How the service and its runners talk: two lengths, a head of the first in MessagePack, a body of the second.

The service forwards what a client sent as it came, and the runner reads it: nothing that is foreign is parsed in the
service. What comes back is not trusted either: every length is checked before anything of that size is made, a head has
the fields and the types that are declared here or is an error, and nothing is ever executed or unpickled.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Generic, TypeVar

import msgspec

__all__ = ["PREFIX", "Answer", "Body", "Form", "FrameError", "Frames", "Hello", "Question", "head_of", "pack"]

PREFIX = struct.Struct("<IQ")
_LARGEST_HEAD = 2**20
_PACK = msgspec.msgpack.Encoder()

Body = bytes | bytearray | memoryview


class FrameError(Exception):
    """What came is no frame."""


class Form(IntEnum):
    """The form of a body: that of the protocol over HTTP, or that over gRPC."""

    HTTP = 0
    RPC = 1


class Question(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What stands before a request.

    Attributes:
        number: Of the question; its answer has the same.
        form: Of the body.
        model: The name that the client knows the model by.
        version: The version that was meant.
        deadline: When nobody waits any more, on the system's monotonic clock, in seconds.
        length: What the client says of how much of the body is JSON; None where it says nothing.
        encoding: How the body is compressed: ``gzip``, ``deflate`` or ``""``.
        accepts: How the answer should be compressed, in the same words.
        most: The most bytes that the body may have when it is no longer compressed.
    """

    number: int
    form: int
    model: str
    version: str
    deadline: float
    length: str | None
    encoding: str
    accepts: str
    most: int


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What stands before an answer.

    Attributes:
        number: Of the question.
        code: Of the error; empty where there is none.
        message: Of the error.
        hint: Of the error.
        length: How much of the body is JSON; -1 where all is.
        encoding: How the body is compressed.
        together: How many requests were run together with this one, itself included; 0 where it was not run.
        first: Whether it is the one of them that the run is counted with.
        read: Nanoseconds that it took to read the request.
        ran: Nanoseconds that the run took.
        wrote: Nanoseconds that it took to write the answer.
    """

    number: int
    code: str = ""
    message: str = ""
    hint: str = ""
    length: int = -1
    encoding: str = ""
    together: int = 0
    first: bool = False
    read: int = 0
    ran: int = 0
    wrote: int = 0


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a runner says when it has loaded its model and run it once, or cannot.

    Attributes:
        unrunnable: Why it cannot be run; empty where it can.
        batches: Whether requests may be run together.
    """

    unrunnable: str
    batches: bool = False


Head = TypeVar("Head", Question, Answer, Hello)


def pack(head: Question | Answer | Hello, size: int = 0) -> bytes:
    """Return what stands before a body of that many bytes."""
    packed = _PACK.encode(head)
    return PREFIX.pack(len(packed), size) + packed


def head_of(decoder: msgspec.msgpack.Decoder[Head], packed: Body) -> Head:
    """Return a head.

    Raises:
        FrameError: If it is none of the kind that is expected.
    """
    try:
        return decoder.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a head that is none: {error}") from error


class Frames(Generic[Head]):
    """Frames out of pieces that come as they come.

    Args:
        kind: Of the heads.
        most: The most bytes that a body may have.
    """

    __slots__ = ("_chunks", "_decoder", "_found", "_head", "_most", "_wanted")

    def __init__(self, kind: type[Head], most: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[Head] = msgspec.msgpack.Decoder(kind)
        self._most = most
        self._chunks: list[Body] = []
        self._found = 0
        self._wanted = PREFIX.size
        self._head: Head | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all that came made whole frames."""
        return not self._found and self._head is None

    def feed(self, piece: bytes) -> list[tuple[Head, bytes]]:
        """Take in what came, and return the frames that are whole now.

        Raises:
            FrameError: If it holds something else than frames. Nothing can be fed after that.
        """
        self._chunks.append(piece)
        self._found += len(piece)
        frames: list[tuple[Head, bytes]] = []
        if self._found < self._wanted:
            return frames
        content = piece if len(self._chunks) == 1 else b"".join(self._chunks)
        at, end = 0, len(content)
        while True:
            if self._head is None:
                self._wanted = PREFIX.size
                if end - at < PREFIX.size:
                    break
                length, size = PREFIX.unpack_from(content, at)
                if length > _LARGEST_HEAD or size > self._most:
                    raise FrameError(f"a head of {length} bytes and a body of {size}")
                start = at + PREFIX.size + length
                self._wanted = PREFIX.size + length
                if end < start:
                    break
                self._head = head_of(self._decoder, content[at + PREFIX.size : start])
                at = start
                self._wanted = size
            if end - at < self._wanted:
                break
            frames.append((self._head, content[at : at + self._wanted]))
            at += self._wanted
            self._head = None
        self._chunks = [content[at:]] if at < end else []
        self._found = end - at
        return frames
