"""The algebra on plain arrays, against direct computation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnfold.affine import Field, PerChannelAffine, Unstorable, round_to

FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)


def vector(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, size, elements=FINITE)


@given(st.integers(1, 5).flatmap(lambda c: st.tuples(*[vector(c)] * 4, vector(c))))
def test_one_affine_after_another_is_both_in_turn(arrays: tuple[np.ndarray, ...]) -> None:
    s1, o1, s2, o2, x = arrays
    both = PerChannelAffine(s2, o2).after(PerChannelAffine(s1, o1))
    np.testing.assert_allclose(both.scale * x + both.shift, s2 * (s1 * x + o1) + o2, rtol=1e-9, atol=1e-3)


def test_a_batch_norm_is_the_affine_of_its_statistics() -> None:
    gamma, beta, mean, var = np.asarray([[2.0, -1.0], [0.5, 0.0], [1.0, 3.0], [4.0, 0.25]])
    affine = PerChannelAffine.of_batch_norm(gamma, beta, mean, var, 0.0)
    np.testing.assert_array_equal(affine.scale, [1.0, -2.0])
    np.testing.assert_array_equal(affine.shift, [-0.5, 6.0])


@pytest.mark.parametrize("var", [[1.0, -1.0], [1.0, -1e-3]])
def test_a_batch_norm_with_a_variance_that_cannot_be_is_refused(var: list[float]) -> None:
    one = np.ones(2)
    with pytest.raises(ValueError, match=r"^running_var \+ epsilon must be positive in every channel$"):
        PerChannelAffine.of_batch_norm(one, one, one, np.asarray(var), 1e-3)


def test_vectors_of_two_lengths_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^scale and shift must be vectors of one length, not \(2,\), \(3,\)$"):
        PerChannelAffine(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=r"^scale and shift must be finite$"):
        PerChannelAffine(np.ones(2), np.asarray([1.0, np.inf]))


def test_a_field_is_per_channel_only_where_it_varies_along_no_other_axis() -> None:
    affine = PerChannelAffine(np.asarray([1.0, 2.0, 3.0]), np.zeros(3))
    field = Field.along_axis(affine, 1, 4)
    found = field.along(1, 3)
    assert found is not None
    np.testing.assert_array_equal(found.scale, affine.scale)
    assert field.along(2, 3) is None
    assert field.along(1, 4) is None


def test_a_constant_field_is_the_same_affine_for_every_channel() -> None:
    found = Field.of(np.full((1, 1, 1), 2.0), np.full((1, 1, 1), 3.0)).along(-1, 4)
    assert found is not None
    np.testing.assert_array_equal(found.scale, [2.0] * 4)
    np.testing.assert_array_equal(found.shift, [3.0] * 4)


@given(st.data())
def test_a_field_moves_with_the_elements(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    wide = tuple(size if data.draw(st.booleans()) else 1 for size in shape)
    scale, shift = (data.draw(hnp.arrays(np.float64, wide, elements=FINITE)) for _ in range(2))
    field = Field.of(scale, shift)
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    y = scale * x + shift
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    moved = field.transposed(perm)
    np.testing.assert_array_equal(moved.scale * x.transpose(perm) + moved.shift, y.transpose(perm))
    flat = field.reshaped(shape, (-1,))
    np.testing.assert_array_equal(flat.scale * x.reshape(-1) + flat.shift, y.reshape(-1))


def test_rounding_is_to_nearest_and_once() -> None:
    array = np.asarray([[1.0 + 2.0**-25, 3.0], [0.1, -0.2]])
    np.testing.assert_array_equal(round_to(array, np.float32), array.astype(np.float32))
    np.testing.assert_array_equal(round_to(array, ml_dtypes.bfloat16), array.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("array", "dtype", "detail"),
    [
        ([1.0, 7e4], np.float16, "a folded value of magnitude 7e+04 overflows float16"),
        ([1.0, -1e39], np.float32, "a folded value of magnitude 1e+39 overflows float32"),
        ([1.0, np.inf], np.float64, "a folded value is not finite in float64"),
        ([1.0, np.nan], np.float32, "a folded value of magnitude nan overflows float32"),
        ([1.0, 1e-9], np.float16, "folded values of channel 1 fall below what float16 can hold"),
    ],
)
def test_what_a_type_cannot_hold_is_named(array: list[float], dtype: type, detail: str) -> None:
    assert round_to(np.asarray(array), dtype) == Unstorable(detail)


def test_a_tiny_weight_beside_large_ones_of_its_channel_may_vanish() -> None:
    array = np.asarray([[1.0, 1e-9]])
    np.testing.assert_array_equal(round_to(array, np.float16), np.asarray([[1.0, 0.0]], np.float16))
