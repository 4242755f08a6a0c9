"""Requests are read in two ways, a fast one and one that says what is wrong: never one request differently."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.problems import TensorError
from service.serving.questions import Asked, Signature, _fast, _slow, read_question, write_answer
from service.serving.tensors import DATATYPES, Spec, from_raw, to_raw

SIGNATURE = Signature(
    {
        "f": Spec("f", "FP32", (-1, 2)),
        "d": Spec("d", "FP64", (2,)),
        "i": Spec("i", "INT8", (-1, -1)),
        "u": Spec("u", "UINT64", ()),
        "b": Spec("b", "BOOL", (-1,)),
    },
    {"y": Spec("y", "FP32", (-1,)), "z": Spec("z", "INT64", (-1,))},
)

NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
    st.sampled_from([1e39, -1e39, 3.4028235e38, 3.4028236e38, 1e-46, 16777217, 2**53 + 1, 10**30, -0.0, 0]),
)
DATA = st.one_of(st.lists(NUMBERS, max_size=4), st.lists(st.lists(NUMBERS, max_size=2), max_size=2), NUMBERS)
SHAPES = st.lists(st.integers(-1, 3), max_size=3)


def _honest(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Inputs that are what the model takes."""
    spec = SIGNATURE.inputs[name]
    elements: dict[str, st.SearchStrategy[Any]] = {
        "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**30), 2**30),
        "FP64": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
        "INT8": st.integers(-128, 127),
        "UINT64": st.integers(0, 2**64 - 1),
        "BOOL": st.booleans(),
    }

    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        shape = [draw(st.integers(0, 3)) if size == -1 else size for size in spec.shape]
        count = math.prod(shape)
        flat = draw(st.lists(elements[spec.datatype], min_size=count, max_size=count))
        return {"name": name, "datatype": spec.datatype, "shape": shape, "data": flat}

    return made()


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests that are right, or wrong in one or two places."""
    inputs = [draw(_honest(name)) for name in SIGNATURE.inputs]
    asked: dict[str, Any] = {"inputs": draw(st.permutations(inputs))}
    if draw(st.booleans()):
        asked["id"] = draw(st.text(max_size=3))
    if draw(st.booleans()):
        asked["outputs"] = [{"name": name} for name in draw(st.permutations(["y", "z"]))][: draw(st.integers(0, 2))]
    if draw(st.booleans()):
        asked["parameters"] = {"binary_data_output": draw(st.booleans()), "x": draw(NUMBERS)}
    for _ in range(draw(st.integers(0, 2))):
        one = draw(st.sampled_from(inputs))
        match draw(st.sampled_from(["data", "shape", "datatype", "name", "parameters", "drop", "top"])):
            case "data":
                one["data"] = draw(DATA)
            case "shape":
                one["shape"] = draw(SHAPES)
            case "datatype":
                one["datatype"] = draw(st.sampled_from([*DATATYPES, "FP8", 3]))
            case "name":
                one["name"] = draw(st.sampled_from(["f", "q", "", 3]))
            case "parameters":
                one["parameters"] = draw(
                    st.sampled_from([{}, {"binary_data_size": 0}, {"binary_data_size": 8}, [], {"a": 1}])
                )
            case "drop":
                one.pop("data", None)
            case "top":
                key = draw(st.sampled_from(["id", "outputs", "parameters", "inputs", "more"]))
                asked[key] = draw(
                    st.sampled_from([None, 3, "x", [], {}, [{"name": "y", "parameters": {"binary_data": True}}]])
                )
    return asked


def _same(left: Asked, right: Asked) -> None:
    assert (left.id, left.outputs, left.binary) == (right.id, right.outputs, right.binary)
    assert set(left.feeds) == set(right.feeds)
    for name, array in left.feeds.items():
        other = right.feeds[name]
        assert (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


@given(requests(), st.binary(max_size=9))
@example({"inputs": [{"name": "f", "datatype": "FP32", "shape": [1, 2], "data": [16777217, 1]}]}, b"")
def test_both_ways_read_the_same(asked: dict[str, Any], raw: bytes) -> None:
    text = json.dumps(asked).encode()
    try:
        slow = _slow(text, memoryview(raw), SIGNATURE)
    except TensorError:
        try:
            fast = _fast(memoryview(text), memoryview(raw), SIGNATURE)
        except TensorError:
            return  # it may say so too, where it is the same check
        assert fast is None
        return
    fast = _fast(memoryview(text), memoryview(raw), SIGNATURE)
    if fast is not None:
        _same(fast, slow)


@given(st.data())
def test_what_clients_send_is_read_the_fast_way(data: st.DataObject) -> None:
    inputs = [data.draw(_honest(name)) for name in SIGNATURE.inputs]
    assert _fast(memoryview(json.dumps({"inputs": inputs}).encode()), memoryview(b""), SIGNATURE) is not None


@given(st.binary(max_size=300), st.none() | st.integers(0, 300).map(str) | st.text(max_size=3))
def test_whatever_comes_is_read_or_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(TensorError):
        read_question(body, length, SIGNATURE)


@given(st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(0, 3), max_size=3), st.data())
def test_raw_bytes_come_back_as_they_were(datatype: str, shape: list[int], data: st.DataObject) -> None:
    count = math.prod(shape)
    if datatype == "BYTES":
        texts = data.draw(st.lists(st.text(max_size=5), min_size=count, max_size=count))
        raw = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in texts)
    else:
        width = count * np.dtype(DATATYPES[datatype]).itemsize
        raw = data.draw(st.binary(min_size=width, max_size=width))
        if datatype == "BOOL":
            raw = bytes(byte & 1 for byte in raw)
    odd = memoryview(b"x" + raw)[1:]  # where native code must not read numbers from
    array = from_raw("x", datatype, shape, odd)
    assert array.shape == tuple(shape)
    assert array.flags.aligned
    assert bytes(to_raw(datatype, array)) == raw


def test_what_has_no_answer_in_json_is_refused() -> None:
    asked = Asked(None, {}, ("y",), frozenset())
    with pytest.raises(TensorError, match=r"^y holds NaN or infinity, which JSON has no form for$"):
        write_answer("m", "1", asked, SIGNATURE, [np.array([np.nan], np.float32)])
    pieces, length = write_answer(
        "m",
        "1",
        Asked("7", {}, ("z", "y"), frozenset({"z"})),
        SIGNATURE,
        [np.array([1, 2]), np.array([0.5], np.float32)],
    )
    text = bytes(pieces[0])
    assert length == len(text)
    assert json.loads(text) == {
        "id": "7",
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "z", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
            {"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]},
        ],
    }
    assert b"".join(bytes(piece) for piece in pieces[1:]) == np.array([1, 2], "<i8").tobytes()


@pytest.mark.parametrize("parameters", [{"sequence_id": 1}, {"sequence_id": "a", "sequence_start": True}])
def test_sequences_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(TensorError, match=r"^sequences of requests are not offered$"):
        read_question(json.dumps({"inputs": [], "parameters": parameters}).encode(), None, SIGNATURE)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_refused(where: str) -> None:
    signature = Signature({"f": Spec("f", "FP32", (1,))}, {"y": Spec("y", "FP32", (1,))})
    asked: dict[str, list[dict[str, Any]]] = {
        "inputs": [{"name": "f", "datatype": "FP32", "shape": [1], "data": [1]}],
        "outputs": [{"name": "y"}],
    }
    assert read_question(json.dumps(asked).encode(), None, signature).outputs == ("y",)
    asked[where][0]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    with pytest.raises(TensorError, match=r"^[fy] is meant to go through shared memory, which is not offered$"):
        read_question(json.dumps(asked).encode(), None, signature)
