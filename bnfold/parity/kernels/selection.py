"""Choosing boxes: those that no better one covers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required

__all__ = ["SELECTION"]


def _suppression(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    boxes, scores = required(inputs, 0), required(inputs, 1)
    most, overlap, least = (_number(inputs, position) for position in (2, 3, 4))
    low, high = _corners(boxes, centred=call.integer("center_point_box") == 1)
    rows = [
        [batch, kind, place]
        for batch in range(scores.shape[0])
        for kind in range(scores.shape[1])
        for place in _left(
            low[batch], high[batch], scores[batch, kind], most=int(most or 0), overlap=overlap or 0.0, least=least
        )
    ]
    return (np.asarray(rows, dtype=np.int64).reshape(-1, 3),)


def _number(inputs: Inputs, position: int) -> float | None:
    value = given(inputs, position)
    return None if value is None or not value.size else float(value.reshape(-1)[0])


def _corners(boxes: Array, *, centred: bool) -> tuple[Array, Array]:
    """Return the smaller and the larger corner of every box, each of shape (batch, boxes, 2)."""
    one, other = boxes[..., :2], boxes[..., 2:]
    if centred:
        one, other = one - other / 2, one + other / 2
    return np.minimum(one, other), np.maximum(one, other)


def _left(low: Array, high: Array, scores: Array, *, most: int, overlap: float, least: float | None) -> list[int]:
    """Return the places of the boxes of one class that are left, the best first; of equals the one in front."""
    places = np.argsort(-scores, kind="stable")
    if least is not None:
        places = places[scores[places] > least]
    low, high = low[places], high[places]
    areas = np.prod(high - low, axis=1)
    alive = np.ones(len(places), dtype=bool)
    chosen: list[int] = []
    for rank in range(len(places)):
        if len(chosen) >= most:
            break
        if not alive[rank]:
            continue
        chosen.append(int(places[rank]))
        sides = np.minimum(high[rank], high[rank + 1 :]) - np.maximum(low[rank], low[rank + 1 :])
        shared = np.prod(np.maximum(sides, 0.0), axis=1)
        both = areas[rank] + areas[rank + 1 :] - shared
        solid = (areas[rank] > 0) & (areas[rank + 1 :] > 0) & (both > 0)
        alive[rank + 1 :] &= ~(solid & (shared > overlap * both))
    return chosen


SELECTION: Mapping[str, Kernel] = {"NonMaxSuppression": _suppression}
"""Operations that choose, by name."""
