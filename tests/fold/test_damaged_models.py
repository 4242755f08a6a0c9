"""A plan never fails for a model's sake: whatever a file says, what does not fit is kept with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, numpy_helper

from bnfold.fold import apply, plan
from tests.fold.random_graphs import models
from tests.fold.random_joins import nets


def spoil_attribute(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    if not node.attribute:
        return
    attribute = draw(st.sampled_from(list(node.attribute)))
    if attribute.type == AttributeProto.INT:
        attribute.i = draw(st.sampled_from([-7, -1, 0, 1, 2, 3, 99, 2**40]))
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[0] = draw(st.sampled_from([-3, 0, 5, 2**40]))
        attribute.ints.extend([1] * draw(st.integers(0, 1)))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = draw(st.sampled_from([0.0, float("nan"), float("inf"), -1.0]))


def spoil_size(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    if graph.initializer:
        tensor = draw(st.sampled_from(list(graph.initializer)))
        shape = draw(st.lists(st.integers(0, 3), max_size=5))
        tensor.CopyFrom(numpy_helper.from_array(np.ones(shape), tensor.name))


def spoil_content(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    if graph.initializer:
        tensor = draw(st.sampled_from(list(graph.initializer)))
        array = numpy_helper.to_array(tensor).copy()
        if array.size and array.dtype.kind == "f":
            array.reshape(-1)[0] = draw(st.sampled_from([np.nan, np.inf, 0.0, 1e308, -1e-320]))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def spoil_wire(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    if node.input:
        names = [name for other in graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))


def drop_input(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    del node.input[-1:]


def spoil_shape(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    kind = graph.input[0].type.tensor_type
    if draw(st.booleans()):
        kind.ClearField("shape")
    elif kind.shape.dim:
        kind.shape.dim[0].dim_value = draw(st.sampled_from([0, -1, 7, 2**40]))


def spoil_operation(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    """Let a node be another one of those that there are, with its old inputs, outputs and attributes."""
    node, other = (draw(st.sampled_from(list(graph.node))) for _ in range(2))
    node.op_type = other.op_type


def add_output(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    node.output.append(f"more_{len(node.output)}")


MISTAKES = (
    spoil_attribute,
    spoil_size,
    spoil_content,
    spoil_wire,
    drop_input,
    spoil_shape,
    spoil_operation,
    add_output,
)


@st.composite
def damaged(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a model in which some attributes, shapes and wires are not what they should be."""
    model = draw(models()) if draw(st.booleans()) else draw(nets())[0]
    for _hit in range(draw(st.integers(1, 4))):
        draw(st.sampled_from(MISTAKES))(draw, model.graph)
    if draw(st.integers(0, 3)) == 0:
        model.opset_import[0].version = draw(st.sampled_from([1, 6, 7, 9, 13, 99]))
    return model


@settings(max_examples=max(300, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(damaged())
def test_a_plan_never_fails_for_a_models_sake(model: onnx.ModelProto) -> None:
    fold_plan = plan(model)
    batch_norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    folded = sum(fold.subject.op_type == "BatchNormalization" for fold in fold_plan.folds)
    assert len(fold_plan.kept) + folded == batch_norms
    apply(model, fold_plan)


@pytest.mark.parametrize(
    ("operation", "inputs"), [("Cast", []), ("Relu", []), ("Identity", [""]), ("Add", ["x"]), ("Add", ["x", ""])]
)
def test_what_lacks_an_input_carries_nothing(operation: str, inputs: list[str]) -> None:
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    statistics = [
        onnx.numpy_helper.from_array(np.full(4, number, np.float32), name) for number, name in enumerate("gbmv", 1)
    ]
    graph = onnx.helper.make_graph(
        [
            node(operation, inputs, ["h"], to=1) if operation == "Cast" else node(operation, inputs, ["h"]),
            node("BatchNormalization", ["h", *"gbmv"], ["y"]),
        ],
        "damaged",
        [value("x", 1, [2, 4, 3, 3])],
        [value("y", 1, [2, 4, 3, 3])],
        statistics,
        value_info=[value("h", 1, [2, 4, 3, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    fold_plan = plan(model)
    assert (len(fold_plan.folds), len(fold_plan.kept)) == (0, 1)


@pytest.mark.parametrize("rank", [40, 62, 63, 64, 65, 70])
def test_more_axes_than_an_array_has_are_no_reason_to_fail(rank: int) -> None:
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    constants = [
        onnx.numpy_helper.from_array(np.full(4, number, np.float32), name) for number, name in enumerate("gbmv", 1)
    ]
    constants.append(onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
    constants.append(onnx.numpy_helper.from_array(np.array([2, 4] + [1] * (rank - 2), np.int64), "wide"))
    constants.append(onnx.numpy_helper.from_array(np.array([2, 4, 1, 1], np.int64), "narrow"))
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["x", "w"], ["c"]),
            node("Reshape", ["c", "wide"], ["h"]),
            node("BatchNormalization", ["h", *"gbmv"], ["n"]),
            node("Reshape", ["n", "narrow"], ["i"]),
            node("BatchNormalization", ["i", *"gbmv"], ["j"]),
            node("Reshape", ["j", "wide"], ["k"]),
            node("Reshape", ["k", "narrow"], ["l"]),
            node("Conv", ["l", "w"], ["y"]),
        ],
        "wide",
        [value("x", 1, [2, 4, 1, 1])],
        [value("y", 1, [2, 4, 1, 1])],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    fold_plan = plan(model)
    apply(model, fold_plan)
    assert len(fold_plan.folds) + len(fold_plan.kept) == 2
