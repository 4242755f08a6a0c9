"""Which tensor a training program predicts with, where nobody names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import SignatureError
from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow import checkpoint
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.net import Net
from bnfold.frontends.tensorflow.outputs import predicted
from tests.frontends.tensorflow.programs import dense, flow, loss_of, moving_norm, write

pytestmark = pytest.mark.tensorflow


def tf() -> Any:
    return tensorflow()


def v1() -> Any:
    return tensorflow().compat.v1


def features() -> Any:
    x = v1().placeholder("float32", [None, 6], name="x")
    train = v1().placeholder("bool", name="train")
    return tf().nn.relu(moving_norm(dense(x, 5, "one"), train, "bn"))


def train_on(loss: Any) -> None:
    v1().train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    v1().summary.scalar("loss", loss)


def classifier() -> str:
    loss_of(dense(features(), 3, "logits"))
    return "logits/z:0"


def with_probabilities() -> str:
    logits = dense(features(), 3, "logits")
    loss_of(logits)
    return str(tf().nn.softmax(logits, name="probabilities").name)


def own_cross_entropy() -> str:
    labels = v1().placeholder("float32", [None, 3], name="labels")
    y = tf().nn.softmax(dense(features(), 3, "logits"), name="y")
    train_on(-tf().reduce_mean(tf().reduce_sum(labels * v1().log(tf().clip_by_value(y, 1e-10, 1.0)), 1)))
    tf().reduce_mean(tf().cast(tf().equal(tf().argmax(y, 1), tf().argmax(labels, 1)), "float32"), name="accuracy")
    return "y:0"


def two_classes() -> str:
    labels = v1().placeholder("float32", [None, 1], name="labels")
    logits = dense(features(), 1, "logits")
    losses = tf().nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    weights = tf().add_n([tf().nn.l2_loss(variable) for variable in v1().trainable_variables()])
    train_on(tf().reduce_mean(losses) + 1e-3 * weights)
    return "logits/z:0"


def regression() -> str:
    target = v1().placeholder("float32", [None, 1], name="target")
    y = dense(features(), 1, "y")
    train_on(tf().reduce_mean(tf().square(target - y)))
    tf().sqrt(tf().reduce_mean(tf().math.squared_difference(y, target)), name="rmse")
    return "y/z:0"


def autoencoder() -> str:
    h = features()
    y = dense(h, 6, "y")
    train_on(tf().reduce_mean(tf().square(v1().get_default_graph().get_tensor_by_name("x:0") - y)))
    return "y/z:0"


def in_top_k() -> str:
    labels = v1().placeholder("int64", [None], name="labels")
    logits = dense(features(), 3, "logits")
    train_on(tf().reduce_mean(tf().nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)))
    tf().reduce_mean(tf().cast(tf().math.in_top_k(labels, logits, 1), "float32"), name="accuracy")
    return "logits/z:0"


def with_updates_to_run() -> str:
    """Updates of averages behind a condition of their own, in a collection that the training loop runs."""
    x, train = v1().placeholder("float32", [None, 6, 6, 3], name="x"), v1().placeholder("bool", name="train")
    gamma, beta = v1().get_variable("gamma", [3]), v1().get_variable("beta", [3])
    mean, variance = v1().get_variable("moving_mean", [3]), v1().get_variable("moving_variance", [3])

    def norm(*averages: Any) -> Any:
        return v1().nn.fused_batch_norm(x, gamma, beta, *averages, is_training=not averages)

    y, m, v = v1().cond(train, norm, lambda: norm(mean, variance))
    pairs = ((mean, m), (variance, v))
    v1().cond(
        train,
        lambda: [tf().identity(v1().assign_sub(old, (old - new) * 0.1)) for old, new in pairs],
        lambda: [mean, variance],
    )
    loss_of(dense(tf().reduce_mean(y, [1, 2]), 3, "logits"))
    return "logits/z:0"


def of_squares() -> str:
    """The square that a variance is made of is read for nothing else."""
    h = dense(v1().placeholder("float32", [None, 6], name="x"), 5, "one")
    mean = tf().reduce_mean(h, 0)
    variance = tf().reduce_mean(h * h, 0) - mean * mean
    loss_of(dense(tf().nn.relu((h - mean) / tf().sqrt(variance + 1e-3)), 3, "logits"))
    return "logits/z:0"


def with_a_switched_rate() -> str:
    train = v1().placeholder("bool", name="train")
    rate = v1().cond(train, lambda: tf().constant(0.5), lambda: tf().constant(0.0))
    loss_of(
        dense(tf().nn.dropout(dense(v1().placeholder("float32", [None, 6], name="x"), 5, "one"), rate), 3, "logits")
    )
    return "logits/z:0"


def behind_a_loop() -> str:
    rows = tf().map_fn(lambda row: row / tf().reduce_max(row), v1().placeholder("float32", [None, 6], name="x"))
    loss_of(dense(rows, 3, "logits"))
    return "logits/z:0"


PROGRAMS = [
    behind_a_loop,
    classifier,
    with_probabilities,
    own_cross_entropy,
    two_classes,
    regression,
    autoencoder,
    in_top_k,
    with_updates_to_run,
    of_squares,
    with_a_switched_rate,
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_prediction_is_what_neither_loss_nor_metric_is(program: Callable[[], str], version: int) -> None:
    with flow(version), tf().Graph().as_default() as graph:
        wanted = program()
        net = Net.of(graph.as_graph_def())
    assert [f"{name}:{port}" for name, port in predicted(net, "a checkpoint")] == [wanted]


def test_what_a_loop_hands_to_its_next_turn_is_no_output() -> None:
    with flow(1), tf().Graph().as_default() as graph:
        x = v1().placeholder("float32", [None, 4], name="x")
        weight = v1().get_variable("weight", [4, 4])
        _, h = v1().while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, tf().tanh(h @ weight)), [0, x])
        tf().identity(h, name="y")
        assert predicted(Net.of(graph.as_graph_def()), "a checkpoint") == [("y", 0)]


def test_a_program_without_prediction_says_so() -> None:
    with tf().Graph().as_default() as graph:
        v1().placeholder("float32", [None, 3], name="x")
        net = Net.of(graph.as_graph_def())
    with pytest.raises(SignatureError) as caught:
        predicted(net, "a checkpoint")
    assert str(caught.value) == "a checkpoint has no signature, and no tensor in it looks like a prediction"
    assert caught.value.hint == "Name the outputs, for example: --outputs logits:0"


def test_an_input_pipeline_becomes_an_input(tmp_path: Path) -> None:
    def program() -> list[Any]:
        rows = tf().data.Dataset.from_tensor_slices((np.zeros((8, 6), np.float32), np.zeros(8, np.int64))).batch(4)
        x, labels = v1().data.make_one_shot_iterator(rows).get_next()
        logits = dense(moving_norm(x, v1().placeholder("bool", name="train"), "bn"), 3, "logits")
        train_on(tf().reduce_mean(tf().nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)))
        return [logits]

    written = write(tmp_path, program)
    loaded = checkpoint.load(written.prefix, Request())
    assert [(spec.name, spec.shape) for spec in loaded.inputs] == [("IteratorGetNext:0", ("batch", 6))]
    x = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    assert loaded.run is not None
    y: Any
    (y,) = loaded.run({"IteratorGetNext:0": x}).values()
    (expected,) = written.oracle({"IteratorGetNext:0": x}, {"train:0": False})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_queues_become_inputs_of_the_shape_of_their_elements(tmp_path: Path) -> None:
    """Two queues whose dequeued tensors are called alike, one for each mode; the chosen one is fed."""

    def queued() -> tuple[Any, Any]:
        queue = v1().FIFOQueue(9, ["float32", "int64"], shapes=[[6], []])
        queue.enqueue_many([np.zeros((4, 6), np.float32), np.zeros(4, np.int64)])
        x, labels = queue.dequeue_many(4, name="batch")
        return x, labels

    def program() -> list[Any]:
        train = v1().placeholder("bool", name="train")
        training, testing = queued(), queued()
        x, labels = v1().cond(train, lambda: training, lambda: testing)
        logits = dense(moving_norm(x, train, "bn"), 3, "logits")
        train_on(tf().reduce_mean(tf().nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)))
        return [logits]

    written = write(tmp_path, program)
    loaded = checkpoint.load(written.prefix, Request())
    assert [(spec.name, spec.shape) for spec in loaded.inputs] == [("batch_1:0", (4, 6))]
    assert [spec.name for spec in loaded.outputs] == ["logits/z:0"]
    x = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
    assert loaded.run is not None
    (y,) = loaded.run({"batch_1:0": x}).values()
    # The program waits for both queues, whichever it takes.
    (expected,) = written.oracle({"batch:0": np.zeros_like(x), "batch_1:0": x}, {"train:0": False})
    np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-5, atol=1e-5)
    named = checkpoint.load(written.prefix, Request(inputs=("cond/Merge:0",)))
    assert [spec.name for spec in named.inputs] == ["cond/Merge:0"]


def test_an_input_without_a_shape_has_the_rank_that_its_layer_takes(tmp_path: Path) -> None:
    def program() -> list[Any]:
        x = tf().identity(v1().placeholder("float32", name="x"))
        h = v1().nn.conv2d(x, v1().get_variable("kernel", [3, 3, 3, 4]), 1, "SAME")
        return [tf().reduce_mean(h, [1, 2], name="y")]

    written = write(tmp_path, program)
    loaded = checkpoint.load(written.prefix, Request())
    assert [(spec.name, len(spec.shape)) for spec in loaded.inputs] == [("x:0", 4)]
