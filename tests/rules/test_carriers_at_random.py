"""Every carrier on random nodes, both ways: what it lets pass computes the same, and it lets enough pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from bnfold.affine import Field
from bnfold.rules import RULES, Refusal
from tests.rules.single_nodes import Single, backward, computed, field_for, forward

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator], Single]

ROUNDS = max(80, settings().max_examples // 5)
"""So many nodes of each operation are drawn: many more at night."""

KINDS = ("scale", "positive", "zero", "shift", "shift")


def _shape(rng: np.random.Generator, low: int = 1, high: int = 4, most: int = 4) -> tuple[int, ...]:
    return tuple(int(size) for size in rng.integers(1, most + 1, int(rng.integers(low, high + 1))))


def _hidden(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int | str | None, ...] | None:
    """Forget some of a shape: dimensions become symbols or unknown, or even the rank is unknown."""
    if rng.random() < 0.05:
        return None
    if rng.random() < 0.5:
        return shape
    # One symbol is one size, in all inputs of the node.
    names = [f"n{size}" if rng.random() < 0.5 else None for size in shape]
    return tuple(name if rng.random() < 0.4 else size for size, name in zip(shape, names, strict=True))


def _ints(*values: Any) -> Array:
    return np.asarray(values, dtype=np.int64).reshape(-1)


def _of_one(op_type: str, *, spatial: int | None = None, positive: bool = False, **attributes: Any) -> Draw:
    def draw(rng: np.random.Generator) -> Single:
        shape = _shape(rng, 1, 5)
        if spatial is not None:
            shape = (
                *_shape(rng, 2, 2),
                *(int(size) for size in rng.integers(3, 7, spatial or int(rng.integers(1, 3)))),
            )
        x = rng.normal(size=shape)
        drawn = {name: value(rng) if callable(value) else value for name, value in attributes.items()}
        return Single(op_type, (np.abs(x) if positive else x,), attributes=drawn, declared={0: _hidden(rng, shape)})

    return draw


def _cast(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    return Single("Cast", (x,), attributes={"to": 11}, declared={0: _hidden(rng, x.shape)})


def _transpose(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    perm = {"perm": [int(axis) for axis in rng.permutation(x.ndim)]} if rng.random() < 0.8 else {}
    return Single("Transpose", (x,), attributes=perm, declared={0: _hidden(rng, x.shape)})


def _factors(rng: np.random.Generator, size: int) -> list[int]:
    found = []
    while size > 1 and rng.random() < 0.7:
        factor = int(rng.choice([d for d in range(1, size + 1) if size % d == 0]))
        found.append(factor)
        size //= factor
    return [*found, size]


def _reshape(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    if rng.random() < 0.5:  # axis by axis, so that something passes
        target = [size for axis in x.shape for size in _factors(rng, axis)]
        if len(target) > 1 and rng.random() < 0.4:
            at = int(rng.integers(len(target) - 1))
            target[at : at + 2] = [target[at] * target[at + 1]]
    else:
        target = _factors(rng, x.size)
    for axis in range(min(len(target), x.ndim)):
        if target[axis] == x.shape[axis] and rng.random() < 0.4:
            target[axis] = 0
    if rng.random() < 0.4:
        target[int(rng.integers(len(target)))] = -1
    return Single("Reshape", (x, _ints(target)), frozenset({1}), declared={0: _hidden(rng, x.shape)})


def _flatten(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    axis = int(rng.integers(-x.ndim, x.ndim + 1))
    return Single("Flatten", (x,), attributes={"axis": axis}, declared={0: _hidden(rng, x.shape)})


def _squeeze(rng: np.random.Generator) -> Single:
    shape = list(_shape(rng, 2, 4))
    shape[int(rng.integers(len(shape)))] = 1
    x = rng.normal(size=shape)
    ones = [axis if rng.random() < 0.5 else axis - x.ndim for axis, size in enumerate(shape) if size == 1]
    axes = None if rng.random() < 0.3 else _ints(ones)
    inputs = (x,) if axes is None else (x, axes)
    return Single(
        "Squeeze", inputs, frozenset({1}) if axes is not None else frozenset(), declared={0: _hidden(rng, x.shape)}
    )


def _unsqueeze(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 3))
    axes = _ints(sorted(rng.choice(x.ndim + 2, 2, replace=False)))
    return Single("Unsqueeze", (x, axes), frozenset({1}), declared={0: _hidden(rng, x.shape)})


def _split(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 4, 6))
    axis = int(rng.integers(-x.ndim, x.ndim))
    size = x.shape[axis]
    count = int(rng.integers(1, min(size, 3) + 1))
    known = {0: _hidden(rng, x.shape)}
    if rng.random() < 0.5:
        cuts = np.sort(rng.choice(np.arange(1, size), count - 1, replace=False)) if count > 1 else np.asarray([], int)
        parts = np.diff([0, *cuts, size])
        return Single("Split", (x, _ints(parts)), frozenset({1}), {"axis": axis}, outputs=count, declared=known)
    if -(-size // count) * (count - 1) >= size:
        count = 1
    return Single("Split", (x,), attributes={"axis": axis, "num_outputs": count}, outputs=count, declared=known)


def _slice(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 4, 5))
    axes = rng.choice(x.ndim, int(rng.integers(1, x.ndim + 1)), replace=False)
    starts: list[int] = []
    ends: list[int] = []
    steps: list[int] = []
    for axis in axes:
        size = x.shape[axis]
        step = int(rng.choice([-2, -1, 1, 1, 2, 3]))
        start = int(rng.integers(-size, size))
        end = (
            int(rng.choice([-(1 << 40), -1, size, 1 << 40]))
            if rng.random() < 0.6
            else int(rng.integers(-size - 1, size + 2))
        )
        starts, ends, steps = [*starts, start], [*ends, end], [*steps, step]
    inputs = (x, _ints(starts), _ints(ends), _ints(axes), _ints(steps))
    single = Single("Slice", inputs, frozenset({1, 2, 3, 4}), declared={0: _hidden(rng, x.shape)})
    return single if computed(single)[0].size else _slice(rng)


def _gather(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 3, 5))
    axis = int(rng.integers(-x.ndim, x.ndim))
    shape = _shape(rng, 0, 2, 3)
    size = x.shape[axis]
    index = rng.integers(-size, size, shape)
    if rng.random() < 0.5:
        index = rng.permutation(size)
    constants = frozenset({1}) if rng.random() < 0.8 else frozenset()
    return Single(
        "Gather", (x, np.asarray(index, np.int64)), constants, {"axis": axis}, declared={0: _hidden(rng, x.shape)}
    )


def _expand(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 3))
    target = [int(rng.integers(1, 4)) if size == 1 else size for size in x.shape]
    target = [*(int(size) for size in rng.integers(1, 3, int(rng.integers(0, 2)))), *target]
    return Single("Expand", (x, _ints(target)), frozenset({1}), declared={0: _hidden(rng, x.shape)})


def _tile(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 4, 3))
    return Single("Tile", (x, rng.integers(1, 3, x.ndim)), frozenset({1}), declared={0: _hidden(rng, x.shape)})


def _to_space(rng: np.random.Generator) -> Single:
    x = rng.normal(size=(2, int(rng.integers(1, 3)) * 4, *rng.integers(1, 4, 2)))
    mode = "CRD" if rng.random() < 0.5 else "DCR"
    return Single("DepthToSpace", (x,), attributes={"blocksize": 2, "mode": mode}, declared={0: _hidden(rng, x.shape)})


def _to_depth(rng: np.random.Generator) -> Single:
    x = rng.normal(size=(2, int(rng.integers(1, 4)), *rng.integers(1, 4, 2) * 2))
    declared = {0: _hidden(rng, x.shape)}
    if rng.random() < 0.4:
        return Single("SpaceToDepth", (x,), attributes={"blocksize": 2}, declared=declared)
    mode = "CRD" if rng.random() < 0.6 else "DCR"  # since opset 28
    return Single("SpaceToDepth", (x,), attributes={"blocksize": 2, "mode": mode}, opset=28, declared=declared)


def _concat(rng: np.random.Generator) -> Single:
    shape = _shape(rng)
    axis = int(rng.integers(-len(shape), len(shape)))
    arrays = []
    for _part in range(int(rng.integers(1, 4))):
        own = list(shape)
        own[axis] = int(rng.integers(1, 4))
        arrays.append(rng.normal(size=own))
    constants = frozenset(at for at in range(1, len(arrays)) if rng.random() < 0.3)
    declared = {at: _hidden(rng, array.shape) for at, array in enumerate(arrays)}
    return Single("Concat", tuple(arrays), constants, {"axis": axis}, declared=declared)


def _broadcast(rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
    whole = _shape(rng)
    shapes = [whole]
    for _more in range(count - 1):
        one = tuple(size if rng.random() < 0.7 else 1 for size in whole)
        shapes.append(one[int(rng.integers(0, len(one) + 1)) :] if rng.random() < 0.3 else one)
    return [shapes[at] for at in rng.permutation(count)]


def _of_many(op_type: str, counts: tuple[int, ...], first: int = 0) -> Draw:
    def draw(rng: np.random.Generator) -> Single:
        shapes = _broadcast(rng, int(rng.choice(counts)))
        arrays: list[Array] = [rng.normal(size=shape) for shape in shapes]
        if op_type == "Div":
            arrays[1] = np.abs(arrays[1]) + 0.2
        if first:
            arrays[0] = arrays[0] > 0
        places = [at for at in range(first, len(arrays)) if rng.random() < 0.35]
        constants = frozenset(places if len(places) < len(arrays) - first else places[1:])
        declared = {at: _hidden(rng, array.shape) for at, array in enumerate(arrays)}
        return Single(op_type, tuple(arrays), constants, declared=declared)

    return draw


def _clip(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    low = np.asarray(rng.choice([0.0, -0.3, 0.2])) if rng.random() < 0.6 else None
    high = np.asarray(rng.choice([0.0, 0.5, -0.4, 6.0])) if rng.random() < 0.6 else None
    inputs = (x, low, high) if high is not None else (x, low) if low is not None else (x,)
    return Single("Clip", inputs, frozenset({1, 2}), declared={0: _hidden(rng, x.shape)})


def _clip_by_attributes(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    bounds = {name: value for name, value in (("min", -0.25), ("max", 0.5)) if rng.random() < 0.6}
    return Single("Clip", (x,), attributes=bounds, opset=10, declared={0: _hidden(rng, x.shape)})


def _prelu(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 2, 4))
    slope = rng.normal(size=(x.shape[1], *[1] * (x.ndim - 2)))
    constants = frozenset({1}) if rng.random() < 0.5 else frozenset()
    return Single("PRelu", (x, slope), constants, declared={0: _hidden(rng, x.shape)})


def _pool(op_type: str) -> Draw:
    def draw(rng: np.random.Generator) -> Single:
        spatial = int(rng.integers(1, 3))
        x = rng.normal(size=(*_shape(rng, 2, 2), *rng.integers(4, 8, spatial)))
        kernel = [int(size) for size in rng.integers(1, 4, spatial)]
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(s) for s in rng.integers(1, 3, spatial)]}
        choice = rng.random()
        if choice < 0.3:
            attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "VALID"]))
        elif choice < 0.7:
            attributes["pads"] = [
                min(int(pad), kernel[at % spatial] - 1) for at, pad in enumerate(rng.integers(0, 3, 2 * spatial))
            ]
        if rng.random() < 0.3:
            attributes["ceil_mode"] = 1
        if rng.random() < 0.3:
            attributes["dilations"] = [int(step) for step in rng.integers(1, 3, spatial)]
        if op_type == "AveragePool" and rng.random() < 0.4:
            attributes["count_include_pad"] = 1
        return Single(op_type, (x,), attributes=attributes, declared={0: _hidden(rng, x.shape)})

    return draw


def _reduce(op_type: str) -> Draw:
    def draw(rng: np.random.Generator) -> Single:
        x = rng.normal(size=_shape(rng, 2, 4))
        attributes: dict[str, Any] = {"keepdims": int(rng.random() < 0.5)}
        known = {0: _hidden(rng, x.shape)}
        axes = rng.choice(x.ndim, int(rng.integers(1, x.ndim)), replace=False)
        axes = np.where(rng.random(axes.size) < 0.5, axes, axes - x.ndim)
        choice = rng.random()
        if choice < 0.2 and op_type != "ReduceSum":
            attributes["axes"] = [int(axis) for axis in axes]
            return Single(op_type, (x,), attributes=attributes, opset=13, declared=known)
        if choice < 0.3:
            return Single(op_type, (x,), attributes=attributes, declared=known)
        return Single(op_type, (x, _ints(axes)), frozenset({1}), attributes, declared=known)

    return draw


def _pad(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 1, 4, 4))
    mode = str(rng.choice(["constant", "constant", "edge", "reflect", "wrap"]))
    most = [2 if mode in {"constant", "edge"} else size - 1 for size in x.shape]
    pads = [
        int(rng.integers(0, min(most[at % x.ndim], 2) + 1)) if rng.random() < 0.5 else 0 for at in range(2 * x.ndim)
    ]
    if mode == "constant" and rng.random() < 0.3:
        pads = [-1 if pad == 0 and x.shape[at % x.ndim] > 2 else pad for at, pad in enumerate(pads)]
    inputs: tuple[Array | None, ...] = (x, _ints(pads))
    if mode == "constant" and rng.random() < 0.7:
        inputs = (*inputs, np.asarray(float(rng.choice([0.0, 0.5]))))
    return Single("Pad", inputs, frozenset({1, 2}), {"mode": mode}, declared={0: _hidden(rng, x.shape)})


def _resize(rng: np.random.Generator) -> Single:
    x = rng.normal(size=(*_shape(rng, 2, 2), *rng.integers(3, 6, 2)))
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    transform = str(
        rng.choice(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"])
    )
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
    if rng.random() < 0.3 and mode != "nearest":
        attributes["antialias"] = 1
    if rng.random() < 0.3 and mode == "cubic":
        attributes["exclude_outside"] = 1
    factors = np.asarray([1.0, 1.0, *rng.choice([0.5, 1.0, 1.5, 2.0], 2)], np.float32)
    known = {0: _hidden(rng, x.shape)}
    if rng.random() < 0.3:
        sizes = _ints((np.asarray(x.shape) * factors).astype(np.int64))
        return Single("Resize", (x, None, None, sizes), frozenset({3}), attributes, declared=known)
    if rng.random() < 0.3:
        return Single("Resize", (x, None, factors[2:]), frozenset({2}), attributes | {"axes": [2, 3]}, declared=known)
    return Single("Resize", (x, None, factors), frozenset({2}), attributes, declared=known)


def _upsample(rng: np.random.Generator) -> Single:
    x = rng.normal(size=(*_shape(rng, 2, 2), *rng.integers(3, 6, 2)))
    factors = np.asarray([1.0, 1.0, *rng.choice([1.0, 2.0], 2)], np.float32)
    known = {0: _hidden(rng, x.shape)}
    return Single("Upsample", (x, factors), frozenset({1}), {"mode": "nearest"}, opset=9, declared=known)


def _reverse(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng, 2, 3))
    batch = int(rng.integers(2))
    lengths = rng.integers(1, x.shape[1 - batch] + 1, x.shape[batch])
    attributes = {"batch_axis": batch, "time_axis": 1 - batch}
    return Single("ReverseSequence", (x, lengths), attributes=attributes, declared={0: _hidden(rng, x.shape)})


def _running_sum(rng: np.random.Generator) -> Single:
    x = rng.normal(size=_shape(rng))
    attributes = {"exclusive": int(rng.integers(2)), "reverse": int(rng.integers(2))}
    axis = np.asarray(rng.integers(-x.ndim, x.ndim))
    return Single("CumSum", (x, axis), frozenset({1}), attributes, declared={0: _hidden(rng, x.shape)})


DRAWS: dict[str, tuple[Draw, ...]] = {
    "Identity": (_of_one("Identity"),),
    "Dropout": (_of_one("Dropout"),),
    "Cast": (_cast,),
    "Transpose": (_transpose,),
    "Reshape": (_reshape,),
    "Flatten": (_flatten,),
    "Squeeze": (_squeeze,),
    "Unsqueeze": (_unsqueeze,),
    "Split": (_split,),
    "Slice": (_slice,),
    "Gather": (_gather,),
    "Expand": (_expand,),
    "Tile": (_tile,),
    "DepthToSpace": (_to_space,),
    "SpaceToDepth": (_to_depth,),
    "Concat": (_concat,),
    "Add": (_of_many("Add", (2,)),),
    "Sub": (_of_many("Sub", (2,)),),
    "Sum": (_of_many("Sum", (1, 2, 3)),),
    "Mean": (_of_many("Mean", (1, 2, 3)),),
    "Mul": (_of_many("Mul", (2,)),),
    "Div": (_of_many("Div", (2,)),),
    "Where": (_of_many("Where", (3,), first=1),),
    "Max": (_of_many("Max", (1, 2, 3)),),
    "Min": (_of_many("Min", (1, 2, 3)),),
    "Relu": (_of_one("Relu"),),
    "LeakyRelu": (_of_one("LeakyRelu", alpha=lambda rng: float(rng.choice([-0.5, 0.0, 0.1, 2.0]))),),
    "PRelu": (_prelu,),
    "Abs": (_of_one("Abs"),),
    "Neg": (_of_one("Neg"),),
    "Clip": (_clip, _clip_by_attributes),
    "MaxPool": (_pool("MaxPool"),),
    "AveragePool": (_pool("AveragePool"),),
    "GlobalAveragePool": (_of_one("GlobalAveragePool", spatial=0),),
    "GlobalMaxPool": (_of_one("GlobalMaxPool", spatial=0),),
    "LpPool": (_pool("LpPool"),),
    "GlobalLpPool": (_of_one("GlobalLpPool", spatial=0),),
    "ReduceMean": (_reduce("ReduceMean"),),
    "ReduceSum": (_reduce("ReduceSum"),),
    "ReduceMax": (_reduce("ReduceMax"),),
    "ReduceMin": (_reduce("ReduceMin"),),
    "ReduceL1": (_reduce("ReduceL1"),),
    "ReduceL2": (_reduce("ReduceL2"),),
    "Resize": (_resize,),
    "Upsample": (_upsample,),
    "Pad": (_pad,),
    "ReverseSequence": (_reverse,),
    "CumSum": (_running_sum,),
}
SCALE_ALONE = {"CumSum", "LeakyRelu", "PRelu", "Abs", "LpPool", "GlobalLpPool", "ReduceL1", "ReduceL2"}


def _seed(op_type: str, direction: int) -> int:
    return sum(map(ord, op_type)) * 2 + direction


def test_every_carrier_is_drawn() -> None:
    assert set(DRAWS) == set(RULES.carriers)


@pytest.mark.parametrize("op_type", DRAWS)
def test_backward_the_inputs_give_what_the_map_gave_behind_the_node(op_type: str) -> None:
    rng = np.random.default_rng(_seed(op_type, 0))
    passed: Counter[str] = Counter()
    for _round in range(ROUNDS):
        single = DRAWS[op_type][int(rng.integers(len(DRAWS[op_type])))](rng)
        position = int(rng.integers(single.outputs))
        kind = str(rng.choice(KINDS))
        shape = computed(single)[position].shape
        axes = [1] if len(shape) > 1 and rng.random() < 0.4 else None
        if not isinstance(backward(single, field_for(rng, shape, kind, axes), position), Refusal):
            passed[kind] += 1
    assert passed["positive"] >= 3
    assert (passed["shift"] >= 3) is (op_type not in SCALE_ALONE)


@pytest.mark.parametrize("op_type", DRAWS)
def test_forward_the_output_takes_what_was_taken_from_the_inputs(op_type: str) -> None:
    rng = np.random.default_rng(_seed(op_type, 1))
    passed: Counter[str] = Counter()
    for _round in range(ROUNDS):
        single = DRAWS[op_type][int(rng.integers(len(DRAWS[op_type])))](rng)
        kind = str(rng.choice(KINDS))
        if not isinstance(forward(single, _in_front(rng, single, kind)), Refusal):
            passed[kind] += 1
    assert passed["positive"] >= 3
    assert (passed["shift"] >= 3) is (op_type not in SCALE_ALONE)


def _in_front(rng: np.random.Generator, single: Single, kind: str) -> dict[int, Field]:
    """Draw maps for some of the computed inputs, often the same for all that it fits."""
    places = [
        at
        for at, array in enumerate(single.inputs)
        if array is not None and at not in single.constants and array.dtype == np.float64
    ]
    if single.op_type in {"Gather", "PRelu"}:
        places = [0]
    shapes = {at: array.shape for at, array in enumerate(single.inputs) if at in places and array is not None}
    if rng.random() < 0.6 and len({len(shape) for shape in shapes.values()}) == 1:
        shared = [axis for axis, sizes in enumerate(zip(*shapes.values(), strict=True)) if len(set(sizes)) == 1]
        axes = [axis for axis in shared if rng.random() < 0.4]
        field = field_for(rng, shapes[places[0]], kind, axes)
        return dict.fromkeys(places, field)
    chosen = [at for at in places if rng.random() < 0.6] or places[:1]
    return {at: field_for(rng, shapes[at], kind) for at in chosen}
