"""What a runner could send must never hurt the service: a frame is whole and within its limit, or an error."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.channel import Channel
from service.serving.frames import PREFIX, Answer, FrameError, Frames, Question, pack

ANSWERS = st.builds(
    Answer,
    number=st.integers(0, 2**60),
    code=st.text(max_size=9),
    message=st.text(max_size=20),
    length=st.integers(-1, 2**40),
    together=st.integers(0, 9),
    first=st.booleans(),
)
FRAMES = st.lists(st.tuples(ANSWERS, st.binary(max_size=300)), max_size=6)
QUESTIONS = st.builds(
    Question,
    number=st.integers(0, 2**60),
    form=st.sampled_from([0, 1]),
    model=st.text(max_size=9),
    version=st.text(max_size=3),
    deadline=st.floats(0, 1e9),
    length=st.none() | st.text(max_size=9),
    encoding=st.sampled_from(["", "gzip"]),
    accepts=st.just(""),
    most=st.integers(0, 2**30),
)


def _packed(frames: list[tuple[Any, bytes]]) -> bytes:
    return b"".join(pack(head, len(body)) + body for head, body in frames)


def _pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return [content[start:end] for start, end in pairwise(places)]


@given(FRAMES, st.lists(st.integers(0, 5000), max_size=20))
def test_frames_are_found_however_they_come(frames: list[tuple[Answer, bytes]], cuts: list[int]) -> None:
    reader = Frames(Answer, 300)
    found = [frame for piece in _pieces(_packed(frames), cuts) for frame in reader.feed(piece)]
    assert found == frames
    assert reader.is_empty


@given(FRAMES.filter(bool), st.data())
def test_what_breaks_off_is_no_frame(frames: list[tuple[Answer, bytes]], data: st.DataObject) -> None:
    content = _packed(frames)
    reader = Frames(Answer, 300)
    found = reader.feed(content[: data.draw(st.integers(0, len(content) - 1))])
    assert found == frames[: len(found)]
    assert len(found) < len(frames)


@given(st.binary(max_size=200))
def test_whatever_else_comes_is_an_error_or_waits_for_more(content: bytes) -> None:
    reader = Frames(Answer, 1000)
    try:
        found = reader.feed(content)
    except FrameError:
        return
    for answer, body in found:
        assert isinstance(answer, Answer)
        assert len(body) <= 1000


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode({}),
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode(["1"]),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode([1, b"code"]),
        msgspec.msgpack.encode([1, "", "", "", 1.5]),
        msgspec.msgpack.encode([True]),
        b"\x91" * 5000,
        b"\x91\xa1\xff",
    ],
)
def test_a_head_that_is_none_is_an_error(head: bytes) -> None:
    with pytest.raises(FrameError, match=r"^a head that is none: "):
        Frames(Answer, 1000).feed(PREFIX.pack(len(head), 0) + head)


def test_a_body_beyond_the_limit_is_not_waited_for() -> None:
    with pytest.raises(FrameError, match=r"^a head of 4 bytes and a body of 18446744073709551615$"):
        Frames(Answer, 1000).feed(PREFIX.pack(4, 2**64 - 1))
    with pytest.raises(FrameError, match=r"^a head of 4294967295 bytes and a body of 0$"):
        Frames(Answer, 1000).feed(PREFIX.pack(2**32 - 1, 0))


class _Pipes:
    """Both ends of a channel."""

    def __init__(self) -> None:
        (self.theirs, self.asks), (self.told, self.ours) = os.pipe(), os.pipe()
        self.channel = Channel(self.theirs, self.ours)

    def ask(self, content: bytes) -> None:
        threading.Thread(target=self._write, args=(content,), daemon=True).start()

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self.asks, view) :]
        os.close(self.asks)

    def close(self) -> None:
        for descriptor in (self.theirs, self.told, self.ours):
            os.close(descriptor)


@given(st.lists(st.tuples(QUESTIONS, st.binary(max_size=300)), max_size=40), st.integers(1, 20))
def test_a_runner_reads_every_question_in_turn(asked: list[tuple[Question, bytes]], most: int) -> None:
    pipes = _Pipes()
    pipes.ask(_packed(asked))
    found: list[tuple[Question, bytes]] = []
    while together := pipes.channel.round(most):
        assert len(together) <= most
        found += [(question, bytes(body)) for question, body in together]
    assert found == asked
    pipes.close()


@pytest.mark.parametrize("sizes", [(2**20,), (2**20 + 1, 5, 2**22), (3, 2**20 - 100, 2**20 - 100, 7), (2**23, 2**23)])
def test_a_runner_reads_bodies_of_any_size(sizes: tuple[int, ...]) -> None:
    asked = [(Question(n, 0, "m", "1", 0.0, None, "", "", 9), os.urandom(size)) for n, size in enumerate(sizes)]
    pipes = _Pipes()
    pipes.ask(_packed(asked))
    found: list[tuple[Question, bytes]] = []
    while together := pipes.channel.round(16):
        found += [(question, bytes(body)) for question, body in together]
    assert found == asked
    pipes.close()


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**22])
def test_answers_arrive_whole_however_large(size: int) -> None:
    pipes = _Pipes()
    answers = [(Answer(number, length=number), os.urandom(size)) for number in range(5)]

    def tell() -> None:
        for answer, body in answers:
            pipes.channel.answer(answer, [body[: size // 3], body[size // 3 :]])
        pipes.channel.flush()
        os.close(pipes.ours)

    threading.Thread(target=tell, daemon=True).start()
    reader, found = Frames(Answer, 2**22), []
    while content := os.read(pipes.told, 2**16):
        found += reader.feed(content)
    assert found == answers
    for descriptor in (pipes.theirs, pipes.asks, pipes.told):
        os.close(descriptor)
