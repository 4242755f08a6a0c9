"""What a runner could send must never hurt the service: a frame is whole and within its limit, or an error."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.frames import FrameError, pack, read_async, read_from
from service.serving.tensors import DATATYPES, Tensor

TENSORS = st.lists(
    st.builds(
        Tensor,
        name=st.text(max_size=9),
        datatype=st.sampled_from(sorted(DATATYPES)),
        shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
        raw=st.binary(max_size=50),
    ),
    max_size=4,
)


async def _read(content: bytes, most: int) -> tuple[dict[str, Any], list[Tensor]]:
    stream = asyncio.StreamReader()
    stream.feed_data(content)
    stream.feed_eof()
    return await read_async(stream, most)


@given(TENSORS)
def test_what_is_packed_is_read(tensors: list[Tensor]) -> None:
    content = b"".join(pack({"a": "ü"}, tensors))
    header, found = asyncio.run(_read(content, 1000))
    assert (header["a"], found) == ("ü", tensors)
    assert read_from(io.BytesIO(content)) == (header, tensors)


@given(TENSORS, st.data())
def test_what_breaks_off_is_an_error(tensors: list[Tensor], data: st.DataObject) -> None:
    content = b"".join(pack({}, tensors))
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    with pytest.raises((FrameError, asyncio.IncompleteReadError)):
        asyncio.run(_read(cut, 1000))
    if cut:
        with pytest.raises(FrameError):
            read_from(io.BytesIO(cut))


@given(st.binary(max_size=200))
def test_whatever_else_comes_is_an_error(content: bytes) -> None:
    with pytest.raises((FrameError, asyncio.IncompleteReadError)):
        asyncio.run(_read(content, 1000))


@pytest.mark.parametrize(
    "listed",
    [
        None,
        {},
        [3],
        [{"name": "x", "datatype": "FP32", "shape": [1]}],
        [{"name": "x", "datatype": "object", "shape": [1], "size": 4}],
        [{"name": "x", "datatype": "FP32", "shape": [-1], "size": 4}],
        [{"name": "x", "datatype": "FP32", "shape": [True], "size": 4}],
        [{"name": "x", "datatype": "FP32", "shape": [1], "size": -4}],
        [{"name": "x", "datatype": "FP32", "shape": [1], "size": 2**62}],
        [{"name": "x", "datatype": "FP32", "shape": [1], "size": 600}] * 2,
    ],
)
def test_a_header_that_lies_is_an_error(listed: object) -> None:
    text = json.dumps({"tensors": listed}).encode()
    with pytest.raises(FrameError):
        asyncio.run(_read(len(text).to_bytes(4, "little") + text + bytes(2000), 1000))


def test_a_header_of_gigabytes_is_not_waited_for() -> None:
    with pytest.raises(FrameError, match="a header of 4294967295 bytes"):
        asyncio.run(_read(b"\xff" * 100, 1000))
