"""Networks of sound: x-vector, ECAPA, Conformer, temporal convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.architectures.layers import (
    Activation,
    activate,
    add,
    axes_node,
    concat,
    layer_norm,
    mean,
    reshape,
    split,
    transpose,
)
from tests.architectures.net import Net, Value


def _conv_act_bn(
    net: Net, x: Value, out: int, size: int, *, dilation: int = 1, pad: int | None = None, act: Activation = "relu"
) -> Value:
    """Add what speech networks are made of: a convolution over time, ReLU, and only then the batch norm."""
    x = net.conv(x, out, size, dilation=dilation, pad=pad, bias=True)
    return net.batch_norm(activate(net, x, act), module="norm")


def _spread(net: Net, x: Value) -> Value:
    """Join the mean over time and the standard deviation."""
    shape = (*x.shape[:2], 1)
    center = axes_node(net, "ReduceMean", x, [2], shape, keepdims=1)
    apart = net.node("Sub", [x, center], x.shape)
    var = axes_node(net, "ReduceMean", net.node("Mul", [apart, apart], x.shape), [2], shape, keepdims=1)
    var = net.node("Clip", [var, net.scalar(1e-4)], shape)
    return concat(net, (center, net.node("Sqrt", [var], shape)))


def xvector(net: Net, *, width: int = 8, length: int = 40) -> None:
    """X-vectors (Snyder et al. 2018): convolutions over time without padding, and a batch norm behind each ReLU."""
    x = net.input((12, length))
    for number, (size, dilation) in enumerate(((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))):
        with net.scope(f"tdnn{number}"):
            x = _conv_act_bn(net, x, width, size, dilation=dilation, pad=0)
    x = reshape(net, _spread(net, x), (-1, 2 * width))
    for number in range(2):
        with net.scope(f"segment{number}"):
            x = net.batch_norm(activate(net, net.linear(x, 2 * width, gain=2.0), "relu"))
    net.output(net.linear(x, 10, module="output"))


def ecapa(net: Net, *, width: int = 16, blocks: int = 2, pieces: int = 4, length: int = 30) -> None:
    """ECAPA-TDNN, arXiv:2005.07143: pieces of the channels, each with what came before; gates; attentive pooling."""
    with net.scope("stem"):
        x = _conv_act_bn(net, net.input((12, length)), width, 5)
    found = []
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            y = _conv_act_bn(net, x, width, 1)
            first, *others = split(net, y, [width // pieces] * pieces)
            parts, last = [first], None
            for piece, part in enumerate(others):
                with net.scope(f"res2net.{piece}"):
                    given = part if last is None else add(net, part, last)
                    last = _conv_act_bn(net, given, width // pieces, 3, dilation=number + 2)
                    parts.append(last)
            with net.scope("tdnn2"):
                y = _conv_act_bn(net, concat(net, parts), width, 1)
            with net.scope("se"):
                gate = axes_node(net, "ReduceMean", y, [2], (*y.shape[:2], 1), keepdims=1)
                gate = activate(net, net.conv(gate, 4, 1, bias=True, module="reduce"), "relu")
                gate = activate(net, net.conv(gate, width, 1, bias=True, module="expand"), "sigmoid")
                y = net.node("Mul", [y, gate], y.shape)
            x = add(net, y, x)
            found.append(x)
    x = activate(net, net.conv(concat(net, found), 2 * width, 1, bias=True, module="mfa"), "relu")
    with net.scope("asp"):
        y = activate(net, _conv_act_bn(net, x, 4, 1), "tanh")
        y = net.conv(y, x.channels, 1, bias=True, module="attend")
        weights = net.node("Softmax", [y], y.shape, axis=2)
        center = net.node("Mul", [weights, x], x.shape)
        center = axes_node(net, "ReduceSum", center, [2], (*x.shape[:2], 1), keepdims=1)
    x = net.batch_norm(concat(net, (center, axes_node(net, "ReduceMax", x, [2], center.shape, keepdims=1))))
    net.output(reshape(net, net.conv(x, 10, 1, bias=True, module="fc"), (-1, 10)))


def conformer(net: Net, *, width: int = 16, blocks: int = 2, length: int = 20) -> None:
    """Conformer's convolution module, arXiv:2005.08100: a gated pair of halves, depthwise, batch norm, Swish."""
    x = net.input((length, width))
    for number in range(blocks):
        with net.scope(f"layers.{number}"):
            y = transpose(net, layer_norm(net, x), (0, 2, 1))
            left, right = split(net, net.conv(y, 2 * width, 1, bias=True, module="pointwise_conv1"), (width, width))
            y = net.node("Mul", [left, activate(net, right, "sigmoid")], left.shape)
            y = net.conv(y, width, 7, group=width, bias=True, module="depthwise_conv")
            y = activate(net, net.batch_norm(y, module="batch_norm"), "silu")
            y = transpose(net, net.conv(y, width, 1, bias=True, module="pointwise_conv2"), (0, 2, 1))
            x = add(net, x, y)
    net.output(net.linear(mean(net, x, 1), 10))


def temporal(net: Net, *, widths: Sequence[int] = (8, 12), length: int = 24) -> None:
    """Temporal convolutions, arXiv:1803.01271: zeros are put in front, so that nothing is seen early."""
    x = net.input((6, length))
    for number, out in enumerate(widths):
        with net.scope(f"blocks.{number}"):
            y = x
            for layer in range(2):
                reach = 2 << number
                pads = net.constant(np.asarray([0, 0, reach, 0, 0, 0], np.int64), "pads", inline=True)
                y = net.node("Pad", [y, pads], (*y.shape[:2], y.shape[2] + reach), mode="constant")
                y = net.conv(y, out, 3, pad=0, dilation=1 << number, bias=True, module=f"conv{layer}")
                y = activate(net, net.batch_norm(y, module=f"bn{layer}"), "relu")
            skip = net.conv(x, out, 1, bias=True, module="downsample") if x.channels != out else x
            x = activate(net, add(net, y, skip), "relu")
    net.output(net.linear(mean(net, x, 2), 10))
