"""Situations in which a graph may come: free sizes, claims that are wrong, constants in nodes, several readers."""

from __future__ import annotations

from onnx import TensorProto, helper

from bnfold.fold import apply, plan
from tests.fold.one_fold import CONV_BN, assert_same, fold, initializers, ops
from tests.rules.example_models import build


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
