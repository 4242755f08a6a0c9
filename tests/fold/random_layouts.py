"""Steps of a random net that move elements about: split, pick, repeat, turn, reshape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.fold.random_graphs import Shape
from tests.fold.random_steps import Net, Value, batch_norm, function

__all__ = ["layout"]


def _axis(b: Net, x: Value) -> int:
    axis = b.draw(st.integers(0, len(x.shape) - 1)) if b.chance(40) else 1
    b.fixed |= axis != 1
    return axis


def _with_size(x: Value, axis: int, size: int) -> Shape:
    return (*x.shape[:axis], size, *x.shape[axis + 1 :])


def _split(b: Net, x: Value) -> list[Value]:
    axis = _axis(b, x)
    size = x.shape[axis]
    if size < 2:
        return []
    first = b.draw(st.integers(1, size - 1))
    outputs = [b.name(), b.name()]
    b.nodes.append(helper.make_node("Split", [x.name, b.ints(first, size - first)], outputs, axis=axis))
    parts = (first, size - first)
    return [Value(name, _with_size(x, axis, part)) for name, part in zip(outputs, parts, strict=True)]


def _slice(b: Net, x: Value) -> list[Value]:
    axis = _axis(b, x)
    size = x.shape[axis]
    if size < 2:
        return []
    step = b.pick(1, 1, 2, -1)
    start, end = (size - 1, -size - 1) if step < 0 else (b.draw(st.integers(0, size - 2)), size)
    inputs = [x.name, *(b.ints(number) for number in (start, end, axis, step))]
    left = len(range(size)[start : None if step < 0 else end : step])
    return [b.add("Slice", inputs, _with_size(x, axis, left))]


def _gather(b: Net, x: Value) -> list[Value]:
    axis = _axis(b, x)
    size = x.shape[axis]
    drawn = b.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=4)) if b.chance(40) else None
    chosen = b.rng.permutation(size).tolist() if drawn is None else drawn
    return [b.add("Gather", [x.name, b.ints(*chosen)], _with_size(x, axis, len(chosen)), axis=axis)]


def _tile(b: Net, x: Value) -> list[Value]:
    axis = _axis(b, x)
    if x.shape[axis] > 4:
        return []
    repeats = [2 if other == axis else 1 for other in range(len(x.shape))]
    return [b.add("Tile", [x.name, b.ints(*repeats)], _with_size(x, axis, 2 * x.shape[axis]))]


def _transpose(b: Net, x: Value) -> list[Value]:
    rank = len(x.shape)
    if rank < 3:
        return []
    perm = [0, 1, *b.draw(st.permutations(range(2, rank)))] if b.chance(70) else b.draw(st.permutations(range(rank)))
    return [b.add("Transpose", [x.name], tuple(x.shape[axis] for axis in perm), perm=list(perm))]


def _blocks(b: Net, x: Value) -> list[Value]:
    if len(x.shape) != 4:
        return []
    n, c, h, w = x.shape
    if c % 4 == 0 and b.chance(60):
        mode = b.pick("DCR", "CRD")
        return [b.add("DepthToSpace", [x.name], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)]
    if h % 2 or w % 2:
        return []
    return [b.add("SpaceToDepth", [x.name], (n, 4 * c, h // 2, w // 2), blocksize=2)]


def _shuffle(b: Net, x: Value) -> list[Value]:
    if len(x.shape) != 4 or x.shape[1] % 2:
        return []
    n, c, h, w = x.shape
    b.fixed = True
    wide = b.add("Reshape", [x.name, b.ints(n, 2, c // 2, h, w)], x.shape)
    turned = b.add("Transpose", [wide.name], x.shape, perm=[0, 2, 1, 3, 4])
    return [b.add("Reshape", [turned.name, b.ints(n, c, h, w)], x.shape)]


def _back(b: Net, x: Value) -> list[Value]:
    """Go to another shape, and back to the one that the net asks for."""
    if len(x.shape) < 3:
        return []
    asked = b.node("Shape", [x.name])
    flat = b.add("Reshape", [x.name, b.ints(0, x.shape[1], -1)], (*x.shape[:2], int(np.prod(x.shape[2:]))))
    made = batch_norm(b, flat) if b.chance(70) else function(b, flat)
    return [b.add("Reshape", [made[-1].name, asked], x.shape)]


def _flatten(b: Net, x: Value) -> list[Value]:
    return [b.add("Flatten", [x.name], (x.shape[0], int(np.prod(x.shape[1:]))))] if len(x.shape) > 2 else []


def _axes_of_one(b: Net, x: Value) -> list[Value]:
    if len(x.shape) == 2:
        return [b.add("Unsqueeze", [x.name, b.ints(2, 3)], (*x.shape, 1, 1))]
    if x.shape[-1] == 1:
        return [b.add("Squeeze", [x.name, b.ints(-1)], x.shape[:-1])]
    return []


def _expand(b: Net, x: Value) -> list[Value]:
    b.fixed = True
    times = [2 if size == 1 and axis > 1 and b.chance(70) else 1 for axis, size in enumerate(x.shape)]
    target = b.ints(*(2 if k > 1 else 1 for k in times))
    return [b.add("Expand", [x.name, target], tuple(n * k for n, k in zip(x.shape, times, strict=True)))]


def _running_sum(b: Net, x: Value) -> list[Value]:
    axis = b.constant(np.asarray(_axis(b, x), np.int64))
    return [b.add("CumSum", [x.name, axis], x.shape, reverse=b.pick(0, 1), exclusive=b.pick(0, 1))]


def _reversed(b: Net, x: Value) -> list[Value]:
    b.fixed = True
    lengths = b.ints(*(b.draw(st.integers(1, x.shape[1])) for _image in range(x.shape[0])))
    return [b.add("ReverseSequence", [x.name, lengths], x.shape, batch_axis=0, time_axis=1)]


def _same(b: Net, x: Value) -> list[Value]:
    if b.chance(50):
        return [b.add("Cast", [x.name], x.shape, to=TensorProto.DOUBLE)]
    return [b.add("Dropout", [x.name], x.shape)]


_KINDS: Mapping[str, Callable[[Net, Value], list[Value]]] = {
    "split": _split,
    "slice": _slice,
    "gather": _gather,
    "tile": _tile,
    "transpose": _transpose,
    "blocks": _blocks,
    "shuffle": _shuffle,
    "back": _back,
    "flatten": _flatten,
    "axes of one": _axes_of_one,
    "expand": _expand,
    "running sum": _running_sum,
    "reversed": _reversed,
    "same": _same,
}


def layout(b: Net, x: Value) -> list[Value]:
    """Move the elements of a value about."""
    return _KINDS[b.pick(*_KINDS)](b, x) or _same(b, x)
