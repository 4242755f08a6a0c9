"""Networks of tokens, points and sequences: LeViT, Visformer, XCiT, ConvMixer, PointNet, CRNN, DeepSpeech."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.architectures.layers import (
    activate,
    add,
    attention,
    axes_node,
    classify,
    conv_bn,
    layer_norm,
    mean,
    pool,
    reshape,
    split,
    transpose,
)
from tests.architectures.net import Net, Value

# LeViT.


def _linear_bn(net: Net, x: Value, units: int, name: str, *, dynamic: bool) -> Value:
    """Add a dense layer over tokens and its batch norm, which sees all tokens of the batch as rows."""
    with net.scope(name):
        y = net.linear(x, units, bias=False, module="c")
        rows = net.batch_norm(reshape(net, y, (-1, units)), module="bn")
        if not dynamic:
            return reshape(net, rows, (-1, *y.shape[1:]))
        shape = net.node("Shape", [y], (len(y.shape),))
        return net.node("Reshape", [rows, shape], y.shape)


def levit(net: Net, *, width: int = 16, heads: int = 2, blocks: int = 2, side: int = 32, dynamic: bool = False) -> None:
    """LeViT, arXiv:2104.01136; ``dynamic`` reads the shape to go back to from the model itself, as ``reshape_as``."""
    x = net.input((3, side, side))
    for number, out in enumerate((width // 4, width // 2, width)):
        act = "none" if number == 2 else "hardswish"
        x = conv_bn(net, x, out, stride=2, act=act, name=f"stem.{number}.")  # type: ignore[arg-type]
    edge = x.shape[2]
    x = transpose(net, reshape(net, x, (-1, width, edge * edge)), (0, 2, 1))
    for stage in range(2):
        if stage:
            with net.scope("downsample"):
                x, edge = _subsample(net, x, edge)
                x = _linear_bn(net, x, 2 * width, "proj", dynamic=dynamic)
        for number in range(blocks):
            with net.scope(f"blocks.{stage}.{number}"):
                x = add(net, x, _levit_attention(net, x, heads, dynamic=dynamic))
                y = activate(net, _linear_bn(net, x, 2 * x.shape[2], "mlp.0", dynamic=dynamic), "hardswish")
                x = add(net, x, _linear_bn(net, y, x.shape[2], "mlp.2", dynamic=dynamic))
    with net.scope("head"):
        net.output(net.linear(net.batch_norm(mean(net, x, 1), module="bn"), 10, module="l"))


def _levit_attention(net: Net, x: Value, heads: int, *, dynamic: bool) -> Value:
    tokens, width = x.shape[1:]
    key = width // heads // 2
    qkv = _linear_bn(net, x, heads * 4 * key, "qkv", dynamic=dynamic)
    qkv = reshape(net, qkv, (-1, tokens, heads, 4 * key))
    q, k, v = (transpose(net, part, (0, 2, 1, 3)) for part in split(net, qkv, (key, key, 2 * key), axis=3))
    y = reshape(net, transpose(net, attention(net, q, k, v), (0, 2, 1, 3)), (-1, tokens, heads * 2 * key))
    return _linear_bn(net, activate(net, y, "hardswish"), width, "proj", dynamic=dynamic)


def _subsample(net: Net, x: Value, edge: int) -> tuple[Value, int]:
    half, width = -(-edge // 2), x.shape[2]
    y = reshape(net, x, (-1, edge, edge, width))
    window = [net.integers(n, kind) for n, kind in (([0, 0], "starts"), ([edge] * 2, "ends"), ([1, 2], "axes"))]
    y = net.node("Slice", [y, *window, net.integers([2, 2], "steps")], (x.shape[0], half, half, width))
    return reshape(net, y, (-1, half * half, width)), half


# Visformer, XCiT, ConvMixer.


def visformer(net: Net, *, width: int = 16, heads: int = 2, blocks: int = 2, side: int = 32) -> None:
    """Visformer, arXiv:2104.12533: batch norms in front of 1x1 convolutions, beside a residual."""
    x = conv_bn(net, net.input((3, side, side)), width // 2, 7, stride=2, name="stem.")
    for stage in range(3):
        out = (width // 2) << stage
        with net.scope(f"patch_embed{stage + 1}"):
            x = net.batch_norm(net.conv(x, out, 2, stride=2, pad=0, bias=True, module="proj"), module="norm")
            place = net.weight((1, *x.shape[1:]), 100, f"pos_embed{stage + 1}")
            x = net.node("Add", [x, place], x.shape)
        for number in range(blocks):
            with net.scope(f"stage{stage + 1}.{number}"):
                if stage:
                    x = add(net, x, _visformer_attention(net, net.batch_norm(x, module="norm1"), heads))
                y = net.conv(net.batch_norm(x, module="norm2"), 2 * out, 1, module="conv1")
                y = activate(net, y, "gelu")
                if not stage:
                    y = activate(net, net.conv(y, 2 * out, 3, group=2, module="conv2"), "gelu")
                x = add(net, x, net.conv(y, out, 1, module="conv3"))
    classify(net, net.batch_norm(x, module="norm"))


def _visformer_attention(net: Net, x: Value, heads: int) -> Value:
    channels, height, width = x.shape[1:]
    each = channels // heads
    qkv = reshape(net, net.conv(x, 3 * channels, 1, module="qkv"), (-1, 3, heads, each, height * width))
    parts = split(net, transpose(net, qkv, (1, 0, 2, 4, 3)), (1, 1, 1), axis=0)
    q, k, v = (axes_node(net, "Squeeze", part, [0], part.shape[1:]) for part in parts)
    y = transpose(net, attention(net, q, k, v), (0, 1, 3, 2))
    return net.conv(reshape(net, y, (-1, channels, height, width)), channels, 1, module="proj")


def xcit(net: Net, *, width: int = 16, heads: int = 2, blocks: int = 2, side: int = 32) -> None:
    """XCiT, arXiv:2106.09681: a patch embedding of convolutions, and depthwise ones around GELU and batch norm."""
    x = net.input((3, side, side))
    for number, out in enumerate((width // 4, width // 2, width)):
        act = "none" if number == 2 else "gelu"
        x = conv_bn(net, x, out, stride=2, act=act, name=f"patch_embed.{number}.")  # type: ignore[arg-type]
    edge = x.shape[2]
    x = transpose(net, reshape(net, x, (-1, width, edge * edge)), (0, 2, 1))
    for number in range(blocks):
        with net.scope(f"blocks.{number}"):
            x = add(net, x, _cross_covariance(net, layer_norm(net, x, module="norm1"), heads))
            y = reshape(net, transpose(net, layer_norm(net, x, module="norm3"), (0, 2, 1)), (-1, width, edge, edge))
            y = activate(net, net.conv(y, width, group=width, bias=True, module="conv1"), "gelu")
            y = net.conv(net.batch_norm(y, module="bn"), width, group=width, bias=True, module="conv2")
            x = add(net, x, transpose(net, reshape(net, y, (-1, width, edge * edge)), (0, 2, 1)))
            y = activate(net, net.linear(layer_norm(net, x, module="norm2"), 2 * width, module="fc1"), "gelu")
            x = add(net, x, net.linear(y, width, module="fc2"))
    net.output(net.linear(mean(net, layer_norm(net, x), 1), 10, module="head"))


def _cross_covariance(net: Net, x: Value, heads: int) -> Value:
    tokens, width = x.shape[1:]
    qkv = reshape(net, net.linear(x, 3 * width, module="qkv"), (-1, tokens, 3, heads, width // heads))
    parts = split(net, transpose(net, qkv, (2, 0, 3, 4, 1)), (1, 1, 1), axis=0)
    q, k, v = (axes_node(net, "Squeeze", part, [0], part.shape[1:]) for part in parts)
    y = reshape(net, transpose(net, attention(net, q, k, v), (0, 3, 1, 2)), (-1, tokens, width))
    return net.linear(y, width, module="proj")


def convmixer(net: Net, *, width: int = 8, blocks: int = 2, side: int = 16) -> None:
    """ConvMixer, arXiv:2201.09792: batch norms behind GELU, one inside a residual and one in front of it."""
    x = net.conv(net.input((3, side, side)), width, 2, stride=2, pad=0, bias=True, module="patch")
    x = net.batch_norm(activate(net, x, "gelu"), module="bn")
    for number in range(blocks):
        with net.scope(number):
            y = net.conv(x, width, 5, group=width, bias=True, module="depthwise")
            x = add(net, net.batch_norm(activate(net, y, "gelu"), module="bn1"), x)
            y = activate(net, net.conv(x, width, 1, bias=True, module="pointwise"), "gelu")
            x = net.batch_norm(y, module="bn2")
    classify(net, x)


# Points and sequences.


def pointnet(net: Net, *, width: int = 8, points: int = 32) -> None:
    """PointNet, arXiv:1612.00593: one dense layer for all points, written as Conv1d, and the maximum over them."""
    x = net.input((3, points))
    with net.scope("stn"):
        y = conv_bn(net, conv_bn(net, x, width, 1, name="1."), 4 * width, 1, name="2.")
        y = _dense_bn(net, _over_points(net, y), 2 * width, "fc1")
        y = net.linear(y, 9, module="fc3")
        eye = net.constant(np.eye(3, dtype=net.style.dtype).reshape(1, 9), "eye", inline=True)
        turn = reshape(net, add(net, y, Value(eye.name, y.shape)), (-1, 3, 3))
    x = net.node("MatMul", [transpose(net, x, (0, 2, 1)), turn], (x.shape[0], points, 3))
    x = conv_bn(net, transpose(net, x, (0, 2, 1)), width, 1, name="1.")
    x = conv_bn(net, x, 2 * width, 1, name="2.")
    x = conv_bn(net, x, 8 * width, 1, act="none", name="3.")
    x = _dense_bn(net, _over_points(net, x), 4 * width, "fc1")
    net.output(net.linear(_dense_bn(net, x, 2 * width, "fc2"), 10, module="fc3"))


def _over_points(net: Net, x: Value) -> Value:
    y = axes_node(net, "ReduceMax", x, [2], (*x.shape[:2], 1), keepdims=1)
    return reshape(net, y, (-1, x.channels))


def _dense_bn(net: Net, x: Value, units: int, name: str) -> Value:
    with net.scope(name):
        return activate(net, net.batch_norm(net.linear(x, units, gain=2.0, module="fc")), "relu")


def crnn(net: Net, *, width: int = 8, length: int = 32, bn_last: bool = False) -> None:
    """CRNN, arXiv:1507.05717; ``bn_last`` has the last batch norm behind the ReLU, where it meets the LSTM."""
    x = activate(net, net.conv(net.input((1, 32, length)), width, bias=True, module="cnn.conv0"), "relu")
    x = activate(net, net.conv(pool(net, x, "max"), 2 * width, bias=True, module="cnn.conv1"), "relu")
    x = conv_bn(net, pool(net, x, "max"), 4 * width, name="cnn.2.")
    x = pool(net, x, "max", (2, 2), stride=(2, 1), pad=(0, 1))
    x = conv_bn(net, x, 4 * width, name="cnn.3.")
    x = pool(net, x, "max", (2, 2), stride=(2, 1), pad=(0, 1))
    x = net.conv(x, 4 * width, 2, pad=0, bias=True, module="cnn.conv4")
    x = net.batch_norm(activate(net, x, "relu")) if bn_last else activate(net, net.batch_norm(x), "relu")
    x = axes_node(net, "Squeeze", x, [2], (x.shape[0], x.channels, x.shape[3]))
    x = transpose(net, x, (2, 0, 1))
    for number in range(2):
        with net.scope(f"rnn.{number}"):
            x = recurrent(net, x, 2 * width, "LSTM", both=True)
            rows = net.linear(x, 2 * width, module="embedding")
            x = rows
    net.output(transpose(net, x, (1, 0, 2)))


def deepspeech(net: Net, *, width: int = 8, layers: int = 3, length: int = 24) -> None:
    """Deep Speech 2, arXiv:1512.02595: batch norm in front of every recurrent layer but the first, over all steps."""
    x = net.input((1, 16, length))
    x = conv_bn(net, conv_bn(net, x, 4, (5, 3), act="relu6", name="1."), 4, (5, 3), act="relu6", name="2.")
    frames = x.shape[3]
    x = transpose(net, reshape(net, x, (-1, x.channels * x.shape[2], frames)), (2, 0, 1))
    for number in range(layers):
        with net.scope(f"rnns.{number}"):
            if number:
                rows = net.batch_norm(reshape(net, x, (-1, x.shape[2])))
                x = reshape(net, rows, (frames, -1, x.shape[2]))
            x = recurrent(net, x, width, ("GRU", "LSTM", "RNN")[number % 3], both=False)
    with net.scope("fc"):
        rows = net.batch_norm(reshape(net, x, (-1, x.shape[2])))
        y = reshape(net, net.linear(rows, 10, bias=False), (frames, -1, 10))
    net.output(transpose(net, y, (1, 0, 2)))


def recurrent(net: Net, x: Value, hidden: int, kind: str, *, both: bool) -> Value:
    """Add a recurrent layer over ``(time, batch, features)``; the two directions of a bidirectional one are joined."""
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if both else 1
    inputs: list[Value | str] = [x]
    for name, columns in (("W", x.shape[2]), ("R", hidden)):
        inputs.append(net.weight((ways, gates * hidden, columns), columns, name, gain=1.0))
    inputs.append(net.weight((ways, 2 * gates * hidden), 50, "B"))
    extra: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if both else "forward"
    steps, batch = x.shape[:2]
    shape = (steps, ways, batch, hidden)
    (y,) = net.node_of_several(kind, inputs, [shape], hidden_size=hidden, direction=direction, **extra)
    if not both:
        return axes_node(net, "Squeeze", y, [1], (steps, batch, hidden))
    return reshape(net, transpose(net, y, (0, 2, 1, 3)), (0, 0, -1))
