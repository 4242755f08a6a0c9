"""Numbers and their types: what a file stores narrowly, what is no number, statistics of every version."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.fold import apply, plan
from bnfold.parity.reference import run_float64
from bnfold.rules import Reason
from tests.fold.one_fold import CONV_BN, assert_same, fold, initializers, ops, reasons
from tests.rules.example_models import build, feeds_for, run


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
