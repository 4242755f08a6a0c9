"""What comes of the probes: every program runs on them, the folds are checked beside, and both sides are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from onnx import ModelProto, TensorProto, helper

from bnfold.graph.region import Region
from bnfold.graph.shapes import infer
from bnfold.parity.behaviour import Figures, Metric
from bnfold.parity.decisions import FLOATS
from bnfold.parity.feeds import Probe, jittered, turned
from bnfold.parity.kernels import Array, computes_with
from bnfold.parity.laws import beside_another
from bnfold.parity.local import check_region
from bnfold.parity.localise import Inside
from bnfold.parity.original_layers import LayerReader
from bnfold.parity.rewritten import Rewritten
from bnfold.parity.rows import Bundle, alone, bundles
from bnfold.parity.sides import Side, compare
from bnfold.parity.stand import Runner, Stand, says_something
from bnfold.parity.trials import amplification
from bnfold.parity.verdict import ProbeRecord, RegionCheck, Verdict
from bnfold.parity.whole import Run

__all__ = ["Elements", "LawRuns", "Progress", "Task", "Trials"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Task:
    """What ``verify`` was asked."""

    unfolded: ModelProto
    folded: ModelProto
    regions: tuple[Region, ...]
    original: Runner | None
    inside: Inside | None
    layers: LayerReader | None
    level: str
    seed: int
    given: tuple[Mapping[str, Array], ...]
    batches: tuple[int, ...]
    metric: Metric | None
    apart: bool
    tell: Progress


class Elements:
    """The element types of a model's values, in whatever graph they stand."""

    def __init__(self, model: ModelProto) -> None:
        self._types = tuple(infer(model).values())

    def of(self, name: str) -> int:
        """Return the ``TensorProto`` number of a value's element type; 0 where nothing is known."""
        known = (types.get(name) for types in self._types)
        return next((item.element for item in known if item is not None and item.element), 0)

    def floating(self, name: str) -> bool:
        """Whether a value is known to be one of the floats that the reference computes with."""
        return self.of(name) in FLOATS


@dataclass(frozen=True, slots=True)
class _Looking:
    """What goes on beside the next probes, and what waits for it."""

    bundle: Bundle
    run: Run
    checks: Sequence[Future[RegionCheck]]


@dataclass(slots=True)
class Trials:
    """What comes of the probes, one after the other."""

    task: Task
    stand: Stand
    elements: Elements
    outputs: tuple[str, ...]
    probes: tuple[Probe, ...]
    folding: Side
    translation: Side
    rewritten: Rewritten
    figures: Figures | None
    lanes: Executor
    records: list[ProbeRecord] = field(init=False)
    checks: list[RegionCheck] = field(default_factory=list)
    law: LawRuns | None = None
    once: Mapping[str, Array] = field(default_factory=dict)
    """What the folded model returned on the first probe that says something."""
    amplified: float = math.nan
    growth: dict[str, float] = field(default_factory=dict)
    looked: bool = False
    looking: _Looking | None = None
    pending: list[Bundle] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Note that nothing has run."""
        self.records = [_record(probe, used=False) for probe in self.probes]

    def bundles(self) -> Iterator[Bundle]:
        """Yield what runs together; after the first run it is known how much memory a batch takes."""
        every = list(enumerate(self.probes))
        yield alone(*every[0])
        self.pending = bundles(every[1:], self.stand.reference.largest)
        while self.pending:
            yield self.pending.pop(0)

    def run(self, bundle: Bundle, tried: Mapping[str, Array] | None) -> None:
        """Run what the candidates are compared with on some probes; compare as soon as it is known what the folds do.

        Args:
            bundle: The probes.
            tried: What the unfolded model has returned on the first one, if it was drawn.
        """
        task, stand, number = self.task, self.stand, bundle.numbers[0]
        if bundle.count and not self.looked:  # what is looked at more closely runs alone
            self.pending = [*bundle.apart(), *self.pending]
            return
        task.tell("running probes", number, len(self.probes))
        base = None if number or task.given or task.batches else tried
        also = self.rewritten.ahead if self.rewritten.asks(bundle) else None
        run = stand.baseline(bundle.name, bundle.feeds, base=base, also=also)
        if bundle.count and (run is None or not bundle.divides(run, self.outputs)):
            self.pending = [*bundle.apart(), *self.pending]
            return
        if run is None:
            return  # sizes that the model does not take
        for place, probe in zip(bundle.numbers, bundle.probes, strict=True):
            self.records[place] = _record(probe, used=True, rows=bundle.count)
        if not self.looked and says_something(bundle.feeds):
            self.looked = True
            check = _region_check(stand, task, self.elements)  # beside what runs next
            self.looking = _Looking(bundle, run, [self.lanes.submit(check, region) for region in task.regions])
            self.law = LawRuns(stand, bundle.feeds, self.lanes)
            self.amplified, self.growth = amplification(stand, bundle.probes[0], run, quick=task.level != "full")
            return
        self.settle()
        self._compare(bundle, run)

    def settle(self) -> None:
        """Wait until the folds are checked, and compare what has waited for that."""
        looking, self.looking = self.looking, None
        if looking is None:
            return
        for number, check in enumerate(looking.checks):
            self.task.tell("checking folds", number, len(looking.checks))
            self.checks.append(check.result())
        self.task.tell("checking folds", len(looking.checks), len(looking.checks))
        self.stand.captured = {}
        self.stand.lost = any(check.verdict is Verdict.FAIL for check in self.checks)
        self.folding.back(self.checks)
        self._compare(looking.bundle, looking.run)

    def _compare(self, bundle: Bundle, run: Run) -> None:
        task, stand = self.task, self.stand
        run = replace(run, amplification=self.growth)
        returned = compare(stand, bundle, run, self.folding, stand.folded_run)
        if not self.once and says_something(bundle.feeds):
            self.once = returned[0]
        answered: Sequence[Mapping[str, Array]] = ()
        if task.original is not None:
            refused = partial(getattr, stand, "refusal")
            answered = compare(stand, bundle, run, self.translation, stand.original_run, refusal=refused)
        self.rewritten.add(stand, bundle, run, self.checks)
        for place, (number, probe) in enumerate(zip(bundle.numbers, bundle.probes, strict=True)):
            if self.figures is not None and (number < len(task.given) if task.given else probe.real):
                row = bundle.row(run, place)
                sides = {"reference": row.reference, "unfolded": row.unfolded, "candidate": returned[place]}
                sides = {**sides, "original": answered[place]} if answered and answered[place] else sides
                told = {side: {name: got[name] for name in self.outputs if name in got} for side, got in sides.items()}
                self.figures.add(probe.feeds, number, told)


def _record(probe: Probe, *, used: bool, rows: int = 0) -> ProbeRecord:
    shapes = tuple((name, tuple(value.shape)) for name, value in probe.feeds.items())
    return ProbeRecord(probe.name, probe.origin, shapes, used, rows)


def _region_check(stand: Stand, task: Task, elements: Elements) -> Callable[[Region], RegionCheck]:
    captured = stand.captured

    def check(region: Region) -> RegionCheck:
        values = [
            {name: _stored(visit[name], elements.of(name)) for name in region.inputs}
            for visit in captured.get(region.scope, ())
            if visit.keys() >= set(region.inputs)
        ]
        return check_region(
            region,
            task.unfolded,
            task.folded,
            values,
            seed=task.seed,
            level=task.level,
            reference=stand.reference,
        )

    return check


def _stored(value: Array, element: int) -> Array:
    """Round a captured value to the type that the model stores it in."""
    if not computes_with(value):
        return value
    with np.errstate(over="ignore", under="ignore"):
        return value.astype(helper.tensor_dtype_to_np_dtype(element if element in FLOATS else TensorProto.FLOAT))


class LawRuns:
    """The folded model's runs that the laws compare: the first probe again, and with another sample beside it."""

    def __init__(self, stand: Stand, first: Mapping[str, Array], lanes: Executor) -> None:
        """Begin them, beside whatever else runs."""
        self.first = first
        self.other = jittered({name: turned(value) for name, value in first.items()}, 998)
        both = beside_another(stand.inputs, first, self.other)
        self._again = lanes.submit(stand.folded.run, first)
        self._beside = None if both is None else lanes.submit(stand.folded.run, both)

    def once_more(self) -> Mapping[str, Array]:
        """Return what came of the first probe again."""
        return self._again.result()

    def beside_another(self) -> Mapping[str, Array]:
        """Return what came of both samples in one batch, which has to be free."""
        assert self._beside is not None
        return self._beside.result()
