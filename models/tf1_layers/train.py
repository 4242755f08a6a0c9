"""Three dense layers of ``tf.layers`` with batch norm behind a bool placeholder, dropout behind a float one, and Adam.

The checkpoint holds the whole training program: gradients, Adam's slots, update ops, summaries. The frozen graph still
wants ``is_training`` and ``keep_prob`` fed. ``tf.layers`` of a current TensorFlow needs the legacy Keras, so this runs
in a process of its own.

Run ``python models/tf1_layers/train.py``; it writes next to itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits
import numpy as np
import tensorflow.compat.v1 as tf

UNITS = (64, 48, 32)
STEPS = 900
BATCH = 100


def network(features, is_training, keep_prob):
    net = features
    for number, units in enumerate(UNITS, start=1):
        with tf.variable_scope("fc%d" % number):
            net = tf.layers.dense(net, units, use_bias=number != 2, name="dense")
            net = tf.layers.batch_normalization(net, training=is_training, momentum=0.95, name="batch_norm")
            net = tf.nn.dropout(tf.nn.relu(net), keep_prob)
    return tf.layers.dense(net, 10, name="logits")


def main():
    tf.disable_v2_behavior()
    tf.set_random_seed(2018)
    data, rng = digits.load(), np.random.default_rng(2018)
    X = tf.placeholder(tf.float32, shape=(None, 64), name="X")
    y = tf.placeholder(tf.int64, shape=(None,), name="y")
    is_training = tf.placeholder(tf.bool, name="is_training")
    keep_prob = tf.placeholder(tf.float32, name="keep_prob")
    logits = network(X, is_training, keep_prob)
    probabilities = tf.nn.softmax(logits, name="probabilities")
    with tf.name_scope("train"):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        loss = tf.reduce_mean(losses, name="loss")
        global_step = tf.train.get_or_create_global_step()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            training_op = tf.train.AdamOptimizer(2e-3).minimize(loss, global_step=global_step)
    with tf.name_scope("eval"):
        accuracy = tf.reduce_mean(tf.cast(tf.nn.in_top_k(logits, y, 1), tf.float32), name="accuracy")
    tf.summary.scalar("loss", loss)
    tf.summary.scalar("accuracy", accuracy)
    summaries = tf.summary.merge_all()
    saver = tf.train.Saver(max_to_keep=1, save_relative_paths=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        step = 0
        while step < STEPS:
            for chosen in digits.batches(data.train, BATCH, rng):
                feed = {X: data.train.pixels[chosen], y: data.train.labels[chosen], is_training: True, keep_prob: 0.8}
                session.run([training_op, summaries] if step % 100 == 0 else training_op, feed)
                step += 1
        (HERE / "checkpoint").unlink(missing_ok=True)
        saver.save(session, str(HERE / "model.ckpt"), global_step=global_step)
        scores = session.run(probabilities, {X: data.test.pixels, is_training: False, keep_prob: 1.0})
        print(digits.record(HERE / "scores.npy", scores, data.test))
        graph = tf.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), [probabilities.op.name]
        )
        (HERE / "frozen.pb").write_bytes(graph.SerializeToString())


if __name__ == "__main__":
    main()
