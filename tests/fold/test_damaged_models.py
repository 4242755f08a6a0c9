"""A plan never fails for a model's sake: whatever a file says, what does not fit is kept with a reason."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, numpy_helper

from bnfold.fold import apply, plan
from tests.fold.random_graphs import models


@st.composite
def damaged(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a model in which some attributes, shapes and wires are not what they should be."""
    model = draw(models())
    graph = model.graph
    for _hit in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["attribute", "tensor", "wire", "drop", "opset", "shape", "content"]))
        node = draw(st.sampled_from(list(range(len(graph.node)))))
        where = graph.node[node]
        if kind == "attribute" and where.attribute:
            attribute = where.attribute[draw(st.integers(0, len(where.attribute) - 1))]
            if attribute.type == AttributeProto.INT:
                attribute.i = draw(st.sampled_from([-7, -1, 0, 1, 2, 3, 99, 2**40]))
            elif attribute.type == AttributeProto.INTS and attribute.ints:
                attribute.ints[0] = draw(st.sampled_from([-3, 0, 5, 2**40]))
                if draw(st.booleans()):
                    attribute.ints.append(1)
            elif attribute.type == AttributeProto.FLOAT:
                attribute.f = draw(st.sampled_from([0.0, float("nan"), float("inf"), -1.0]))
        elif kind == "tensor" and graph.initializer:
            tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
            shape = draw(st.lists(st.integers(0, 3), max_size=5))
            tensor.CopyFrom(numpy_helper.from_array(np.ones(shape), tensor.name))
        elif kind == "content" and graph.initializer:
            tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
            array = numpy_helper.to_array(tensor).copy()
            if array.size and array.dtype.kind == "f":
                array.reshape(-1)[0] = draw(st.sampled_from([np.nan, np.inf, 0.0, 1e308, -1e-320]))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        elif kind == "wire" and where.input:
            names = [name for other in graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
            where.input[draw(st.integers(0, len(where.input) - 1))] = draw(st.sampled_from(names))
        elif kind == "drop" and where.input:
            del where.input[-1]
        elif kind == "opset":
            model.opset_import[0].version = draw(st.sampled_from([1, 6, 7, 9, 13, 99]))
        elif kind == "shape":
            shape = graph.input[0].type.tensor_type.shape
            if draw(st.booleans()):
                graph.input[0].type.tensor_type.ClearField("shape")
            elif shape.dim:
                shape.dim[0].dim_value = draw(st.sampled_from([0, -1, 7, 2**40]))
    return model


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_a_plan_never_fails_for_a_models_sake(model: onnx.ModelProto) -> None:
    fold_plan = plan(model)
    batch_norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    folded = sum(fold.subject.op_type == "BatchNormalization" for fold in fold_plan.folds)
    assert len(fold_plan.kept) + folded == batch_norms
    apply(model, fold_plan)
