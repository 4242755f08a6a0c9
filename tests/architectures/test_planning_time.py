"""Planning takes work in proportion to the size of the network, however deep it is and however its values join."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

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


def calls(deep: Deep, depth: int) -> int:
    """Return how many functions one plan calls: unlike its seconds, that is the same on every machine."""
    net = Net(Style(gammas="positive"))
    deep(net, depth)
    model = net.model("deep")
    count = 0

    def called(_frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(called)
    try:
        plan(model)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", DEEP)
def test_four_times_the_depth_takes_about_four_times_the_work(name: str) -> None:
    assert calls(DEEP[name], 32) < 7 * calls(DEEP[name], 8)
