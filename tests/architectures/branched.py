"""Networks that train with parallel branches and mean one convolution: RepVGG, MobileOne, FastViT, RepGhost."""

from __future__ import annotations

from collections.abc import Sequence

from tests.architectures.layers import activate, add, classify, concat, conv_bn, pool, squeeze_and_excite
from tests.architectures.net import Net, Value


def repvgg(
    net: Net, *, width: int = 8, blocks: Sequence[int] = (1, 2, 2), group: int = 1, side: int = 16, se: bool = False
) -> None:
    """RepVGG, arXiv:2101.03697: 3x3, 1x1 and, where the shape stays, the identity, each with its batch norm."""
    x = net.input((3, side, side))
    for stage, count in enumerate(blocks):
        for number in range(count):
            with net.scope(f"stage{stage}"), net.scope(number):
                groups = group if number % 2 else 1
                y = _repvgg_block(net, x, width << stage, 1 if number else 2, groups)
                y = squeeze_and_excite(net, y, 4, "relu", "sigmoid") if se else y
                x = activate(net, y, "relu")
    classify(net, x)


def _repvgg_block(net: Net, x: Value, out: int, stride: int, group: int) -> Value:
    terms = [
        conv_bn(net, x, out, 3, stride=stride, group=group, act="none", name="rbr_dense."),
        conv_bn(net, x, out, 1, stride=stride, group=group, act="none", name="rbr_1x1."),
    ]
    if out == x.channels and stride == 1:
        terms.append(net.batch_norm(x, module="rbr_identity"))
    return add(net, *terms)


def _mobileone_conv(
    net: Net, x: Value, out: int, size: int, *, stride: int = 1, group: int = 1, branches: int = 1
) -> Value:
    """Add the identity, the 1x1 and the k x k branches of MobileOne, in its order."""
    terms = []
    if out == x.channels and stride == 1:
        terms.append(net.batch_norm(x, module="rbr_skip"))
    if size > 1:
        terms.append(conv_bn(net, x, out, 1, stride=stride, group=group, act="none", name="rbr_scale."))
    terms += [
        conv_bn(net, x, out, size, stride=stride, group=group, act="none", name=f"rbr_conv.{branch}.")
        for branch in range(branches)
    ]
    return add(net, *terms)


def mobileone(net: Net, *, width: int = 8, blocks: Sequence[int] = (2, 2), branches: int = 3, side: int = 16) -> None:
    """MobileOne, arXiv:2206.04040: depthwise and pointwise convolutions, each of several branches."""
    x = activate(net, _mobileone_conv(net, net.input((3, side, side)), width, 3, stride=2), "relu")
    for stage, count in enumerate(blocks):
        for number in range(count):
            with net.scope(f"stage{stage}"), net.scope(number):
                with net.scope("dw"):
                    stride = 1 if number else 2
                    y = _mobileone_conv(net, x, x.channels, 3, stride=stride, group=x.channels, branches=branches)
                    y = activate(net, y, "relu")
                with net.scope("pw"):
                    x = activate(net, _mobileone_conv(net, y, width << stage, 1, branches=branches), "relu")
    classify(net, x)


def fastvit(net: Net, *, width: int = 8, stages: int = 2, blocks: int = 2, side: int = 16) -> None:
    """FastViT, arXiv:2303.14189: a mixer that subtracts a batch norm from branches of convolutions, then scales."""
    with net.scope("stem"):
        x = activate(net, _mobileone_conv(net, net.input((3, side, side)), width, 3, stride=2), "gelu")
    for stage in range(stages):
        if stage:
            with net.scope(f"downsample{stage}"):
                large = conv_bn(net, x, 2 * x.channels, 7, stride=2, group=x.channels, act="none", name="large.")
                small = conv_bn(net, x, 2 * x.channels, 3, stride=2, group=x.channels, act="none", name="small.")
                y = activate(net, add(net, large, small), "gelu")
                x = activate(net, _mobileone_conv(net, y, y.channels, 1), "gelu")
        for number in range(blocks):
            with net.scope(f"stages.{stage}.{number}"):
                x = _feed_forward(net, _repmixer(net, x))
    classify(net, x)


def _layer_scale(net: Net, x: Value) -> Value:
    gamma = net.weight((x.channels, 1, 1), 8, "layer_scale")
    return net.node("Mul", [gamma, x], x.shape, module="layer_scale")


def _repmixer(net: Net, x: Value) -> Value:
    with net.scope("token_mixer"):
        norm = net.batch_norm(x, module="norm")
        with net.scope("mixer"):
            mixed = _mobileone_conv(net, x, x.channels, 3, group=x.channels)
        return add(net, x, _layer_scale(net, net.node("Sub", [mixed, norm], x.shape)))


def _feed_forward(net: Net, x: Value) -> Value:
    with net.scope("mlp"):
        y = conv_bn(net, x, x.channels, 7, group=x.channels, act="none")
        y = activate(net, net.conv(y, 3 * x.channels, 1, bias=True, module="fc1"), "gelu")
        return add(net, x, _layer_scale(net, net.conv(y, x.channels, 1, bias=True, module="fc2")))


def repghost(net: Net, *, width: int = 8, blocks: int = 3, side: int = 16) -> None:
    """RepGhost, arXiv:2211.06088: a cheap depthwise branch and a batch norm beside it, summed before the ReLU."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2)
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            y = _ghost(net, x, 2 * x.channels, "ghost1", relu=True)
            y = squeeze_and_excite(net, y, 4, "relu", "hardsigmoid") if number % 2 else y
            x = add(net, _ghost(net, y, x.channels, "ghost2", relu=False), x)
    classify(net, x)


def _ghost(net: Net, x: Value, out: int, name: str, *, relu: bool) -> Value:
    with net.scope(name):
        act = "relu" if relu else "none"
        y = conv_bn(net, x, out, 1, act="relu" if relu else "none", name="primary_conv.")
        cheap = conv_bn(net, y, out, 3, group=out, act="none", name="cheap_operation.")
        return activate(net, add(net, cheap, net.batch_norm(y, module="fusion_bn")), act)  # type: ignore[arg-type]


def ghostnet(net: Net, *, width: int = 8, blocks: int = 3, side: int = 16) -> None:
    """GhostNet, arXiv:1911.11907: half of the features are cheap ones of the other half, joined with them."""
    x = conv_bn(net, net.input((3, side, side)), width, stride=2)
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            y = x
            for name, out, relu in (("ghost1", 2 * width, True), ("ghost2", width, False)):
                with net.scope(name):
                    act = "relu" if relu else "none"
                    first = conv_bn(net, y, out // 2, 1, act=act, name="primary_conv.")  # type: ignore[arg-type]
                    cheap = conv_bn(net, first, out // 2, group=out // 2, act=act, name="cheap_operation.")  # type: ignore[arg-type]
                    y = concat(net, (first, cheap))
            x = add(net, y, x)
    classify(net, pool(net, x, "average"))
