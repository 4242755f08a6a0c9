"""Networks whose output is an image or a set of boxes: U-Net, generators, SSD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tests.architectures.layers import activate, axes_node, concat, conv_bn, pool, reshape, resize, transpose
from tests.architectures.net import Net, Value


def unet(
    net: Net,
    *,
    width: int = 4,
    depth: int = 2,
    side: int = 16,
    up: Literal["transposed", "resized"] = "transposed",
    order: Literal["conv-bn-relu", "conv-relu-bn"] = "conv-bn-relu",
    bn_behind_concat: bool = False,
) -> None:
    """U-Net, arXiv:1505.04597, with batch norms; ``bn_behind_concat`` normalises what is joined with its skip."""

    def double(x: Value, out: int) -> Value:
        for number in range(2):
            if order == "conv-bn-relu":
                x = conv_bn(net, x, out, name=f"{number}.")
            else:
                x = activate(net, net.conv(x, out, bias=True, module=f"{number}.conv"), "relu")
                x = net.batch_norm(x, module=f"{number}.bn")
        return x

    x, skips = net.input((3, side, side)), []
    for level in range(depth):
        with net.scope(f"down{level}"):
            x = double(x, width << level)
            skips.append(x)
            x = pool(net, x, "max")
    with net.scope("middle"):
        x = double(x, width << depth)
    for level in reversed(range(depth)):
        with net.scope(f"up{level}"):
            if up == "transposed":
                x = activate(net, net.batch_norm(net.conv_transpose(x, width << level, 2)), "relu")
            else:
                x = conv_bn(net, resize(net, x, 2), width << level, name="up.")
            x = concat(net, (skips[level], x))
            x = double(net.batch_norm(x, module="joined") if bn_behind_concat else x, width << level)
    net.output(net.conv(x, 2, 1, bias=True, module="out"))


def dcgan(net: Net, *, width: int = 4, latent: int = 16, levels: int = 3) -> None:
    """DCGAN's generator, arXiv:1511.06434: transposed convolutions from a vector to an image."""
    x = net.input((latent, 1, 1))
    for level in range(levels):
        channels = width << (levels - 1 - level)
        stride, pad = (2, 1) if level else (1, 0)
        x = net.conv_transpose(x, channels, 4, stride=stride, pad=pad, module=f"main.{3 * level}")
        x = activate(net, net.batch_norm(x, module=f"main.{3 * level + 1}"), "relu")
    net.output(activate(net, net.conv_transpose(x, 3, 4, pad=1, module="last"), "tanh"))


def upsampling_gan(net: Net, *, width: int = 4, latent: int = 16, levels: int = 2) -> None:
    """A generator of upsampling and convolution; batch norms behind the dense layer's image, and behind a Resize."""
    x = reshape(net, net.linear(net.input((latent,)), 4 * width * 16, module="l1"), (-1, 4 * width, 4, 4))
    x = net.batch_norm(x, module="first")
    for level in range(levels):
        with net.scope(f"blocks.{level}"):
            x = net.conv(resize(net, x, 2), 2 * width, bias=True)
            x = activate(net, net.batch_norm(x), "leaky")
    x = net.batch_norm(resize(net, net.conv(x, width, bias=True, module="late"), 2, "linear"), module="late")
    net.output(activate(net, net.conv(activate(net, x, "leaky"), 3, bias=True, module="out"), "tanh"))


Frozen = Literal["folded", "computed", "spelled"]
"""Frozen batch norm as Mul and Add; with its constants computed in the graph; as Sub, Div, Mul, Add."""


def frozen_batch_norm(net: Net, x: Value, how: Frozen) -> Value:
    """Add a batch norm that is no BatchNormalization."""
    arrays = {kind: array.reshape(1, -1, 1, 1) for kind, array in net.statistics(x.channels).items()}
    gamma, beta, mean, var = arrays["weight"], arrays["bias"], arrays["running_mean"], arrays["running_var"]
    epsilon = np.asarray(1e-5, net.style.dtype)
    with net.scope("frozen"):
        if how == "folded":
            scale = gamma / np.sqrt(var + epsilon)
            x = net.node("Mul", [x, net.constant(scale, "scale")], x.shape)
            return net.node("Add", [x, net.constant(beta - mean * scale, "shift")], x.shape)
        names = {kind: net.constant(array, kind) for kind, array in arrays.items()}
        root = net.node("Add", [names["running_var"], net.scalar(1e-5, "eps")], var.shape)
        root = net.node("Sqrt", [root], var.shape)
        if how == "spelled":
            x = net.node("Sub", [x, names["running_mean"]], x.shape)
            x = net.node("Div", [x, root], x.shape)
            x = net.node("Mul", [x, names["weight"]], x.shape)
            return net.node("Add", [x, names["bias"]], x.shape)
        factor = net.node("Mul", [names["weight"], net.node("Reciprocal", [root], var.shape)], var.shape)
        product = net.node("Mul", [names["running_mean"], factor], var.shape)
        shift = net.node("Sub", [names["bias"], product], var.shape)
        return net.node("Add", [net.node("Mul", [x, factor], x.shape), shift], x.shape)


def ssd(
    net: Net, *, width: int = 8, levels: int = 3, side: int = 32, classes: int = 3, frozen: Frozen = "folded"
) -> None:
    """SSD, arXiv:1512.02325, over a backbone of frozen batch norms, with its scaled norm of the first features."""
    x, maps = net.input((3, side, side)), []
    for level in range(levels):
        with net.scope(f"backbone.{level}"):
            for number in range(2):
                y = net.conv(x, width << level, stride=1 if number else 2, module=f"conv{number}")
                x = activate(net, frozen_batch_norm(net, y, frozen), "relu")
            maps.append(x)
    maps[0] = _scaled_norm(net, maps[0])
    for name, each in (("boxes", 4), ("scores", classes)):
        rows = [_predict(net, x, each, f"{name}.{level}") for level, x in enumerate(maps)]
        net.output(concat(net, rows))


def _scaled_norm(net: Net, x: Value) -> Value:
    with net.scope("rescale"):
        norm = axes_node(net, "ReduceL2", x, [1], (x.shape[0], 1, *x.shape[2:]), keepdims=1)
        norm = net.node("Clip", [norm, net.scalar(1e-12)], norm.shape)
        y = net.node("Div", [x, norm], x.shape)
        learned = net.statistics(x.channels)["running_var"].reshape(1, -1, 1, 1) * np.asarray(20.0, net.style.dtype)
        return net.node("Mul", [net.constant(learned, "scale_weight"), y], x.shape)


def _predict(net: Net, x: Value, each: int, name: str, anchors: int = 2) -> Value:
    with net.scope(name):
        y = net.conv(x, anchors * each, bias=True)
        height, width = y.shape[2:]
        y = reshape(net, y, (-1, anchors, each, height, width))
        return reshape(net, transpose(net, y, (0, 3, 4, 1, 2)), (-1, height * width * anchors, each))


def efficientdet(
    net: Net, *, width: int = 8, levels: int = 3, depth: int = 2, side: int = 32, classes: int = 3
) -> None:
    """EfficientDet, arXiv:1911.09070: weighted sums, and heads whose levels share weights but no batch norm."""
    x, maps = net.input((3, side, side)), []
    for level in range(levels):
        x = conv_bn(net, x, width << level, stride=2, act="silu", name=f"backbone.{level}.")
        maps.append(conv_bn(net, x, width, 1, act="none", name=f"lateral.{level}."))
    for level in reversed(range(levels - 1)):
        with net.scope(f"bifpn.{level}"):
            maps[level] = _weighted(net, maps[level], resize(net, maps[level + 1], 2))
    for level in range(1, levels):
        with net.scope(f"bifpn.up.{level}"):
            maps[level] = _weighted(net, maps[level], pool(net, maps[level - 1], "max", 3, stride=2, pad=1))
    for name, each in (("boxes", 4), ("scores", classes)):
        deep = [net.weight((width, 1, 3, 3), 9, f"{name}.{layer}.depthwise") for layer in range(depth)]
        wide = [net.weight((width, width, 1, 1), width, f"{name}.{layer}.pointwise") for layer in range(depth)]
        last = net.weight((2 * each, width, 3, 3), 9 * width, f"{name}.predict")
        rows = []
        for level, start in enumerate(maps):
            with net.scope(f"{name}.level{level}"):
                x = start
                for layer in range(depth):
                    x = net.conv(x, width, group=width, weight=deep[layer], module=f"{layer}.depthwise")
                    x = net.conv(x, width, 1, weight=wide[layer], module=f"{layer}.pointwise")
                    x = activate(net, net.batch_norm(x, module=f"{layer}.bn"), "silu")
                x = net.conv(x, 2 * each, weight=last, module="predict")
                rows.append(reshape(net, transpose(net, x, (0, 2, 3, 1)), (-1, 2 * x.shape[2] * x.shape[3], each)))
        net.output(concat(net, rows))


def _weighted(net: Net, left: Value, right: Value) -> Value:
    """Add up two maps with weights that training found, then SiLU, a separable convolution and a batch norm."""
    terms = [net.node("Mul", [x, net.scalar(weight)], x.shape) for x, weight in ((left, 0.6), (right, 0.4))]
    x = activate(net, net.node("Add", terms, left.shape), "silu")
    x = net.conv(net.conv(x, x.channels, group=x.channels, module="depthwise"), x.channels, 1, bias=True)
    return net.batch_norm(x)


def keras_cnn(
    net: Net,
    *,
    widths: Sequence[int] = (8, 12, 16),
    side: int = 16,
    order: Literal["conv-bn-relu", "conv-relu-bn"] = "conv-bn-relu",
    pad: Literal["same", "valid"] = "same",
    norm: Literal["transposed", "last axis"] = "transposed",
) -> None:
    """A network of channels-last images, as converters write it: Transpose around whatever wants them elsewhere."""
    x = net.input((side, side, 3), "input_1:0")
    for number, out in enumerate(widths):
        with net.scope(f"block{number}"):
            turned = transpose(net, x, (0, 3, 1, 2))
            turned = net.conv(turned, out, pad=None if pad == "same" else 0, bias=True)
            x = transpose(net, turned, (0, 2, 3, 1))
            if order == "conv-bn-relu":
                x = activate(net, _last_axis_norm(net, x, norm), "relu")
            else:
                x = _last_axis_norm(net, activate(net, x, "relu"), norm)
            if number + 1 < len(widths):
                x = transpose(net, pool(net, transpose(net, x, (0, 3, 1, 2)), "max"), (0, 2, 3, 1))
    with net.scope("head"):
        x = reshape(net, x, (-1, int(np.prod(x.shape[1:]))))
        net.output(net.linear(x, 10, gain=1.0, module="dense"))


def _last_axis_norm(net: Net, x: Value, norm: Literal["transposed", "last axis"]) -> Value:
    if norm == "transposed":
        return transpose(net, net.batch_norm(transpose(net, x, (0, 3, 1, 2))), (0, 2, 3, 1))
    arrays = net.statistics(x.shape[-1])
    scale = arrays["weight"] / np.sqrt(arrays["running_var"] + np.asarray(1e-3, net.style.dtype))
    shift = arrays["bias"] - arrays["running_mean"] * scale
    x = net.node("Mul", [x, net.constant(scale, "mul")], x.shape)
    return net.node("Add", [x, net.constant(shift, "sub")], x.shape)
