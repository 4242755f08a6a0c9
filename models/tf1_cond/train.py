"""The TF1 program that switches its batch norm by ``tf.cond(phase_train, ...)``, in float64.

Moments of the batch while training, an exponential moving average of them otherwise; both in one ``tf.cond`` per batch
norm. The same program is written twice: as it ran up to TensorFlow 1.14 (reference variables, Switch and Merge: ``v1``)
and as it runs with control flow v2 (resource variables, If: ``v2``). Each is saved as a training checkpoint and frozen,
with ``phase_train`` still to be fed.

Run ``python models/tf1_cond/train.py``; it writes next to itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits
import numpy as np
import tensorflow.compat.v1 as tf

HIDDEN = (48, 32)
EPOCHS = 60
BATCH = 128


def weight_variable(shape):
    return tf.Variable(tf.truncated_normal(shape, stddev=np.sqrt(2.0 / shape[0]), dtype=tf.float64), name="weights")


def bias_variable(shape):
    return tf.Variable(tf.constant(0.1, shape=shape, dtype=tf.float64), name="biases")


def batch_norm(x, n_out, phase_train, scope="bn"):
    with tf.variable_scope(scope):
        beta = tf.Variable(tf.zeros([n_out], dtype=tf.float64), name="beta")
        gamma = tf.Variable(tf.ones([n_out], dtype=tf.float64), name="gamma")
        batch_mean, batch_var = tf.nn.moments(x, [0], name="moments")
        ema = tf.train.ExponentialMovingAverage(decay=0.5)

        def train_statistics():
            apply_averages = ema.apply([batch_mean, batch_var])
            with tf.control_dependencies([apply_averages]):
                return tf.identity(batch_mean), tf.identity(batch_var)

        def running_statistics():
            return ema.average(batch_mean), ema.average(batch_var)

        mean, var = tf.cond(phase_train, train_statistics, running_statistics)
        return tf.nn.batch_normalization(x, mean, var, beta, gamma, 1e-3)


def inference(images, phase_train):
    hidden, width = images, 64
    for number, units in enumerate(HIDDEN, start=1):
        with tf.variable_scope("hidden%d" % number):
            z = tf.matmul(hidden, weight_variable([width, units])) + bias_variable([units])
            hidden, width = tf.nn.relu(batch_norm(z, units, phase_train)), units
    with tf.variable_scope("softmax_linear"):
        return tf.add(tf.matmul(hidden, weight_variable([width, 10])), bias_variable([10]), name="logits")


def freeze(session, output):
    """Write every variable's value into the graph, as the freezing tool of TensorFlow 1 did."""
    return tf.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), [output])


def train(version):
    tf.set_random_seed(20160)
    data, rng = digits.load(np.float64), np.random.default_rng(20160)
    x = tf.placeholder(tf.float64, [None, 64], name="x")
    y_ = tf.placeholder(tf.int64, [None], name="y_")
    phase_train = tf.placeholder(tf.bool, name="phase_train")
    logits = inference(x, phase_train)
    cross_entropy = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y_, logits=logits), name="loss"
    )
    global_step = tf.Variable(0, name="global_step", trainable=False)
    rate = tf.train.exponential_decay(tf.constant(0.2, tf.float64), global_step, 150, 0.6)
    train_step = tf.train.GradientDescentOptimizer(rate).minimize(cross_entropy, global_step=global_step)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), y_), tf.float64), name="accuracy")
    saver = tf.train.Saver(max_to_keep=1, save_relative_paths=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(EPOCHS):
            for chosen in digits.batches(data.train, BATCH, rng):
                feed = {x: data.train.pixels[chosen], y_: data.train.labels[chosen], phase_train: True}
                session.run(train_step, feed)
        scores = session.run(logits, {x: data.test.pixels, phase_train: False})
        print("%s: %s" % (version, digits.record(HERE / ("scores_%s.npy" % version), scores, data.test)))
        print("   ", session.run(accuracy, {x: data.test.pixels, y_: data.test.labels, phase_train: False}))
        folder = HERE / version
        folder.mkdir(exist_ok=True)
        saver.save(session, str(folder / "model.ckpt"), global_step=global_step)
        (HERE / ("frozen_%s.pb" % version)).write_bytes(freeze(session, "softmax_linear/logits").SerializeToString())


def main():
    tf.disable_eager_execution()
    for version in ("v1", "v2"):
        if version == "v1":
            tf.disable_control_flow_v2()
            tf.disable_resource_variables()
        else:
            tf.enable_control_flow_v2()
            tf.enable_resource_variables()
        with tf.Graph().as_default():
            train(version)


if __name__ == "__main__":
    main()
