"""Random graphs of linear layers, affine maps and whatever may stand between them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


class Builder:
    """Collects nodes; every value in it is float64 and of known shape."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(draw(st.integers(0, 2**20)))
        self.weights: dict[Shape, list[str]] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(1, 100)) <= percent

    def constant(self, array: np.ndarray, *, share: bool = False) -> str:
        known = self.weights.setdefault(array.shape, [])
        if share and known and self.chance(15):
            return self.draw(st.sampled_from(known))
        name = self.name()
        tensor = numpy_helper.from_array(array, name)
        if self.chance(20):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        elif array.ndim == 2 and self.chance(15):
            inner = self.name()
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array.T), inner))
            self.nodes.append(helper.make_node("Transpose", [inner], [name], perm=[1, 0]))
        else:
            self.initializers.append(tensor)
        if share:
            known.append(name)
        return name

    def normal(self, *shape: int, share: bool = False) -> str:
        return self.constant(self.rng.normal(size=shape), share=share)

    def node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        output = self.name()
        name = f"{op_type}_{output}" if self.chance(70) else None
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, None, None, **attributes))
        return output


Layer = Callable[[Builder, str, Shape], tuple[str, Shape]]


def batch_norm(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    c = shape[1]
    scale = b.rng.normal(size=c) * (b.rng.random(c) > 0.1)
    stats = [b.constant(scale), b.normal(c), b.normal(c), b.constant(b.rng.uniform(0.1, 3.0, c))]
    return b.node("BatchNormalization", [x, *stats], epsilon=b.draw(st.sampled_from([1e-5, 1e-3]))), shape


def constant_affine(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    op_type = b.draw(st.sampled_from(["Mul", "Add", "Sub", "Div", "Neg"]))
    if op_type == "Neg":
        return b.node("Neg", [x]), shape
    rank = len(shape)
    along = b.draw(st.sets(st.integers(0, rank - 1), max_size=2)) if b.chance(25) else {1}
    wide = tuple(shape[axis] if axis in along else 1 for axis in range(rank))
    if b.chance(50):
        while len(wide) > 1 and wide[0] == 1:
            wide = wide[1:]
    constant = b.constant(b.rng.uniform(0.5, 2.0, wide) * b.rng.choice([-1.0, 1.0], wide))
    inputs = [constant, x] if op_type != "Div" and b.chance(40) else [x, constant]
    return b.node(op_type, inputs), shape


def conv(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) < 3:
        return dense(b, x, shape)
    rank, c = len(shape) - 2, shape[1]
    group = b.draw(st.sampled_from([g for g in (1, 2, 3, c) if c % g == 0]))
    out = group * b.draw(st.integers(1, 3))
    kernel = [b.draw(st.integers(1, min(3, size))) for size in shape[2:]]
    pads = [b.draw(st.integers(0, 1)) for _ in range(2 * rank)] if b.chance(40) else [0] * (2 * rank)
    strides = [b.draw(st.integers(1, 2)) for _ in range(rank)]
    inputs = [x, b.normal(out, c // group, *kernel, share=True)]
    if b.chance(60):
        inputs.append(b.normal(out, share=True))
    y = b.node("Conv", inputs, group=group, pads=pads, strides=strides)
    spatial = tuple(
        (size + pads[axis] + pads[axis + rank] - kernel[axis]) // strides[axis] + 1
        for axis, size in enumerate(shape[2:])
    )
    return y, (shape[0], out, *spatial)


def conv_transpose(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) < 3 or max(shape[2:]) > 5:
        return conv(b, x, shape)
    c = shape[1]
    group = b.draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
    each = b.draw(st.integers(1, 2))
    kernel = [b.draw(st.integers(1, 3)) for _ in shape[2:]]
    strides = [b.draw(st.integers(1, 2)) for _ in kernel]
    inputs = [x, b.normal(c, each, *kernel, share=True)]
    if b.chance(60):
        inputs.append(b.normal(group * each))
    y = b.node("ConvTranspose", inputs, group=group, strides=strides)
    spatial = tuple(s * (size - 1) + k for s, size, k in zip(strides, shape[2:], kernel, strict=True))
    return y, (shape[0], group * each, *spatial)


def dense(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    n = b.draw(st.integers(1, 5))
    if len(shape) == 2 and b.chance(60):
        if b.chance(25):  # the constant on the left: rows
            trans_b = b.draw(st.integers(0, 1))
            k, m = (shape[1], shape[0]) if trans_b else shape
            return b.node("Gemm", [b.normal(n, k), x], transB=trans_b, alpha=0.5), (n, m)
        trans_a, trans_b = b.draw(st.integers(0, 1)), b.draw(st.integers(0, 1))
        m, k = (shape[1], shape[0]) if trans_a else shape
        inputs = [x, b.normal(*((n, k) if trans_b else (k, n)), share=True)]
        if b.chance(60):
            inputs.append(b.normal(*b.draw(st.sampled_from([(), (1,), (n,), (1, n), (m, 1), (m, n)]))))
        beta = b.draw(st.sampled_from([0.0, 1.0, 2.5]))
        return b.node("Gemm", inputs, transA=trans_a, transB=trans_b, alpha=0.5, beta=beta), (m, n)
    if b.chance(25):
        return b.node("MatMul", [b.normal(n, shape[-2]), x]), (*shape[:-2], n, shape[-1])
    y = b.node("MatMul", [x, b.normal(shape[-1], n, share=True)])
    if b.chance(50):
        y = b.node("Add", [y, b.normal(n)])
    return y, (*shape[:-1], n)


def carrier(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    kind = b.draw(st.sampled_from(["Identity", "Dropout", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Relu"]))
    if kind == "Transpose":
        perm = b.draw(st.permutations(range(len(shape))))
        return b.node("Transpose", [x], perm=list(perm)), tuple(shape[axis] for axis in perm)
    if kind == "Reshape":
        start = b.draw(st.integers(0, len(shape) - 2))
        joined = (*shape[:start], shape[start] * shape[start + 1], *shape[start + 2 :])
        if len(joined) < 2:
            return b.node("Identity", [x]), shape
        return b.node("Reshape", [x, b.constant(np.asarray(joined, np.int64))]), joined
    if kind == "Flatten":
        return b.node("Flatten", [x]), (shape[0], int(np.prod(shape[1:])))
    if kind == "Unsqueeze" and len(shape) < 5:
        axis = b.draw(st.integers(0, len(shape)))
        y = b.node("Unsqueeze", [x, b.constant(np.asarray([axis]))])
        wide = (*shape[:axis], 1, *shape[axis:])
        if b.chance(50):
            return b.node("Squeeze", [y, b.constant(np.asarray([axis]))]), shape
        return y, wide
    return b.node("Identity" if kind == "Unsqueeze" else kind, [x]), shape


LAYERS: tuple[Layer, ...] = (batch_norm, batch_norm, constant_affine, conv, conv_transpose, dense, carrier, carrier)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a model: a chain of layers, some of whose values branch off or are outputs themselves."""
    b = Builder(draw)
    shape: Shape = draw(st.sampled_from([(2, 3), (1, 4), (2, 4, 5), (2, 3, 4, 4), (1, 6, 5, 3), (1, 2, 3, 3, 2)]))
    start = shape
    values = [("x", shape)]
    outputs: dict[str, Shape] = {}
    for _step in range(draw(st.integers(2, 9))):
        x, shape = values[-1] if b.chance(85) else draw(st.sampled_from(values))
        y, shape = draw(st.sampled_from(LAYERS))(b, x, shape)
        values.append((y, shape))
        if b.chance(8):
            outputs[y] = shape
    outputs[values[-1][0]] = values[-1][1]
    used = {name for node in b.nodes for name in node.input}
    outputs |= {name: size for name, size in values[1:] if name not in used}
    free_batch = start[0] == 2 and b.chance(60)

    def info(name: str, size: Shape) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.DOUBLE, list(size))

    graph = helper.make_graph(
        b.nodes, "random", [info("x", start)], [info(*row) for row in outputs.items()], b.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if free_batch and not any(node.op_type in {"Reshape", "Gemm", "Transpose"} for node in b.nodes):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.output[:]
        model.graph.output.extend(info(name, size) for name, size in outputs.items())
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[0].dim_param = "N"
    return model
