"""Random graphs in which values join, split and are read several times, in float64.

Where ``random_graphs`` draws chains, this draws nets: a value may have several producers (sums, concatenations,
choices, gates) and several readers, and may go through every operation that an affine map can or cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.fold.random_graphs import Builder, Shape

__all__ = ["nets"]


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a net, of shape (N, C, positions…) or (N, C)."""

    name: str
    shape: Shape


class Net(Builder):
    """Collects nodes, and knows every value that may be read."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.values: list[Value] = []
        self.inputs: list[tuple[Value, int]] = []
        self.fixed = False
        """Whether a constant names the size of an axis, so that none may be free."""

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def some(self) -> Value:
        """Choose a value to go on from, most often the newest."""
        return self.values[-1] if self.chance(60) else self.draw(st.sampled_from(self.values))

    def add(self, op_type: str, inputs: list[str], shape: Shape, **attributes: Any) -> Value:
        return Value(self.node(op_type, inputs, **attributes), shape)

    def ints(self, *numbers: int) -> str:
        return self.constant(np.asarray(numbers, np.int64))

    def input(self, shape: Shape, element: int = TensorProto.DOUBLE) -> Value:
        value = Value(f"x{len(self.inputs)}", shape)
        self.inputs.append((value, element))
        return value


Step = Callable[[Net, Value], list[Value]]


def batch_norm(b: Net, x: Value) -> list[Value]:
    c = x.shape[1]
    kind = b.pick("both", "both", "positive", "positive", "zero", "one", "no shift")
    gamma = b.rng.uniform(0.3, 2.0, c)
    if kind in {"both", "zero", "no shift"}:
        gamma *= b.rng.choice([-1.0, 1.0], c)
    if kind == "zero":
        gamma[b.rng.integers(c)] = 0.0
    rows = [gamma, b.rng.normal(size=c), b.rng.normal(size=c), b.rng.uniform(0.1, 3.0, c)]
    if kind == "one":
        rows = [np.full(c, row[0]) for row in rows]
    if kind == "no shift":
        rows[1], rows[2] = np.zeros(c), np.zeros(c)
    return [b.add("BatchNormalization", [x.name, *map(b.constant, rows)], x.shape)]


def scale_and_shift(b: Net, x: Value) -> list[Value]:
    wide = [1] * len(x.shape)
    for axis in {1} if b.chance(75) else b.draw(st.sets(st.integers(0, len(wide) - 1), max_size=2)):
        wide[axis] = x.shape[axis]
        b.fixed |= axis != 1
    constant = b.rng.uniform(0.5, 2.0, wide) * (b.rng.choice([-1.0, 1.0], wide) if b.chance(60) else 1.0)
    inputs = [x.name, b.constant(constant)]
    if b.chance(30):
        inputs.reverse()
    return [b.add(b.pick("Mul", "Add", "Sub"), inputs, x.shape)]


def _conv_to(b: Net, x: Value, channels: int, *, bias: bool) -> Value:
    """Add a layer that changes the channels and nothing else."""
    c, rank = x.shape[1], len(x.shape) - 2
    if rank == 0:
        inputs = [x.name, b.normal(c, channels), *([b.normal(channels)] if bias else [])]
        return b.add("Gemm", inputs, (x.shape[0], channels))
    size = b.pick(1, 1, 3)
    inputs = [x.name, b.normal(channels, c, *[size] * rank), *([b.normal(channels)] if bias else [])]
    pads = {"pads": [1] * 2 * rank} if size == 3 else {}
    return b.add("Conv", inputs, (x.shape[0], channels, *x.shape[2:]), **pads)


def layer(b: Net, x: Value) -> list[Value]:
    c, rank = x.shape[1], len(x.shape) - 2
    if rank == 0 or b.chance(30):
        return [_conv_to(b, x, b.pick(2, 4, c), bias=b.chance(60))]
    if b.chance(10):
        equation = {1: "bcx,oc->box", 2: "bcxy,oc->boxy"}[rank]
        return [b.add("Einsum", [x.name, b.normal(4, c)], (x.shape[0], 4, *x.shape[2:]), equation=equation)]
    group = b.pick(*[g for g in (1, 2, c) if c % g == 0])
    out = group * b.draw(st.integers(1, 2)) if group > 1 else b.pick(2, 4)
    kernel = [b.draw(st.integers(1, min(3, size))) for size in x.shape[2:]]
    strides = [b.draw(st.integers(1, 2)) for _ in kernel]
    bias = [b.normal(out)] if b.chance(60) else []
    if b.chance(10) and max(x.shape[2:]) <= 4:
        size = tuple(s * (n - 1) + k for s, n, k in zip(strides, x.shape[2:], kernel, strict=True))
        weight = b.normal(c, out // group, *kernel)
        return [b.add("ConvTranspose", [x.name, weight, *bias], (x.shape[0], out, *size), group=group, strides=strides)]
    inputs = [x.name, b.normal(out, c // group, *kernel, share=True), *bias]
    if b.chance(15):
        size = tuple(-(-n // s) for n, s in zip(x.shape[2:], strides, strict=True))
        auto = b.pick("SAME_UPPER", "SAME_LOWER")
        return [b.add("Conv", inputs, (x.shape[0], out, *size), group=group, strides=strides, auto_pad=auto)]
    pads = [b.draw(st.integers(0, 1)) for _ in range(2 * rank)] if b.chance(40) else [0] * 2 * rank
    size = tuple(
        (n + pads[axis] + pads[axis + rank] - kernel[axis]) // strides[axis] + 1 for axis, n in enumerate(x.shape[2:])
    )
    return [b.add("Conv", inputs, (x.shape[0], out, *size), group=group, strides=strides, pads=pads)]


def function(b: Net, x: Value) -> list[Value]:
    kind = b.pick(
        "Relu", "Relu", "LeakyRelu", "PRelu", "Clip", "Max", "Min", "Sigmoid", "Neg", "Identity", "HardSigmoid"
    )
    along = (x.shape[1], *[1] * (len(x.shape) - 2))
    if kind == "LeakyRelu":
        return [b.add(kind, [x.name], x.shape, alpha=b.pick(0.1, 0.5, -0.3, 1.5))]
    if kind == "PRelu":
        slope = b.rng.normal(size=along if b.chance(60) else [1])
        return [b.add(kind, [x.name, b.constant(slope)], x.shape)]
    if kind == "Clip":
        bounds = [b.constant(np.asarray(b.pick(0.0, -1.0))), b.constant(np.asarray(b.pick(1.0, 6.0)))]
        return [b.add(kind, [x.name, *b.pick(bounds, bounds[:1], ["", bounds[1]])], x.shape)]
    if kind in {"Max", "Min"}:
        inputs = [x.name, b.constant(b.rng.normal(size=b.pick(along, ())))]
        return [b.add(kind, inputs[::-1] if b.chance(30) else inputs, x.shape)]
    return [b.add(kind, [x.name], x.shape)]


def pooling(b: Net, x: Value) -> list[Value]:
    rank = len(x.shape) - 2
    if rank == 0:
        return function(b, x)
    if b.chance(25):
        kind = b.pick("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax")
        if kind.startswith("Global"):
            return [b.add(kind, [x.name], (*x.shape[:2], *[1] * rank))]
        axes = b.pick([-1], list(range(2, 2 + rank)), [2])
        keep = b.pick(0, 1)
        gone = {axis % len(x.shape) for axis in axes}
        shape = [1 if axis in gone else size for axis, size in enumerate(x.shape) if keep or axis not in gone]
        return [b.add(kind, [x.name, b.ints(*axes)], tuple(shape), keepdims=keep)]
    kind = b.pick("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool")
    kernel = [b.draw(st.integers(1, min(3, size))) for size in x.shape[2:]]
    strides = [b.draw(st.integers(1, 2)) for _ in kernel]
    # A pad is smaller than its window: none of them sees nothing but pads.
    pads = [b.draw(st.integers(0, size - 1)) for size in kernel] * 2 if b.chance(40) else [0] * 2 * rank
    size = tuple((n + 2 * pads[axis] - kernel[axis]) // strides[axis] + 1 for axis, n in enumerate(x.shape[2:]))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if kind == "AveragePool":
        attributes["count_include_pad"] = b.pick(0, 1)
    return [b.add(kind, [x.name], (*x.shape[:2], *size), **attributes)]


def resizing(b: Net, x: Value) -> list[Value]:
    rank = len(x.shape) - 2
    if rank == 0 or max(x.shape[2:]) > 6:
        return function(b, x)
    if b.chance(50):
        mode = b.pick("constant", "constant", "reflect", "edge")
        pads = [b.draw(st.integers(0, min(1, size - 1))) for size in x.shape[2:]] * 2
        number = [b.constant(np.asarray(b.pick(0.0, 0.5)))] if mode == "constant" and b.chance(50) else []
        size = tuple(n + 2 * pads[axis] for axis, n in enumerate(x.shape[2:]))
        spread = b.ints(0, 0, *pads[:rank], 0, 0, *pads[rank:])
        return [b.add("Pad", [x.name, spread, *number], (*x.shape[:2], *size), mode=mode)]
    factor = b.constant(np.asarray([1.0, 1.0] + [2.0] * rank, np.float32))
    size = tuple(2 * n for n in x.shape[2:])
    mode = b.pick("nearest", "linear") if rank == 1 else b.pick("nearest", "linear", "cubic")
    return [b.add("Resize", [x.name, "", factor], (*x.shape[:2], *size), mode=mode)]


def layout(b: Net, x: Value) -> list[Value]:
    rank = len(x.shape)
    kind = b.pick("Split", "Slice", "Gather", "Tile", "Transpose", "Blocks", "Shuffle", "Flatten", "Unsqueeze", "Back")
    axis = b.draw(st.integers(0, rank - 1)) if b.chance(40) else 1
    size = x.shape[axis]

    def with_size(other: int) -> Shape:
        return (*x.shape[:axis], other, *x.shape[axis + 1 :])

    if kind == "Split" and size > 1:
        first = b.draw(st.integers(1, size - 1))
        b.fixed |= axis != 1
        outputs = [b.name(), b.name()]
        inputs = [x.name, b.ints(first, size - first)]
        b.nodes.append(helper.make_node("Split", inputs, outputs, axis=axis))
        return [Value(outputs[0], with_size(first)), Value(outputs[1], with_size(size - first))]
    if kind == "Slice" and size > 1:
        b.fixed |= axis != 1
        step = b.pick(1, 1, 2, -1)
        start, end = (size - 1, -size - 1) if step < 0 else (b.draw(st.integers(0, size - 2)), size)
        inputs = [x.name, *(b.ints(number) for number in (start, end, axis, step))]
        return [b.add("Slice", inputs, with_size(len(range(size)[start : None if step < 0 else end : step])))]
    if kind == "Gather":
        b.fixed |= axis != 1
        indices = b.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=4)) if b.chance(40) else None
        chosen = b.rng.permutation(size).tolist() if indices is None else indices
        return [b.add("Gather", [x.name, b.ints(*chosen)], with_size(len(chosen)), axis=axis)]
    if kind == "Tile" and size <= 4:
        repeats = [2 if other == axis else 1 for other in range(rank)]
        return [b.add("Tile", [x.name, b.ints(*repeats)], with_size(2 * size))]
    if kind == "Transpose" and rank > 2:
        perm = (
            [0, 1, *b.draw(st.permutations(range(2, rank)))] if b.chance(70) else b.draw(st.permutations(range(rank)))
        )
        return [b.add("Transpose", [x.name], tuple(x.shape[axis] for axis in perm), perm=list(perm))]
    if kind == "Blocks" and rank == 4:
        n, c, h, w = x.shape
        if c % 4 == 0 and b.chance(60):
            mode = b.pick("DCR", "CRD")
            return [b.add("DepthToSpace", [x.name], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)]
        if h % 2 == 0 == w % 2:
            return [b.add("SpaceToDepth", [x.name], (n, 4 * c, h // 2, w // 2), blocksize=2)]
    if kind == "Shuffle" and rank == 4 and x.shape[1] % 2 == 0:
        n, c, h, w = x.shape
        b.fixed = True
        wide = b.add("Reshape", [x.name, b.ints(n, 2, c // 2, h, w)], x.shape)
        turned = b.add("Transpose", [wide.name], x.shape, perm=[0, 2, 1, 3, 4])
        return [b.add("Reshape", [turned.name, b.ints(n, c, h, w)], x.shape)]
    if kind == "Back" and rank > 2:  # to another shape and back to the one that it asks for
        asked = b.node("Shape", [x.name])
        flat = b.add("Reshape", [x.name, b.ints(0, x.shape[1], -1)], (*x.shape[:2], int(np.prod(x.shape[2:]))))
        made = batch_norm(b, flat) if b.chance(70) else function(b, flat)
        return [b.add("Reshape", [made[-1].name, asked], x.shape)]
    if kind == "Flatten" and rank > 2:
        return [b.add("Flatten", [x.name], (x.shape[0], int(np.prod(x.shape[1:]))))]
    if kind == "Unsqueeze" and rank == 2:
        return [b.add("Unsqueeze", [x.name, b.ints(2, 3)], (*x.shape, 1, 1))]
    return [b.add("Dropout", [x.name], x.shape)]


def norm(b: Net, x: Value) -> list[Value]:
    c = x.shape[1]
    if len(x.shape) > 2 and b.chance(50):
        return [b.add("InstanceNormalization", [x.name, b.normal(c), b.normal(c)], x.shape)]
    bias = [b.normal(x.shape[-1])] if b.chance(60) else []
    b.fixed = True
    return [b.add("LayerNormalization", [x.name, b.normal(x.shape[-1]), *bias], x.shape, axis=-1)]


def _partner(b: Net, x: Value) -> Value:
    """Find or make a value of the same shape."""
    same = [value for value in b.values if value.shape == x.shape]
    near = [
        v for v in b.values if (v.shape[0], v.shape[2:]) == (x.shape[0], x.shape[2:]) and len(v.shape) == len(x.shape)
    ]
    kind = b.pick("layer", "layer", "same", "near", "input", "constant")
    if kind == "same" and same:
        return b.draw(st.sampled_from(same))
    if kind in {"layer", "near"} and near:
        other = _conv_to(b, b.draw(st.sampled_from(near)), x.shape[1], bias=b.chance(50))
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
    kind = b.pick("Add", "Add", "Sub", "Sum", "Mul", "Where", "Concat", "Concat", "Max", "Gate")
    if kind == "Gate":
        other = _partner(b, x)
        gate = b.add(b.pick("Sigmoid", "HardSigmoid", "Tanh"), [other.name], other.shape)
        return [b.add("Mul", [x.name, gate.name], x.shape)]
    others = [_partner(b, x) for _ in range(b.pick(1, 1, 2) if kind in {"Sum", "Concat"} else 1)]
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
    values = [_conv_to(b, x, b.pick(2, x.shape[1]), bias=b.chance(50))]
    for _block in range(b.pick(1, 2, 3)):
        x = values[-1]
        (inner,) = batch_norm(b, x)
        for _activation in range(b.pick(0, 1, 1)):
            inner = b.add(b.pick("Relu", "Relu", "LeakyRelu", "Identity", "Sigmoid"), [inner.name], x.shape)
        if b.chance(40):
            (inner,) = batch_norm(b, _conv_to(b, inner, b.pick(2, 4), bias=False))
            inner = b.add("Relu", [inner.name], inner.shape)
        inner = _conv_to(b, inner, x.shape[1], bias=b.chance(50))
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
