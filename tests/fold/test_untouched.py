"""What folding leaves as it is: names, metadata, bytes, weights that others read, and what the caller named."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from bnfold.fold import apply, plan
from bnfold.parity.reference import run_float64
from bnfold.rules import Reason
from tests.fold.one_fold import CONV_BN, assert_same, fold, initializers, ops, reasons
from tests.rules.example_models import build, feeds_for


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
