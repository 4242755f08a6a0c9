"""Fold a model, look at what is left of it, and judge it."""

from __future__ import annotations

import numpy as np
import onnx

from bnfold.fold import apply, plan
from bnfold.rules import Reason
from tests.rules.example_models import feeds_for, run

__all__ = ["CONV_BN", "assert_same", "fold", "initializers", "ops", "reasons"]

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
