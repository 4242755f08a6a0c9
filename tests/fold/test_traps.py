"""Graphs in which other tools fold wrongly: each stays unfolded for its reason, or is right."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.fold import apply, plan
from bnfold.rules import Reason
from tests.rules.example_models import build, feeds_for, run

BN = "double[4] gamma, double[4] beta, double[4] mean, double[4] var"
CONV = "(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, "

TRAPS = {
    "a constant over the width, as wide as there are channels": (
        CONV + "double[4] c> { h = Conv(x, W) y = Mul(h, c) }",
        [Reason.WRONG_AXIS],
    ),
    "a constant over the height, as high as there are channels": (
        CONV + "double[4,1] c> { h = Conv(x, W) y = Add(h, c) }",
        [Reason.WRONG_AXIS],
    ),
    "a constant over the batch, as large as there are channels": (
        """(double[4,3,6,6] x) => (double y) <double[4,3,3,3] W, double[4,1,1,1] c> {
           h = Conv(x, W) y = Mul(h, c) }""",
        [Reason.WRONG_AXIS],
    ),
    "two axes against four are the last two": (
        CONV + "double[1,4] c> { h = Conv(x, W) y = Mul(h, c) }",
        [Reason.WRONG_AXIS],
    ),
    "a scalar with five axes makes five axes": (
        """(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, double[1,1,1,1,1] c> {
           h = Conv(x, W) y = Add(h, c) }""",
        [Reason.ENLARGES],
    ),
    "a constant that broadcasts one channel to four": (
        """(double[1,3,6,6] x) => (double y) <double[1,3,3,3] W, double[4,1,1] c> {
           h = Conv(x, W) y = Mul(h, c) }""",
        [Reason.ENLARGES],
    ),
    "in front of a layer, a constant that broadcasts a batch of one": (
        """(double[1,3] x) => (double y) <double[3,4] B, double[5,1] c> {
           h = Mul(x, c) y = Gemm(h, B) }""",
        [Reason.ENLARGES],
    ),
    "a dimension that may turn out to be 1": (
        """(double[2,C] x) => (double y) <double[4,3] B, double[4] c> {
           h = Mul(x, c) y = Gemm(h, B) }""",
        [Reason.UNKNOWN_SHAPE],
    ),
    "a reshape that mixes the columns of a product before the batch norm": (
        f"""(double[6,5] x) => (double y) <double[5,2] W, int64[2] s = {{3, 4}}, {BN}> {{
           h = MatMul(x, W) r = Reshape(h, s) y = BatchNormalization(r, gamma, beta, mean, var) }}""",
        [Reason.SCRAMBLED],
    ),
    "a transposition that puts rows where channels were": (
        f"""(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, {BN}> {{
           h = Conv(x, W) t = Transpose<perm=[0,3,2,1]>(h) y = BatchNormalization(t, gamma, beta, mean, var) }}""",
        [Reason.WRONG_AXIS],
    ),
    "a residual that also takes the batch norm's output": (
        f"""(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, double[4,4,1,1] V, {BN}> {{
           h = Relu(x) c = Conv(h, W) r = Relu(c) n = BatchNormalization(r, gamma, beta, mean, var)
           v = Conv(n, V) w = Relu(v) y = Add(w, n) }}""",
        [],
    ),
    "a residual that also takes the convolution's output": (
        f"""(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, {BN}> {{
           c = Conv(x, W) n = BatchNormalization(c, gamma, beta, mean, var) y = Add(c, n) }}""",
        [Reason.USED_ELSEWHERE],
    ),
    "a scale of either sign in front of a Relu": (
        f"""(double[1,4,6,6] x) => (double y) <double[4,4,3,3] W, {BN}> {{
           n = BatchNormalization(x, gamma, beta, mean, var) r = Relu(n) y = Conv(r, W) }}""",
        [Reason.SIGN],
    ),
    "a quotient with the constant above": (
        CONV + "double[4,1,1] var> { h = Conv(x, W) y = Div(var, h) }",
        [],
    ),
    "a power is no product": (
        CONV + "double[4,1,1] var> { h = Conv(x, W) y = Pow(h, var) }",
        [],
    ),
    "two values multiplied are no constant": (
        f"""(double[1,3,6,6] x) => (double y) <double[4,3,3,3] W, {BN}> {{
           h = Conv(x, W) g = GlobalAveragePool(h) s = Sigmoid(g) m = Mul(h, s)
           y = BatchNormalization(m, gamma, beta, mean, var) }}""",
        [Reason.USED_ELSEWHERE],
    ),
    "the value squared": (
        f"""(double[2,4] x) => (double y) <{BN}> {{
           n = BatchNormalization(x, gamma, beta, mean, var) t = Transpose(n) y = Gemm(n, t) }}""",
        [Reason.DYNAMIC_WEIGHT],
    ),
    "a scale that a caller passes in": (
        """(double[1,3,6,6] x, double[4,1,1] c) => (double y) <double[4,3,3,3] W> { h = Conv(x, W) y = Mul(h, c) }""",
        [],
    ),
    "a scale of zero": (
        CONV + "double[4,1,1] c = {0.0, 1.0, 0.0, -1.0}> { h = Conv(x, W) y = Mul(h, c) }",
        [],
    ),
    "a constant less a value, the constant shared with what is behind": (
        CONV + "double[4,1,1] c> { h = Conv(x, W) d = Sub(c, h) y = Add(d, c) }",
        [],
    ),
    "a product shared by two batch norms": (
        f"""(double[2,3] x) => (double y, double z) <double[3,4] W, {BN}, double[4] mean2> {{
           h = MatMul(x, W) y = BatchNormalization(h, gamma, beta, mean, var)
           z = BatchNormalization(h, gamma, beta, mean2, var) }}""",
        [Reason.USED_ELSEWHERE, Reason.USED_ELSEWHERE],
    ),
}


@pytest.mark.parametrize(("graph", "reasons"), TRAPS.values(), ids=TRAPS.keys())
def test_a_trap_stays_for_its_reason_or_is_right(graph: str, reasons: list[Reason]) -> None:
    model = build(graph, seed=11)
    fold_plan = plan(model)
    assert [kept.refusal.reason for kept in (*fold_plan.kept, *fold_plan.plain)] == reasons
    feeds = feeds_for(model, seed=12)
    if "double[2,C] x" in graph:
        feeds = {"x": np.asarray([[1.5], [2.0]])}
    with np.errstate(all="ignore"):
        expected = run(model, feeds)
        actual = run(apply(model, fold_plan).model, feeds)
    for mine, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)
