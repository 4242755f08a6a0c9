"""What stands between the layers with weights: activations, pools, and what moves values around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tests.architectures.net import Net, Shape, Value

Activation = Literal["none", "relu", "relu6", "leaky", "hardswish", "silu", "gelu", "sigmoid", "hardsigmoid", "tanh"]


def activate(net: Net, x: Value, kind: Activation) -> Value:
    """Add an activation, spelled out where exporters spell it out."""
    match kind:
        case "none":
            return x
        case "relu6":
            return net.node("Clip", [x, net.scalar(0.0), net.scalar(6.0)], x.shape, module="act")
        case "leaky":
            return net.node("LeakyRelu", [x], x.shape, module="act", alpha=0.2)
        case "hardsigmoid":
            return net.node("HardSigmoid", [x], x.shape, module="act", alpha=1 / 6)
        case "silu":
            gate = net.node("Sigmoid", [x], x.shape, module="act")
            return net.node("Mul", [x, gate], x.shape, module="act")
        case "gelu":
            inner = net.node("Div", [x, net.scalar(2.0**0.5)], x.shape, module="act")
            inner = net.node("Erf", [inner], x.shape, module="act")
            inner = net.node("Add", [inner, net.scalar(1.0)], x.shape, module="act")
            inner = net.node("Mul", [x, inner], x.shape, module="act")
            return net.node("Mul", [inner, net.scalar(0.5)], x.shape, module="act")
        case _:
            names = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid", "tanh": "Tanh"}
            return net.node(names[kind], [x], x.shape, module="act")


def conv_bn(
    net: Net,
    x: Value,
    out: int,
    size: int | Sequence[int] = 3,
    *,
    stride: int = 1,
    pad: int | Sequence[int] | None = None,
    group: int = 1,
    act: Activation = "relu",
    name: str = "",
) -> Value:
    """Add a convolution without bias, its batch norm, and an activation."""
    x = net.conv(x, out, size, stride=stride, pad=pad, group=group, module=f"{name}conv")
    return activate(net, net.batch_norm(x, module=f"{name}bn"), act)


def add(net: Net, *values: Value) -> Value:
    """Add up values of one shape, two at a time."""
    total = values[0]
    for value in values[1:]:
        assert value.shape == total.shape
        total = net.node("Add", [total, value], total.shape)
    return total


def concat(net: Net, values: Sequence[Value], axis: int = 1) -> Value:
    """Join values along an axis."""
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    return net.node("Concat", values, tuple(shape), axis=axis)


def split(net: Net, x: Value, sizes: Sequence[int], axis: int = 1) -> list[Value]:
    """Cut a value along an axis."""
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    return net.node_of_several("Split", [x, net.integers(sizes, "sizes")], shapes, axis=axis)


def pool(
    net: Net,
    x: Value,
    kind: Literal["max", "average"],
    size: int | Sequence[int] = 2,
    *,
    stride: int | Sequence[int] | None = None,
    pad: int | Sequence[int] = 0,
) -> Value:
    """Add a pooling layer of an image; an average counts the pads, as it does by default where networks are written."""
    sizes = [size] * 2 if isinstance(size, int) else list(size)
    strides = sizes if stride is None else [stride] * 2 if isinstance(stride, int) else list(stride)
    pads = [pad] * 2 if isinstance(pad, int) else list(pad)
    spatial = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], pads, sizes, strides, strict=True)]
    shape = (*x.shape[:2], *spatial)
    geometry = {"kernel_shape": sizes, "strides": strides, "pads": [*pads, *pads]}
    if kind == "max":
        return net.node("MaxPool", [x], shape, module="pool", **geometry)
    return net.node("AveragePool", [x], shape, module="pool", **geometry, count_include_pad=1)


def global_pool(net: Net, x: Value) -> Value:
    """Average every channel of an image; the image becomes 1 by 1."""
    return net.node("GlobalAveragePool", [x], (*x.shape[:2], *[1] * (len(x.shape) - 2)), module="avgpool")


def flatten(net: Net, x: Value) -> Value:
    """Make a matrix of one row an element of the batch."""
    if net.style.computed_shapes:
        return reshape(net, x, (0, int(np.prod(x.shape[1:]))))
    return net.node("Flatten", [x], (x.shape[0], int(np.prod(x.shape[1:]))), axis=1)


def reshape(net: Net, x: Value, shape: Sequence[int]) -> Value:
    """Reshape; 0 and -1 mean what they mean in ONNX."""
    known = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if -1 in known:
        known[known.index(-1)] = int(np.prod(x.shape)) // -int(np.prod(known))
    if net.style.computed_shapes and shape[0] in (-1, 0) and -1 not in shape[1:] and 0 not in shape[1:]:
        wanted = _joined_shape(net, _sizes(net, x, 0, 1), shape[1:], front=known[0] == x.shape[0])
        return net.node("Reshape", [x, wanted], tuple(known))
    return net.node("Reshape", [x, net.integers(shape)], tuple(known))


def _sizes(net: Net, x: Value, start: int, end: int) -> Value:
    """Read a part of a value's shape."""
    shape = net.node("Shape", [x], (len(x.shape),))
    window = [net.integers([number], kind) for number, kind in ((start, "starts"), (end, "ends"), (0, "axes"))]
    return net.node("Slice", [shape, *window], (end - start,))


def _joined_shape(net: Net, batch: Value, others: Sequence[int], *, front: bool = True) -> Value:
    """Join the batch, read from a value, with sizes that are known; without ``front`` the first size is inferred."""
    first = batch if front else net.integers([-1])
    return net.node("Concat", [first, net.integers(others)], (len(others) + 1,), axis=0)


def transpose(net: Net, x: Value, perm: Sequence[int]) -> Value:
    """Permute the axes."""
    return net.node("Transpose", [x], tuple(x.shape[axis] for axis in perm), perm=list(perm))


def axes_node(
    net: Net, op_type: str, x: Value, axes: Sequence[int], shape: Shape, *, keepdims: int | None = None
) -> Value:
    """Add an operation over axes, which are an attribute or an input as the opset has it."""
    since = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13}.get(op_type, 18)
    attributes: dict[str, Any] = {} if keepdims is None else {"keepdims": keepdims}
    if net.style.opset >= since:
        return net.node(op_type, [x, net.integers(axes, "axes")], shape, **attributes)
    return net.node(op_type, [x], shape, axes=list(axes), **attributes)


def mean(net: Net, x: Value, axis: int) -> Value:
    """Average over one axis, which disappears."""
    return axes_node(net, "ReduceMean", x, [axis], (*x.shape[:axis], *x.shape[axis + 1 :]), keepdims=0)


def resize(net: Net, x: Value, factor: int, mode: Literal["nearest", "linear"] = "nearest") -> Value:
    """Enlarge an image."""
    scales = net.constant(np.asarray([1, 1, factor, factor], np.float32), "scales", inline=True)
    style = {"nearest": "asymmetric", "linear": "half_pixel"}[mode]
    shape = (*x.shape[:2], *(factor * size for size in x.shape[2:]))
    given: list[Value | str] = [x, "", scales]
    if net.style.computed_shapes:
        larger = net.node("Mul", [_sizes(net, x, 2, 4), net.integers([factor, factor], "factor")], (2,))
        given = [x, "", "", net.node("Concat", [_sizes(net, x, 0, 2), larger], (4,), axis=0)]
    extra: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return net.node("Resize", given, shape, mode=mode, coordinate_transformation_mode=style, **extra)


def squeeze_and_excite(net: Net, x: Value, width: int, inner: Activation, gate: Activation) -> Value:
    """Multiply every channel by a gate that is computed from all channels' averages."""
    with net.scope("se"):
        y = net.conv(global_pool(net, x), width, 1, bias=True, module="reduce")
        y = net.conv(activate(net, y, inner), x.channels, 1, bias=True, module="expand")
        return net.node("Mul", [x, activate(net, y, gate)], x.shape)


def attention(net: Net, q: Value, k: Value, v: Value) -> Value:
    """Attend over the last but one axis; q, k and v are ``(batch, heads, tokens, width)``."""
    turned = transpose(net, k, (0, 1, 3, 2))
    scores = net.node("MatMul", [q, turned], (*q.shape[:3], k.shape[2]))
    scores = net.node("Mul", [scores, net.scalar(q.shape[3] ** -0.5)], scores.shape)
    scores = net.node("Softmax", [scores], scores.shape, axis=-1)
    return net.node("MatMul", [scores, v], (*q.shape[:3], v.shape[3]))


def layer_norm(net: Net, x: Value, *, module: str = "norm") -> Value:
    """Normalise along the last axis."""
    parameters = [
        net.vector(x.shape[-1], "weight", module=module, center=1.0, spread=0.1),
        net.vector(x.shape[-1], "bias", module=module),
    ]
    return net.node("LayerNormalization", [x, *parameters], x.shape, module=module, axis=-1, epsilon=1e-6)


def classify(net: Net, x: Value, classes: int = 10) -> None:
    """End with the average of every channel, and a dense layer."""
    net.output(net.linear(flatten(net, global_pool(net, x)), classes, module="fc"))
