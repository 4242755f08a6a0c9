"""Convert TensorFlow files beside tf2onnx alone: seconds of whole processes, where importing TensorFlow counts most.

``python -m bench.translation`` writes one network as a SavedModel, as a frozen graph and as a checkpoint, converts each
with both, verification off because tf2onnx has none, and prints a table. The aim is 1.2 times tf2onnx at most.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import middle, table, take_turns

ROUNDS = 5
DEPTH = 20

# Writes the network three times, into the folder named by the first argument.
BUILD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
v1 = tf.compat.v1
folder, depth = sys.argv[1], int(sys.argv[2])
v1.disable_control_flow_v2()
with tf.Graph().as_default() as graph:
    x = v1.placeholder("float32", [None, 32, 32, 3], name="x")
    h = x
    for block in range(depth):
        with v1.variable_scope(f"block{block}"):
            kernel = v1.get_variable("kernel", [3, 3, int(h.shape[-1]), 64])
            vectors = [v1.get_variable(name, [64], initializer=v1.ones_initializer())
                       for name in ("gamma", "beta", "moving_mean", "moving_variance")]
            h = v1.nn.conv2d(h, kernel, 1, "SAME")
            h = tf.nn.relu(v1.nn.fused_batch_norm(h, *vectors, epsilon=1e-3, is_training=False)[0])
    y = tf.reduce_mean(h, [1, 2], name="y")
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, f"{folder}/model")
        v1.saved_model.simple_save(session, f"{folder}/saved", {"x": x}, {"y": y})
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
        with open(f"{folder}/frozen.pb", "wb") as file:
            file.write(frozen.SerializeToString())
"""
HEAD = ("file", "tf2onnx s", "bnfold s", "ratio", "tf2onnx processor s", "bnfold processor s", "ratio")


def main() -> None:
    """Measure and print the table."""
    ours = [str(Path(sys.executable).with_name("bnfold")), "convert"]
    theirs = [sys.executable, "-m", "tf2onnx.convert", "--opset", "17"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", BUILD, folder, str(DEPTH)], check=True, capture_output=True)
        ends = ["--inputs", "x:0", "--outputs", "y:0"]
        files = {
            "SavedModel": (f"{folder}/saved", ["--saved-model", f"{folder}/saved"]),
            "frozen graph": (f"{folder}/frozen.pb", ["--graphdef", f"{folder}/frozen.pb", *ends]),
            "checkpoint": (f"{folder}/model.meta", ["--checkpoint", f"{folder}/model.meta", *ends]),
        }
        for title, (source, told) in files.items():
            commands = {
                "tf2onnx": [*theirs, *told, "--output", f"{folder}/theirs.onnx"],
                "bnfold": [*ours, source, "-o", f"{folder}/ours.onnx", "--verify", "off", "--quiet"],
            }
            runs = take_turns(commands, ROUNDS)
            failed = [run.said for each in runs.values() for run in each if run.status]
            if failed:
                print(f"{title}: {failed[0].strip().splitlines()[-1]}")
                continue
            row = [title]
            for figure in ("seconds", "processor"):
                peer, own = middle(runs["tf2onnx"], figure), middle(runs["bnfold"], figure)
                row += [f"{peer:.2f}", f"{own:.2f}", f"{own / peer:.2f}"]
            rows.append(row)
    print(f"medians of {ROUNDS}, {DEPTH} blocks\n")
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
