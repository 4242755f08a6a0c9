"""Models for the benchmarks, made from a fixed seed: what counts is their size, not what they compute.

Run as ``python -m bench.chains PATH LENGTH CHANNELS``: in a process of its own, because a child's peak memory begins at
that of the process which starts it, and the benchmarks must stay small.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH_NORM = ("gamma", "beta", "mean", "var")


def chain(path: Path, *, length: int, channels: int, size: int = 8) -> None:
    """Write Conv, BatchNormalization and Relu in a row, ``length`` times."""
    rng = np.random.default_rng(0)
    nodes, initializers, value = [], [], "x"
    for i in range(length):
        weight = rng.normal(0, (2 / (9 * channels)) ** 0.5, size=(channels, channels, 3, 3)).astype(np.float32)
        initializers.append(numpy_helper.from_array(weight, f"weight{i}"))
        for name in BATCH_NORM:
            values = rng.uniform(0.5, 1, size=channels).astype(np.float32)
            initializers.append(numpy_helper.from_array(values, f"{name}{i}"))
        statistics = [f"{name}{i}" for name in BATCH_NORM]
        nodes += [
            helper.make_node("Conv", [value, f"weight{i}"], [f"conv{i}"], name=f"Conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"conv{i}", *statistics], [f"norm{i}"], name=f"BatchNorm{i}"),
            helper.make_node("Relu", [f"norm{i}"], [f"relu{i}"], name=f"Relu{i}"),
        ]
        value = f"relu{i}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, size, size])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", channels, size, size])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


if __name__ == "__main__":
    chain(Path(sys.argv[1]), length=int(sys.argv[2]), channels=int(sys.argv[3]))
