"""Nodes that no checker has seen: attributes of another kind, constants of another shape. A carrier never raises."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from bnfold.rules import RULES
from tests.rules.single_nodes import Single, field_for, view_of
from tests.rules.test_carriers_at_random import DRAWS, KINDS

ROUNDS = 80
NAMES = (
    "axis",
    "axes",
    "perm",
    "split",
    "blocksize",
    "mode",
    "kernel_shape",
    "pads",
    "strides",
    "dilations",
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "keepdims",
    "noop_with_empty_axes",
    "to",
    "starts",
    "ends",
    "steps",
    "min",
    "max",
    "value",
    "scales",
    "coordinate_transformation_mode",
    "nearest_mode",
    "shape",
    "allowzero",
    "broadcast",
)
ODD_VALUES: tuple[Any, ...] = (
    *(3, -7, 0, 1 << 62, -(1 << 63), 1.5, float("nan"), "SAME_UPPER", "x"),
    *([0], [-1], [1.5, 2.5], ["a", "b"], [1 << 62, 1], [0, 0, 0, 0], [-5, 7], [1] * 9),
)
ODD_ARRAYS: tuple[npt.NDArray[Any], ...] = (
    np.asarray(np.nan),
    np.asarray([np.inf]),
    np.zeros((0,), np.int64),
    np.asarray([1 << 62]),
    np.asarray([-1, -1]),
    np.ones((2, 2), np.int64),
    np.asarray(-(1 << 63)),
    np.asarray([True, False]),
    np.ones((1, 1, 1, 1, 1, 1)),
    np.zeros((3, 0)),
    np.arange(7),
    np.asarray([1e300, -1e300]),
    np.asarray(3, np.int32),
)


def _damaged(rng: np.random.Generator, single: Single) -> Single:
    """Change one thing about a node."""
    inputs = list(single.inputs)
    kind = int(rng.integers(6))
    if kind == 0:
        names = [*single.attributes, *NAMES] if rng.random() < 0.3 else [*single.attributes] or [*NAMES]
        names = [name for name in names if name != "num_outputs"]  # onnx's own inference allocates as many
        name = str(rng.choice(names or NAMES))
        return replace(single, attributes={**single.attributes, name: ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]})
    if kind == 1:
        return replace(single, opset=int(rng.integers(1, 23)))
    if kind == 2:
        shape = [int(size) if rng.random() < 0.7 else None for size in rng.integers(0, 5, int(rng.integers(0, 6)))]
        return replace(single, declared={**single.declared, 0: shape})
    if kind == 3:
        inputs = inputs[: int(rng.integers(1, len(inputs) + 1))]
        return replace(
            single, inputs=tuple(inputs), constants=frozenset(c for c in single.constants if c < len(inputs))
        )
    at = len(inputs) if kind == 4 or len(inputs) == 1 else int(rng.integers(1, len(inputs)))
    inputs[at : at + 1] = [ODD_ARRAYS[int(rng.integers(len(ODD_ARRAYS)))]]
    return replace(single, inputs=tuple(inputs), constants=single.constants | {at})


@pytest.mark.parametrize("op_type", DRAWS)
def test_a_damaged_node_is_refused_or_carries(op_type: str) -> None:
    rng = np.random.default_rng(sum(map(ord, op_type)))
    carrier = RULES.carriers[op_type]
    said: Counter[str] = Counter()
    for _round in range(ROUNDS):
        single = DRAWS[op_type][int(rng.integers(len(DRAWS[op_type])))](rng)
        rank = int(rng.integers(0, 6)) if rng.random() < 0.3 else np.ndim(np.asarray(single.inputs[0]))
        shape = tuple(int(size) for size in rng.integers(1, 7, rank))
        for _change in range(int(rng.integers(1, 3))):
            single = _damaged(rng, single)
        field = field_for(rng, shape, str(rng.choice(KINDS)))
        try:
            node = view_of(single)
        except (TypeError, ValueError, onnx.checker.ValidationError):
            continue  # not even onnx can write it down
        said[type(carrier.backward(node, int(rng.integers(single.outputs)), field)).__name__] += 1
        place = int(rng.integers(len(single.inputs))) if rng.random() < 0.3 else 0
        said[type(carrier.forward(node, {place: field})).__name__] += 1
    assert said["Refusal"] > ROUNDS // 4
    assert set(said) <= {"Carried", "Refusal", "tuple"}
