"""What a view knows of a graph: constants through expressions, shapes without weights, scopes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.graph.view import GraphView, views


def view_of(text: str) -> GraphView:
    model = onnx.parser.parse_model(text)
    return next(iter(views(model)))


HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'

EXPRESSIONS = [
    "y = Add(a, b)",
    "y = Sub(a, b)",
    "y = Mul(a, b)",
    "y = Div(a, b)",
    "y = Pow(c, b)",
    "y = Sqrt(c)",
    "y = Reciprocal(a)",
    "y = Neg(a)",
    "y = Abs(a)",
    "y = Exp(a)",
    "y = Identity(a)",
    "y = Transpose<perm=[1,0]>(a)",
    "y = Transpose(a)",
    "y = Reshape(a, s)",
    "y = Concat<axis=0>(a, a)",
    "y = Gather<axis=1>(a, i)",
    "y = Unsqueeze(a, i)",
    "u = Unsqueeze(a, i) y = Squeeze(u, i)",
    "u = Cast<to=7>(a) y = Cast<to=1>(u)",
    "k = Constant<value_floats=[2.5, 3.5]>() y = Mul(a, k)",
    "k = Div(s, t) y = Cast<to=1>(k)",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_constant_expression_is_what_onnx_computes(expression: str) -> None:
    text = (
        HEAD
        + "g () => (float[M,N] y) <float[2,2] a = {1.5,-2.5,3.0,0.5}, float[2] b = {2.0,4.0},"
        + " float[2,2] c = {1.0,4.0,9.0,2.0}, int64[1] s = {-1}, int64[1] t = {2}, int64[1] i = {1}> {"
        + expression
        + "}"
    )
    model = onnx.parser.parse_model(text)
    expected = np.asarray(next(iter(ReferenceEvaluator(model).run(None, {}))))
    found = view_of(text).constant("y")
    assert found is not None
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=1e-6)


def test_what_an_input_reaches_is_no_constant() -> None:
    view = view_of(HEAD + "g (float[2] x) => (float[2] y) <float[2] a = {1.0, 2.0}> { h = Mul(a, a) y = Add(h, x) }")
    assert view.constant("y") is None
    assert view.constant("x") is None
    found = view.constant("h")
    assert found is not None
    np.testing.assert_array_equal(found, [1.0, 4.0])


def test_shapes_are_inferred_without_the_weights() -> None:
    weight = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "W")
    weight.ClearField("raw_data")  # the content of a large tensor is never looked at
    weight.dims[0] = 1 << 20
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "W"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    view = next(iter(views(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))))
    assert view.shape("h") == ("N", 1 << 20, 7, 7)
    assert view.constant("missing") is None


def test_a_layer_tells_the_rank_where_inference_knows_nothing() -> None:
    view = view_of(
        '<ir_version: 9, opset_import: ["" : 18, "other" : 1]>\n'
        "g (float[N] x, float[8,3,3,3] W) => (y) { a = other.op(x) h = Conv(a, W) y = Relu(h) }"
    )
    assert view.shape("y") == (None, None, None, None)
    assert view.shape("a") == (None, None, None, None)
