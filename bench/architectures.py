"""How much faster a folded network runs: each architecture in onnxruntime at its default level, before and after.

``python -m bench.architectures [NAME ...]`` prints the table; with ``--write`` it goes to ``docs/speed.md``. One
thread; the two take turns, and a figure is the median of processor times: a busy machine disturbs those least.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from bench.measure import ROOT, table
from bnfold.fold import apply, plan
from tests.architectures import branched, further, images, linear, mobile, residual, sound, tokens
from tests.architectures.net import Net, Style

if TYPE_CHECKING:
    import onnx

ROUNDS = 30
SHORTEST = 0.02
"""Seconds that one measurement lasts at least: a fast network runs several times in it."""

Build = Callable[[Net], None]

_V2 = ((1, 16, 3, 1), (6, 24, 3, 2), (6, 24, 3, 1), (6, 32, 3, 2), (6, 32, 3, 1), (6, 64, 3, 2), (6, 64, 3, 1))
_V3 = ((1, 16, 3, 2), (4, 24, 3, 2), (3, 24, 3, 1), (4, 40, 5, 2), (6, 40, 5, 1), (6, 96, 5, 2), (6, 96, 5, 1))

NETWORKS: dict[str, Build] = {
    "ResNet-18": partial(residual.resnet, width=64, blocks=(2, 2, 2, 2), side=112),
    "ResNet-50": partial(residual.resnet, block="bottleneck", width=64, blocks=(3, 4, 6, 3), side=96),
    "ResNeXt-50 D": partial(
        residual.resnet,
        block="bottleneck",
        width=64,
        blocks=(3, 4, 6, 3),
        side=96,
        average_down=True,
        cardinality=32,
    ),
    "ResNetV2-18": partial(residual.resnet_v2, width=64, blocks=(2, 2, 2, 2), side=112),
    "ResNetV2-50": partial(residual.resnet_v2, block="bottleneck", width=64, blocks=(3, 4, 6, 3), side=96),
    "DenseNet-121": partial(residual.densenet, growth=32, blocks=(6, 12, 24, 16), width=64, side=96),
    "HRNet-W18": partial(residual.hrnet, width=18, modules=3, branches=3, side=96),
    "MobileNetV2": partial(mobile.mobilenet_v2, width=32, rows=_V2, side=128),
    "MobileNetV3": partial(mobile.mobilenet_v3, width=16, rows=_V3, side=128),
    "EfficientNet": partial(mobile.efficientnet, width=32, rows=_V2, side=128),
    "MixNet": partial(mobile.mixnet, width=48, blocks=3, stages=3, side=96),
    "ShuffleNetV2": partial(mobile.shufflenet_v2, widths=(116, 232), units=4, side=128),
    "Inception": partial(mobile.inception, width=64, blocks=3, side=48),
    "RepVGG-A0": partial(branched.repvgg, width=48, blocks=(1, 2, 4, 6), side=112),
    "MobileOne": partial(branched.mobileone, width=48, blocks=(2, 4, 4), branches=4, side=96),
    "FastViT": partial(branched.fastvit, width=48, stages=3, blocks=2, side=96),
    "RepGhost": partial(branched.repghost, width=64, blocks=6, side=64),
    "GhostNet": partial(branched.ghostnet, width=64, blocks=6, side=64),
    "ExpandNet": partial(linear.expandnet, width=32, blocks=(2, 2, 2), side=64),
    "SESR": partial(linear.sesr, width=16, blocks=5, wide=256, side=64),
    "LeViT": partial(tokens.levit, width=128, heads=4, blocks=3, side=128),
    "Visformer": partial(tokens.visformer, width=96, heads=6, blocks=2, side=96),
    "XCiT": partial(tokens.xcit, width=128, heads=4, blocks=4, side=96),
    "ConvMixer": partial(tokens.convmixer, width=128, blocks=6, side=48),
    "PointNet": partial(tokens.pointnet, width=64, points=512),
    "CRNN": partial(tokens.crnn, width=64, length=96),
    "CRNN, batch norm last": partial(tokens.crnn, width=64, length=96, bn_last=True),
    "Deep Speech 2": partial(tokens.deepspeech, width=192, layers=4, length=96),
    "U-Net": partial(images.unet, width=32, depth=3, side=96),
    "U-Net, batch norm behind ReLU": partial(images.unet, width=32, depth=3, side=96, order="conv-relu-bn"),
    "U-Net, batch norm behind Concat": partial(images.unet, width=32, depth=3, side=96, bn_behind_concat=True),
    "EfficientDet": partial(images.efficientdet, width=64, levels=4, depth=3, side=128),
    "YOLO": partial(further.yolo, width=32, side=128),
    "IR-ResNet": partial(further.ir_resnet, width=64, blocks=(2, 2, 2), side=56),
    "Xception": partial(further.xception, width=32, blocks=3, side=96),
    "R(2+1)D": partial(further.r2plus1d, width=32, blocks=3, side=28, frames=8),
    "X-vector": partial(sound.xvector, width=256, length=200),
    "ECAPA": partial(sound.ecapa, width=256, blocks=3, pieces=8, length=200),
    "Conformer": partial(sound.conformer, width=144, blocks=6, length=128),
    "Temporal convolutions": partial(sound.temporal, widths=(64, 64, 128, 128), length=256),
    "Table": partial(further.tabular, columns=128, width=512, layers=5),
    "Two towers": partial(further.two_towers, width=64, layers=5, side=48),
    "DCGAN": partial(images.dcgan, width=32, latent=100, levels=4),
    "SSD, frozen": partial(images.ssd, width=48, levels=4, side=128),
    "SSD, spelled out": partial(images.ssd, width=48, levels=4, side=128, frozen="spelled"),
    "Keras": partial(images.keras_cnn, widths=(32, 64, 128, 256), side=96),
    "Keras, batch norm behind ReLU": partial(
        images.keras_cnn, widths=(32, 64, 128, 256), side=94, order="conv-relu-bn", pad="valid"
    ),
}
HEAD = ("network", "batch norms", "folded", "nodes", "folded", "ms", "folded", "times as fast")


@dataclass(frozen=True, slots=True)
class Model:
    """A network that is ready to run, and what it is made of."""

    session: Any
    feeds: dict[str, np.ndarray[Any, Any]]
    batch_norms: int
    nodes: int

    def run(self, times: int) -> float:
        """Return the processor seconds that one run takes, of several."""
        start = time.thread_time()
        for _ in range(times):
            self.session.run(None, self.feeds)
        return (time.thread_time() - start) / times


def ready(model: onnx.ModelProto, feeds: dict[str, np.ndarray[Any, Any]]) -> Model:
    """Open a session of one thread, as its defaults have it otherwise."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
    return Model(session, feeds, kinds.count("BatchNormalization"), len(kinds))


def measure(build: Build) -> tuple[Model, Model, float, float]:
    """Return both models, and the seconds of each."""
    net = Net(Style(batch=1))
    build(net)
    model = net.model("network")
    rng = np.random.default_rng(5)
    feeds = {value.name: rng.normal(size=value.shape).astype(np.float32) for value in net.inputs}
    before, after = ready(model, feeds), ready(apply(model, plan(model)).model, feeds)
    expected, actual = (one.session.run(None, feeds)[0] for one in (before, after))
    error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    if error > 1e-4:
        sys.exit(f"the folded network is wrong: {error:.1e}")
    times = max(1, round(SHORTEST / max(before.run(2), 1e-5)))
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(ROUNDS):
        # Who runs first changes from turn to turn: the second finds a warmer, or a hotter, machine.
        for which in (turn % 2, 1 - turn % 2):
            seconds[which].append((before, after)[which].run(times))
    return before, after, median(seconds[0]), median(seconds[1])


def rows(names: list[str]) -> list[list[str]]:
    """Measure the networks and return one row each."""
    made = []
    for name in names:
        before, after, slow, fast = measure(NETWORKS[name])
        counts = [before.batch_norms, after.batch_norms, before.nodes, after.nodes]
        made.append([name, *map(str, counts), f"{slow * 1e3:.2f}", f"{fast * 1e3:.2f}", f"{slow / fast:.2f}"])
        print(" ".join(made[-1]), file=sys.stderr)
    return made


PAGE = """# How fast folded networks run

Each network in onnxruntime {version} at its default optimisation level, which folds what it can by itself, before and
after bnfold. One thread, one image; medians of {rounds} runs that take turns, in processor time. More than 1.00 in the
last column: the folded network is faster. What differs from 1.00 by two or three hundredths is noise.

Batch norms stay where an Add or a Max in their place would take longer; `--fold fewest` folds them too. Networks with
parallel branches, or layers with nothing between them, gain most: onnxruntime does not join those by itself.

{table}

Written by `python -m bench.architectures --write`.
"""


def main(arguments: list[str]) -> None:
    """Print the table, or write the page."""
    names = [name for name in arguments if not name.startswith("-")] or list(NETWORKS)
    page = PAGE.format(version=onnxruntime.__version__, rounds=ROUNDS, table=table(HEAD, rows(names)))
    if "--write" in arguments:
        Path(ROOT, "docs", "speed.md").write_text(page, "utf-8")
    print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
