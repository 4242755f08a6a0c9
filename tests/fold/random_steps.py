"""What a random net is made of: values, and steps that add a layer or a function of one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from tests.fold.random_graphs import Builder, Shape

__all__ = [
    "Net",
    "Step",
    "Value",
    "batch_norm",
    "conv_to",
    "function",
    "layer",
    "norm",
    "pooling",
    "resizing",
    "scale_and_shift",
]


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
    kind = b.pick("both", "both", "positive", "positive", "zero", "dead", "one", "no shift")
    gamma = b.rng.uniform(0.3, 2.0, c)
    if kind in {"both", "zero", "no shift"}:
        gamma *= b.rng.choice([-1.0, 1.0], c)
    if kind in {"zero", "dead"}:  # a dead channel stands among positive ones, which pass an activation
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


def conv_to(b: Net, x: Value, channels: int, *, bias: bool) -> Value:
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
        return [conv_to(b, x, b.pick(2, 4, c), bias=b.chance(60))]
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
        "Relu", "Relu", "LeakyRelu", "PRelu", "Clip", "Max", "Min", "Sigmoid", "Neg", "Identity", "HardSigmoid", "Abs"
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


GLOBAL = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")


def pooling(b: Net, x: Value) -> list[Value]:
    rank = len(x.shape) - 2
    if rank == 0:
        return function(b, x)
    if b.chance(25):
        kind = b.pick(*GLOBAL, *REDUCTIONS)
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


def norm(b: Net, x: Value) -> list[Value]:
    c = x.shape[1]
    if len(x.shape) > 2 and b.chance(50):
        return [b.add("InstanceNormalization", [x.name, b.normal(c), b.normal(c)], x.shape)]
    bias = [b.normal(x.shape[-1])] if b.chance(60) else []
    b.fixed = True
    return [b.add("LayerNormalization", [x.name, b.normal(x.shape[-1]), *bias], x.shape, axis=-1)]
