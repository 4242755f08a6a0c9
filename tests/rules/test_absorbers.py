"""Layers with random shapes, attributes and maps, spelled out and taken in, on onnx's evaluator in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from bnfold.affine import Field
from bnfold.rules import Reason, Refusal, Side
from tests.rules.absorbing import layer, spelled_out, taken_in
from tests.rules.example_models import ConvTranspose

DOUBLE, INT64 = TensorProto.DOUBLE, TensorProto.INT64
SIDES = st.sampled_from([Side.INPUT, Side.OUTPUT])
SEEDS = st.integers(0, 2**20)
NIGHTLY = settings().max_examples // 5
"""A test draws so many examples at least: thousands of them at night."""


def run(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> np.ndarray:
    (y,) = ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(["y"], dict(feeds))
    return np.asarray(y)


def field_over(rng: np.random.Generator, shape: Sequence[int], axes: Sequence[int]) -> Field:
    """Draw a map that varies along some axes of a value, with zeros and negative numbers in its scale."""
    sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    scale = rng.normal(size=sizes) * (rng.random(sizes) > 0.15)
    return Field(scale, rng.normal(size=sizes) * (rng.random() > 0.2))


def assert_taken_in(model: onnx.ModelProto, side: Side, feeds: Mapping[str, Any], *fields: Field) -> None:
    """Compare the layer beside which the maps stand with the layer that has taken them in."""
    if side is Side.INPUT:  # the map nearest to the layer is taken in first: here the last to be computed
        together = fields[0] if len(fields) == 1 else fields[0].after(fields[1])
    else:
        together = fields[0] if len(fields) == 1 else fields[1].after(fields[0])
    changed = taken_in(model, side, *fields)
    assert not isinstance(changed, Refusal), changed
    expected = run(spelled_out(model, side, together), feeds)
    actual = run(changed, feeds)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


def refused(model: onnx.ModelProto, side: Side, field: Field) -> Reason:
    changed = taken_in(model, side, field)
    assert isinstance(changed, Refusal)
    assert changed.detail
    return changed.reason


def assert_exact_or_misplaced(model: onnx.ModelProto, side: Side, feeds: Mapping[str, Any], field: Field) -> bool:
    """Compare where the map is taken in, and return whether it is; else only its axes may be the reason."""
    changed = taken_in(model, side, field)
    if isinstance(changed, Refusal):
        assert changed.reason in {Reason.WRONG_AXIS, Reason.CHANNEL_MISMATCH}
        return False
    assert_taken_in(model, side, feeds, field)
    return True


# Products.


@settings(max_examples=max(200, NIGHTLY))
@given(
    SEEDS, SIDES, st.integers(0, 1), st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda pair: max(pair) > 1)
)
def test_a_matrix_product_of_any_ranks_is_exact_or_refuses_the_axes(
    seed: int, side: Side, weight_at: int, ranks: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    m, k, n, *batch = (int(size) for size in rng.integers(1, 4, 5))
    shapes = []
    for rank, matrix in zip(ranks, ((m, k), (k, n)), strict=True):
        lead = [size if rng.random() < 0.7 else 1 for size in batch[2 - (rank - 2) :]] if rank > 2 else []
        shapes.append((*lead, *matrix) if rank > 1 else (k,))
    data, weight = shapes if weight_at else shapes[::-1]
    value = data if side is Side.INPUT else np.matmul(np.ones(shapes[0]), np.ones(shapes[1])).shape
    inputs = ["x", "W"] if weight_at else ["W", "x"]
    model = layer("MatMul", inputs, [("x", data, DOUBLE)], {"W": rng.normal(size=weight)})
    field = field_over(rng, value, [axis for axis in range(len(value)) if rng.random() < 0.4])
    assert_exact_or_misplaced(model, side, {"x": rng.normal(size=data)}, field)


@pytest.mark.parametrize(
    ("data", "weight", "weight_at", "side", "axes"),
    [
        ((2, 3, 4), (2, 4, 5), 1, Side.OUTPUT, (0, 2)),
        ((2, 3, 4), (2, 4, 5), 1, Side.INPUT, (0, 2)),
        ((2, 4, 3), (2, 5, 4), 0, Side.OUTPUT, (0, 1)),
        ((6, 2, 4, 3), (2, 5, 4), 0, Side.INPUT, (1, 2)),
        ((4,), (2, 4, 5), 1, Side.OUTPUT, (0, 1)),
        ((4,), (2, 4, 5), 1, Side.INPUT, (0,)),
        ((4,), (3, 2, 5, 4), 0, Side.OUTPUT, (0, 1, 2)),
        ((2, 3, 4), (4,), 1, Side.INPUT, (2,)),
        ((2, 3, 4), (4,), 1, Side.OUTPUT, ()),
        ((2, 4, 3), (4,), 0, Side.INPUT, (1,)),
    ],
)
def test_a_matrix_product_takes_in_every_axis_of_its_constant(
    data: tuple[int, ...], weight: tuple[int, ...], weight_at: int, side: Side, axes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    pair = (data, weight) if weight_at else (weight, data)
    value = data if side is Side.INPUT else np.matmul(np.ones(pair[0]), np.ones(pair[1])).shape
    model = layer(
        "MatMul", ["x", "W"] if weight_at else ["W", "x"], [("x", data, DOUBLE)], {"W": rng.normal(size=weight)}
    )
    assert_taken_in(model, side, {"x": rng.normal(size=data)}, field_over(rng, value, axes))


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """Draw an equation of two factors, with an ellipsis or without, its output spelled out or not."""
    labels = draw(st.permutations("abcde"))
    sizes = {label: draw(st.integers(1, 3)) for label in labels}
    factors = [draw(st.lists(st.sampled_from(labels), min_size=1, max_size=4, unique=True)) for _ in range(2)]
    joined = sorted({*factors[0], *factors[1]})
    if draw(st.integers(0, 3)) == 0 and any((factors[0] + factors[1]).count(label) == 1 for label in joined):
        return ",".join("".join(factor) for factor in factors), sizes
    output = draw(st.lists(st.sampled_from(joined), min_size=1, max_size=4, unique=True))
    terms = ["".join(factor) for factor in (*factors, output)]
    if draw(st.booleans()):
        which = draw(st.sampled_from([(0,), (1,), (0, 1)]))
        for number in (*which, 2):
            place = draw(st.integers(0, len(terms[number])))
            terms[number] = f"{terms[number][:place]}...{terms[number][place:]}"
    return f"{terms[0]}, {terms[1]} -> {terms[2]}", sizes


@settings(max_examples=max(400, NIGHTLY))
@given(equations(), SEEDS, SIDES, st.integers(0, 1))
def test_an_einsum_of_any_equation_is_exact_or_refuses_the_axes(
    drawn: tuple[str, dict[str, int]], seed: int, side: Side, weight_at: int
) -> None:
    equation, sizes = drawn
    rng = np.random.default_rng(seed)
    hidden = rng.integers(1, 4, 2)
    shapes = []
    for term in equation.replace(" ", "").partition("->")[0].split(","):
        front, dots, behind = term.partition("...")
        own = [int(size) if rng.random() < 0.7 else 1 for size in hidden][int(rng.integers(0, 3)) :] if dots else []
        shapes.append((*(sizes[label] for label in front), *own, *(sizes[label] for label in behind)))
    data, weight = shapes if weight_at else shapes[::-1]
    output = np.einsum(equation, np.ones(shapes[0]), np.ones(shapes[1])).shape
    value = data if side is Side.INPUT else output
    inputs = ["x", "W"] if weight_at else ["W", "x"]
    model = layer("Einsum", inputs, [("x", data, DOUBLE)], {"W": rng.normal(size=weight)}, equation=equation)
    field = field_over(rng, value, [axis for axis in range(len(value)) if rng.random() < 0.4])
    if not output:
        assert refused(model, side, field) is Reason.NO_RULE
        return
    folds = assert_exact_or_misplaced(model, side, {"x": rng.normal(size=data)}, field)
    assert folds or field.axes()


@pytest.mark.parametrize(
    "equation",
    [
        "ij,jk->ii",
        "ii,ij->ij",
        "ij,jk->il",
        "ij",
        "ij,jk,kl->il",
        "ij,jk->i.",
        "iJ,Jk",
        "...i,ij->ij",
        "ij,ij->",
        "i?,jk->i",
    ],
)
def test_an_equation_that_is_no_plain_product_is_refused(equation: str) -> None:
    rng = np.random.default_rng(0)
    weight = {"W": rng.normal(size=(3, 3))}
    inputs = ["x", "W", "W"][: equation.partition("->")[0].count(",") + 1]
    model = layer("Einsum", inputs, [("x", (3, 3), DOUBLE)], weight, equation=equation)
    for side in Side:
        assert refused(model, side, field_over(rng, (3, 3), [])) is Reason.NO_RULE


def test_a_label_of_size_one_is_summed_as_often_as_the_data_has_it() -> None:
    rng = np.random.default_rng(1)
    model = layer("Einsum", ["x", "W"], [("x", (2, 3), DOUBLE)], {"W": rng.normal(size=(1, 4))}, equation="bj,jk->bk")
    assert_taken_in(model, Side.INPUT, {"x": rng.normal(size=(2, 3))}, field_over(rng, (2, 3), []))
    unknown = layer("Einsum", ["x", "W"], [("x", (2, None), DOUBLE)], {"W": np.ones((1, 4))}, equation="bj,jk->bk")
    assert refused(unknown, Side.INPUT, Field(np.ones((1, 1)), np.ones((1, 1)))) is Reason.UNKNOWN_SHAPE


@settings(max_examples=max(150, NIGHTLY))
@given(SEEDS, SIDES, st.integers(0, 1), st.integers(0, 1), st.integers(0, 1))
def test_a_gemm_in_all_its_forms_takes_in_what_stands_on_either_side(
    seed: int, side: Side, weight_at: int, trans_a: int, trans_b: int
) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(size) for size in rng.integers(1, 5, 3))
    shapes = [(k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)]
    data, weight = shapes[1 - weight_at], shapes[weight_at]
    constants = {"W": rng.normal(size=weight)}
    inputs = ["x", "W"] if weight_at else ["W", "x"]
    bias = [None, (), (1,), (n,), (1, n), (m, 1), (m, n)][int(rng.integers(0, 7))]
    if bias is not None:
        constants["C"] = np.asarray(rng.normal(size=bias))
        inputs.append("C")
    factors: dict[str, Any] = {"alpha": float(rng.choice([1.0, 0.5, 0.0])), "beta": float(rng.choice([1.0, 2.5, 0.0]))}
    model = layer("Gemm", inputs, [("x", data, DOUBLE)], constants, transA=trans_a, transB=trans_b, **factors)
    transposed = (trans_b, trans_a)[weight_at]
    summed = int(weight_at != transposed)
    axis, value = (summed, data) if side is Side.INPUT else (weight_at, (m, n))
    fields = [field_over(rng, value, [axis]) for _ in range(int(rng.integers(1, 3)))]
    assert_taken_in(model, side, {"x": rng.normal(size=data)}, *fields)
    if value[1 - axis] > 1:
        assert refused(model, side, field_over(rng, value, [1 - axis])) is Reason.WRONG_AXIS


# Tables.


@settings(max_examples=max(100, NIGHTLY))
@given(SEEDS, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.lists(st.integers(1, 3), max_size=2), st.data())
def test_a_table_takes_in_a_map_along_the_axes_that_are_not_gathered(
    seed: int, table: list[int], places: list[int], data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(-len(table), len(table) - 1))
    indices = rng.integers(-table[axis], table[axis], places)
    inputs = [("x", places, INT64)]
    model = layer("Gather", ["T", "x"], inputs, {"T": rng.normal(size=table)}, axis=axis)
    output = np.take(np.ones(table), indices, axis=axis).shape
    first = axis % len(table)
    own = [place for place in range(len(output)) if not first <= place < first + len(places)]
    axes = data.draw(st.sets(st.sampled_from(own))) if own else set()
    assert_taken_in(model, Side.OUTPUT, {"x": indices}, field_over(rng, output, sorted(axes)))
    wide = [place for place in range(first, first + len(places)) if output[place] > 1]
    if wide:
        field = field_over(rng, output, wide[:1])
        assert refused(model, Side.OUTPUT, field) is Reason.WRONG_AXIS


@settings(max_examples=max(100, NIGHTLY))
@given(SEEDS, st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_a_table_gathered_along_several_axes_takes_in_a_map_along_the_others(
    seed: int, table: list[int], data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    batch = data.draw(st.integers(0, len(table) - 1))
    taken = data.draw(st.integers(1, len(table) - batch))
    more = data.draw(st.lists(st.integers(1, 3), max_size=1))
    shape = (*table[:batch], *more, taken)
    indices = np.stack([rng.integers(0, size, shape[:-1]) for size in table[batch : batch + taken]], axis=-1)
    model = layer("GatherND", ["T", "x"], [("x", shape, INT64)], {"T": rng.normal(size=table)}, batch_dims=batch)
    output = (*shape[:-1], *table[batch + taken :])
    own = [*range(batch), *range(len(shape) - 1, len(output))]
    axes = data.draw(st.sets(st.sampled_from(own))) if own else set()
    assume(output)  # onnx's evaluator has no scalars here
    assert_taken_in(model, Side.OUTPUT, {"x": indices}, field_over(rng, output, sorted(axes)))


# Normalisations.


@settings(max_examples=max(60, NIGHTLY))
@given(SEEDS, st.integers(0, 1), st.integers(2, 4), st.data())
def test_a_layer_norm_takes_in_a_map_along_the_axes_of_its_parameters(
    seed: int, offset: int, rank: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    shape = [int(size) for size in rng.integers(1, 4, rank)]
    axis = data.draw(st.integers(-rank, rank - 1))
    scale = [size if rng.random() < 0.7 else 1 for size in shape[axis % rank :]]
    constants = {"s": rng.normal(size=scale)}
    if offset:
        constants["b"] = rng.normal(size=[size if rng.random() < 0.7 else 1 for size in scale])
    model = layer("LayerNormalization", ["x", *constants], [("x", shape, DOUBLE)], constants, axis=axis, epsilon=0.1)
    field = field_over(rng, shape, [place for place in range(rank) if rng.random() < 0.4])
    folds = assert_exact_or_misplaced(model, Side.OUTPUT, {"x": rng.normal(size=shape)}, field)
    first = rank - len(scale)
    assert folds == all(place >= first and scale[place - first] == shape[place] for place in field.axes())


@settings(max_examples=max(60, NIGHTLY))
@given(SEEDS, st.integers(2, 4), st.data())
def test_an_rms_norm_takes_in_a_scale_and_leaves_the_shift_behind(seed: int, rank: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    shape = [int(size) for size in rng.integers(1, 4, rank)]
    axis = data.draw(st.integers(-rank, -1))
    constants = {"s": rng.normal(size=shape[axis:])}
    model = layer("RMSNormalization", ["x", "s"], [("x", shape, DOUBLE)], constants, opset=23, axis=axis)
    axes = data.draw(st.sets(st.sampled_from(range(rank + axis, rank))))
    assert_taken_in(model, Side.OUTPUT, {"x": rng.normal(size=shape)}, field_over(rng, shape, sorted(axes)))


@pytest.mark.parametrize(("opset", "channels", "folds"), [(21, 6, 1), (20, 6, 0), (20, 2, 1)])
def test_a_group_norm_of_parameters_a_channel_or_a_group(opset: int, channels: int, folds: int) -> None:
    rng = np.random.default_rng(5)
    parameters = 6 if opset == 21 else 2
    constants = {"s": rng.normal(size=parameters), "b": rng.normal(size=parameters)}
    model = layer(
        "GroupNormalization", ["x", "s", "b"], [("x", (2, 6, 5), DOUBLE)], constants, opset=opset, num_groups=2
    )
    scale, shift = (np.repeat(rng.normal(size=channels), 6 // channels).reshape(1, 6, 1) for _ in range(2))
    changed = taken_in(model, Side.OUTPUT, Field(scale, shift))
    if not folds:
        assert changed == Refusal(
            Reason.WRONG_AXIS,
            "it has one scale and offset for each of 2 groups, and the map varies between the 3 channels of group 0",
        )
        return
    assert isinstance(changed, onnx.ModelProto)
    x = rng.normal(size=(2, 6, 5))
    np.testing.assert_allclose(_group_norm(changed, x), scale * _group_norm(model, x) + shift, rtol=1e-12, atol=1e-12)


def _group_norm(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Compute a group norm of two groups by its definition: onnx's evaluator has lost the one of opset 18."""
    (node,) = model.graph.node
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    s, b = (np.repeat(tensors[name], 6 // tensors[name].size).reshape(1, 6, 1) for name in node.input[1:])
    groups = x.reshape(2, 2, -1)
    bare = (groups - groups.mean(axis=2, keepdims=True)) / np.sqrt(groups.var(axis=2, keepdims=True) + 1e-5)
    return np.asarray(s * bare.reshape(x.shape) + b)


@settings(max_examples=max(60, NIGHTLY))
@given(SEEDS, st.integers(2, 4), st.sampled_from([Side.INPUT, Side.OUTPUT]))
def test_a_batch_norm_that_stays_takes_in_what_stands_on_either_side(seed: int, rank: int, side: Side) -> None:
    rng = np.random.default_rng(seed)
    shape = [int(size) for size in rng.integers(1, 5, rank)]
    c = shape[1]
    constants = {name: rng.normal(size=c) for name in ("gamma", "beta", "mean")} | {"var": rng.uniform(0.1, 2.0, c)}
    model = layer("BatchNormalization", ["x", *constants], [("x", shape, DOUBLE)], constants, epsilon=0.01)
    fields = [field_over(rng, shape, [1]) for _ in range(int(rng.integers(1, 3)))]
    assert_taken_in(model, side, {"x": rng.normal(size=shape)}, *fields)


def test_a_large_scale_in_front_of_a_batch_norm_costs_no_digits() -> None:
    one, many = np.ones(1, np.float32), np.asarray([1000.0], np.float32)
    constants = {"gamma": one, "beta": one, "mean": many, "var": one}
    model = layer("BatchNormalization", ["x", *constants], [("x", (1, 1), TensorProto.FLOAT)], constants, epsilon=1.0)
    field = Field(np.full((1, 1), 1000.1), np.full((1, 1), 0.3))
    changed = taken_in(model, Side.INPUT, field)
    assert isinstance(changed, onnx.ModelProto)
    x = np.full((1, 1), 0.9997, np.float32)
    exact = (1000.1 * float(x[0, 0]) + 0.3 - 1000.0) / np.sqrt(2.0) + 1.0
    assert abs(float(run(changed, {"x": x})[0, 0]) - exact) < 1e-4


@settings(max_examples=max(30, NIGHTLY))
@given(SEEDS, st.integers(3, 5))
def test_an_instance_norm_takes_in_what_stands_behind_it(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [int(size) for size in rng.integers(1, 4, rank)]
    constants = {"s": rng.normal(size=shape[1]), "b": rng.normal(size=shape[1])}
    model = layer("InstanceNormalization", ["x", "s", "b"], [("x", shape, DOUBLE)], constants, epsilon=0.1)
    assert_taken_in(model, Side.OUTPUT, {"x": rng.normal(size=shape)}, field_over(rng, shape, [1]))


# Recurrent cells.


@settings(max_examples=max(60, NIGHTLY))
@given(
    SEEDS,
    st.sampled_from([("LSTM", 4), ("GRU", 3), ("RNN", 1)]),
    st.sampled_from(["forward", "reverse", "bidirectional"]),
    st.integers(0, 1),
    st.integers(0, 1),
)
def test_a_recurrent_cell_takes_in_what_stands_in_front_of_it(
    seed: int, cell: tuple[str, int], direction: str, layout: int, biased: int
) -> None:
    op_type, gates = cell
    rng = np.random.default_rng(seed)
    directions, hidden, features = 1 + (direction == "bidirectional"), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    shape = (*(int(size) for size in rng.integers(1, 4, 2)), features)
    rows = gates * hidden
    constants = {"W": rng.normal(size=(directions, rows, features)), "R": rng.normal(size=(directions, rows, hidden))}
    if biased:
        constants["B"] = rng.normal(size=(directions, 2 * rows))
    more: dict[str, Any] = {"linear_before_reset": int(rng.integers(0, 2))} if op_type == "GRU" else {}
    if op_type == "RNN":
        more["activations"] = ["Tanh"] * directions
    model = layer(
        op_type,
        ["x", *constants],
        [("x", shape, DOUBLE)],
        constants,
        hidden_size=hidden,
        direction=direction,
        layout=layout,
        **more,
    )
    feeds = {"x": rng.normal(size=shape)}
    fields = [field_over(rng, shape, [2]) for _ in range(int(rng.integers(1, 3)))]
    assert_taken_in(model, Side.INPUT, feeds, *fields)
    if shape[0] > 1:
        assert refused(model, Side.INPUT, field_over(np.random.default_rng(0), shape, [0])) is Reason.WRONG_AXIS


# Convolutions.


@settings(max_examples=max(100, NIGHTLY))
@given(SEEDS, SIDES, st.integers(1, 3), st.sampled_from(["Conv", "ConvTranspose"]), st.integers(0, 1))
def test_a_convolution_of_any_groups_takes_in_a_scale_on_either_side_and_a_shift_behind_it(
    seed: int, side: Side, rank: int, op_type: str, biased: int
) -> None:
    rng = np.random.default_rng(seed)
    group, each_in, each_out = (int(size) for size in rng.integers(1, 4, 3))
    kernel, strides = (rng.integers(1, 3, rank).tolist() for _ in range(2))
    shape = (2, group * each_in, *(int(size) for size in rng.integers(3, 5, rank)))
    weight = (group * each_out, each_in) if op_type == "Conv" else (group * each_in, each_out)
    constants = {"W": rng.normal(size=(*weight, *kernel))}
    if biased:
        constants["b"] = rng.normal(size=group * each_out)
    pads = rng.integers(0, 2, 2 * rank).tolist()
    model = layer(
        op_type, ["x", *constants], [("x", shape, DOUBLE)], constants, group=group, strides=strides, pads=pads
    )
    feeds = {"x": rng.normal(size=shape)}
    value = shape if side is Side.INPUT else run(model, feeds).shape
    assume(min(value) > 0)
    field = field_over(rng, value, [1])
    assert_taken_in(model, side, feeds, field.scale_only() if side is Side.INPUT else field)
    if value[2] > 1:
        assert refused(model, side, field_over(rng, value, [2])) is Reason.WRONG_AXIS


@settings(max_examples=max(150, NIGHTLY))
@given(SEEDS, st.integers(1, 2), st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
def test_a_padded_convolution_takes_in_a_shift_exactly_where_zero_taps_lie_on_the_pads(
    seed: int, rank: int, auto_pad: str
) -> None:
    rng = np.random.default_rng(seed)
    group, each = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    kernel, strides, dilations = (rng.integers(1, 4, rank).tolist() for _ in range(3))
    sizes = [int(rng.integers(6, 9)) for _ in range(rank)]
    weight = rng.normal(size=(2 * group, each, *kernel))
    weight *= np.prod(np.meshgrid(*[rng.random(taps) < 0.5 for taps in kernel], indexing="ij"), axis=0)
    attributes: dict[str, Any] = {"auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attributes = {"pads": rng.integers(0, 2, 2 * rank).tolist()}
    shape = (2, group * each, *sizes)
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    assume(max(reach) <= min(sizes))
    model = layer(
        "Conv",
        ["x", "W"],
        [("x", shape, DOUBLE)],
        {"W": weight},
        group=group,
        strides=strides,
        dilations=dilations,
        **attributes,
    )
    field = field_over(rng, shape, [1])
    zero = np.zeros(shape)
    bare = run(spelled_out(model, Side.INPUT, field), {"x": zero})
    constant = bool(np.all(np.ptp(bare, axis=tuple(range(2, bare.ndim))) < 1e-12))
    changed = taken_in(model, Side.INPUT, field)
    if isinstance(changed, Refusal):
        assert changed.reason is Reason.PADDED_SHIFT
        return
    assert constant
    assert_taken_in(model, Side.INPUT, {"x": rng.normal(size=shape)}, field)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_a_kernel_with_nothing_but_its_middle_needs_no_size_to_take_in_a_shift(auto_pad: str) -> None:
    rng = np.random.default_rng(2)
    weight = np.zeros((2, 3, 3, 3))
    weight[:, :, 1, 1] = rng.normal(size=(2, 3))
    given = [("x", (1, 3, None, None), DOUBLE)]
    model = layer("Conv", ["x", "W"], given, {"W": weight}, auto_pad=auto_pad)
    assert_taken_in(model, Side.INPUT, {"x": rng.normal(size=(1, 3, 5, 4))}, field_over(rng, (1, 3, 5, 4), [1]))
    weight[0, 0, 0, 1] = 1.0
    model = layer("Conv", ["x", "W"], given, {"W": weight}, auto_pad=auto_pad)
    assert refused(model, Side.INPUT, Field(np.ones((1, 3, 1, 1)), np.ones((1, 3, 1, 1)))) is Reason.PADDED_SHIFT


@settings(max_examples=max(100, NIGHTLY))
@given(SEEDS, st.integers(1, 2), st.integers(0, 1))
def test_a_transposed_convolution_takes_in_a_shift_where_every_output_sees_the_same(
    seed: int, rank: int, even: int
) -> None:
    rng = np.random.default_rng(seed)
    group, each = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    kernel, dilations = (rng.integers(1, 4, rank).tolist() for _ in range(2))
    strides = [taps if rng.random() < 0.5 else 1 for taps in kernel]
    pads = rng.integers(0, 5, 2 * rank).tolist()
    extra = [int(rng.integers(0, max(1, min(2, stride)))) for stride in strides]
    sizes = [int(rng.integers(5, 8)) for _ in range(rank)]
    weight = rng.normal(size=(2 * group, each, *([1] * rank if even else kernel))) * np.ones((1, 1, *kernel))
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    full = [s * (n - 1) + r + e for s, n, r, e in zip(strides, sizes, reach, extra, strict=True)]
    assume(all(length > pads[axis] + pads[axis + rank] for axis, length in enumerate(full)))
    shape = (1, 2 * group, *sizes)
    model = layer(
        "ConvTranspose",
        ["x", "W"],
        [("x", shape, DOUBLE)],
        {"W": weight},
        group=group,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=extra,
    )
    field = field_over(rng, shape, [1])
    bare = run(spelled_out(model, Side.INPUT, field), {"x": np.zeros(shape)})
    changed = taken_in(model, Side.INPUT, field)
    if isinstance(changed, Refusal):
        assert changed.reason is Reason.PADDED_SHIFT
        assert bare.ndim == 3 or even or np.any(field.shift)
        return
    assert np.all(np.ptp(bare, axis=tuple(range(2, bare.ndim))) < 1e-12)
    assert_taken_in(model, Side.INPUT, {"x": rng.normal(size=shape)}, field)


# Quantised weights.

INTEGERS = {
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int16": np.dtype(np.int16),
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
}


@settings(max_examples=max(200, NIGHTLY))
@given(
    SEEDS,
    st.sampled_from(sorted(INTEGERS)),
    st.sampled_from(["tensor", "axis", "blocks"]),
    st.integers(0, 1),
    st.integers(1, 2),
)
def test_quantised_weights_take_in_a_scale_of_any_sign_or_refuse(
    seed: int, kind: str, scales: str, shifted: int, times: int
) -> None:
    rng = np.random.default_rng(seed)
    dtype = INTEGERS[kind]
    shape = tuple(int(size) for size in rng.integers(1, 5, int(rng.integers(1, 4))))
    axis, block = int(rng.integers(-len(shape), len(shape))), int(rng.integers(1, 4))
    several: dict[str, tuple[int, ...]] = {"tensor": (), "axis": (shape[axis],), "blocks": shape}
    size = several[scales]
    if scales == "blocks":
        size = tuple(-(-n // block) if place == axis % len(shape) else n for place, n in enumerate(shape))
    limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    low, high = int(limits.min), int(limits.max)
    edge = rng.random() < 0.2
    q = rng.integers(low if edge else low + 1, high + 1, shape)
    constants: dict[str, np.ndarray] = {"q": q.astype(dtype), "d": rng.uniform(0.1, 1.0, size)}
    if shifted:
        zero = rng.integers(-1, 2, size) if low < 0 else rng.integers((high + 1) // 2 - 1, (high + 1) // 2 + 2, size)
        constants["z"] = np.asarray(zero).astype(dtype)
    attributes = {"axis": axis} | ({"block_size": block} if scales == "blocks" else {})
    model = layer("DequantizeLinear", list(constants), [], constants, opset=21, **attributes)
    along = axis % len(shape) if scales == "axis" else int(rng.integers(0, len(shape)))
    fields = []
    for _time in range(times):
        scale = field_over(rng, shape, [along] if rng.random() < 0.8 else []).scale
        fields.append(Field(scale, np.zeros_like(scale)))
    changed = taken_in(model, Side.OUTPUT, *fields)
    if isinstance(changed, Refusal):
        inside_blocks = scales == "blocks" and along == axis % len(shape) and block > 1
        assert changed.reason is Reason.OUT_OF_RANGE or (inside_blocks and changed.reason is Reason.WRONG_AXIS)
        assert changed.reason is not Reason.OUT_OF_RANGE or shifted or (kind in {"uint8", "uint4"}) or q.min() == low
        return
    together = fields[0] if times == 1 else fields[1].after(fields[0])
    np.testing.assert_allclose(
        run(changed, {}), run(spelled_out(model, Side.OUTPUT, together), {}), rtol=1e-12, atol=1e-12
    )
    written = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in changed.graph.initializer}
    assert np.all(written["new_1"] > 0)
    assert written.get("new_0", constants["q"]).dtype == dtype


def test_a_number_without_its_negative_is_named() -> None:
    constants = {"q": np.asarray([[3, -128], [5, 7]], np.int8), "d": np.asarray(0.5)}
    model = layer("DequantizeLinear", ["q", "d"], [], constants)
    scale = np.asarray([[1.0, -1.0]])
    assert taken_in(model, Side.OUTPUT, Field(scale, np.zeros_like(scale))) == Refusal(
        Reason.OUT_OF_RANGE, "a negative scale would turn -128 at [0, 1] into 128, which int8 cannot hold"
    )
    assert isinstance(taken_in(model, Side.OUTPUT, Field(-scale, np.zeros_like(scale))), onnx.ModelProto)


@pytest.mark.parametrize(
    ("opset", "scales", "axes", "detail"),
    [
        (13, (), (0, 1), "scales can vary along one axis, and these would vary along axes [0, 1]"),
        (13, (2,), (1,), "it varies along axes [1]; the channels of layer are axis 0"),
        (12, (), (1,), "it varies along axes [1]; layer has but one for all of it"),
    ],
)
def test_scales_along_another_axis_than_theirs_are_refused(
    opset: int, scales: tuple[int, ...], axes: tuple[int, ...], detail: str
) -> None:
    rng = np.random.default_rng(0)
    constants = {"q": np.ones((2, 3), np.int8), "d": np.full(scales, 0.5)}
    attributes = {"axis": 0} if opset > 12 else {}
    model = layer("DequantizeLinear", ["q", "d"], [], constants, opset=opset, **attributes)
    assert taken_in(model, Side.OUTPUT, field_over(rng, (2, 3), axes)) == Refusal(Reason.WRONG_AXIS, detail)
