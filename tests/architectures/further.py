"""More networks, of faces, films, boxes, larger images and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.architectures.layers import (
    activate,
    add,
    classify,
    concat,
    conv_bn,
    flatten,
    pool,
    reshape,
    resize,
    squeeze_and_excite,
    transpose,
)
from tests.architectures.net import Net, Value


def ir_resnet(net: Net, *, width: int = 8, blocks: Sequence[int] = (2, 2), side: int = 16) -> None:
    """The improved residual network of ArcFace, arXiv:1801.07698: a batch norm in front of padded convolutions."""

    def prelu(x: Value) -> Value:
        return net.node("PRelu", [x, net.vector(x.channels, "slope", center=0.25, spread=0.05)], x.shape)

    def prelu_of_image(x: Value) -> Value:
        slope = net.weight((x.channels, 1, 1), 30, "slope")
        return net.node("PRelu", [x, slope], x.shape)

    x = prelu_of_image(net.batch_norm(net.conv(net.input((3, side, side)), width)))
    for stage, count in enumerate(blocks):
        for number in range(count):
            with net.scope(f"layer{stage}.{number}"):
                out, stride = width << stage, 1 if number else 2
                y = net.conv(net.batch_norm(x, module="bn0"), out, module="conv1")
                y = prelu_of_image(net.batch_norm(y, module="bn1"))
                y = net.batch_norm(net.conv(y, out, stride=stride, module="conv2"), module="bn2")
                skip = x
                if out != x.channels:
                    skip = conv_bn(net, x, out, 1, stride=stride, act="none", name="shortcut.")
                elif stride != 1:
                    skip = pool(net, x, "max", 1, stride=stride)
                x = add(net, y, skip)
    x = net.node("Dropout", [net.batch_norm(x, module="bn2")], x.shape)
    x = net.batch_norm(net.linear(flatten(net, x), 16, module="fc"), module="features")
    net.output(net.linear(prelu(x), 10, module="head"))


def r2plus1d(net: Net, *, width: int = 4, blocks: int = 2, side: int = 8, frames: int = 4) -> None:
    """R(2+1)D, arXiv:1711.11248: convolutions of a film, over the image and then over time."""
    x = net.input((3, frames, side, side))
    for number in range(blocks + 1):
        with net.scope(f"layer{number}"):
            y = conv_bn(net, x, 2 * width, (1, 3, 3), name="space.")
            y = conv_bn(net, y, width, (3, 1, 1), act="relu" if not number else "none", name="time.")
            x = activate(net, add(net, y, x), "relu") if number else y
    classify(net, x)


def xception(net: Net, *, width: int = 8, blocks: int = 2, side: int = 16) -> None:
    """Xception, arXiv:1610.02357: separable convolutions behind ReLU, batch norms behind them, pools and shortcuts."""

    def separable(x: Value, out: int, name: str) -> Value:
        x = net.conv(x, x.channels, group=x.channels, module=f"{name}.depthwise")
        return net.batch_norm(net.conv(x, out, 1, module=f"{name}.pointwise"), module=f"{name}.bn")

    x = conv_bn(net, net.input((3, side, side)), width, stride=2, pad=0)
    for number in range(blocks):
        with net.scope(f"block{number}"):
            out = x.channels * 2
            skip = conv_bn(net, x, out, 1, stride=2, act="none", name="skip.")
            y = separable(activate(net, x, "relu"), out, "sepconv1")
            y = separable(activate(net, y, "relu"), out, "sepconv2")
            x = add(net, pool(net, y, "max", 3, stride=2, pad=1), skip)
    classify(net, activate(net, separable(x, 2 * x.channels, "last"), "relu"))


def yolo(net: Net, *, width: int = 4, side: int = 32, classes: int = 3) -> None:
    """YOLO, arXiv:2004.10934: partial stages that one batch norm joins, pools of several sizes, boxes of two scales."""
    x, routes = net.input((3, side, side)), []
    for level in range(3):
        with net.scope(f"backbone.{level}"):
            x = conv_bn(net, x, width << level, stride=2, act="leaky", name="down.")
            y = conv_bn(net, x, x.channels // 2, 1, act="leaky", name="1.")
            y = add(net, x, conv_bn(net, y, x.channels, act="leaky", name="2."))
            halves = [net.conv(each, x.channels // 2, 1, module=name) for each, name in ((y, "cv3"), (x, "cv2"))]
            joined = activate(net, net.batch_norm(concat(net, halves)), "leaky")
            x = conv_bn(net, joined, x.channels, 1, act="leaky", name="4.")
            routes.append(x)
    x = concat(net, [x, *(pool(net, x, "max", size, stride=1, pad=size // 2) for size in (3, 5))])
    for level in (2, 1):
        with net.scope(f"head.{level}"):
            x = conv_bn(net, x, width << level, 1, act="leaky", name="1.")
            y = conv_bn(net, x, width << level, act="leaky", name="2.")
            y = net.conv(y, 2 * (5 + classes), 1, bias=True, module="predict")
            height, length = y.shape[2:]
            y = transpose(net, reshape(net, y, (-1, 2, 5 + classes, height, length)), (0, 1, 3, 4, 2))
            y = reshape(net, activate(net, y, "sigmoid"), (-1, 2 * height * length, 5 + classes))
            grid = np.random.default_rng(3).uniform(0, 8, (1, y.shape[1], 5 + classes)).astype(net.style.dtype)
            y = net.node(
                "Add",
                [
                    net.node("Mul", [y, net.scalar(2.0 ** (level + 1))], y.shape),
                    net.constant(grid, "grid", inline=True),
                ],
                y.shape,
            )
            net.output(y)
            if level == 2:
                x = concat(net, (resize(net, conv_bn(net, x, width, 1, act="leaky", name="up."), 2), routes[1]))


def coatnet(net: Net, *, width: int = 8, blocks: int = 3, side: int = 16) -> None:
    """CoAtNet's convolutional stages, arXiv:2106.04803: a batch norm in front of each block, beside its shortcut."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2, act="gelu")
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            out, stride = width << (number > 0), 2 if number == 1 else 1
            y = net.batch_norm(x, module="pre_norm")
            y = conv_bn(net, y, 2 * x.channels, 1, act="gelu", name="expand.")
            y = conv_bn(net, y, y.channels, stride=stride, group=y.channels, act="gelu", name="depthwise.")
            y = net.conv(squeeze_and_excite(net, y, 4, "silu", "sigmoid"), out, 1, bias=True, module="project")
            if stride != 1:
                x = pool(net, x, "average")
            x = add(net, y, x if x.channels == out else net.conv(x, out, 1, bias=True, module="shortcut"))
    classify(net, net.batch_norm(x, module="norm"))


def srgan(net: Net, *, width: int = 8, blocks: int = 2, side: int = 8) -> None:
    """A generator of larger images, arXiv:1609.04802: channels become pixels, with batch norms before and after."""
    x = start = activate(net, net.conv(net.input((3, side, side)), width, 9, bias=True, module="first"), "leaky")
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            y = conv_bn(net, x, width, act="leaky", name="1.")
            x = add(net, x, conv_bn(net, y, width, act="none", name="2."))
    x = add(net, start, conv_bn(net, x, width, act="none", name="mid."))
    for number in range(2):
        with net.scope(f"up.{number}"):
            y = net.conv(x, 4 * width, bias=True)
            height, length = y.shape[2:]
            shape = (y.shape[0], width, 2 * height, 2 * length)
            x = net.batch_norm(net.node("DepthToSpace", [y], shape, blocksize=2, mode="CRD"))
            x = activate(net, x, "leaky")
    net.output(activate(net, net.conv(x, 3, 9, bias=True, module="last"), "tanh"))


def tabular(net: Net, *, columns: int = 12, width: int = 16, layers: int = 3) -> None:
    """Dense layers over a table: a batch norm of the columns, and one behind every ReLU."""
    x = net.batch_norm(net.input((columns,)), module="bn_in")
    for number in range(layers):
        with net.scope(f"layers.{number}"):
            x = net.batch_norm(activate(net, net.linear(x, width, gain=2.0), "relu"))
            x = net.node("Dropout", [x], x.shape)
    net.output(net.linear(x, 3, module="out"))


def two_towers(net: Net, *, width: int = 8, layers: int = 2, side: int = 8) -> None:
    """A siamese network: both inputs go through the same weights and the same batch norms; their features meet."""
    weights = [net.weight((width, 3 if not layer else width, 3, 3), 9 * width, f"{layer}.w") for layer in range(layers)]
    statistics = [
        [net.constant(array, f"{layer}.{kind}") for kind, array in net.statistics(width).items()]
        for layer in range(layers)
    ]
    features = []
    for name in ("left", "right"):
        x = net.input((3, side, side), name)
        with net.scope(name):
            for weight, parameters in zip(weights, statistics, strict=True):
                x = net.conv(x, width, weight=weight)
                x = activate(net, net.node("BatchNormalization", [x, *parameters], x.shape, epsilon=1e-5), "relu")
            features.append(flatten(net, pool(net, x, "average")))
    product = net.node("Mul", features, features[0].shape)
    net.output(net.linear(product, 2, module="score"))
