"""Training programs as people wrote them for TensorFlow 1, small, with random values in their variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.frontends.tensorflow.guests import quiet, tensorflow

Array = npt.NDArray[Any]
Oracle = Callable[[Mapping[str, Array], Mapping[str, Any]], list[Array]]


@dataclass(frozen=True, slots=True)
class Written:
    """A program on disk.

    Attributes:
        prefix: Its checkpoint's prefix, with the meta graph beside it.
        frozen: Its frozen graph.
        outputs: Names of the tensors that it predicts with.
        oracle: Runs the program itself on feeds, with more feeds for its modes and statistics.
        values: Its variables' values by name.
    """

    prefix: Path
    frozen: Path
    outputs: tuple[str, ...]
    oracle: Oracle
    values: Mapping[str, Array]


@contextmanager
def flow(version: int) -> Iterator[None]:
    """Let conditions be Switch and Merge (1) with reference variables, or If (2) with resource variables."""
    v1 = tensorflow().compat.v1
    before = v1.control_flow_v2_enabled(), v1.resource_variables_enabled()
    (v1.enable_control_flow_v2 if version == 2 else v1.disable_control_flow_v2)()
    (v1.enable_resource_variables if version == 2 else v1.disable_resource_variables)()
    try:
        yield
    finally:
        (v1.enable_control_flow_v2 if before[0] else v1.disable_control_flow_v2)()
        (v1.enable_resource_variables if before[1] else v1.disable_resource_variables)()


def write(
    folder: Path,
    define: Callable[[], Sequence[Any]],
    *,
    version: int = 1,
    seed: int = 5,
    fixed: Mapping[str, float] | None = None,
) -> Written:
    """Build a program, give its variables values, and write its checkpoint and its frozen graph.

    Variables whose name ends in one of ``fixed`` get that number; the others get random ones.
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with flow(version), quiet():
        graph = tf.Graph()
        with graph.as_default():
            outputs = define()
            session = v1.Session(graph=graph)
            session.run(v1.global_variables_initializer())
            values: dict[str, Array] = {}
            for variable in v1.global_variables():
                value = session.run(variable)
                if value.dtype.kind == "f":
                    value = (rng.uniform(0.5, 1.5, value.shape) * rng.choice([1, -1], value.shape)).astype(value.dtype)
                    if any(word in variable.op.name.lower() for word in ("var", "squeeze_1", "step", "gamma")):
                        value = np.abs(value)
                    for ending, number in (fixed or {}).items():
                        value = np.full_like(value, number) if variable.op.name.endswith(ending) else value
                    variable.load(value, session)
                values[variable.op.name] = value
            saver = v1.train.Saver() if values else None
            names = [tensor.op.name for tensor in outputs]
            if saver is not None:
                saver.save(session, str(folder / "model.ckpt"), global_step=3)
            try:
                frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), names)
            except ValueError:  # TensorFlow does not freeze a reference variable that decides a Switch
                frozen = v1.GraphDef()
            (folder / "frozen.pb").write_bytes(frozen.SerializeToString())

    def oracle(feeds: Mapping[str, Array], modes: Mapping[str, Any]) -> list[Array]:
        with quiet():
            found: list[Array] = session.run([tensor.name for tensor in outputs], {**feeds, **modes})
        return found

    return Written(
        folder / "model.ckpt-3", folder / "frozen.pb", tuple(tensor.name for tensor in outputs), oracle, values
    )


def dense(x: Any, units: int, name: str, dtype: Any = None) -> Any:
    """A dense layer with the variables that programs had before layers were classes."""
    v1 = tensorflow().compat.v1
    dtype = dtype or x.dtype.base_dtype
    with v1.variable_scope(name):
        weights = v1.get_variable("weights", [x.shape[-1], units], dtype, v1.truncated_normal_initializer(seed=3))
        biases = v1.get_variable("biases", [units], dtype, v1.zeros_initializer())
        return v1.nn.xw_plus_b(x, weights, biases, name="z")


def beta_gamma(units: int, dtype: Any) -> tuple[Any, Any]:
    v1 = tensorflow().compat.v1
    beta = v1.get_variable("beta", [units], dtype, v1.zeros_initializer())
    gamma = v1.get_variable("gamma", [units], dtype, v1.ones_initializer())
    return beta, gamma


def averaged_norm(
    x: Any, train: Callable[[Callable[[], Any], Callable[[], Any]], Any], scope: str, *, debias: bool = False
) -> Any:
    """Batch norm with moments in training and their exponential moving average otherwise."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.variable_scope(scope):
        beta, gamma = beta_gamma(int(x.shape[-1]), x.dtype.base_dtype)
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)), name="moments")
        ema = v1.train.ExponentialMovingAverage(decay=0.5, zero_debias=debias)

        def in_training() -> Any:
            with tf.control_dependencies([ema.apply([mean, variance])]):
                return tf.identity(mean), tf.identity(variance)

        mean, variance = train(in_training, lambda: (ema.average(mean), ema.average(variance)))
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def moving_norm(x: Any, training: Any, scope: str, *, fused: bool = False) -> Any:
    """Batch norm with moving statistics in variables and two assignments, as layers did it."""
    tf = tensorflow()
    v1 = tf.compat.v1
    units = int(x.shape[-1])
    with v1.variable_scope(scope):
        beta, gamma = beta_gamma(units, x.dtype.base_dtype)
        mean = v1.get_variable("pop_mean", [units], x.dtype.base_dtype, v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("pop_var", [units], x.dtype.base_dtype, v1.ones_initializer(), trainable=False)
        axes = list(range(len(x.shape) - 1))

        def in_training() -> Any:
            if fused:
                y, m, v = v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)
            else:
                m, v = tf.nn.moments(x, axes)
                y = tf.nn.batch_normalization(x, m, v, beta, gamma, 1e-3)
            with tf.control_dependencies(
                [v1.assign(mean, mean * 0.9 + m * 0.1), v1.assign(variance, variance * 0.9 + v * 0.1)]
            ):
                return tf.identity(y)

        def otherwise() -> Any:
            if fused:
                return v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, 1e-3, is_training=False)[0]
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

        if training is True:
            return in_training()
        return v1.cond(training, in_training, otherwise)


def loss_of(logits: Any) -> None:
    """What a training program computes besides its prediction: a loss, its gradients, metrics and summaries."""
    tf = tensorflow()
    v1 = tf.compat.v1
    labels = v1.placeholder(tf.int64, [None], name="labels")
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits), name="loss")
    step = v1.train.get_or_create_global_step()
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        v1.train.AdamOptimizer(1e-3).minimize(loss, global_step=step)
    tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32), name="accuracy")
    v1.summary.scalar("loss", loss)
