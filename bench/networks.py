"""Networks for the folding benchmark, in ONNX as exporters leave them: batch norms in place, weights from a fixed seed.

Run as ``python -m bench.networks FOLDER``: in a process of its own, like everything that a benchmark starts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


@dataclass(slots=True)
class Network:
    """A graph that grows at its end: each method adds one layer behind ``value`` and returns the new value."""

    rng: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def _weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, op_type: str, inputs: list[str], **attributes: int | list[int]) -> str:
        name = f"{op_type}{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [f"{name}_y"], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return f"{name}_y"

    def conv(self, value: str, channels: tuple[int, int], *, size: int = 3, stride: int = 1, group: int = 1) -> str:
        """Add a convolution without bias, padded so that a stride of 1 keeps the image's size."""
        rows, columns = channels[1], channels[0] // group
        shape = (rows, columns, size, size)
        weight = self._weight(self.rng.normal(0, (2 / (columns * size**2)) ** 0.5, shape))
        pads = [size // 2] * 4
        return self._node("Conv", [value, weight], pads=pads, strides=[stride] * 2, group=group)

    def batch_norm(self, value: str, channels: int) -> str:
        """Add a batch norm with statistics of the kind that training leaves."""
        gamma, var = self.rng.uniform(0.5, 1.5, channels), self.rng.uniform(0.5, 2, channels)
        beta, mean = self.rng.normal(0, 0.3, channels), self.rng.normal(0, 0.3, channels)
        return self._node("BatchNormalization", [value, *map(self._weight, (gamma, beta, mean, var))])

    def gemm(self, value: str, units: tuple[int, int]) -> str:
        """Add a dense layer."""
        weight = self._weight(self.rng.normal(0, (2 / units[0]) ** 0.5, (units[1], units[0])))
        return self._node("Gemm", [value, weight, self._weight(np.zeros(units[1]))], transB=1)

    def relu(self, value: str) -> str:
        """Add a ReLU."""
        return self._node("Relu", [value])

    def add(self, left: str, right: str) -> str:
        """Add up two values."""
        return self._node("Add", [left, right])

    def save(self, path: Path, value: str, shape: list[int | str], units: int) -> None:
        """End the graph at ``value``, a matrix of ``units`` columns, and write it."""
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        wanted = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", units])
        graph = helper.make_graph(self.nodes, path.stem, [given], [wanted], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def classify(self, value: str, channels: int) -> str:
        """Average every channel and add ten classes."""
        pooled = self._node("GlobalAveragePool", [value])
        return self.gemm(self._node("Flatten", [pooled]), (channels, 10))


def residual(path: Path) -> None:
    """Write a residual network: 49 batch norms, each behind a convolution."""
    net, channels = Network(np.random.default_rng(1)), 16
    value = net.relu(net.batch_norm(net.conv("x", (3, channels)), channels))
    for stage in range(4):
        for block in range(6):
            width = 16 * 2**stage
            stride = 2 if stage and not block else 1
            left = net.relu(net.batch_norm(net.conv(value, (channels, width), stride=stride), width))
            left = net.batch_norm(net.conv(left, (width, width)), width)
            if channels != width:
                value = net.conv(value, (channels, width), size=1, stride=stride)
            value, channels = net.relu(net.add(left, value)), width
    net.save(path, net.classify(value, channels), ["N", 3, 32, 32], 10)


def separable(path: Path) -> None:
    """Write a network of depthwise and pointwise convolutions: 35 batch norms."""
    net, channels = Network(np.random.default_rng(2)), 32
    value = net.relu(net.batch_norm(net.conv("x", (3, channels), stride=2), channels))
    for block in range(17):
        width = min(512, 32 * 2 ** (block // 4 + 1))
        value = net.relu(net.batch_norm(net.conv(value, (channels, channels), group=channels), channels))
        value = net.relu(net.batch_norm(net.conv(value, (channels, width), size=1), width))
        channels = width
    net.save(path, net.classify(value, channels), ["N", 3, 32, 32], 10)


def dense(path: Path) -> None:
    """Write dense layers with batch norm on the input and behind every ReLU: 21, each in front of a layer."""
    net, units = Network(np.random.default_rng(3)), 256
    value = net.batch_norm("x", units)
    for _ in range(20):
        value = net.batch_norm(net.relu(net.gemm(value, (units, units))), units)
    net.save(path, net.gemm(value, (units, 10)), ["N", units], 10)


NETWORKS = {"residual": residual, "separable": separable, "dense": dense}

if __name__ == "__main__":
    for _name, _write in NETWORKS.items():
        _write(Path(sys.argv[1], f"{_name}.onnx"))
