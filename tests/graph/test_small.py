"""Small constants that are read together are what each of them is alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnfold.graph.small import SmallConstants
from tests.graph.test_extent import NUMBERS, look

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


def read(tensors: Sequence[TensorProto]) -> SmallConstants:
    return SmallConstants((tensor.name, tensor) for tensor in tensors)


@given(st.lists(NUMBERS, max_size=8))
def test_small_tensors_read_together_are_what_each_is_alone(every: list[npt.NDArray[np.float32]]) -> None:
    small = read([numpy_helper.from_array(array, str(number)) for number, array in enumerate(every)])
    assert set(small.places) == {str(number) for number, array in enumerate(every) if array.size}
    for number, array in enumerate(every):
        if array.size:
            place = small.places[str(number)]
            np.testing.assert_array_equal(small.array(place), array.astype(np.float64))
            known = small.extent(place)
            assert known.finite == bool(np.isfinite(array).all())
            if known.finite:
                assert tuple(known) == look(array)
            assert small.lengths[place] == (array.size if array.ndim == 1 else -1)


def test_many_are_read_piece_by_piece() -> None:
    rng = np.random.default_rng(1)
    every = [rng.normal(size=rng.integers(1, 2049)).astype(np.float32) for _ in range(3000)]
    assert sum(array.size for array in every) > 2 << 20
    small = read([numpy_helper.from_array(array, str(number)) for number, array in enumerate(every)])
    for number, array in enumerate(every):
        place = small.places[str(number)]
        np.testing.assert_array_equal(small.array(place), array)
        assert tuple(small.extent(place)) == (np.abs(array).max(), np.abs(array).min())


def test_vectors_of_one_length_come_in_the_order_in_which_they_are_asked_for() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    small = read([numpy_helper.from_array(row, f"{number}") for number, row in enumerate(rows)])
    asked = [[4, 0], [7, 7], [1, 2]]
    places = [[small.places[str(number)] for number in pair] for pair in asked]
    np.testing.assert_array_equal(small.vectors(places, 3), rows[np.array(asked)])


def test_what_has_too_few_bytes_is_left_out_and_the_others_are_read() -> None:
    whole = numpy_helper.from_array(np.array([1.5, -2.0], dtype=np.float32), "whole")
    short = TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 12)
    small = read([short, whole, short, whole])
    assert set(small.places) == {"whole"}
    np.testing.assert_array_equal(small.array(small.places["whole"]), [1.5, -2.0])
    assert small.extent(small.places["whole"]) == (2.0, 1.5)


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(np.ones(3, dtype=np.int64), "integers"),
        numpy_helper.from_array(np.ones(3, dtype=np.float16), "halves"),
        numpy_helper.from_array(np.ones(5000, dtype=np.float32), "a large one"),
        helper.make_tensor("typed field", TensorProto.FLOAT, [2], [1.0, 2.0]),
        TensorProto(name="too short", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 12),
        TensorProto(name="too long", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 20),
        TensorProto(name="no length", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40], raw_data=b"\0" * 12),
        TensorProto(name="less than nothing", data_type=TensorProto.FLOAT, dims=[-1, -3], raw_data=b"\0" * 12),
        TensorProto(name="empty", data_type=TensorProto.FLOAT, dims=[0], raw_data=b""),
    ],
    ids=lambda tensor: tensor.name,
)
def test_what_is_no_small_float32_is_left_out(tensor: TensorProto) -> None:
    assert read([tensor]).places == {}
