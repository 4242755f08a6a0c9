"""Extents against numpy's own look at every number."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper, parser

from bnfold.graph.extent import extent, read_small
from bnfold.graph.view import views

SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-40, -1e-45, 3e38, math.inf, -math.inf, math.nan])
NUMBERS = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, min_side=0), elements=SPECIAL | st.floats(width=32))


def look(array: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest magnitude and the smallest that is not zero, one number at a time."""
    magnitudes = [abs(float(number)) for number in array.reshape(-1)]
    return max(magnitudes, default=0.0), min((size for size in magnitudes if size), default=math.inf)


@given(NUMBERS)
def test_an_extent_is_that_of_all_numbers(array: npt.NDArray[np.float32]) -> None:
    found = extent(array)
    finite = bool(np.isfinite(array).all())
    assert found.finite == finite
    if finite:
        assert tuple(found) == look(array)


def test_the_last_piece_of_a_large_tensor_counts() -> None:
    array = np.ones(1_000_003, dtype=np.float32)
    array[-1], array[-2] = -7.0, 1e-3
    assert tuple(extent(array)) == (7.0, float(np.float32(1e-3)))
    array[-1] = np.nan
    assert not extent(array).finite


@given(st.lists(NUMBERS, max_size=8))
def test_small_tensors_read_together_are_what_each_is_alone(every: list[npt.NDArray[np.float32]]) -> None:
    tensors = [numpy_helper.from_array(array, str(number)) for number, array in enumerate(every)]
    found = {name: (array, known) for name, array, known in read_small(tensors)}
    assert set(found) == {str(number) for number, array in enumerate(every) if array.size}
    for number, array in enumerate(every):
        if array.size:
            read, known = found[str(number)]
            np.testing.assert_array_equal(read, array.astype(np.float64))
            assert known.finite == bool(np.isfinite(array).all())
            if known.finite:
                assert tuple(known) == look(array)


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(np.ones(3, dtype=np.int64), "integers"),
        numpy_helper.from_array(np.ones(3, dtype=np.float16), "halves"),
        numpy_helper.from_array(np.ones(5000, dtype=np.float32), "a large one"),
        helper.make_tensor("typed field", TensorProto.FLOAT, [2], [1.0, 2.0]),
        TensorProto(name="too short", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 12),
        TensorProto(name="no length", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40], raw_data=b"\0" * 12),
    ],
    ids=lambda tensor: tensor.name,
)
def test_what_is_no_small_float32_is_left_out(tensor: TensorProto) -> None:
    assert list(read_small([tensor])) == []


def test_a_value_that_a_caller_may_override_has_no_extent() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, float[2] given) => (float[2] y)
           <float[2] given = {1.0, 2.0}, float[2] own = {3.0, -4.0}, int64[1] whole = {1}>
           { a = Add(x, given)  b = Add(own, own)  c = Mul(a, b)  y = Add(c, own) }"""
    )
    (view,) = views(model)
    for _time in range(2):
        assert view.extent("given") is None
        assert view.extent("whole") is None
        assert view.extent("x") is None
        assert view.extent("own") == (4.0, 3.0)
        assert view.extent("b") == (8.0, 6.0)
        view.read_ahead()
