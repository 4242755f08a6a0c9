"""Bodies of an If, functions of the model, layers of other domains: what folding sees of them, and what it leaves."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from bnfold.fold import apply, plan
from bnfold.parity.reference import run_float64
from bnfold.rules import Reason
from tests.fold.one_fold import CONV_BN, initializers, ops, reasons
from tests.rules.example_models import build


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
