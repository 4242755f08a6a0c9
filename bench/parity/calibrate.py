"""How often does verification cry wolf, and how often does it sleep? Random nets, folded by hand, right and wrong.

python bench/parity/calibrate.py [nets per setting] [depths, as 1,5,20,50] [parts, as correct,wrong,architectures]
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from bnfold import fold as folding
from bnfold.parity import Verdict, verify
from tests.architectures.catalogue import ARCHITECTURES
from tests.parity.nets import BUGS, Kind, Statistics, build

KINDS: tuple[Kind, ...] = ("Conv", "Depthwise", "ConvTranspose", "Gemm")
STATISTICS: tuple[Statistics, ...] = ("healthy", "large mean", "tiny variance")


def correct(count: int, depths: Sequence[int]) -> None:
    """Print the false alarms on correct folds, and how close the closest came."""
    print("correct folds      nets  false alarms  largest eta/limit  largest E/limit  median rho")
    for dtype, depth, statistics in itertools.product((np.float16, np.float32, np.float64), depths, STATISTICS):
        alarms, etas, errors, ratios = 0, [], [], []
        for seed in range(count):
            net = build([KINDS[seed % 4]] * depth, seed=seed, statistics=statistics, dtype=dtype)
            parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=seed)
            if not parity.verdict.passed:
                alarms += 1
                print(f"  alarm: {KINDS[seed % 4]} seed {seed}: {parity.summary}")
            etas += [check.eta / check.limit for check in parity.regions]
            errors += [item.closest for item in parity.folding]
            ratios += [item.rho for item in parity.folding]
        name = f"{np.dtype(dtype).name} ×{depth} {statistics}"
        print(
            f"{name:28}{count:5}{alarms:10}{max(etas, default=0):18.3f}{max(errors, default=0):18.3f}"
            f"{np.median(ratios or [np.nan]):14.2f}"
        )


def wrong(count: int) -> None:
    """Print the mistakes that were missed, and the weakest one."""
    print("mistake                     nets   missed by A   missed by B alone   smallest eta/limit")
    for bug in BUGS:
        missed = whole = 0
        smallest = np.inf
        for seed in range(count):
            net = build([KINDS[seed % 4]] * 5, seed=seed, bug=bug, at=seed % 5)
            parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=seed)
            caught = [check.sources for check in parity.failed_regions] == [(net.names[seed % 5],)]
            missed += not caught
            smallest = min(smallest, parity.regions[seed % 5].eta / parity.regions[seed % 5].limit)
            whole += all(item.verdict is not Verdict.FAIL for item in parity.folding)
        print(f"{bug:28}{count:4}{missed:12}{whole:18}{smallest:20.3g}")


def architectures() -> None:
    """Print how the networks of the tests fare, as bnfold folds them."""
    alarms, etas, errors, ratios = 0, [], [], []
    for number, architecture in enumerate(ARCHITECTURES):
        model = architecture.model()
        done = folding.apply(model, folding.plan(model))
        parity = verify(unfolded=model, folded=done.model, regions=done.regions, seed=number, level="fast")
        if not parity.verdict.passed:
            alarms += 1
            print(f"  alarm: {architecture.name}: {parity.summary}")
        etas += [check.eta / check.limit for check in parity.regions]
        errors += [item.closest for item in parity.folding]
        ratios += [item.rho for item in parity.folding if np.isfinite(item.rho)]
    print(
        f"{'architectures of the tests':28}{len(ARCHITECTURES):5}{alarms:10}{max(etas):18.3f}{max(errors):18.3f}"
        f"{np.median(ratios):14.2f}"
    )


if __name__ == "__main__":
    told = [*sys.argv[1:], *("8", "1,5,20,50", "correct,wrong,architectures")[len(sys.argv) - 1 :]]
    number, layers, parts = int(told[0]), [int(word) for word in told[1].split(",")], told[2].split(",")
    start = time.perf_counter()
    if "correct" in parts:
        correct(number, layers)
    if "architectures" in parts:
        architectures()
    if "wrong" in parts:
        wrong(number)
    print(f"{time.perf_counter() - start:.0f} s")
