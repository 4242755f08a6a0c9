"""Situations in which graphs come: what is shared, overridable, nested, old, narrow, unnamed, or simply in the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.fold import apply, plan
from bnfold.parity.reference import run_float64
from bnfold.rules import Reason
from tests.rules.example_models import build, feeds_for, run

CONV_BN = """(double[1,3,6,6] x) => (double[1,4,4,4] y)
   <double[4,3,3,3] W, double[4] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
   h = Conv(x, W, b)
   y = BatchNormalization(h, gamma, beta, mean, var) }"""


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def reasons(model: onnx.ModelProto) -> list[Reason]:
    return [kept.refusal.reason for kept in plan(model).kept]


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model)
    folded = apply(model, plan(model)).model
    onnx.checker.check_model(folded, full_check=True)
    return folded


def assert_same(model: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    feeds = feeds_for(model, seed=3)
    for actual, wanted in zip(run(folded, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_names_metadata_and_doc_strings_stay() -> None:
    model = build(CONV_BN, seed=1)
    model.doc_string, model.graph.doc_string, model.producer_name = "about the model", "about the graph", "somebody"
    helper.set_model_props(model, {"labels": "a,b"})
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    assert list(folded.graph.node[0].output) == ["y"]
    for field in ("doc_string", "producer_name", "ir_version", "opset_import", "metadata_props"):
        assert getattr(folded, field) == getattr(model, field)
    assert folded.graph.doc_string == "about the graph"
    assert list(folded.graph.input) == list(model.graph.input)
    assert list(folded.graph.output) == list(model.graph.output)
    assert set(initializers(folded)) == {"W_folded", "b_folded"}
    assert_same(model, folded)


def test_what_no_fold_touches_is_byte_for_byte_the_same() -> None:
    model = build(
        """(double[1,3,6,6] x) => (double y, double z)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var,
            double[4,4,1,1] V, double[7] unused> {
           h = Conv(x, W)
           n = BatchNormalization(h, gamma, beta, mean, var)
           y = Relu(n)
           z = Conv(y, V) }""",
        seed=1,
    )
    folded = fold(model)
    before, after = initializers(model), initializers(folded)
    assert set(after) == {"W_folded", "W_bias_folded", "V", "unused"}
    assert after["V"].SerializeToString() == before["V"].SerializeToString()
    assert after["unused"].SerializeToString() == before["unused"].SerializeToString()
    assert [n.SerializeToString() for n in folded.graph.node[1:]] == [
        n.SerializeToString() for n in model.graph.node[2:]
    ]


def test_a_model_without_anything_to_fold_comes_back_byte_for_byte() -> None:
    model = build("(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W> { h = Conv(x, W) y = Relu(h) }", seed=1)
    assert apply(model, plan(model)).model.SerializeToString() == model.SerializeToString()


def test_shared_weights_are_copied_for_each_layer_that_folds() -> None:
    model = build(
        """(double[1,3,6,6] x) => (double y, double z, double w)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var, double[4] mean2> {
           h = Conv(x, W)
           y = BatchNormalization(h, gamma, beta, mean, var)
           g = Conv(x, W)
           z = BatchNormalization(g, gamma, beta, mean2, var)
           w = Conv(x, W) }""",
        seed=1,
    )
    folded = fold(model)
    assert ops(folded) == ["Conv"] * 3
    assert folded.graph.node[2].input[1] == "W"
    # The two scales are the same, so both layers go on sharing one weight; their biases differ.
    assert folded.graph.node[0].input[1] == folded.graph.node[1].input[1] == "W_folded"
    assert folded.graph.node[0].input[2] != folded.graph.node[1].input[2]
    assert_same(model, folded)


def test_initializers_of_ir_3_are_inputs_and_fold() -> None:
    model = build(CONV_BN, seed=1, opset=8, ir_version=3)
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
    )
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    assert {value.name for value in folded.graph.input} == {"x", "W_folded", "b_folded"}
    feeds = feeds_for(model, seed=3)  # onnx's evaluator cannot run the batch norm of opset 8
    np.testing.assert_allclose(run_float64(folded, feeds)["y"], run_float64(model, feeds)["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "reason"), [("W", Reason.DYNAMIC_WEIGHT), ("mean", Reason.DYNAMIC_PARAMETERS)])
def test_an_initializer_that_a_caller_may_override_is_no_constant(name: str, reason: Reason) -> None:
    model = build(CONV_BN, seed=1)
    shape = list(initializers(model)[name].dims)
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape))
    assert reasons(model) == [reason]


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 13, 14, 15, 20])
def test_batch_norms_of_every_opset_fold(opset: int) -> None:
    model = build(CONV_BN, seed=1, opset=opset, ir_version=4)
    if opset < 7:
        model.graph.node[1].attribute.append(helper.make_attribute("is_test", 1))
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    if opset >= 14:  # onnx's evaluator knows no older batch norm
        assert_same(model, folded)
    else:
        modern = build(CONV_BN, seed=1, opset=15)
        feeds = feeds_for(model, seed=3)
        actual = run_float64(folded, feeds)["y"]
        np.testing.assert_allclose(actual, run(modern, feeds)[0], rtol=1e-12, atol=1e-12)


def test_a_batch_norm_of_opset_6_that_trains_stays() -> None:
    assert reasons(build(CONV_BN, seed=1, opset=6, ir_version=4)) == [Reason.TRAINING_MODE]


def test_a_batch_norm_in_training_mode_stays() -> None:
    model = build(CONV_BN, seed=1)
    model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    assert reasons(model) == [Reason.TRAINING_MODE]


def test_statistics_for_every_position_stay() -> None:
    model = build(CONV_BN, seed=1, opset=8, ir_version=4)
    model.graph.node[1].attribute.append(helper.make_attribute("spatial", 0))
    assert reasons(model) == [Reason.PER_ACTIVATION]


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("mean", np.nan, Reason.NON_FINITE),
        ("gamma", np.inf, Reason.NON_FINITE),
        ("var", np.nan, Reason.NON_FINITE),
        ("var", -1.0, Reason.VARIANCE_NOT_POSITIVE),
        ("W", np.nan, Reason.NON_FINITE),
        ("b", np.inf, Reason.NON_FINITE),
    ],
)
def test_numbers_that_are_none_stay_where_they_are(parameter: str, value: float, reason: Reason) -> None:
    model = build(CONV_BN, seed=1)
    tensor = initializers(model)[parameter]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[1] = value
    tensor.CopyFrom(numpy_helper.from_array(array, parameter))
    assert reasons(model) == [reason]
    assert apply(model, plan(model)).model.SerializeToString() == model.SerializeToString()


def narrow(model: onnx.ModelProto, dtype: npt.DTypeLike, *, only: set[str] | None = None) -> onnx.ModelProto:
    """Store a model's tensors in another type, all of them or only the named ones."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE and (only is None or tensor.name in only):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = element
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 4e-3), (np.float32, 1e-6)])
def test_narrow_weights_are_rounded_once(dtype: npt.DTypeLike, tolerance: float) -> None:
    model = narrow(build(CONV_BN, seed=1), dtype)
    folded = fold(model)
    assert {tensor.data_type for tensor in folded.graph.initializer} == {
        helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    }
    feeds = {"x": np.random.default_rng(4).normal(size=(1, 3, 6, 6))}
    wanted = run_float64(model, feeds)["y"]
    np.testing.assert_allclose(run_float64(folded, feeds)["y"], wanted, atol=tolerance * np.abs(wanted).max())


def test_half_precision_layers_with_single_precision_statistics_fold_in_half_precision() -> None:
    model = narrow(build(CONV_BN, seed=1), np.float16, only={"W", "b"})
    narrow(model, np.float32, only={"gamma", "beta", "mean", "var"})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    assert {tensor.data_type for tensor in folded.graph.initializer} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("gamma", [1e6, 1e-9])
def test_what_half_precision_cannot_hold_stays(gamma: float) -> None:
    model = build(CONV_BN, seed=1)
    initializers(model)["gamma"].CopyFrom(numpy_helper.from_array(np.full(4, gamma), "gamma"))
    narrow(model, np.float16, only={"W", "b"})
    narrow(model, np.float32, only={"gamma", "beta", "mean", "var"})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert reasons(model) == [Reason.OUT_OF_RANGE]


def test_a_scale_of_zero_is_no_underflow() -> None:
    model = build(CONV_BN, seed=1)
    initializers(model)["gamma"].CopyFrom(numpy_helper.from_array(np.asarray([0.0, 1.0, 0.0, 2.0]), "gamma"))
    assert_same(model, fold(model))


def test_integer_weights_stay() -> None:
    model = build(
        """(double[2,3] x) => (double[2,4] y)
           <int32[3,4] Q, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           i = Cast<to=6>(x)
           m = MatMul(i, Q)
           h = Cast<to=11>(m)
           y = BatchNormalization(h, gamma, beta, mean, var) }""",
        seed=1,
    )
    assert reasons(model) == [Reason.NO_RULE]


def test_batch_norms_in_the_bodies_of_an_if_fold_with_weights_from_inside_and_outside() -> None:
    model = build(
        """(double[1,3,6,6] x, bool c) => (double[1,4,4,4] y)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           y = If (c) <
             then_branch = one () => (double[1,4,4,4] t) {
               h = Conv(x, W)
               t = BatchNormalization(h, gamma, beta, mean, var) },
             else_branch = two () => (double[1,4,4,4] e)
               <double[4] s = {1.0, 2.0, 3.0, 4.0}, double[1,4,1,1] k = {1.0, 2.0, 3.0, 4.0}> {
               g = Conv(x, W)
               f = Mul(g, k)
               e = BatchNormalization(f, s, beta, mean, var) }
           > }""",
        seed=1,
    )
    fold_plan = plan(model)
    assert fold_plan.kept == ()
    folded = apply(model, fold_plan)
    assert {region.scope for region in folded.regions} == {("y",)}
    onnx.checker.check_model(folded.model)
    bodies = [attribute.g for attribute in folded.model.graph.node[0].attribute]
    assert [[node.op_type for node in body.node] for body in bodies] == [["Conv"], ["Conv"]]
    x = np.random.default_rng(5).normal(size=(1, 3, 6, 6))
    for chosen in (True, False):
        feeds = {"x": x, "c": np.asarray(chosen)}
        wanted, actual = run_float64(model, feeds)["y"], run_float64(folded.model, feeds)["y"]
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def test_a_value_that_a_body_reads_is_not_changed() -> None:
    model = build(
        """(double[1,3,6,6] x, bool c) => (double[1,4,4,4] y, double[1,4,4,4] z)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           h = Conv(x, W)
           z = If (c) <
             then_branch = one () => (double[1,4,4,4] t) { t = Relu(h) },
             else_branch = two () => (double[1,4,4,4] e) { e = Abs(h) }
           >
           y = BatchNormalization(h, gamma, beta, mean, var) }""",
        seed=1,
    )
    assert reasons(model) == [Reason.USED_IN_SUBGRAPH]


def test_a_batch_norm_in_a_function_of_the_model_is_kept_and_accounted_for() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "mine" : 1]>
           g (float[1,4,3,3] x, float[4] s, float[4] b, float[4] m, float[4] v) => (float[1,4,3,3] y) {
             y = mine.norm(x, s, b, m, v) }
           <domain: "mine", opset_import: ["" : 17]>
           norm (x, s, b, m, v) => (y) { y = BatchNormalization(x, s, b, m, v) }"""
    )
    (kept,) = plan(model).kept
    assert kept.refusal.reason is Reason.INSIDE_FUNCTION
    assert kept.subject.scope == ("mine::norm",)


def test_layers_of_other_domains_are_left_alone_and_folded_around() -> None:
    model = build(CONV_BN, seed=1)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[1].output[0] = "n"
    model.graph.node.append(helper.make_node("Conv", ["n", "W"], ["o"], domain="com.example"))
    model.graph.node.append(helper.make_node("Relu", ["o"], ["y"]))
    folded = apply(model, plan(model)).model
    assert ops(folded) == ["Conv", "Conv", "Relu"]
    assert [node.domain for node in folded.graph.node] == ["", "com.example", ""]
    assert "W" in initializers(folded)


def test_asking_for_a_shape_is_not_reading_the_value() -> None:
    model = build(
        """(double[1,3,6,6] x) => (double y, int64[4] z)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           h = Conv(x, W)
           z = Shape(h)
           y = BatchNormalization(h, gamma, beta, mean, var) }""",
        seed=1,
    )
    folded = fold(model)
    assert ops(folded) == ["Conv", "Shape"]
    assert_same(model, folded)


def test_new_names_differ_from_every_name_in_the_model() -> None:
    model = build(
        """(double[1,3,6,6] x, double[1] W_folded) => (double y, double z)
           <double[4,3,3,3] W, double[4] b_folded, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           h = Conv(x, W, b_folded)
           y = BatchNormalization(h, gamma, beta, mean, var)
           z = Relu(W_folded) }""",
        seed=1,
    )
    folded = fold(model)
    assert set(initializers(folded)) == {"W_folded_2", "b_folded_folded"}
    assert_same(model, folded)


@pytest.mark.parametrize("pattern", ["y", "bn_*"])
def test_what_is_named_is_kept_and_takes_nothing_in(pattern: str) -> None:
    model = build(
        """(double[1,3,6,6] x) => (double z)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var, double[4,1,1] c> {
           h = Conv(x, W)
           y = BatchNormalization(h, gamma, beta, mean, var)
           z = Mul(y, c) }""",
        seed=1,
    )
    model.graph.node[1].name = "bn_1"
    fold_plan = plan(model, keep=[pattern])
    assert [kept.refusal.reason for kept in fold_plan.kept] == [Reason.KEPT_ON_REQUEST]
    assert apply(model, fold_plan).model.SerializeToString() == model.SerializeToString()


def test_the_batch_may_be_free_and_nothing_needs_declared_shapes() -> None:
    model = build(
        """(double[N,3,6,6] x) => (double[N,5] y)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var,
            int64[2] shape = {-1, 64}, double[64,5] B, double[5] g, double[5] o, double[5] m, double[5] var2> {
           h = Conv(x, W)
           r = Relu(h)
           n = BatchNormalization(r, gamma, beta, mean, var)
           f = Reshape(n, shape)
           d = MatMul(f, B)
           y = BatchNormalization(d, g, o, m, var2) }""",
        seed=1,
    )
    folded = fold(model)
    assert ops(folded) == ["Conv", "Relu", "Reshape", "MatMul", "Add"]
    assert_same(model, folded)


def test_a_shape_that_the_file_merely_claims_is_not_believed() -> None:
    model = build(CONV_BN, seed=1)
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.DOUBLE, [1, 9, 4, 4]))
    assert ops(apply(model, plan(model)).model) == ["Conv"]


def test_weights_behind_constant_nodes_are_found_and_what_computed_them_goes() -> None:
    model = build(
        """(double[2,3] x) => (double[2,4] y)
           <double[4,3] V, double[4] gamma, double[4] beta, double[4] mean, double[4] var, double[4] other> {
           W = Transpose<perm=[1,0]>(V)
           i = Identity(other)
           h = Gemm(x, W, i)
           y = BatchNormalization(h, gamma, beta, mean, var) }""",
        seed=1,
    )
    folded = fold(model)
    assert ops(folded) == ["Gemm"]
    assert set(initializers(folded)) == {"W_folded", "i_folded"}
    assert_same(model, folded)


def test_one_batch_norm_behind_two_layers_goes_into_both_its_shift_only_once() -> None:
    model = build(
        """(double[1,3,6,6] x) => (double y)
           <double[4,3,3,3] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           h = Conv(x, W)
           g = Conv(x, W)
           s = Add(h, g)
           y = BatchNormalization(s, gamma, beta, mean, var) }""",
        seed=1,
    )
    folded = fold(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert_same(model, folded)


def test_a_layer_between_two_batch_norms_takes_in_both() -> None:
    model = build(
        """(double[1,3,6,6] x) => (double y)
           <double[4,3,3,3] W, double[4] b, double[3] g, double[3] o, double[3] m, double[3] var2,
            double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
           n = BatchNormalization(x, g, o, m, var2)
           h = Conv(n, W, b)
           y = BatchNormalization(h, gamma, beta, mean, var) }""",
        seed=1,
    )
    fold_plan = plan(model)
    folded = apply(model, fold_plan)
    assert ops(folded.model) == ["Conv"]
    (region,) = folded.regions
    assert (region.inputs, region.outputs, region.fan_in) == (("x",), ("y",), 27)
    assert_same(model, folded.model)


def test_a_batch_norm_in_front_of_two_layers_goes_into_both() -> None:
    model = build(
        """(double[2,3] x) => (double y, double z)
           <double[3,4] A, double[5,3] B, double[5] c, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
           n = BatchNormalization(x, gamma, beta, mean, var)
           y = MatMul(n, A)
           z = Gemm<transB=1>(n, B, c) }""",
        seed=1,
    )
    folded = fold(model)
    assert sorted(ops(folded)) == ["Add", "Gemm", "MatMul"]
    assert_same(model, folded)
