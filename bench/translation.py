"""Convert TensorFlow files beside tf2onnx alone: seconds of whole processes, where importing TensorFlow counts most.

``python -m bench.translation`` writes one network as a SavedModel, as a frozen graph, as a checkpoint and as Keras
files, converts each with both, verification off because tf2onnx has none, and prints a table. The aim is 1.2 times
tf2onnx at most. ``--depth`` and ``--width`` say how large the network is, and names of files restrict it to them.

The ratio is that of the quickest runs by processor time: what else a machine does makes a run slower, never quicker.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import middle, table, take_turns

# Writes the network, into the folder named by the first argument: as TensorFlow 1 does, and as Keras does.
BUILD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
v1 = tf.compat.v1
folder, depth, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
v1.disable_control_flow_v2()
with tf.Graph().as_default() as graph:
    x = v1.placeholder("float32", [None, 32, 32, 3], name="x")
    h = x
    for block in range(depth):
        with v1.variable_scope(f"block{block}"):
            kernel = v1.get_variable("kernel", [3, 3, int(h.shape[-1]), width])
            vectors = [v1.get_variable(name, [width], initializer=v1.ones_initializer())
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
KERAS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
folder, depth, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
h = x = keras.Input((32, 32, 3))
for block in range(depth):
    h = keras.layers.Conv2D(width, 3, padding="same")(h)
    h = keras.layers.ReLU()(keras.layers.BatchNormalization()(h))
model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(h))
model.save(f"{folder}/model.keras")
model.save(f"{folder}/model.h5")
"""
HEAD = (
    "file",
    "tf2onnx s",
    "bnfold s",
    "tf2onnx processor s",
    "bnfold processor s",
    "ratio",
    "tf2onnx MB",
    "bnfold MB",
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help=", ".join(_commands(Path())))
    parser.add_argument("--depth", type=int, default=20, help="convolutions, each with a batch norm (20)")
    parser.add_argument("--width", type=int, default=64, help="their channels (64)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run (5)")
    told = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for program in (BUILD, KERAS):
            size = [str(told.depth), str(told.width)]
            subprocess.run([sys.executable, "-c", program, folder, *size], check=True, capture_output=True)
        for title, (source, theirs) in _commands(Path(folder)).items():
            if told.files and title not in told.files:
                continue
            peer = [sys.executable, "-m", "tf2onnx.convert", "--opset", "17", *theirs]
            own = [str(Path(sys.executable).with_name("bnfold")), "convert", source, "--verify", "off", "--quiet"]
            runs = take_turns(
                {
                    "tf2onnx": [*peer, "--output", f"{folder}/theirs.onnx"],
                    "bnfold": [*own, "-o", f"{folder}/ours.onnx"],
                },
                told.rounds,
            )
            failed = [(name, run.said) for name, each in runs.items() for run in each if run.status]
            if failed:
                name, said = failed[0]
                print(f"{title}: {name} fails: {(said.strip() or 'nothing said').splitlines()[-1]}")
                continue
            peers, ours = runs["tf2onnx"], runs["bnfold"]
            quickest = [min(run.processor for run in each) for each in (peers, ours)]
            row = [f"{middle(peers, 'seconds'):.2f}", f"{middle(ours, 'seconds'):.2f}"]
            row += [f"{seconds:.2f}" for seconds in quickest] + [f"{quickest[1] / quickest[0]:.2f}"]
            rows.append([title, *row, *(f"{middle(each, 'peak'):.0f}" for each in (peers, ours))])
    print(f"{told.rounds} rounds, {told.depth} blocks of {told.width} channels\n")
    print(table(HEAD, rows))


def _commands(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Return every file by its title, with what tf2onnx has to be told to convert it."""
    ends = ["--inputs", "x:0", "--outputs", "y:0"]
    files = {
        "SavedModel": ("saved", "--saved-model", []),
        "frozen graph": ("frozen.pb", "--graphdef", ends),
        "checkpoint": ("model.meta", "--checkpoint", ends),
        ".h5": ("model.h5", "--keras", []),
        ".keras": ("model.keras", "--keras", []),
    }
    return {
        title: (f"{folder / name}", [option, f"{folder / name}", *more])
        for title, (name, option, more) in files.items()
    }


if __name__ == "__main__":
    main()
