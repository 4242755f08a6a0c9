"""What does the float64 reference cost, and what does verification cost, on a net of ResNet-50's shape?

python bench/parity/reference.py [image side]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2]))

from bnfold.graph.region import Region
from bnfold.parity import verify
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session


class Net:
    """ResNet-50 with random weights, and by hand the same without its batch norms."""

    def __init__(self, *, folded: bool) -> None:
        self.folded = folded
        self.rng = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.regions: list[Region] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an initializer; return its name."""
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, k: int, stride: int, *, relu: bool = True) -> str:
        """Add a convolution with a batch norm, folded or not; return the name of what comes out."""
        n = len(self.regions)
        w = (self.rng.normal(size=(outputs, inputs, k, k)) / np.sqrt(inputs * k * k)).astype(np.float32)
        gamma, var = (self.rng.uniform(0.5, 1.5, size=outputs).astype(np.float32) for _ in range(2))
        beta, mean = (0.1 * self.rng.normal(size=outputs).astype(np.float32) for _ in range(2))
        geometry: dict[str, Any] = {"strides": [stride, stride], "pads": [k // 2] * 4}
        if self.folded:
            scale = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + float(np.float32(1e-5)))
            names = [
                self.constant(f"fw{n}", w * scale[:, None, None, None]),
                self.constant(f"fb{n}", beta - mean * scale),
            ]
            self.nodes.append(helper.make_node("Conv", [x, *names], [f"b{n}"], **geometry))
        else:
            self.nodes.append(helper.make_node("Conv", [x, self.constant(f"w{n}", w)], [f"h{n}"], **geometry))
            values = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
            names = [self.constant(f"{name}{n}", array) for name, array in values.items()]
            self.nodes.append(helper.make_node("BatchNormalization", [f"h{n}", *names], [f"b{n}"], name=f"bn{n}"))
        self.regions.append(Region((f"bn{n}",), (x,), (f"b{n}",), inputs * k * k))
        if not relu:
            return f"b{n}"
        self.nodes.append(helper.make_node("Relu", [f"b{n}"], [f"r{n}"]))
        return f"r{n}"

    def model(self, side: int) -> ModelProto:
        """Return the whole net for images of this side."""
        x = self.conv("x", 3, 64, 7, 2)
        self.nodes.append(
            helper.make_node("MaxPool", [x], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        x, channels = "p", 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            width = 64 << stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                left = self.conv(x, channels, width, 1, 1)
                left = self.conv(left, width, width, 3, stride)
                left = self.conv(left, width, 4 * width, 1, 1, relu=False)
                right = x if block else self.conv(x, channels, 4 * width, 1, stride, relu=False)
                self.nodes.append(helper.make_node("Add", [left, right], [f"s{stage}.{block}"]))
                x, channels = f"o{stage}.{block}", 4 * width
                self.nodes.append(helper.make_node("Relu", [f"s{stage}.{block}"], [x]))
        self.nodes.append(helper.make_node("GlobalAveragePool", [x], ["g"]))
        self.nodes.append(helper.make_node("Flatten", ["g"], ["f"]))
        names = [self.constant("fc", self.rng.normal(size=(2048, 1000)) / 45), self.constant("fc_b", np.zeros(1000))]
        self.nodes.append(helper.make_node("Gemm", ["f", *names], ["y"]))
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, side, side])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self.nodes, "resnet", [given], [result], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _median(run: Callable[[], object], times: int) -> float:
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 224
    before, after = Net(folded=False), Net(folded=True)
    unfolded, folded = before.model(side), after.model(side)
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 3, side, side)).astype(np.float32)}
    session, reference = Session(unfolded), Reference(unfolded)
    base, wide = _median(lambda: session.run(feeds), 5), _median(lambda: reference.run(feeds), 3)
    print(f"onnxruntime float32, no optimization {base:6.3f} s")
    print(f"float64 reference                    {wide:6.3f} s   {wide / base:5.1f} ×")
    for level in ("fast", "full"):
        parity = verify(unfolded=unfolded, folded=folded, regions=before.regions, level=level, seed=0)
        print(f"verify, {level}                         {parity.seconds:6.2f} s   {parity.seconds / base:5.0f} ×")
        print(f"  {parity.summary}")
