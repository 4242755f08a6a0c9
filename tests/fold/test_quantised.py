"""Layers whose weights the model dequantises itself, folded and computed in float64 by onnx's evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bnfold.fold import apply, plan
from tests.rules.example_models import build, feeds_for, run

NORM = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"
POSITIVE = "float[4] gamma = {0.5, 2.0, 1.0, 0.25}, float[4] beta, float[4] mean, float[4] var"
BEHIND = "y = BatchNormalization(h, gamma, beta, mean, var)"
BEFORE = "h = BatchNormalization(x, gamma, beta, mean, var)"

FOLDS = {
    "behind a convolution": f"""(float[1,3,6,6] x) => (float y)
       <int8[4,3,3,3] q, float d = {{0.25}}, {NORM}> {{
       W = DequantizeLinear(q, d)
       h = Conv(x, W)
       {BEHIND} }}""",
    "in front of a convolution": f"""(float[1,4,6,6] x) => (float y)
       <int8[5,4,3,3] q, float[5] b, float d = {{0.25}}, {NORM}> {{
       {BEFORE}
       W = DequantizeLinear(q, d)
       y = Conv(h, W, b) }}""",
    "in front of a depthwise convolution": f"""(float[1,4,6,6] x) => (float y)
       <int8[8,1,3,3] q, float d = {{0.25}}, {NORM}> {{
       {BEFORE}
       W = DequantizeLinear(q, d)
       y = Conv<group=4>(h, W) }}""",
    "a bias that is quantised too": f"""(float[1,3,6,6] x) => (float y)
       <int8[4,3,3,3] q, float d = {{0.25}}, int32[4] r, float e = {{0.5}}, {NORM}> {{
       W = DequantizeLinear(q, d)
       b = DequantizeLinear(r, e)
       h = Conv(x, W, b)
       {BEHIND} }}""",
    "laid out otherwise": f"""(float[2,3] x) => (float y)
       <int8[4,3] q, float[4] d = {{0.25, 0.5, 1.0, 0.125}}, {NORM}> {{
       V = DequantizeLinear<axis=0>(q, d)
       W = Transpose<perm=[1,0]>(V)
       h = MatMul(x, W)
       {BEHIND} }}""",
    "reshaped to a kernel": f"""(float[1,3,6,6] x) => (float y)
       <int8[4,3] q, float d = {{0.25}}, int64[4] s = {{4, 3, 1, 1}}, {NORM}> {{
       V = DequantizeLinear(q, d)
       W = Reshape(V, s)
       h = Conv(x, W)
       {BEHIND} }}""",
    "in front of an LSTM": """(float[3,2,4] x) => (float y)
       <int8[1,8,4] q, float d = {0.25}, float[1,8,2] R, float[4] c, float[4] o> {
       m = Mul(x, c)
       h = Add(m, o)
       W = DequantizeLinear(q, d)
       y = LSTM<hidden_size=2>(h, W, R) }""",
    "an Einsum": f"""(float[2,3] x) => (float y)
       <int8[3,4] q, float d = {{0.25}}, {NORM}> {{
       W = DequantizeLinear(q, d)
       h = Einsum<equation="bi,io->bo">(x, W)
       {BEHIND} }}""",
}

STAYS = {
    f"""(float[2,3] x) => (float y)
       <int8[3,4] q, float[3] d = {{0.25, 0.5, 1.0}}, {NORM}> {{
       W = DequantizeLinear<axis=0>(q, d)
       h = MatMul(x, W)
       {BEHIND} }}""": "it varies along axes [1]; the channels of W are axis 0",
    f"""(float[1,3,6,6] x, float[1,3,5,5] z) => (float y, float w)
       <int8[4,3,3,3] q, float d = {{0.25}}, {POSITIVE}> {{
       W = DequantizeLinear(q, d)
       h = Conv(x, W)
       {BEHIND}
       w = Conv(z, W) }}""": "the quantised weight W is not read by h alone",
    f"""(float[1,3,6,6] x) => (float y, float W)
       <int8[4,3,3,3] q, float d = {{0.25}}, {POSITIVE}> {{
       W = DequantizeLinear(q, d)
       h = Conv(x, W)
       {BEHIND} }}""": "the quantised weight W is not read by h alone",
}


@pytest.mark.parametrize("graph", FOLDS.values(), ids=FOLDS.keys())
def test_the_quantised_numbers_stay_small_and_the_result_is_the_same(graph: str) -> None:
    model = build(graph, seed=3)
    fold_plan = plan(model)
    assert fold_plan.kept == ()
    assert fold_plan.plain == ()
    result = apply(model, fold_plan)
    folded = result.model
    assert [(region.inputs, region.outputs) for region in result.regions] == [(("x",), ("y",))]
    feeds = feeds_for(model, seed=4)
    for actual, wanted in zip(run(folded, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
    large = [tensor for tensor in folded.graph.initializer if len(tensor.dims) > 1 and not tensor.name.startswith("R")]
    assert [tensor.data_type for tensor in large if "bias" not in tensor.name] == [onnx.TensorProto.INT8]
    assert plan(folded).folds == ()


@pytest.mark.parametrize(("graph", "detail"), STAYS.items(), ids=["other axis", "two layers", "shown"])
def test_quantised_weights_that_cannot_take_it_in_stay_with_their_reason(graph: str, detail: str) -> None:
    model = build(graph, seed=3)
    fold_plan = plan(model)
    assert [kept.refusal.detail for kept in fold_plan.kept] == [detail]
    assert apply(model, fold_plan).model == model
