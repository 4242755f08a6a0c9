"""A reshape, group of axes by group of axes, against numpy's own."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bnfold.graph.channels import AxisGroup, regroup

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = draw(SIZES)
    after: list[int] = []
    left = math.prod(before)
    while left > 1 and len(after) < 30:
        size = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        after.append(size)
        left //= size
    return tuple(before), (*after, left)


@given(reshapes())
def test_the_elements_of_a_group_move_among_themselves(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    before, after = case
    groups = regroup(before, after)
    assert sum((group.before for group in groups), ()) == before
    assert sum((group.after for group in groups), ()) == after
    # Number each group's elements by themselves: the reshaped grid must show the same numbers.
    for group in groups:
        of_before = before[group.first_before : group.first_before + len(group.before)]
        of_after = after[group.first_after : group.first_after + len(group.after)]
        assert (group.before, group.after) == (of_before, of_after)
        inside = np.arange(math.prod(of_before))
        assert inside.size == math.prod(of_after)
        behind = len(before) - group.first_before - len(of_before)
        grid = np.broadcast_to(inside.reshape((1,) * group.first_before + of_before + (1,) * behind), before)
        behind = len(after) - group.first_after - len(of_after)
        wanted = inside.reshape((1,) * group.first_after + of_after + (1,) * behind)
        np.testing.assert_array_equal(grid.reshape(after), np.broadcast_to(wanted, after))


def test_a_free_batch_is_a_group_of_its_own() -> None:
    assert regroup(("N", 8, 4, 4), ("N", 128)) == (AxisGroup(("N",), ("N",), 0, 0), AxisGroup((8, 4, 4), (128,), 1, 1))


def test_what_an_unknown_dimension_hides_is_one_group() -> None:
    assert regroup((None, 5, 8), (None, 8)) == (AxisGroup((None, 5), (None,), 0, 0), AxisGroup((8,), (8,), 2, 1))
    assert regroup(("N", 8, "H", "W"), ("N", None)) == (
        AxisGroup(("N",), ("N",), 0, 0),
        AxisGroup((8, "H", "W"), (None,), 1, 1),
    )


def test_two_symbols_are_the_same_only_by_name() -> None:
    (group,) = regroup(("A",), ("B",))
    assert (group.before, group.after) == (("A",), ("B",))
    assert len(regroup(("A", 3), ("A", 3))) == 2
