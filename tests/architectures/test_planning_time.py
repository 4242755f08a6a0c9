"""Planning takes time in proportion to the size of the network, however deep it is and however its values join."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bnfold.fold import plan
from tests.architectures import branched, residual, sound, tokens
from tests.architectures.net import Net, Style

Deep = Callable[[Net, int], None]

DEEP: dict[str, Deep] = {
    "ResNet": lambda net, depth: residual.resnet(net, width=4, blocks=(depth, depth)),
    "ResNetV2": lambda net, depth: residual.resnet_v2(net, width=8, blocks=(depth, depth)),
    "HRNet": lambda net, depth: residual.hrnet(net, modules=depth // 4),
    "MobileOne": lambda net, depth: branched.mobileone(net, blocks=(depth // 2, depth // 2)),
    "FastViT": lambda net, depth: branched.fastvit(net, blocks=depth // 2),
    "Visformer": lambda net, depth: tokens.visformer(net, blocks=depth // 2),
    "LeViT": lambda net, depth: tokens.levit(net, blocks=depth // 4),
    "ConvMixer": lambda net, depth: tokens.convmixer(net, blocks=depth),
    "ECAPA": lambda net, depth: sound.ecapa(net, blocks=depth // 2),
}


def seconds(build: Callable[[Net], None]) -> float:
    """Return the processor seconds of one plan."""
    net = Net(Style(gammas="positive"))
    build(net)
    model = net.model("deep")
    start = time.process_time()
    plan(model)
    return time.process_time() - start


@pytest.mark.parametrize("name", DEEP)
def test_four_times_the_depth_takes_about_four_times_as_long(name: str) -> None:
    deep = DEEP[name]
    # The best of three: what else the machine does only adds to a time.
    short = min(seconds(lambda net: deep(net, 8)) for _ in range(3))
    long = min(seconds(lambda net: deep(net, 32)) for _ in range(2))
    assert long < 7 * short + 0.02
