"""How often does verification cry wolf, and how often does it sleep? Random nets, folded by hand, right and wrong.

python bench/parity/calibrate.py [nets per setting] [depths, as 1,5,20,50] [parts, of those below]

The parts: correct, wrong, architectures, choosers (networks that choose, right and wrong), models (what ``models/``
holds).
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from bnfold import Options, convert
from bnfold import fold as folding
from bnfold.parity import Verdict, verify
from models import zoo
from tests.architectures.catalogue import ARCHITECTURES
from tests.parity.choosers import CHOOSERS, chooser, damaged
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


def wrong(count: int, depths: Sequence[int]) -> None:
    """Print the mistakes that were missed, and the weakest one."""
    print("mistake                     nets   missed by A   missed by B alone   smallest eta/limit")
    for depth, bug in itertools.product(depths, BUGS):
        missed = whole = 0
        smallest = np.inf
        for seed in range(count):
            at = (7 * seed) % depth
            net = build([KINDS[seed % 4]] * depth, seed=seed, bug=bug, at=at)
            parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=seed)
            caught = [check.sources for check in parity.failed_regions] == [(net.names[at],)]
            missed += not caught
            smallest = min(smallest, parity.regions[at].eta / parity.regions[at].limit)
            whole += all(item.verdict is not Verdict.FAIL for item in parity.folding)
        print(f"×{depth:<3}{bug:28}{count:4}{missed:12}{whole:18}{smallest:20.3g}")


def choosers(count: int) -> None:
    """Print how networks that choose fare: correct folds, and mistakes that only the whole may show."""
    print("networks that choose        nets  false alarms   mistakes    missed without a look at the fold")
    for kind in CHOOSERS:
        alarms = mistakes = missed = 0
        for seed in range(count):
            model = chooser(kind, seed)
            done = folding.apply(model, folding.plan(model))
            parity = verify(unfolded=model, folded=done.model, regions=done.regions, seed=seed)
            if not parity.verdict.passed:
                alarms += 1
                print(f"  alarm: {kind} seed {seed}: {parity.summary}")
            for what in ("running_var off by 1 %", "two means swapped", "beta missing"):
                damage = damaged(model, seed % len(done.regions), what)
                other = folding.apply(damage, folding.plan(damage)).model
                mistakes += 1
                missed += not verify(unfolded=model, folded=other, seed=seed, apart=True).failed
        print(f"{kind:28}{count:4}{alarms:14}{mistakes:11}{missed:11}")


def models() -> None:
    """Print how the trained models of the project fare, from their own files to what is written."""
    print("trained model                 verdict               E/limit, folding   E/limit, translation   rho")
    for model in zoo.read():
        options = Options(
            outputs=tuple(filter(None, model.hints.get("outputs", "").split(","))),
            architecture=zoo.HERE / model.hints["architecture"] if "architecture" in model.hints else None,
            builder=str(zoo.HERE / model.hints["builder"]) if "builder" in model.hints else None,
            verify="full",
        )
        proof = convert(zoo.HERE / model.path, options, unverified=True).report.parity
        assert proof is not None
        folded, translated = (
            max((i.closest for i in side), default=0.0) for side in (proof.folding, proof.translation)
        )
        print(f"{model.name:30}{proof.verdict.value:22}{folded:16.3f}{translated:22.3f}{proof.rho:8.2f}")


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
    told = [*sys.argv[1:], *("8", "1,5,20,50", "correct,wrong,architectures,choosers,models")[len(sys.argv) - 1 :]]
    number, layers, parts = int(told[0]), [int(word) for word in told[1].split(",")], told[2].split(",")
    start = time.perf_counter()
    if "correct" in parts:
        correct(number, layers)
    if "architectures" in parts:
        architectures()
    if "choosers" in parts:
        choosers(number)
    if "models" in parts:
        models()
    if "wrong" in parts:
        wrong(number, layers)
    print(f"{time.perf_counter() - start:.0f} s")
