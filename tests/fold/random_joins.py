"""Random graphs in which values join, split and are read several times, in float64.

Where ``random_graphs`` draws chains, this draws nets: a value may have several producers (sums, concatenations,
choices, gates) and several readers, and may go through every operation that an affine map can or cannot pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.fold.random_layouts import layout
from tests.fold.random_steps import (
    Net,
    Step,
    Value,
    batch_norm,
    conv_to,
    function,
    layer,
    norm,
    pooling,
    resizing,
    scale_and_shift,
)

__all__ = ["nets"]


def _partner(b: Net, x: Value) -> Value:
    """Find or make a value of the same shape."""
    same = [value for value in b.values if value.shape == x.shape]
    near = [
        v for v in b.values if (v.shape[0], v.shape[2:]) == (x.shape[0], x.shape[2:]) and len(v.shape) == len(x.shape)
    ]
    kind = b.pick("layer", "layer", "same", "near", "input", "constant", "itself")
    if kind == "itself":
        return x
    if kind == "same" and same:
        return b.draw(st.sampled_from(same))
    if kind in {"layer", "near"} and near:
        other = conv_to(b, b.draw(st.sampled_from(near)), x.shape[1], bias=b.chance(50))
        if kind == "near":
            (other,) = batch_norm(b, other)
        b.values.insert(0, other)  # so that it is an output if the join does not take it
        return other
    if kind == "constant":
        b.fixed = True
        shape = b.pick(x.shape, (1, x.shape[1], *[1] * (len(x.shape) - 2)))
        return Value(b.normal(*shape), shape)
    return b.input(x.shape) if len(b.inputs) < 3 else (same or [x])[-1]


def join(b: Net, x: Value) -> list[Value]:
    kind = b.pick("Add", "Add", "Sub", "Sum", "Mul", "Where", "Concat", "Concat", "Max", "Mean", "Gate", "Ratio")
    if kind == "Ratio":
        bounded = b.add("Tanh", [_partner(b, x).name], x.shape)
        divisor = b.add("Exp", [bounded.name], x.shape)
        return [
            b.add(
                "Div",
                b.draw(st.permutations([x.name, divisor.name])) if b.chance(15) else [x.name, divisor.name],
                x.shape,
            )
        ]
    if kind == "Gate":
        other = _partner(b, x)
        gate = b.add(b.pick("Sigmoid", "HardSigmoid", "Tanh"), [other.name], other.shape)
        return [b.add("Mul", [x.name, gate.name], x.shape)]
    others = [_partner(b, x) for _ in range(b.pick(1, 1, 2) if kind in {"Sum", "Concat", "Mean"} else 1)]
    if kind == "Concat":
        axis = b.pick(1, 1, 1, len(x.shape) - 1, 0)
        if any(other.shape != x.shape for other in others):
            return [b.add("Identity", [x.name], x.shape)]
        b.fixed |= axis != 1
        size = (1 + len(others)) * x.shape[axis]
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return [b.add("Concat", b.draw(st.permutations([x.name, *(o.name for o in others)])), shape, axis=axis)]
    if kind == "Where":
        shape = b.pick(x.shape, (1, 1, *x.shape[2:]))
        b.fixed = True
        condition = b.input(shape, TensorProto.BOOL)
        return [b.add("Where", [condition.name, *b.draw(st.permutations([x.name, others[0].name]))], x.shape)]
    return [b.add(kind, b.draw(st.permutations([x.name, *(other.name for other in others)])), x.shape)]


def block(b: Net, x: Value) -> list[Value]:
    """Add the parallel branches of a RepVGG block, or of one like it."""
    c, rank = x.shape[1], len(x.shape) - 2
    if rank == 0:
        return layer(b, x)
    group = b.pick(*[g for g in (1, c) if c % g == 0])
    branches = []
    for size in b.pick([3, 1], [3, 3, 1], [3], [1, 1]):
        pads = [size // 2] * 2 * rank
        inputs = [x.name, b.normal(c, c // group, *[size] * rank), *([b.normal(c)] if b.chance(30) else [])]
        branches += batch_norm(b, b.add("Conv", inputs, x.shape, pads=pads, group=group))
    branches += batch_norm(b, x) if b.chance(70) else [x] if b.chance(30) else []
    total = branches[0]
    if b.chance(30) and len(branches) > 1:
        return [b.add("Sum", [branch.name for branch in branches], x.shape)]
    for branch in branches[1:]:
        total = b.add("Add", [total.name, branch.name], x.shape)
    return [total]


def stream(b: Net, x: Value) -> list[Value]:
    """Add residual blocks that normalise first, so that every batch norm reads what the next skip reads too."""
    rank = len(x.shape) - 2
    if rank == 0:
        return layer(b, x)
    values = [conv_to(b, x, b.pick(2, x.shape[1]), bias=b.chance(50))]
    for _block in range(b.pick(1, 2, 3)):
        x = values[-1]
        (inner,) = batch_norm(b, x)
        for _activation in range(b.pick(0, 1, 1)):
            inner = b.add(b.pick("Relu", "Relu", "LeakyRelu", "Identity", "Sigmoid"), [inner.name], x.shape)
        if b.chance(40):
            (inner,) = batch_norm(b, conv_to(b, inner, b.pick(2, 4), bias=False))
            inner = b.add("Relu", [inner.name], inner.shape)
        inner = conv_to(b, inner, x.shape[1], bias=b.chance(50))
        if b.chance(15):
            (inner,) = batch_norm(b, inner)
        skip = b.add(b.pick("Identity", "Dropout"), [x.name], x.shape) if b.chance(15) else x
        terms = b.draw(st.permutations([skip.name, inner.name]))
        values.append(b.add(b.pick("Add", "Add", "Add", "Sub", "Sum"), terms, x.shape))
    return values if b.chance(20) else values[-1:]


def way(b: Net, x: Value) -> list[Value]:
    """Add a layer and a batch norm with something between them that the map may travel through, either way round."""
    first, last = (layer, batch_norm) if b.chance(50) else (batch_norm, layer)
    made = first(b, x)
    for _carrier in range(b.pick(1, 1, 2, 3)):
        made = b.draw(st.sampled_from(CARRIERS))(b, made[-1])
    if len(made[-1].shape) < 2 or len(made[-1].shape) > 4 or np.prod(made[-1].shape) > 600:
        return made
    return [*made[:-1], *last(b, made[-1])]


CARRIERS: tuple[Step, ...] = (function, function, pooling, resizing, layout, layout, join)

STEPS: tuple[Step, ...] = (
    *[way] * 8,
    *[batch_norm] * 4,
    scale_and_shift,
    *[layer] * 5,
    *[function] * 2,
    *[pooling] * 2,
    resizing,
    *[layout] * 2,
    norm,
    *[join] * 4,
    *[block] * 2,
    *[stream] * 2,
)


@st.composite
def nets(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, npt.NDArray[Any]]]:
    """Draw a model in which values join, split and are read several times, and what to feed it."""
    b = Net(draw)
    b.values.append(
        b.input(draw(st.sampled_from([(2, 4, 5), (2, 4, 4, 4), (1, 4, 5, 3), (2, 3, 4, 4), (1, 2, 6, 6), (3, 4)])))
    )
    for _step in range(draw(st.integers(3, 12))):
        x = b.some()
        if np.prod(x.shape) > 600 or len(x.shape) > 4 or min(x.shape) < 1:
            continue
        b.values += draw(st.sampled_from(STEPS))(b, x)
    read = {name for node in b.nodes for name in node.input}
    made = {name for node in b.nodes for name in node.output}
    ends = [value for value in b.values if value.name in made and (value.name not in read or b.chance(5))]
    if not ends:
        ends = batch_norm(b, b.values[0])
    feeds = {
        value.name: b.rng.normal(size=value.shape) if element == TensorProto.DOUBLE else b.rng.random(value.shape) < 0.5
        for value, element in b.inputs
    }
    return _model(b, ends), feeds


def _model(b: Net, ends: list[Value]) -> onnx.ModelProto:
    free = not b.fixed and not any(node.op_type in {"Reshape", "Gemm"} for node in b.nodes) and b.chance(50)
    first, rank = b.inputs[0][0], len(b.inputs[0][0].shape)

    def info(value: Value, element: int, *, inner: bool) -> onnx.ValueInfoProto:
        sizes: list[int | str | None] = list(value.shape)
        if free and not inner:
            sizes = [None] * len(sizes)
        elif free and value.shape == first.shape:
            sizes = ["N", value.shape[1], *(f"P{axis}" for axis in range(2, rank))]
        return helper.make_tensor_value_info(value.name, element, sizes)

    graph = helper.make_graph(
        b.nodes,
        "net",
        [info(value, element, inner=True) for value, element in b.inputs],
        [info(value, TensorProto.DOUBLE, inner=False) for value in ends],
        b.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
