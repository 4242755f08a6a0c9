"""A node that turns into another operation has the constants of what it is now, and none of what it was."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.fold import apply, plan
from tests.fold.small_graphs.judge import compute
from tests.rules.example_models import build, feeds_for

BATCH_NORM = "double[2] beta, double[2] mean, double[2] var"


@pytest.mark.parametrize("gamma", ["0.0, 0.0", "0.0, 1.5", "2.0, 2.0", "0.5, 1.5"])
@pytest.mark.parametrize(("bounds", "constant"), [('"", b', "double b = {0.5}"), ("a", "double a = {-0.5}")])
def test_a_clip_with_one_bound_takes_scale_and_shift(bounds: str, constant: str, gamma: str) -> None:
    model = build(
        f"""(double[3,4] x) => (double y)
            <double[4,2] W, double[2] c, {constant}, double[2] gamma = {{{gamma}}}, {BATCH_NORM}> {{
           h = Gemm(x, W, c)
           r = Clip(h, {bounds})
           y = BatchNormalization(r, gamma, beta, mean, var) }}""",
        seed=3,
    )
    feeds = feeds_for(model, seed=4)
    fold_plan = plan(model)
    folded = apply(model, fold_plan).model
    assert not fold_plan.kept
    assert [len(node.input) for node in folded.graph.node if node.op_type in {"Max", "Min"}] in ([], [2])
    for actual, wanted in zip(compute(folded, feeds), compute(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)
    assert plan(folded).folds == ()


@pytest.mark.parametrize("second", ["0.0, 0.0", "9.0, 0.5", "0.0, 7.0"])
@pytest.mark.parametrize(("bounds", "constant"), [('"", b', "double b = {0.5}"), ("a", "double a = {-0.5}")])
def test_a_clip_that_two_batch_norms_pass_one_after_the_other(bounds: str, constant: str, second: str) -> None:
    model = build(
        f"""(double[3,4] x) => (double y)
            <double[4,2] W, double[2] c, {constant}, double[2] one = {{1.25, 1.25}}, {BATCH_NORM},
             double[2] gamma = {{{second}}}> {{
           h = Gemm(x, W, c)
           r = Clip(h, {bounds})
           n = Identity(r)
           m = BatchNormalization(n, one, one, one, one)
           i = Identity(m)
           y = BatchNormalization(i, gamma, beta, mean, var) }}""",
        seed=3,
    )
    feeds = feeds_for(model, seed=4)
    fold_plan = plan(model)
    assert not fold_plan.kept
    folded = apply(model, fold_plan).model
    for actual, wanted in zip(compute(folded, feeds), compute(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def test_a_sum_that_loses_a_branch_keeps_its_changed_constant_in_its_place() -> None:
    model = build(
        """(double[1,3,5,5] x) => (double y)
           <double[2,3,1,1] W, double[2,3,1,1] V, double[2,1,1] k, double[2] gamma, double[2] beta, double[2] mean,
            double[2] var> {
           h = Conv(x, W)
           g = Conv(x, V)
           s = Sum(h, g, k)
           i = Identity(s)
           y = BatchNormalization(i, gamma, beta, mean, var) }""",
        seed=5,
    )
    feeds = feeds_for(model, seed=6)
    folded = apply(model, plan(model)).model
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Sum", "Identity"]
    for actual, wanted in zip(compute(folded, feeds), compute(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


def test_a_shift_is_not_made_up_for_in_the_batch_norm_that_it_comes_from() -> None:
    model = build(
        """(double[1,2,3,3] x, double[1,2,3,3] z) => (double y)
           <double[2] var, double[2] b, double[2] m, double[2] gamma = {1.5, 0.5}, double[2,2,1,1] W> {
           r = Sigmoid(x)
           n = BatchNormalization(r, var, b, m, var)
           p = Add(n, z)
           s = Add(p, n)
           t = BatchNormalization(s, gamma, b, m, var)
           u = Relu(t)
           y = Conv(u, W) }""",
        seed=7,
    )
    feeds = feeds_for(model, seed=8)
    folded = apply(model, plan(model)).model
    for actual, wanted in zip(compute(folded, feeds), compute(model, feeds), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)
