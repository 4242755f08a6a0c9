"""Extents against numpy's own look at every number."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import parser

from bnfold.graph.extent import extent
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
