"""The TF1 program that never left training mode: batch norm on the input and behind every ReLU.

Each batch norm normalises with the moments of the batch that it is given, always. An ``ExponentialMovingAverage`` of
those moments is kept as well, by control dependencies, but nothing ever reads it: the averages exist in the checkpoint
alone. Its prediction for one digit depends on the other digits of the batch; the moving averages make it a function.

Run ``python models/tf1_batch_statistics/train.py``; it writes next to itself.
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

EPOCHS = 60
BATCH = 200
AVERAGED = {}  # what every batch norm normalises with, and the moving average of it


def normalize(inputs, size):
    fc_mean, fc_var = tf.nn.moments(inputs, axes=[0])
    scale = tf.Variable(tf.ones([size]))
    shift = tf.Variable(tf.zeros([size]))
    ema = tf.train.ExponentialMovingAverage(decay=0.5)
    update = ema.apply([fc_mean, fc_var])
    with tf.control_dependencies([update]):
        mean, var = tf.identity(fc_mean), tf.identity(fc_var)
    AVERAGED.update({mean: ema.average(fc_mean), var: ema.average(fc_var)})
    return tf.nn.batch_normalization(inputs, mean, var, shift, scale, 0.001)


def add_layer(inputs, in_size, out_size, activation=None):
    weights = tf.Variable(tf.random_normal([in_size, out_size], stddev=0.15))
    biases = tf.Variable(tf.zeros([out_size]) + 0.1)
    outputs = tf.matmul(inputs, weights) + biases
    if activation is None:
        return outputs
    return normalize(activation(outputs), out_size)


def main():
    tf.disable_v2_behavior()
    tf.set_random_seed(2017)
    data, rng = digits.load(), np.random.default_rng(2017)
    with tf.name_scope("inputs"):
        xs = tf.placeholder(tf.float32, [None, 64], name="x_input")
        ys = tf.placeholder(tf.float32, [None, 10], name="y_input")
    with tf.name_scope("input_norm"):
        layer = normalize(xs, 64)
    with tf.name_scope("layer1"):
        layer = add_layer(layer, 64, 40, tf.nn.relu)
    with tf.name_scope("layer2"):
        layer = add_layer(layer, 40, 30, tf.nn.relu)
    with tf.name_scope("prediction"):
        scores = add_layer(layer, 30, 10)
        prediction = tf.nn.softmax(scores)
    with tf.name_scope("cross_entropy"):
        log_likelihood = tf.reduce_sum(ys * tf.log(tf.clip_by_value(prediction, 1e-10, 1.0)), axis=1)
        cross_entropy = -tf.reduce_mean(log_likelihood)
    rate = tf.placeholder(tf.float32, [], name="learning_rate")
    train_op = tf.train.GradientDescentOptimizer(rate).minimize(cross_entropy)
    saver = tf.train.Saver(max_to_keep=1, save_relative_paths=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for epoch in range(EPOCHS):
            for chosen in digits.batches(data.train, BATCH, rng):
                targets = np.eye(10, dtype=np.float32)[data.train.labels[chosen]]
                step = 0.3 * 0.95**epoch
                session.run(train_op, {xs: data.train.pixels[chosen], ys: targets, rate: step})
        saver.save(session, str(HERE / "my_net.ckpt"))
        # The moving averages take the place of the batch's own moments: a session may be fed with any tensor.
        averages = dict(zip(AVERAGED, session.run(list(AVERAGED.values())), strict=True))
        feed = {xs: data.test.pixels}
        print("batch statistics: %d" % digits.correct(session.run(prediction, feed), data.test))
        scores = session.run(prediction, {**feed, **averages})
        print("moving averages: %s" % digits.record(HERE / "scores.npy", scores, data.test))


if __name__ == "__main__":
    main()
