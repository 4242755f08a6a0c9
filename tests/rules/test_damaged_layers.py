"""A layer whose attributes, shapes or inputs are not what its operation promises is refused, and nothing is raised."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from bnfold.fold import apply, plan
from bnfold.rules import RULES, Example
from tests.rules.example_models import build

EXAMPLES = [example for absorber in RULES.absorbers.values() for example in absorber.examples]
NAMES = {
    "Conv": ("auto_pad", "pads", "strides", "group", "dilations", "kernel_shape"),
    "ConvTranspose": ("output_shape", "output_padding", "pads", "strides", "auto_pad", "dilations"),
    "DequantizeLinear": ("axis", "block_size"),
    "Einsum": ("equation",),
    "GatherND": ("batch_dims",),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "GroupNormalization": ("num_groups", "epsilon"),
    "LSTM": ("direction", "layout", "hidden_size"),
}
DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float16), np.dtype(np.int8), np.dtype(np.bool_))
VALUES: tuple[Any, ...] = (
    -7,
    0,
    1,
    2,
    2**40,
    0.5,
    float("nan"),
    "SAME_LOWER",
    "ij,jk->ik",
    [1, 1],
    [-3, 0, 2**40, 1],
    [2.0],
)


def spoil_attribute(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    own = [attribute.name for attribute in node.attribute]
    name = draw(st.sampled_from([*own, *NAMES.get(node.op_type, ("axis", "epsilon"))]))
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, draw(st.sampled_from(VALUES)))])


def spoil_constant(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    if graph.initializer:
        tensor = draw(st.sampled_from(list(graph.initializer)))
        array = np.ones(draw(st.lists(st.integers(0, 3), max_size=4)))
        own = np.dtype(str(helper.tensor_dtype_to_np_dtype(tensor.data_type)))
        dtype = draw(st.sampled_from([own, *DTYPES]))
        tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))


def spoil_wire(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    if draw(st.booleans()):
        del node.input[-1:]
    elif node.input:
        names = [name for other in graph.node for name in (*other.input, *other.output)] + [""]
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))


def spoil_shape(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    kind = graph.input[0].type.tensor_type
    if kind.shape.dim:
        place = draw(st.integers(0, len(kind.shape.dim) - 1))
        kind.shape.dim[place].dim_value = draw(st.sampled_from([-1, 0, 1, 7, 2**40]))


MISTAKES = (spoil_attribute, spoil_attribute, spoil_constant, spoil_wire, spoil_shape)


NIGHTLY = settings().max_examples // 5
"""So many examples at least: many more of them at night."""


@st.composite
def damaged(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw an example of a layer in which some things are not what they should be."""
    example: Example = draw(st.sampled_from(EXAMPLES))
    model = build(example.graph, seed=7, opset=example.opset)
    for _hit in range(draw(st.integers(1, 3))):
        draw(st.sampled_from(MISTAKES))(draw, model.graph)
    if draw(st.integers(0, 3)) == 0:
        model.opset_import[0].version = draw(st.sampled_from([1, 6, 7, 9, 12, 13, 18, 21, 23, 99]))
    return model


@settings(max_examples=max(300, NIGHTLY), suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_a_damaged_layer_is_no_reason_to_fail(model: onnx.ModelProto) -> None:
    fold_plan = plan(model)
    batch_norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    folded = sum(fold.subject.op_type == "BatchNormalization" for fold in fold_plan.folds)
    assert len(fold_plan.kept) + folded == batch_norms
    apply(model, fold_plan)
