"""Batch norms that are read many at a time are read as each is alone, to the last bit, or refused as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bnfold.fold import plan
from bnfold.graph.view import views
from bnfold.rules import RULES, Affine, Reason, Refusal

BATCH_NORM = RULES.sources["BatchNormalization"]
SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -1e-5, -0.5, 1e-40, 3e38, float("inf"), float("nan")])


@dataclass(frozen=True, slots=True)
class Drawn:
    """One batch norm."""

    channels: int
    rank: int
    values: tuple[float, ...]
    dtype: str = "float32"
    epsilon: float | None = None
    odd: str = ""


DRAWN = st.builds(
    Drawn,
    channels=st.integers(1, 4),
    rank=st.integers(1, 5),
    values=st.lists(SPECIAL | st.floats(0.5, 2, width=32), min_size=5, max_size=5).map(tuple)
    | st.lists(st.floats(0.5, 2, width=32), min_size=5, max_size=5).map(tuple),
    dtype=st.sampled_from(["float32", "float32", "float64", "float16"]),
    epsilon=st.sampled_from([None, 1e-3, 0.0, -0.25]),
    odd=st.sampled_from(["", "", "", "training", "computed", "short", "matrix", "constant", "typed", "empty name"]),
)


def tensor(drawn: Drawn, name: str, position: int) -> TensorProto:
    size = drawn.channels + (drawn.odd == "short" and position == 3)
    numbers = np.resize(np.roll(np.array(drawn.values), position), size)
    with np.errstate(over="ignore"):
        numbers = numbers.astype(drawn.dtype)
    if drawn.odd == "matrix" and position == 2:
        numbers = numbers.reshape(1, -1)
    if drawn.odd == "typed":
        element = helper.np_dtype_to_tensor_dtype(numbers.dtype)
        return helper.make_tensor(name, element, numbers.shape, numbers.reshape(-1).tolist())
    return numpy_helper.from_array(numbers, name)


def model_of(every: list[Drawn], opset: int) -> ModelProto:
    inputs, nodes, initializers = [], [], []
    for number, drawn in enumerate(every):
        element = helper.np_dtype_to_tensor_dtype(np.dtype(drawn.dtype))
        shape = [2, drawn.channels, 3, 3, 3][: drawn.rank]
        inputs.append(helper.make_tensor_value_info(f"x{number}", element, shape))
        names = [f"x{number}"]
        for position in range(4):
            name = f"p{number}_{position}"
            made = tensor(drawn, name, position)
            if drawn.odd == "computed" and position == 1:
                inputs.append(helper.make_tensor_value_info(name, element, [drawn.channels]))
            elif drawn.odd == "constant" and position == 0:
                nodes.append(helper.make_node("Constant", [], [name], value=made))
            elif drawn.odd == "empty name" and position == 3:
                name = ""
            else:
                initializers.append(made)
            names.append(name)
        attributes: dict[str, Any] = {} if drawn.epsilon is None else {"epsilon": drawn.epsilon}
        if drawn.odd == "training" and opset >= 14:
            attributes["training_mode"] = 1
        nodes.append(helper.make_node("BatchNormalization", names, [f"y{number}"], name=f"bn{number}", **attributes))
    graph = helper.make_graph(nodes, "norms", inputs, [], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@given(st.lists(DRAWN, min_size=1, max_size=12), st.sampled_from([9, 15, 20]))
def test_many_are_read_as_each_is_alone(every: list[Drawn], opset: int) -> None:
    (view,) = views(model_of(every, opset))
    nodes = [view.node(index) for index, kind in enumerate(view.op_types) if kind == "BatchNormalization"]
    alone = [BATCH_NORM.read(node) for node in nodes]  # nothing has been read ahead
    view.read_ahead()
    assert BATCH_NORM.read_many is not None
    together = BATCH_NORM.read_many(nodes)
    for drawn, one, other in zip(every, alone, together, strict=True):
        if isinstance(one, Refusal):
            assert other == one
            continue
        assert isinstance(one, Affine)
        assert isinstance(other, Affine)
        assert (one.data_input, one.assumed) == (other.data_input, other.assumed) == (0, frozenset())
        gamma, beta, mean, var = (
            numpy_helper.to_array(tensor(drawn, "", position)).astype(np.float64).reshape(-1) for position in range(4)
        )
        epsilon = float(np.float32(1e-5 if drawn.epsilon is None else drawn.epsilon))
        scale = gamma / np.sqrt(var + epsilon)
        shape = (1, drawn.channels, 1, 1, 1)[: drawn.rank]
        for each in (one, other):
            np.testing.assert_array_equal(each.field.scale, scale.reshape(shape), strict=True)
            np.testing.assert_array_equal(each.field.shift, (beta - mean * scale).reshape(shape), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_norm_without_channels_is_kept(dtype: str) -> None:
    model = model_of([Drawn(0, 4, (1.0,), dtype)], 17)
    (kept,) = plan(model).kept
    assert kept.refusal == Refusal(Reason.CHANNEL_MISMATCH, "bn0 has no channels")
