"""Networks that choose: detectors, decoders, quantizers. A correct fold chooses otherwise between near equals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]

__all__ = ["CHOOSERS", "damaged"]


@dataclass
class Net:
    """A model that is being written down, node by node."""

    seed: int
    dtype: npt.DTypeLike = np.float32
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def constant(self, value: Any, dtype: npt.DTypeLike | None = None) -> str:
        self.count += 1
        array = np.asarray(value)
        kind = dtype or (self.dtype if array.dtype.kind == "f" else np.int64)
        self.tensors.append(numpy_helper.from_array(array.astype(kind), f"c{self.count}"))
        return f"c{self.count}"

    def __call__(self, op: str, *read: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        self.count += 1
        names = [f"{name or 'v'}{self.count}" + (f"_{n}" if outputs > 1 else "") for n in range(outputs)]
        self.nodes.append(helper.make_node(op, list(read), names, name=f"{op}{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def norm(self, x: str, channels: int) -> str:
        signs = np.where(self.rng.random(channels) < 0.1, -1, 1)
        read = [
            self.constant(self.rng.uniform(0.7, 1.4, channels) * signs),
            self.constant(self.rng.normal(size=channels) * 0.3),
            self.constant(self.rng.normal(size=channels) * 0.3),
            self.constant(self.rng.uniform(0.5, 2, channels)),
        ]
        return str(self("BatchNormalization", x, *read))

    def conv(self, x: str, i: int, o: int, k: int = 3, stride: int = 1, act: str = "Relu", *, norm: bool = True) -> str:
        w = self.constant(self.rng.normal(size=(o, i, k, k)) * np.sqrt(2 / (i * k * k)))
        x = self("Conv", x, w, self.constant(self.rng.normal(size=o) * 0.1), pads=[k // 2] * 4, strides=[stride] * 2)
        x = self.norm(x, o) if norm else x
        if act == "SiLU":
            return str(self("Mul", x, self("Sigmoid", x)))
        return str(self(act, x)) if act else x

    def dense(self, x: str, i: int, o: int, *, norm: bool = True) -> str:
        x = self("MatMul", x, self.constant(self.rng.normal(size=(i, o)) * np.sqrt(2 / i)))
        return self.norm(x, o) if norm else x

    def feed(self, name: str, shape: list[int | str], dtype: npt.DTypeLike | None = None) -> str:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def give(self, name: str, value: str, dtype: npt.DTypeLike | None = None) -> None:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, element, None))

    def shape(self, x: str, *sizes: int) -> str:
        return str(self("Reshape", x, self.constant(list(sizes))))

    def model(self) -> ModelProto:
        graph = helper.make_graph(self.nodes, "chooser", self.inputs, self.outputs, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _heads(net: Net, channels: int, anchors: int, classes: int) -> tuple[str, str]:
    """Two scales; return boxes (1, N, 4) and scores (1, N, classes)."""
    x = net.conv(net.feed("x", [1, 3, 64, 64]), 3, channels, stride=2)
    x = net.conv(x, channels, channels, act="SiLU")
    small = net.conv(x, channels, channels, stride=2)
    boxes, scores = [], []
    for feature in (x, small):
        raw = net.conv(net.conv(feature, channels, channels), channels, anchors * (4 + classes), act="", norm=False)
        raw = net("Transpose", raw, perm=[0, 2, 3, 1])
        raw = net.shape(raw, 1, -1, 4 + classes)
        box, score = net("Split", raw, net.constant([4, classes]), outputs=2, axis=2)
        middle, size = net("Split", net("Sigmoid", box), net.constant([2, 2]), outputs=2, axis=2)
        half = net("Mul", size, net.constant(np.float64(0.25)))
        boxes.append(net("Concat", net("Sub", middle, half), net("Add", middle, half), axis=2))
        scores.append(net("Sigmoid", score))
    return net("Concat", *boxes, axis=1), net("Concat", *scores, axis=1)


def ssd(net: Net) -> None:
    """Every class suppressed by itself; indices, and what they choose."""
    boxes, scores = _heads(net, 12, 2, 4)
    turned = net("Transpose", scores, perm=[0, 2, 1])
    limits = [net.constant([12]), net.constant([0.5], np.float32), net.constant([0.6], np.float32)]
    wide = [net("Cast", item, to=TensorProto.FLOAT) for item in (boxes, turned)]
    chosen = net("NonMaxSuppression", *wide, *limits)
    place = net("Gather", chosen, net.constant([2]), axis=1)
    place = net("Squeeze", place, net.constant([1]))
    net.give("boxes", net("Gather", boxes, place, axis=1))
    net.give("scores", net("GatherND", turned, chosen))
    net.give("chosen", chosen, np.int64)


def yolo(net: Net) -> None:
    """The best hundred by their best class, then suppressed together."""
    boxes, scores = _heads(net, 12, 3, 5)
    best = net("ReduceMax", scores, axes=[2], keepdims=0)
    kind = net("ArgMax", scores, axis=2, keepdims=0)
    top, place = net("TopK", best, net.constant([100]), outputs=2, axis=1)
    rows = net("Expand", net("Unsqueeze", place, net.constant([2])), net.constant([1, 100, 4]))
    near = net("GatherElements", boxes, rows, axis=1)
    limits = [net.constant([20]), net.constant([0.4], np.float32), net.constant([0.1], np.float32)]
    wide = [net("Cast", item, to=TensorProto.FLOAT) for item in (near, net("Unsqueeze", top, net.constant([1])))]
    chosen = net("NonMaxSuppression", *wide, *limits)
    left = net("Squeeze", net("Gather", chosen, net.constant([2]), axis=1), net.constant([1]))
    net.give("boxes", net("Gather", near, left, axis=1))
    net.give("scores", net("Gather", top, left, axis=1))
    net.give("kinds", net("Gather", net("GatherElements", kind, place, axis=1), left, axis=1), np.int64)


def centers(net: Net) -> None:
    """Peaks of a heat map: a maximum that equals its neighbourhood's, the best of them, and what lies there."""
    x = net.conv(net.feed("x", [1, 3, 64, 64]), 3, 12, stride=2)
    x = net.conv(x, 12, 12)
    heat = net("Sigmoid", net.conv(net.conv(x, 12, 12), 12, 3, 1, act="", norm=False))
    size = net.conv(net.conv(x, 12, 12), 12, 2, 1, act="", norm=False)
    around = net("MaxPool", heat, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    peak = net("Cast", net("Equal", heat, around), to=helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype)))
    flat = net.shape(net("Mul", heat, peak), 1, -1)
    top, place = net("TopK", flat, net.constant([40]), outputs=2, axis=1)
    kind = net("Div", place, net.constant([32 * 32]))
    where = net("Mod", place, net.constant([32 * 32]))
    listed = net.shape(net("Transpose", size, perm=[0, 2, 3, 1]), 1, -1, 2)
    found = net("GatherND", listed, net("Unsqueeze", where, net.constant([2])), batch_dims=1)
    row = net("Cast", net("Div", where, net.constant([32])), to=helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype)))
    net.give("boxes", net("Add", found, net("Unsqueeze", row, net.constant([2]))))
    net.give("scores", top)
    net.give("kinds", kind, np.int64)


def spoken(net: Net) -> None:
    """The best letter of every frame, repetitions dropped."""
    x = net.conv(net.feed("x", ["N", 1, 16, 200]), 1, 12)
    x = net.conv(net.conv(x, 12, 12), 12, 12)
    x = net("ReduceMean", x, axes=[2], keepdims=0)
    logits = net("MatMul", net("Transpose", x, perm=[0, 2, 1]), net.constant(net.rng.normal(size=(12, 30))))
    best = net("ArgMax", logits, axis=2, keepdims=0)
    net.give("letters", net("Cast", best, to=TensorProto.INT32), np.int32)
    one, other = (
        net("Slice", best, net.constant([a]), net.constant([b]), net.constant([1])) for a, b in ((1, 200), (0, 199))
    )
    changed = net("Not", net("Equal", one, other))
    net.give("text", net("Compress", net.shape(one, -1), net.shape(changed, -1)), np.int64)


def codebook(net: Net) -> None:
    """The nearest code of every place, and a decoder with batch norms of its own behind it."""
    x = net.conv(net.feed("x", ["N", 3, 32, 32]), 3, 12, stride=2)
    x = net.conv(x, 12, 6, act="")
    codes = net.rng.normal(size=(256, 6))
    rows = net.shape(net("Transpose", x, perm=[0, 2, 3, 1]), -1, 6)
    dots = net("MatMul", rows, net.constant(-2 * codes.T))
    far = net("Add", dots, net.constant((codes**2).sum(axis=1)))
    nearest = net("ArgMin", far, axis=1, keepdims=0)
    found = net.shape(net("Gather", net.constant(codes), nearest), -1, 16, 16, 6)
    y = net.conv(net("Transpose", found, perm=[0, 3, 1, 2]), 6, 12)
    net.give("y", net.conv(y, 12, 3, act=""))


def masked(net: Net) -> None:
    """What lies above a threshold is kept; what lies below is counted."""
    x = net.conv(net.feed("x", ["N", 3, 32, 32]), 3, 12)
    x = net.conv(x, 12, 12)
    gate = net("Sigmoid", net.conv(x, 12, 1, 1, act="", norm=False))
    seen = net("Greater", gate, net.constant(np.float64(0.5)))
    kept = net("Where", seen, net.conv(x, 12, 8), net.constant(np.float64(-1.0)))
    net.give("y", net.conv(kept, 8, 4, act=""))
    net.give("seen", seen, np.bool_)
    net.give("classes", net("ArgMax", net.conv(kept, 8, 6, act=""), axis=1, keepdims=0), np.int64)


def steps(net: Net) -> None:
    """Activations on a grid of eight bits, a rounding, and bins that choose from a table."""
    x = net.conv(net.feed("x", ["N", 3, 24, 24]), 3, 12)
    scale, zero = net.constant(0.02 * np.ones(())), net.constant(128, np.uint8)
    if np.dtype(net.dtype) != np.float32:
        scale = net.constant(np.float64(0.02), np.float32)
    for _ in range(2):
        wide = net("Cast", net.conv(x, 12, 12), to=TensorProto.FLOAT)
        x = net("DequantizeLinear", net("QuantizeLinear", wide, scale, zero), scale, zero)
        x = net("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype)))
    y = net.conv(x, 12, 8, act="")
    net.give("rounded", net("Round", net("Mul", y, net.constant(np.float64(3.0)))))
    bins = net(
        "Cast",
        net(
            "Clip",
            net("Mul", y, net.constant(np.float64(5.0))),
            net.constant(np.float64(0)),
            net.constant(np.float64(9)),
        ),
        to=TensorProto.INT64,
    )
    net.give("tabled", net("Gather", net.constant(net.rng.normal(size=10)), bins))


def experts(net: Net) -> None:
    """Two of eight experts a row, chosen by a gate."""
    x = net("Relu", net.dense(net.feed("x", ["N", 16]), 16, 24))
    gate = net.dense(x, 24, 8)
    top, place = net("TopK", gate, net.constant([2]), outputs=2, axis=1)
    share = net("Softmax", top, axis=1)
    zero = net("Mul", gate, net.constant(np.float64(0.0)))
    spread = net("ScatterElements", zero, place, share, axis=1)
    parts = [net("Unsqueeze", net.dense(x, 24, 10), net.constant([1])) for _ in range(8)]
    every = net("Concat", *parts, axis=1)
    net.give(
        "y",
        net("ReduceSum", net("Mul", every, net("Unsqueeze", spread, net.constant([2]))), net.constant([1]), keepdims=0),
    )


def _loop(
    net: Net,
    trips: int,
    state: list[str],
    write: Callable[[Net, list[str]], tuple[list[str], list[str]]],
    kinds: Sequence[int],
) -> list[str]:
    """Write a Loop whose body turns a state into the next one and a few rows."""
    inner = Net(net.seed + 1, net.dtype)
    inner.count = 10_000
    names = [f"s{n}" for n in range(len(state))]
    after, rows = write(inner, names)
    go = inner("Identity", "go")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))
    entering = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
    ]
    entering += [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=False)]
    leaving = [helper.make_tensor_value_info(go, TensorProto.BOOL, [])]
    leaving += [
        helper.make_tensor_value_info(name, kind, None) for name, kind in zip([*after, *rows], kinds, strict=True)
    ]
    del element
    body = helper.make_graph(inner.nodes, "body", entering, leaving, inner.tensors)
    return list(
        net(
            "Loop",
            net.constant(np.asarray(trips)),
            net.constant(np.ones(()), np.bool_),
            *state,
            outputs=len(after) + len(rows),
            body=body,
        )
    )


def greedy(net: Net) -> None:
    """A decoder that feeds every word back that it has chosen."""
    x = net.conv(net.feed("x", [1, 3, 32, 32]), 3, 12, stride=2)
    x = net.conv(x, 12, 24, stride=2)
    start = net("ReduceMean", x, axes=[2, 3], keepdims=0)
    words, element = 40, helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))

    def body(inner: Net, state: list[str]) -> tuple[list[str], list[str]]:
        before, word = state
        read = inner("Gather", inner.constant(inner.rng.normal(size=(words, 24))), word)
        mixed = inner("Add", inner.dense(before, 24, 24, norm=False), read)
        after = inner("Tanh", inner.norm(mixed, 24))
        logits = inner.dense(after, 24, words, norm=False)
        best = inner("ArgMax", logits, axis=1, keepdims=0)
        return [after, best], [best, logits]

    kinds = [element, TensorProto.INT64, TensorProto.INT64, element]
    last, _word, said, logits = _loop(net, 12, [start, net.constant([0])], body, kinds)
    net.give("words", said, np.int64)
    net.give("logits", logits)
    net.give("state", last)


def beam(net: Net) -> None:
    """Four sentences at a time: the best continuations of all of them go on."""
    x = net.conv(net.feed("x", [1, 3, 32, 32]), 3, 12, stride=2)
    x = net.conv(x, 12, 24, stride=2)
    start = net("Expand", net("ReduceMean", x, axes=[2, 3], keepdims=0), net.constant([4, 24]))
    words, element = 40, helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))

    def body(inner: Net, state: list[str]) -> tuple[list[str], list[str]]:
        before, word, score = state
        read = inner("Gather", inner.constant(inner.rng.normal(size=(words, 24))), word)
        after = inner("Tanh", inner.norm(inner("Add", inner.dense(before, 24, 24, norm=False), read), 24))
        log = inner("LogSoftmax", inner.dense(after, 24, words, norm=False), axis=1)
        total = inner.shape(inner("Add", log, inner("Unsqueeze", score, inner.constant([1]))), -1)
        best, place = inner("TopK", total, inner.constant([4]), outputs=2)
        line = inner("Div", place, inner.constant([words]))
        word = inner("Mod", place, inner.constant([words]))
        return [inner("Gather", after, line), word, best], [word, line]

    first = net.constant([0, 1, 2, 3])
    scores = net.constant(np.asarray([0.0, -0.5, -0.7, -0.9]))
    kinds = [element, TensorProto.INT64, element, TensorProto.INT64, TensorProto.INT64]
    last, _word, score, said, line = _loop(net, 8, [start, first, scores], body, kinds)
    net.give("words", said, np.int64)
    net.give("lines", line, np.int64)
    net.give("scores", score)
    net.give("state", last)


WRITERS: dict[str, Callable[[Net], None]] = {
    "ssd": ssd,
    "yolo": yolo,
    "centers": centers,
    "spoken": spoken,
    "codebook": codebook,
    "masked": masked,
    "steps": steps,
    "experts": experts,
    "greedy": greedy,
    "beam": beam,
}
CHOOSERS = tuple(WRITERS)


def chooser(kind: str, seed: int, dtype: npt.DTypeLike = np.float32) -> ModelProto:
    """Return one of the networks with weights of its own."""
    net = Net(seed, dtype)
    WRITERS[kind](net)
    return net.model()


def damaged(model: ModelProto, place: int, what: str = "running_var off by 1 %") -> ModelProto:
    """Return a copy with a mistake in one batch norm, counted from the front."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    norms = [node for node in copy.graph.node if node.op_type == "BatchNormalization"]
    for node in copy.graph.node:
        for attribute in node.attribute:
            tensors.update({tensor.name: tensor for tensor in attribute.g.initializer})
            norms += [inner for inner in attribute.g.node if inner.op_type == "BatchNormalization"]
    node = norms[place]
    position = {"running_var off by 1 %": 4, "two means swapped": 3, "beta missing": 2, "gamma off by 1 %": 1}[what]
    tensor = tensors[node.input[position]]
    array = np.array(numpy_helper.to_array(tensor))
    if what.endswith("1 %"):
        array[1] *= 1.01
    elif what == "two means swapped":
        array[[0, 1]] = array[[1, 0]]
    else:
        array[1] = 0
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy
