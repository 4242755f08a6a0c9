"""Networks of depthwise convolutions: MobileNetV2 and V3, EfficientNet, MixNet, ShuffleNetV2; and Inception."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.architectures.layers import (
    Activation,
    activate,
    add,
    axes_node,
    classify,
    concat,
    conv_bn,
    flatten,
    global_pool,
    pool,
    reshape,
    split,
    squeeze_and_excite,
    transpose,
)
from tests.architectures.net import Net, Value

Row = tuple[int, int, int, int]
"""Expansion, channels, kernel, stride."""


def _inverted(net: Net, x: Value, row: Row, act: Activation, gates: tuple[Activation, Activation] | None) -> Value:
    """Expand, convolve each channel, gate, and project; with a shortcut where the shape stays."""
    expansion, out, size, stride = row
    y = x
    if expansion != 1:
        y = conv_bn(net, y, expansion * x.channels, 1, act=act, name="expand.")
    y = conv_bn(net, y, y.channels, size, stride=stride, group=y.channels, act=act, name="depthwise.")
    if gates is not None:
        y = squeeze_and_excite(net, y, max(2, y.channels // 4), *gates)
    y = conv_bn(net, y, out, 1, act="none", name="project.")
    return add(net, x, y) if x.shape == y.shape else y


def mobilenet_v2(
    net: Net,
    *,
    width: int = 8,
    rows: Sequence[Row] = ((1, 8, 3, 1), (4, 12, 3, 2), (4, 12, 3, 1), (4, 16, 3, 2)),
    side: int = 32,
) -> None:
    """MobileNetV2, arXiv:1801.04381: inverted residuals with ReLU6, written as Clip."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2, act="relu6")
    for number, row in enumerate(rows):
        with net.scope("features"), net.scope(number + 1):
            x = _inverted(net, x, row, "relu6", None)
    classify(net, conv_bn(net, x, 4 * x.channels, 1, act="relu6", name="last."))


def mobilenet_v3(
    net: Net,
    *,
    width: int = 8,
    rows: Sequence[Row] = ((1, 8, 3, 2), (4, 12, 3, 2), (3, 12, 3, 1), (4, 16, 5, 2), (6, 16, 5, 1)),
    side: int = 32,
) -> None:
    """MobileNetV3, arXiv:1905.02244: squeeze-and-excitation with HardSigmoid, ReLU first and HardSwish later."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2, act="hardswish")
    for number, row in enumerate(rows):
        with net.scope("features"), net.scope(number + 1):
            act: Activation = "relu" if number < 2 else "hardswish"
            x = _inverted(net, x, row, act, ("relu", "hardsigmoid") if number % 2 == 0 else None)
    x = flatten(net, global_pool(net, conv_bn(net, x, 6 * x.channels, 1, act="hardswish", name="last.")))
    x = activate(net, net.linear(x, 4 * width, gain=2.0, module="classifier.0"), "hardswish")
    net.output(net.linear(x, 10, module="classifier.3"))


def efficientnet(
    net: Net,
    *,
    width: int = 8,
    rows: Sequence[Row] = ((1, 8, 3, 1), (6, 12, 3, 2), (6, 12, 3, 1), (6, 16, 5, 2), (6, 16, 5, 1)),
    side: int = 32,
) -> None:
    """EfficientNet, arXiv:1905.11946: SiLU, written as Sigmoid and Mul, and squeeze-and-excitation everywhere."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2, act="silu")
    for number, row in enumerate(rows):
        with net.scope("features"), net.scope(number + 1):
            x = _inverted(net, x, row, "silu", ("silu", "sigmoid"))
    classify(net, conv_bn(net, x, 4 * x.channels, 1, act="silu", name="last."))


def mixnet(net: Net, *, width: int = 12, blocks: int = 2, stages: int = 2, side: int = 16) -> None:
    """MixNet, arXiv:1907.09595: kernels of several sizes side by side, pointwise ones in groups, one batch norm."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2)
    for stage in range(stages):
        for number in range(blocks):
            with net.scope(f"blocks.{stage}"), net.scope(number):
                stride = 2 if stage and not number else 1
                y = _mixed(net, x, 3 * x.channels, (1, 1), 1, depthwise=False, name="pw")
                y = activate(net, net.batch_norm(y, module="bn1"), "silu")
                y = _mixed(net, y, y.channels, (3, 5, 7), stride, depthwise=True, name="dw")
                y = activate(net, net.batch_norm(y, module="bn2"), "silu")
                y = squeeze_and_excite(net, y, max(2, x.channels // 2), "silu", "sigmoid")
                y = _mixed(net, y, width << stage, (1, 1), 1, depthwise=False, name="pwl")
                y = net.batch_norm(y, module="bn3")
                x = add(net, y, x) if x.shape == y.shape else y
    classify(net, conv_bn(net, x, 4 * x.channels, 1, name="last."))


def _mixed(net: Net, x: Value, out: int, sizes: Sequence[int], stride: int, *, depthwise: bool, name: str) -> Value:
    pieces = []
    each = [x.channels // len(sizes)] * len(sizes)
    for number, (piece, size) in enumerate(zip(split(net, x, each), sizes, strict=True)):
        group = piece.channels if depthwise else 1
        pieces.append(
            net.conv(piece, out // len(sizes), size, stride=stride, group=group, module=f"conv_{name}.{number}")
        )
    return concat(net, pieces)


def shufflenet_v2(net: Net, *, widths: Sequence[int] = (8, 12), units: int = 3, side: int = 32) -> None:
    """ShuffleNetV2, arXiv:1807.11164: half of the channels go by, then all are shuffled."""
    x = conv_bn(net, net.input((3, side, side)), 8, stride=2)
    x = pool(net, x, "max", 3, stride=2, pad=1)
    for stage, width in enumerate(widths):
        for number in range(units):
            with net.scope(f"stage{stage + 2}"), net.scope(number):
                half = width // 2
                if number:
                    left, right = split(net, x, (half, half))
                else:
                    left = right = x
                    left = conv_bn(net, left, x.channels, stride=2, group=x.channels, act="none", name="branch1.0.")
                    left = conv_bn(net, left, half, 1, name="branch1.2.")
                right = conv_bn(net, right, half, 1, name="branch2.0.")
                stride = 1 if number else 2
                right = conv_bn(net, right, half, stride=stride, group=half, act="none", name="branch2.3.")
                right = conv_bn(net, right, half, 1, name="branch2.5.")
                x = concat(net, (left, right))
                height, length = x.shape[2:]
                y = reshape(net, x, (-1, 2, half, height, length))
                x = reshape(net, transpose(net, y, (0, 2, 1, 3, 4)), (-1, width, height, length))
    classify(net, conv_bn(net, x, 4 * x.channels, 1, name="last."))


def inception(net: Net, *, width: int = 4, blocks: int = 2, side: int = 16, transform: bool = False) -> None:
    """Inception-v3, arXiv:1512.00567: branches of several kernels, of long kernels, and of pools, joined.

    With ``transform`` every channel of the input is first brought from one normalisation to another.
    """
    x = net.input((3, side, side))
    if transform:
        planes = []
        for number, (std, center) in enumerate(((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))):
            index = net.constant(np.asarray(number, np.int64), "index", inline=True)
            plane = net.node("Gather", [x, index], (x.shape[0], side, side), axis=1)
            plane = axes_node(net, "Unsqueeze", plane, [1], (x.shape[0], 1, side, side))
            plane = net.node("Mul", [plane, net.scalar(std / 0.5)], plane.shape)
            planes.append(net.node("Add", [plane, net.scalar((center - 0.5) / 0.5)], plane.shape))
        x = concat(net, planes)
    x = conv_bn(net, x, 2 * width, pad=0)
    for number in range(blocks):
        with net.scope(f"Mixed_{number}a"):
            one = conv_bn(net, x, width, 1, name="1x1.")
            five = conv_bn(net, conv_bn(net, x, width, 1, name="5x5_1."), width, 5, name="5x5_2.")
            three = conv_bn(net, x, width, 1, name="3x3_1.")
            three = conv_bn(net, conv_bn(net, three, width, name="3x3_2."), width, name="3x3_3.")
            pooled = conv_bn(net, pool(net, x, "average", 3, stride=1, pad=1), width, 1, name="pool.")
            x = concat(net, (one, five, three, pooled))
        with net.scope(f"Mixed_{number}c"):
            long = conv_bn(net, conv_bn(net, x, width, 1, name="1."), width, (1, 7), name="2.")
            long = conv_bn(net, long, width, (7, 1), name="3.")
            x = concat(net, (conv_bn(net, x, width, 1, name="4."), long))
    with net.scope("Mixed_d"):
        left = conv_bn(net, x, width, stride=2, pad=0, name="3x3.")
        x = concat(net, (left, pool(net, x, "max", 3, stride=2)))
    classify(net, x)
