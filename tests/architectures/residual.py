"""Networks of residual and of dense connections: ResNet, pre-activation ResNet, DenseNet, HRNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tests.architectures.layers import activate, add, classify, concat, conv_bn, flatten, global_pool, pool, resize
from tests.architectures.net import Net, Value


def resnet(
    net: Net,
    *,
    block: Literal["basic", "bottleneck"] = "basic",
    width: int = 8,
    blocks: Sequence[int] = (2, 2),
    side: int = 16,
    average_down: bool = False,
    cardinality: int = 1,
    features: bool = False,
) -> None:
    """ResNet, arXiv:1512.03385.

    ``average_down`` pools on the shortcut (ResNet-D), ``cardinality`` is the number of groups (ResNeXt), and with
    ``features`` every stage is an output.
    """
    x = conv_bn(net, net.input((3, side, side)), width, 7, stride=2)
    x = pool(net, x, "max", 3, stride=2, pad=1)
    expansion = 4 if block == "bottleneck" else 1
    for stage, count in enumerate(blocks):
        inner = width << stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            with net.scope(f"layer{stage + 1}"), net.scope(number):
                shortcut = x
                if block == "bottleneck":
                    y = conv_bn(net, x, inner, 1, name="1.")
                    y = conv_bn(net, y, inner, 3, stride=stride, group=cardinality, name="2.")
                    y = conv_bn(net, y, inner * expansion, 1, act="none", name="3.")
                else:
                    y = conv_bn(net, x, inner, stride=stride, name="1.")
                    y = conv_bn(net, y, inner, act="none", name="2.")
                if x.channels != y.channels or stride != 1:
                    with net.scope("downsample"):
                        if average_down and stride != 1:
                            shortcut, stride = pool(net, x, "average"), 1
                        shortcut = conv_bn(net, shortcut, y.channels, 1, stride=stride, act="none")
                x = activate(net, add(net, y, shortcut), "relu")
        if features:
            net.output(x)
    classify(net, x)


def resnet_v2(
    net: Net,
    *,
    block: Literal["basic", "bottleneck"] = "basic",
    width: int = 8,
    blocks: Sequence[int] = (2, 2),
    side: int = 16,
    features: bool = False,
) -> None:
    """Pre-activation ResNet, arXiv:1603.05027: batch norm and ReLU stand in front of each convolution.

    With ``features`` every stage is an output.
    """
    x = net.conv(net.input((3, side, side)), width, 7, stride=2, module="stem")
    x = pool(net, x, "max", 3, stride=2, pad=1)
    expansion = 4 if block == "bottleneck" else 1
    for stage, count in enumerate(blocks):
        inner = width << stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            with net.scope(f"layer{stage + 1}"), net.scope(number):
                shortcut = x
                y = activate(net, net.batch_norm(x, module="norm1"), "relu")
                if x.channels != inner * expansion or stride != 1:
                    shortcut = net.conv(y, inner * expansion, 1, stride=stride, module="downsample")
                if block == "bottleneck":
                    y = net.conv(y, inner, 1, module="conv1")
                    y = net.conv(
                        activate(net, net.batch_norm(y, module="norm2"), "relu"), inner, stride=stride, module="conv2"
                    )
                    y = activate(net, net.batch_norm(y, module="norm3"), "relu")
                    y = net.conv(y, inner * expansion, 1, module="conv3")
                else:
                    y = net.conv(y, inner, stride=stride, module="conv1")
                    y = net.conv(activate(net, net.batch_norm(y, module="norm2"), "relu"), inner, module="conv2")
                x = add(net, y, shortcut)
        if features:
            net.output(x)
    classify(net, activate(net, net.batch_norm(x, module="norm"), "relu"))


def resnet_v2_keras(net: Net, *, width: int = 8, blocks: Sequence[int] = (3, 3), side: int = 32) -> None:
    """Pre-activation ResNet as Keras has it: stages end with a stride, whose shortcut is a pool, and pad by a node."""

    def padded(x: Value, by: int) -> Value:
        pads = net.integers([0, 0, by, by, 0, 0, by, by], "pads")
        return net.node("Pad", [x, pads], (*x.shape[:2], *(n + 2 * by for n in x.shape[2:])), mode="constant")

    x = net.conv(padded(net.input((3, side, side)), 3), width, 7, stride=2, pad=0, bias=True, module="conv1_conv")
    x = pool(net, padded(x, 1), "max", 3, stride=2)
    for stage, count in enumerate(blocks):
        inner = width << stage
        for number in range(count):
            last = number == count - 1 and stage + 1 < len(blocks)
            stride = 2 if last else 1
            with net.scope(f"conv{stage + 2}_block{number + 1}"):
                y = activate(net, net.batch_norm(x, module="preact_bn"), "relu")
                if not number:
                    shortcut = net.conv(y, 4 * inner, 1, stride=stride, bias=True, module="0_conv")
                else:
                    shortcut = pool(net, x, "max", 1, stride=2) if last else x
                y = conv_bn(net, y, inner, 1, name="1_")
                y = conv_bn(net, padded(y, 1), inner, 3, stride=stride, pad=0, name="2_")
                x = add(net, shortcut, net.conv(y, 4 * inner, 1, bias=True, module="3_conv"))
    classify(net, activate(net, net.batch_norm(x, module="post_bn"), "relu"))


def densenet(net: Net, *, growth: int = 4, blocks: Sequence[int] = (3, 3), width: int = 8, side: int = 16) -> None:
    """DenseNet-BC, arXiv:1608.06993: each layer reads all before it, through a batch norm of its own."""
    x = conv_bn(net, net.input((3, side, side)), width, 7, stride=2)
    x = pool(net, x, "max", 3, stride=2, pad=1)
    for number, count in enumerate(blocks):
        with net.scope(f"denseblock{number + 1}"):
            features = [x]
            for layer in range(count):
                with net.scope(f"denselayer{layer + 1}"):
                    y = concat(net, features) if len(features) > 1 else x
                    y = activate(net, net.batch_norm(y, module="norm1"), "relu")
                    y = net.conv(y, 4 * growth, 1, module="conv1")
                    y = activate(net, net.batch_norm(y, module="norm2"), "relu")
                    features.append(net.conv(y, growth, module="conv2"))
            x = concat(net, features)
        if number + 1 < len(blocks):
            with net.scope(f"transition{number + 1}"):
                y = activate(net, net.batch_norm(x, module="norm"), "relu")
                x = pool(net, net.conv(y, x.channels // 2, 1), "average")
    y = activate(net, net.batch_norm(x, module="norm5"), "relu")
    net.output(net.linear(flatten(net, global_pool(net, y)), 10, module="classifier"))


def hrnet(net: Net, *, width: int = 4, modules: int = 2, branches: int = 3, side: int = 32) -> None:
    """HRNet, arXiv:1908.07919: branches of several resolutions, each summed up with all others, enlarged or reduced."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2, name="1.")
    streams = [conv_bn(net, x, width, name="2.")]
    for number in range(1, branches):
        with net.scope(f"transition{number}"):
            streams.append(conv_bn(net, streams[-1], width << number, stride=2))
    for number in range(modules):
        with net.scope(f"stage{number}"):
            streams = _exchange(net, [_basic(net, x, f"branches.{i}") for i, x in enumerate(streams)])
    tallest = streams[0]
    same = [tallest] + [resize(net, x, 2**i, "linear") for i, x in enumerate(streams) if i]
    classify(net, conv_bn(net, concat(net, same), 4 * width, 1, name="head."))


def _basic(net: Net, x: Value, name: str) -> Value:
    with net.scope(name):
        y = conv_bn(net, x, x.channels, name="1.")
        y = conv_bn(net, y, x.channels, act="none", name="2.")
        return activate(net, add(net, y, x), "relu")


def _exchange(net: Net, streams: Sequence[Value]) -> list[Value]:
    exchanged = []
    for i, target in enumerate(streams):
        terms = []
        for j, x in enumerate(streams):
            with net.scope(f"fuse_layers.{i}.{j}"):
                if j > i:
                    y = conv_bn(net, x, target.channels, 1, act="none")
                    terms.append(resize(net, y, 2 ** (j - i)))
                    continue
                for step in range(i - j):
                    last = step == i - j - 1
                    out = target.channels if last else x.channels
                    x = conv_bn(net, x, out, stride=2, act="none" if last else "relu", name=f"{step}.")  # noqa: PLW2901
                terms.append(x)
        exchanged.append(activate(net, add(net, *terms), "relu"))
    return exchanged
