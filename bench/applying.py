"""Memory of applying a plan: how far it rises above the model that was read, in models and in the largest tensor.

Run as ``python -m bench.applying``. Each row is a chain of one layer and a batch norm, eleven times, in float32, folded
in a process of its own. The result has to be held, which is one model; ``beyond the result`` is what the peak has
besides. Linux only: the kernel says how high a process's memory has been. Large pieces of memory go back as soon as
they are free, so that the figures say what is held, and not which holes the allocator has left.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bench.measure import table
from bnfold.fold import apply, plan

LENGTH = 11
HEAD = ("chain", "model, MB", "largest tensor, MB", "peak above", "beyond the result", "in tensors", "held")
_WIDE = 1536
_CHANNELS = 512

Layer = Callable[[str, str], tuple[list[NodeProto], tuple[int, ...], int]]
"""From the value's name and the weight's to the nodes, the weight's shape and the channels."""


def _norm(value: str, weight: str) -> NodeProto:
    statistics = [f"{name}_{weight}" for name in ("gamma", "beta", "mean", "var")]
    return helper.make_node("BatchNormalization", [value, *statistics], [f"{value}_n"])


def _conv(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    conv = helper.make_node("Conv", [value, weight], [f"{weight}_c"], pads=[1, 1, 1, 1])
    norm = _norm(conv.output[0], weight)
    relu = helper.make_node("Relu", list(norm.output), [f"{weight}_y"])
    return [conv, norm, relu], (_CHANNELS, _CHANNELS, 3, 3), _CHANNELS


def _conv_in_front(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    norm = _norm(value, weight)
    conv = helper.make_node("Conv", [norm.output[0], weight], [f"{weight}_c"])
    relu = helper.make_node("Relu", list(conv.output), [f"{weight}_y"])
    return [norm, conv, relu], (_CHANNELS * 3, _CHANNELS * 3, 1, 1), _CHANNELS * 3


def _gemm(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    gemm = helper.make_node("Gemm", [value, weight], [f"{weight}_c"], transB=1)
    norm = _norm(gemm.output[0], weight)
    relu = helper.make_node("Relu", list(norm.output), [f"{weight}_y"])
    return [gemm, norm, relu], (_WIDE, _WIDE), _WIDE


def _matmul(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    product = helper.make_node("MatMul", [value, weight], [f"{weight}_c"])
    norm = _norm(product.output[0], weight)
    relu = helper.make_node("Relu", list(norm.output), [f"{weight}_y"])
    return [product, norm, relu], (_WIDE, _WIDE), _WIDE


def _matmul_in_front(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    norm = _norm(value, weight)
    product = helper.make_node("MatMul", [norm.output[0], weight], [f"{weight}_c"])
    relu = helper.make_node("Relu", list(product.output), [f"{weight}_y"])
    return [norm, product, relu], (_WIDE, _WIDE), _WIDE


def _transposed(value: str, weight: str) -> tuple[list[NodeProto], tuple[int, ...], int]:
    conv = helper.make_node("ConvTranspose", [value, weight], [f"{weight}_c"])
    norm = _norm(conv.output[0], weight)
    relu = helper.make_node("Relu", list(norm.output), [f"{weight}_y"])
    return [conv, norm, relu], (_CHANNELS, _CHANNELS, 3, 3), _CHANNELS


CHAINS: dict[str, tuple[Layer, list[str | int | None]]] = {
    "Conv, batch norm": (_conv, ["N", _CHANNELS, 8, 8]),
    "batch norm, Conv 1x1": (_conv_in_front, ["N", _CHANNELS * 3, 8, 8]),
    "ConvTranspose, batch norm": (_transposed, ["N", _CHANNELS, None, None]),
    "Gemm, batch norm": (_gemm, ["N", _WIDE]),
    "MatMul, batch norm": (_matmul, ["N", _WIDE]),
    "batch norm, MatMul": (_matmul_in_front, ["N", _WIDE]),
}


def chain(layer: Layer, shape: list[str | int | None]) -> onnx.ModelProto:
    """Return a chain of layers; every weight has its own bytes, all of the same numbers."""
    graph = onnx.GraphProto(name="chain")
    value = "x"
    graph.input.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
    rng = np.random.default_rng(0)
    numbers: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
    for number in range(LENGTH):
        weight = f"w{number}"
        nodes, sizes, channels = layer(value, weight)
        numbers = rng.normal(0, 0.02, size=sizes).astype(np.float32) if numbers is None else numbers
        graph.initializer.append(numpy_helper.from_array(numbers, weight))
        for name in ("gamma", "beta", "mean", "var"):
            statistics = rng.uniform(0.5, 1, size=channels).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(statistics, f"{name}_{weight}"))
        graph.node.extend(nodes)
        value = nodes[-1].output[0]
    rank = len(shape)
    graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", *[None] * (rank - 1)]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _memory(entry: str) -> float:
    """Return a process's memory in MB, ``VmRSS`` now or ``VmHWM`` at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    raise AssertionError(entry)


def measure(name: str) -> None:
    """Print the figures of one chain as JSON."""
    layer, shape = CHAINS[name]
    # As a reader leaves a model: in one piece, without what making it has left in the memory.
    text = chain(layer, shape).SerializeToString()
    model = onnx.ModelProto.FromString(text)
    size = len(text) / 2**20
    del text
    made = plan(model)
    assert not made.kept, made.kept
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already would hide what is taken next
    Path("/proc/self/clear_refs").write_text("5")  # forget how high it has been
    before = _memory("VmRSS")
    result = apply(model, made)
    peak, held = _memory("VmHWM") - before, _memory("VmRSS") - before
    largest = max(tensor.ByteSize() for tensor in model.graph.initializer) / 2**20
    after = result.model.ByteSize() / 2**20
    figures = [size, largest, peak, peak - after, (peak - after) / largest, held]
    print(json.dumps([name, *(f"{figure:.1f}" for figure in figures)]))


def main() -> None:
    """Print the table."""
    command = [sys.executable, "-m", "bench.applying"]
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
    rows = []
    for name in CHAINS:
        done = subprocess.run([*command, name], check=True, capture_output=True, text=True, env=surroundings)
        rows.append(json.loads(done.stdout))
    print(table(HEAD, rows))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        main()
