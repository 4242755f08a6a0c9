"""Networks that train with more layers than they mean: ExpandNets, SESR's collapsible blocks, a deep linear head."""

from __future__ import annotations

from collections.abc import Sequence

from tests.architectures.layers import activate, add, flatten, global_pool
from tests.architectures.net import Net, Value


def _expanded(net: Net, x: Value, out: int, rate: int, stride: int) -> Value:
    """Add 1x1, 3x3 and 1x1 in a row, all linear, and one batch norm behind them."""
    y = net.conv(x, rate * x.channels, 1, module="expand")
    y = net.conv(y, rate * out, 3, stride=stride, module="conv")
    y = net.conv(y, out, 1, module="project")
    return activate(net, net.batch_norm(y), "relu")


def expandnet(net: Net, *, width: int = 8, blocks: Sequence[int] = (1, 2), rate: int = 4, side: int = 16) -> None:
    """ExpandNets, arXiv:1811.10495: every convolution is trained as three, with nothing between them."""
    x = net.input((3, side, side))
    for stage, count in enumerate(blocks):
        for number in range(count):
            with net.scope(f"stage{stage}"), net.scope(number):
                x = _expanded(net, x, width << stage, rate, 1 if number else 2)
    x = flatten(net, global_pool(net, x))
    for number, units in enumerate((4 * width, 2 * width)):
        x = net.linear(x, units, module=f"head{number}")
    net.output(net.linear(x, 10))


def _collapsible(net: Net, x: Value, out: int, size: int, wide: int) -> Value:
    return net.conv(net.conv(x, wide, size, module="expand"), out, 1, bias=True, module="project")


def sesr(net: Net, *, width: int = 8, blocks: int = 3, wide: int = 64, scale: int = 2, side: int = 16) -> None:
    """SESR, arXiv:2103.09404: linear blocks with short residuals, which all are one convolution each."""
    x = net.input((1, side, side))
    with net.scope("first"):
        x = first = activate(net, _collapsible(net, x, width, 5, wide), "relu")
    for number in range(blocks):
        with net.scope(number):
            x = activate(net, add(net, _collapsible(net, x, width, 3, wide), x), "relu")
    with net.scope("last"):
        y = _collapsible(net, add(net, x, first), scale * scale, 5, wide)
    batch, channels, height, columns = y.shape
    shape = (batch, channels // (scale * scale), scale * height, scale * columns)
    net.output(net.node("DepthToSpace", [y], shape, blocksize=scale, mode="CRD"))
