"""Batch norms that TensorFlow spells out as arithmetic arrive as batch norms; what only looks like one does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.frontends.keras.guests import quiet
from bnfold.frontends.tensorflow.batch_norms import convert
from bnfold.frontends.tensorflow.concrete import freeze
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.spelled_out import plain_scope, with_markers
from tests.frontends.keras.networks import Array, norms_of
from tests.frontends.keras.test_batch_norms import run_unoptimised

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(6)
MEAN, BETA, GAMMA = (RNG.normal(size=4) for _ in range(3))
VARIANCE = RNG.uniform(0.2, 2.0, size=4)


def converted(function: Callable[[Any], Any], shape: list[int | None], dtype: str = "float32") -> onnx.ModelProto:
    tf = tensorflow()
    with quiet():
        spec = tf.TensorSpec(shape, dtype, name="x")
        frozen = freeze(tf.function(function, input_signature=[spec], autograph=False).get_concrete_function())
    return convert(*with_markers(frozen), None)


def same(model: onnx.ModelProto, function: Callable[[Any], Any], x: Array, tolerance: float = 2e-6) -> None:
    tf = tensorflow()
    (found,) = run_unoptimised(model, {model.graph.input[0].name: x})
    np.testing.assert_allclose(found, function(tf.constant(x)).numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_tensorflow_writes_is_read(*, scale: bool, center: bool, dtype: str) -> None:
    tf = tensorflow()

    def function(x: Any) -> Any:
        mean, variance, beta, gamma = (tf.constant(value, dtype) for value in (MEAN, VARIANCE, BETA, GAMMA))
        return tf.nn.batch_normalization(x, mean, variance, beta if center else None, gamma if scale else None, 1e-3)

    model = converted(function, [None, 4], dtype)
    (norm,) = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    gamma, beta, mean, variance = (weights[name] for name in norm.input[1:])
    np.testing.assert_array_equal(mean, MEAN.astype(dtype))
    np.testing.assert_array_equal(gamma, GAMMA.astype(dtype) if scale else np.ones(4, dtype))
    np.testing.assert_array_equal(beta, BETA.astype(dtype) if center else np.zeros(4, dtype))
    np.testing.assert_allclose(variance, VARIANCE, rtol=1e-6)
    assert len(model.graph.node) == 1
    same(model, function, RNG.normal(size=(3, 4)).astype(dtype), 1e-14 if dtype == "float64" else 2e-6)


@pytest.mark.parametrize(("shape", "axis"), [([None, 5, 6, 4], 3), ([None, 4, 5], 1), ([None, 3, 4, 5], 2)])
def test_the_channel_may_be_any_axis(shape: list[int | None], axis: int) -> None:
    tf = tensorflow()
    wide = [4 if position == axis else 1 for position in range(len(shape))]

    def function(x: Any) -> Any:
        values = [tf.reshape(tf.constant(value, "float32"), wide) for value in (MEAN, VARIANCE, BETA, GAMMA)]
        with tf.name_scope("layer"):
            return tf.nn.batch_normalization(x, *values, 1e-3)

    model = converted(function, shape)
    assert norms_of(model) == ["layer"]
    same(model, function, RNG.normal(size=[3, *(size or 1 for size in shape[1:])]).astype(np.float32))


def test_one_channel_is_a_channel() -> None:
    tf = tensorflow()

    def function(x: Any) -> Any:
        values = [tf.constant(value[:1], "float32") for value in (MEAN, VARIANCE, BETA, GAMMA)]
        return tf.nn.batch_normalization(x, *values, 1e-3)

    model = converted(function, [None, 1])
    assert len(norms_of(model)) == 1
    same(model, function, RNG.normal(size=(3, 1)).astype(np.float32))


def _steps(x: Any, spelling: str) -> Any:
    tf = tensorflow()
    mean, variance, beta, gamma = (tf.constant(value, x.dtype) for value in (MEAN, VARIANCE, BETA, GAMMA))
    deviation = tf.sqrt(variance + 1e-3)
    match spelling:
        case "divided":
            return (x - mean) / deviation * gamma + beta
        case "gamma first":
            return beta + gamma * (x - mean) / deviation
        case "rsqrt":
            return (x - mean) * tf.math.rsqrt(variance + 1e-3) * gamma + beta
        case "gamma over deviation":
            return (x - mean) * (gamma / deviation) + beta
        case "gamma times rsqrt":
            return (x - mean) * (gamma * tf.math.rsqrt(variance + 1e-3)) + beta
        case "one over deviation":
            return (x - mean) * (1.0 / deviation) * gamma + beta
        case "reciprocal":
            return gamma * ((x - mean) * tf.math.reciprocal(deviation)) + beta
        case "no gamma":
            return (x - mean) / deviation + beta
        case "no beta":
            return (x - mean) / deviation * gamma
        case "neither":
            return (x - mean) / deviation
        case "a number for gamma":
            return (x - mean) / deviation * 0.7 + beta
    mean, deviation, gamma, beta = (tf.reshape(value, [1, 4]) for value in (mean, deviation, gamma, beta))
    return (x - mean) / deviation * gamma + beta


SPELLINGS = ["divided", "gamma first", "rsqrt", "gamma over deviation", "gamma times rsqrt", "one over deviation",
    "reciprocal", "no gamma", "no beta", "neither", "a number for gamma", "with an axis kept"]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_steps_that_people_write_one_by_one_are_read(spelling: str) -> None:
    model = converted(lambda x: _steps(x, spelling), [None, 4])
    assert [node.op_type for node in model.graph.node] == ["BatchNormalization"]
    same(model, lambda x: _steps(x, spelling), RNG.normal(size=(3, 4)).astype(np.float32))


def test_steps_along_another_axis_and_in_double_precision_are_read() -> None:
    def function(x: Any) -> Any:
        tf = tensorflow()
        mean, variance, beta, gamma = (
            tf.constant(value.reshape(4, 1), "float64") for value in (MEAN, VARIANCE, BETA, GAMMA)
        )
        return (x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta

    model = converted(function, [None, 4, 5], "float64")
    assert len(norms_of(model)) == 1
    same(model, function, RNG.normal(size=(3, 4, 5)), 1e-14)


def _almost_steps(x: Any, change: str) -> Any:
    tf = tensorflow()
    mean, variance, beta, gamma = (tf.constant(value, x.dtype) for value in (MEAN, VARIANCE, BETA, GAMMA))
    deviation = tf.sqrt(variance + 1e-3)
    match change:
        case "no mean":
            return x / deviation * gamma + beta
        case "two roots":
            return (x - mean) / deviation / deviation + beta
        case "the other way round":
            return (mean - x) / deviation * gamma + beta
        case "divides by x":
            return gamma / (x - mean) * deviation + beta
        case "times the root":
            return (x - mean) * deviation * gamma + beta
        case "wider":
            return (x[:, :1] - mean[:1]) / deviation * gamma + beta
    return (x - mean) / tf.sqrt(variance) * gamma + beta


@pytest.mark.parametrize(
    "change", ["no mean", "two roots", "the other way round", "divides by x", "times the root", "wider", "no epsilon"]
)
def test_steps_that_only_look_like_one_stay_arithmetic(change: str) -> None:
    model = converted(lambda x: _almost_steps(x, change), [None, 4])
    assert norms_of(model) == []
    same(model, lambda x: _almost_steps(x, change), RNG.normal(size=(3, 4)).astype(np.float32), 2e-5)


def _almost(x: Any, change: str) -> Any:
    tf = tensorflow()
    mean, variance, beta, gamma = (tf.constant(value, "float32") for value in (MEAN, VARIANCE, BETA, GAMMA))
    inverse = tf.math.rsqrt(variance + 1e-3) * gamma
    other = inverse * 2.0 if change == "another-factor" else inverse
    if change == "broadcast-up":
        return x * inverse + (beta - mean * inverse)
    if change == "no-mean":
        return x * inverse + beta
    if change == "added":
        return x * inverse + (beta + mean * inverse)
    return x * inverse + (beta - mean * other)


@pytest.mark.parametrize("change", ["another-factor", "no-mean", "added"])
def test_what_only_looks_like_one_stays_arithmetic(change: str) -> None:
    model = converted(lambda x: _almost(x, change), [None, 4])
    assert norms_of(model) == []
    same(model, lambda x: _almost(x, change), RNG.normal(size=(3, 4)).astype(np.float32))


def test_one_that_widens_its_input_stays_arithmetic() -> None:
    model = converted(lambda x: _almost(x, "broadcast-up"), [None, 1])
    assert norms_of(model) == []
    same(model, lambda x: _almost(x, "broadcast-up"), RNG.normal(size=(3, 1)).astype(np.float32))


def test_one_on_two_axes_stays_arithmetic() -> None:
    tf = tensorflow()

    def function(x: Any) -> Any:
        values = [tf.constant(np.stack([value, value + 0.1]), "float32") for value in (MEAN, VARIANCE, BETA, GAMMA)]
        return tf.nn.batch_normalization(x, *values, 1e-3)

    model = converted(function, [None, 2, 4])
    assert norms_of(model) == []
    same(model, function, RNG.normal(size=(3, 2, 4)).astype(np.float32))


def test_a_variance_below_zero_is_no_batch_norm() -> None:
    tf = tensorflow()
    variance = np.array([0.5, -0.5, 1.0, 2.0], np.float32)

    def function(x: Any) -> Any:
        values = [tf.constant(value, "float32") for value in (MEAN, variance, BETA, GAMMA)]
        return tf.nn.batch_normalization(x, *values, 1e-3)

    assert norms_of(converted(function, [None, 4])) == []


def test_constants_that_double_at_every_step_cost_nothing() -> None:
    tf = tensorflow()

    def function(x: Any) -> Any:
        beta = tf.constant(BETA, "float32")
        for _ in range(60):
            beta = beta - beta
        values = [tf.constant(value, "float32") for value in (MEAN, VARIANCE)]
        return tf.nn.batch_normalization(x, *values, beta, tf.constant(GAMMA, "float32"), 1e-3)

    with quiet():
        spec = tf.TensorSpec([None, 4], "float32")
        frozen = freeze(tf.function(function, input_signature=[spec], autograph=False).get_concrete_function())
    assert with_markers(frozen)[1] == {}


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("StatefulPartitionedCall/net_1/bn_1/batchnorm/add_1", "net_1/bn_1"),
        ("PartitionedCall_2/StatefulPartitionedCall/net/bn/FusedBatchNormV3", "net/bn"),
        ("hidden1/bn/batchnorm/add_1", "hidden1/bn"),
        ("hidden/batchnorm_3/add_1", "hidden"),
        ("bn1", "bn1"),
        ("/batchnorm/add_1", "/batchnorm/add_1"),
    ],
)
def test_a_batch_norm_is_called_after_its_scope(name: str, scope: str) -> None:
    assert plain_scope(name) == scope
