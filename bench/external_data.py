"""Folding models whose weights lie in files beside them: seconds and peak memory must not grow as the weights do.

Run as ``python -m bench.external_data``. Each row is a chain of convolutions and batch norms of 9 MiB a layer, folded
without verification as a whole process, beside ``cp`` of the same files; medians of three runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.chains import BATCH_NORM
from bench.measure import middle, table, take_turns

CHANNELS = 512
LENGTHS = (32, 96, 320)
ROUNDS = 3
HEAD = ["weights, MB", "cp, s", "fold, s", "of cp", "processor s", "peak MB"]


def chain(folder: Path, length: int) -> Path:
    """Write a chain of layers, their weights into one file beside the model, a layer at a time."""
    rng = np.random.default_rng(0)
    nodes, initializers, value = [], [], "x"
    with (folder / "chain.data").open("wb") as data:

        def add(name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, entry in (("location", "chain.data"), ("offset", data.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(entry))
            data.write(array.tobytes())
            initializers.append(tensor)

        weight = rng.normal(0, 0.02, size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        for i in range(length):
            add(f"weight{i}", weight)
            for name in BATCH_NORM:
                add(f"{name}{i}", rng.uniform(0.5, 1, size=CHANNELS).astype(np.float32))
            statistics = [f"{name}{i}" for name in BATCH_NORM]
            nodes.append(helper.make_node("Conv", [value, f"weight{i}"], [f"conv{i}"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("BatchNormalization", [f"conv{i}", *statistics], [f"norm{i}"]))
            value = f"norm{i}"
    shape: list[str | int | None] = ["N", CHANNELS, 8, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        initializers,
    )
    path = folder / "chain.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def main() -> None:
    """Print the table."""
    ours = str(Path(sys.executable).with_name("bnfold"))
    rows = []
    for length in LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            source = chain(Path(folder), length)
            target = Path(folder, "out")
            target.mkdir()
            commands = {
                "cp": ["cp", str(source), str(source.with_suffix(".data")), str(target)],
                "bnfold": [ours, "fold", str(source), "-o", str(target / "f.onnx"), "--verify", "off", "--quiet"],
            }
            runs = take_turns(commands, ROUNDS)
            assert all(run.status == 0 for every in runs.values() for run in every), runs["bnfold"][0].said
            copied, folded = middle(runs["cp"], "seconds"), middle(runs["bnfold"], "seconds")
            size = source.with_suffix(".data").stat().st_size / 1e6
            figures = [f"{size:.0f}", f"{copied:.2f}", f"{folded:.2f}", f"{folded / copied:.1f}"]
            rows.append(
                [*figures, f"{middle(runs['bnfold'], 'processor'):.2f}", f"{middle(runs['bnfold'], 'peak'):.0f}"]
            )
            subprocess.run(["rm", "-rf", str(target)], check=True)
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
