"""Two layers with nothing between them are one: onnx's own evaluator says whether, whatever they look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnfold.fold import apply, plan
from bnfold.rules import Example
from bnfold.rules.chains import CHAIN_EXAMPLES, CHAIN_RULE
from tests.rules.example_models import build, feeds_for, run


def parameters(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def assert_chains_right(model: onnx.ModelProto) -> bool:
    """Judge what becomes of a model, and tell whether layers of it were put together."""
    feeds = feeds_for(model, seed=8)
    expected = run(model, feeds)
    fold_plan = plan(model)
    folded = apply(model, fold_plan).model
    for actual, wanted in zip(run(folded, feeds), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * max(1.0, float(np.abs(wanted).max())))
    assert plan(folded).folds == ()
    chained = any(step.rule == CHAIN_RULE for fold in fold_plan.folds for step in fold.steps)
    assert len(folded.graph.node) == len(model.graph.node) - chained
    if chained:
        assert parameters(folded) <= parameters(model)
    return chained


@pytest.mark.parametrize("example", CHAIN_EXAMPLES, ids=lambda example: example.title)
def test_an_example_becomes_one_layer_or_says_why_not(example: Example) -> None:
    model = build(example.graph, seed=7)
    fold_plan = plan(model)
    assert len(fold_plan.plain) == 0
    if example.refused is not None:
        assert [stays.refusal.reason for stays in fold_plan.apart] == [example.refused]
        assert fold_plan.folds == ()
        return
    assert fold_plan.apart == ()
    assert assert_chains_right(model)


def made(nodes: list[onnx.NodeProto], shape: list[int], constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    sizes = [
        d.dim_value for value in (*inferred.value_info, *inferred.output) for d in value.type.tensor_type.shape.dim
    ]
    assume(min(sizes) > 0)  # a kernel may be too large for what the first leaves
    model.graph.output[0].CopyFrom(inferred.output[0])
    return model


@st.composite
def convolutions(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw two convolutions in a row of one or two axes, with groups, strides, dilations, pads and biases."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rank = draw(st.sampled_from([1, 2, 2]))
    groups = [draw(st.sampled_from([1, 1, 1, 2, 4])) for _ in range(2)]
    channels = [draw(st.sampled_from([4, 8])), draw(st.sampled_from([4, 8, 12])), draw(st.sampled_from([4, 8]))]
    sizes = [draw(st.integers(7, 9)) for _ in range(rank)]
    nodes, constants, value = [], {}, "x"
    for number, group in enumerate(groups):
        taps = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank)]
        name = "y" if number else "h"
        constants[f"W{number}"] = rng.normal(size=(channels[number + 1], channels[number] // group, *taps))
        inputs = [value, f"W{number}"]
        if draw(st.booleans()):
            constants[f"b{number}"] = rng.normal(size=channels[number + 1])
            inputs.append(f"b{number}")
        attributes: dict[str, Any] = {"group": group}
        if draw(st.booleans()):
            attributes["strides"] = [draw(st.integers(1, 2)) for _ in range(rank)]
        if draw(st.integers(0, 3)) == 0:
            attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(rank)]
        padding = draw(st.sampled_from(["none", "none", "pads", "same", "VALID", "SAME_UPPER", "SAME_LOWER"]))
        if padding == "pads":
            attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
        elif padding == "same":
            attributes["pads"] = [size // 2 for size in taps] * 2
        elif padding != "none" and "dilations" not in attributes:
            attributes["auto_pad"] = padding
        if draw(st.booleans()):
            attributes["kernel_shape"] = taps
        nodes.append(helper.make_node("Conv", inputs, [name], **attributes))
        value = name
    return made(nodes, [2, channels[0], *sizes], constants)


@st.composite
def products(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw two matrix products in a row, of either kind, perhaps with an Add between them or behind."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kinds = [draw(st.sampled_from(["Gemm", "MatMul"])) for _ in range(2)]
    sizes = [draw(st.integers(1, 5)), draw(st.integers(2, 9)), draw(st.integers(1, 5))]
    shape = [3, sizes[0]] if "Gemm" in kinds or draw(st.booleans()) else [2, 3, sizes[0]]
    nodes, constants, value = [], {}, "x"
    for number, kind in enumerate(kinds):
        attributes: dict[str, Any] = {}
        weight = rng.normal(size=sizes[number : number + 2])
        inputs = [value, f"W{number}"]
        name = "y" if number else "h"
        if kind == "Gemm":
            if draw(st.booleans()):
                attributes["transB"], weight = 1, weight.T.copy()
            if draw(st.booleans()):
                attributes["alpha"] = draw(st.sampled_from([0.5, 2.0]))
            if draw(st.booleans()):
                columns = sizes[number + 1]
                wide = draw(st.sampled_from([(), (1,), (columns,), (1, columns), (3, 1), (3, columns)]))
                constants[f"b{number}"] = np.asarray(rng.normal(size=wide))
                inputs.append(f"b{number}")
                attributes["beta"] = draw(st.sampled_from([0.0, 1.0, 3.0]))
        constants[f"W{number}"] = weight
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        value = name
        if kind == "MatMul" and number == 0 and draw(st.booleans()):
            wide = draw(st.sampled_from([(), (1,), (sizes[1],), (1, sizes[1]), (3, 1), (3, sizes[1])]))
            constants["c"] = np.asarray(rng.normal(size=wide))
            nodes.append(helper.make_node("Add", draw(st.permutations(["h", "c"])), ["a"]))
            value = "a"
    return made(nodes, shape, constants)


@settings(max_examples=max(300, settings().max_examples), suppress_health_check=[HealthCheck.too_slow])
@given(convolutions())
def test_two_convolutions_compute_the_same_as_one(model: onnx.ModelProto) -> None:
    # Of some strided SAME convolutions onnx's evaluator computes nothing at all.
    assume(run(model, feeds_for(model, seed=8))[0].size > 0)
    assert_chains_right(model)


@settings(max_examples=max(200, settings().max_examples))
@given(products())
def test_two_products_compute_the_same_as_one(model: onnx.ModelProto) -> None:
    feeds = feeds_for(model, seed=8)
    expected = run(model, feeds)
    fold_plan = plan(model)
    folded = apply(model, fold_plan).model
    for actual, wanted in zip(run(folded, feeds), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * max(1.0, float(np.abs(wanted).max())))
    assert plan(folded).folds == ()
    assert len(folded.graph.node) <= len(model.graph.node)
