"""Which axes of a reshaped value come from which axes of the value before it."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.graph.shapes import Dimension, Shape

__all__ = ["AxisGroup", "known_sizes", "regroup"]


@dataclass(frozen=True, slots=True)
class AxisGroup:
    """Neighbouring axes before a reshape that hold the same elements, in the same order, as neighbouring axes after it.

    Attributes:
        before: Sizes of its axes before, from ``first_before`` on.
        after: Sizes of its axes after, from ``first_after`` on.
    """

    before: Shape
    after: Shape
    first_before: int
    first_after: int


def known_sizes(shape: Shape) -> tuple[int, ...] | None:
    """Return a shape as numbers; None where one is not known."""
    sizes = tuple(size for size in shape if isinstance(size, int))
    return sizes if len(sizes) == len(shape) else None


def regroup(before: Shape, after: Shape) -> tuple[AxisGroup, ...]:
    """Split a row-major reshape into the smallest groups of axes that are provably reshaped among themselves.

    Groups are found from the left and from the right; whatever lies between, where an unknown dimension hides how the
    elements move, is one group. Two dimensions are equal if they are the same number or the same symbol.
    """
    left, start = _scan(before, after)
    right, end = _scan(before[start[0] :][::-1], after[start[1] :][::-1])
    groups = [(tuple(pair[0]), tuple(pair[1])) for pair in left]
    middle = (before[start[0] : len(before) - end[0]], after[start[1] : len(after) - end[1]])
    if middle[0] or middle[1]:
        groups.append(middle)
    groups.extend((tuple(pair[0][::-1]), tuple(pair[1][::-1])) for pair in reversed(right))
    result, at_before, at_after = [], 0, 0
    for one, other in groups:
        result.append(AxisGroup(one, other, at_before, at_after))
        at_before, at_after = at_before + len(one), at_after + len(other)
    return tuple(result)


def _scan(before: Shape, after: Shape) -> tuple[list[tuple[list[Dimension], list[Dimension]]], tuple[int, int]]:
    """Close one group after the other while the products are known and agree; return them and how far that went."""
    groups: list[tuple[list[Dimension], list[Dimension]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        first, other = before[i], after[j]
        if isinstance(first, str) or isinstance(other, str):
            if first != other:
                break
            groups.append(([first], [other]))
            i, j = i + 1, j + 1
            continue
        closed = _close(before[i:], after[j:])
        if closed is None:
            break
        groups.append((list(before[i : i + closed[0]]), list(after[j : j + closed[1]])))
        i, j = i + closed[0], j + closed[1]
    return groups, (i, j)


def _close(before: Shape, after: Shape) -> tuple[int, int] | None:
    """Return how many leading axes of each side have the same product, as few as possible."""
    i = j = 0
    product, other = 1, 1
    while True:
        if i and j and product == other:
            return i, j
        if product <= other and i < len(before) and (i == 0 or product < other):
            size = before[i]
            if not isinstance(size, int) or size <= 0:
                return None
            product, i = product * size, i + 1
        elif j < len(after):
            size = after[j]
            if not isinstance(size, int) or size <= 0:
                return None
            other, j = other * size, j + 1
        else:
            return None
