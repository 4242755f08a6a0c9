"""Verification: gate 0, gate A, gates B and C for translation and for folding, and the laws, over shared runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from bnfold.errors import BnfoldError, ParityError, UnsupportedOpError
from bnfold.graph.region import Region
from bnfold.graph.shapes import infer
from bnfold.parity.behaviour import Figures, Metric, class_axes
from bnfold.parity.decisions import FLOATS, decisions_of, opened, within
from bnfold.parity.feeds import Probe, Sizes, draw_probes, jittered, turned
from bnfold.parity.inputs import inputs_of
from bnfold.parity.kernels import Array, computes_with
from bnfold.parity.lanes import LANES, halved
from bnfold.parity.laws import batch_independence, determinism
from bnfold.parity.local import check_region
from bnfold.parity.localise import Inside
from bnfold.parity.margins import Decision, decision_behind
from bnfold.parity.original_layers import LayerReader
from bnfold.parity.reference import Reference, Scope
from bnfold.parity.rewritten import Rewritten
from bnfold.parity.rows import Bundle, alone, bundles
from bnfold.parity.run import Session, run_node
from bnfold.parity.search import Search
from bnfold.parity.sides import Side, compare
from bnfold.parity.stand import Runner, Stand, says_something
from bnfold.parity.static import check_static
from bnfold.parity.trials import accepted_sizes, amplification, in_common
from bnfold.parity.verdict import (
    Agreement,
    Comparison,
    Law,
    Measured,
    Parity,
    ProbeRecord,
    RegionCheck,
    Verdict,
    worst_of,
)
from bnfold.parity.whole import rounding_model

__all__ = ["Progress", "verify"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def verify(
    *,
    unfolded: ModelProto,
    folded: ModelProto,
    regions: Sequence[Region] = (),
    original: Runner | None = None,
    inside: Inside | None = None,
    layers: LayerReader | None = None,
    level: str = "full",
    seed: int = 0,
    feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]] | None = None,
    batches: Sequence[int] = (),
    metric: Metric | None = None,
    apart: bool = False,
    progress: Progress | None = None,
) -> Parity:
    """Prove, or fail to prove, that a folded model computes what the original computes.

    Args:
        unfolded: The model before folding, in inference mode.
        folded: The model after it.
        regions: What folding changed.
        original: Runs the original program; None where the unfolded model is the original.
        inside: Returns its inner values by the names that the unfolded model has for them, as far as it can.
        layers: Returns what its layers compute, whatever the model calls that.
        level: ``"full"``, or ``"fast"``: two probes instead of twelve, and two instead of six a fold.
        seed: Of everything random; the same seed gives the same probes.
        feeds: The user's own inputs; they come first.
        batches: Sizes of the free batch to draw probes with; empty means the usual ones.
        metric: The user's own function, asked about the user's own inputs, or about the real ones of the probes.
        apart: Whether the two models are two files that nobody made from each other.
        progress: Told what is going on.
    """
    started = time.perf_counter()
    tell: Progress = progress or (lambda _what, _done, _of: None)
    static = check_static(unfolded, folded, apart=apart)
    if any(finding.check in {"inputs", "outputs", "onnx.checker"} for finding in static):
        return Parity(Verdict.FAIL, level, static=static, seconds=time.perf_counter() - started)
    try:
        with halved():
            task = _Task(
                unfolded=unfolded,
                folded=folded,
                regions=tuple(regions),
                original=original,
                inside=inside,
                layers=layers,
                level=level,
                seed=seed,
                given=tuple(feeds or ()),
                batches=tuple(batches),
                metric=metric,
                apart=apart,
                tell=tell,
            )
            parity = _verify(task)
    except ParityError as error:
        parity = Parity(Verdict.FAIL, level, detail=str(error))
    except BnfoldError as error:
        parity = Parity(Verdict.INCONCLUSIVE, level, detail=str(error))
    verdict = worst_of([parity.verdict, *(finding.verdict for finding in static)])
    return replace(parity, static=static, verdict=verdict, seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Task:
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


class _Elements:
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


def _verify(task: _Task) -> Parity:
    unfolded, original = task.unfolded, task.original
    elements = _Elements(unfolded)
    outputs = tuple(value.name for value in unfolded.graph.output)
    decisions = {
        name: decision_behind(unfolded, name, elements.floating) for name in outputs if not elements.floating(name)
    }
    stand, sizes, tried = _prepared(task, elements, decisions)
    probes = draw_probes(
        stand.inputs,
        sizes,
        level=task.level,
        seed=task.seed,
        given=task.given,
        batches=task.batches,
        together=not stand.decisive,
    )
    chosen_by = {name: stand.decisions.leads_to(name, outputs) for name in stand.decisions.floats}
    followed = {name: output for name, output in chosen_by.items() if output is not None and name in stand.shared}
    folding = Side("folded", outputs, decisions, class_axes(unfolded), followed)
    translation = Side("original", outputs if original else (), decisions, class_axes(unfolded))
    rewritten = Rewritten(task.folded, outputs if task.level == "full" and not task.apart else (), decisions)
    figures = None if task.metric is None else Figures(task.metric)
    trials = _Trials(task, stand, elements, outputs, probes, folding, translation, rewritten, figures)
    records = trials.records
    for bundle in trials.bundles():
        trials.run(bundle, tried)
    checks = trials.checks
    if not any(record.used for record in records):
        raise UnsupportedOpError(
            "the unfolded model runs on none of the probes", hint="Verify with arrays of your own."
        )
    task.tell("running probes", len(probes), len(probes))
    compared, translated = folding.comparisons(), translation.comparisons()
    behaviour = (*folding.agreements(), *translation.agreements())
    measured = () if figures is None else figures.results()
    laws = _laws(
        stand,
        opened(task.folded, elements.floating),
        probes=probes,
        records=records,
        compared=compared,
        once=trials.once,
    )
    used = [probe for probe, record in zip(probes, records, strict=True) if record.used]
    wrong = not stand.lost and any(side.wrong()[0] for side in (folding, translation))
    return Parity(
        verdict=_overall(compared, translated, checks, laws, (*behaviour, *measured)),
        level=task.level,
        regions=tuple(checks),
        folding=compared,
        translation=translated,
        rewritten=rewritten.comparisons(),
        behaviour=behaviour,
        measured=measured,
        laws=laws,
        suspect=_search(task, stand, elements, used).suspect(folding, translation) if wrong else None,
        amplification=trials.amplified,
        probes=tuple(records),
        engines=(stand.unfolded.engine, stand.folded.engine),
    )


@dataclass(slots=True)
class _Trials:
    """What comes of the probes, one after the other."""

    task: _Task
    stand: Stand
    elements: _Elements
    outputs: tuple[str, ...]
    probes: tuple[Probe, ...]
    folding: Side
    translation: Side
    rewritten: Rewritten
    figures: Figures | None
    records: list[ProbeRecord] = field(init=False)
    checks: list[RegionCheck] = field(default_factory=list)
    once: Mapping[str, Array] = field(default_factory=dict)
    """What the folded model returned on the first probe that says something."""
    amplified: float = math.nan
    growth: dict[str, float] = field(default_factory=dict)
    looked: bool = False
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
        """Run everything on some probes, and compare.

        Args:
            bundle: The probes.
            tried: What the unfolded model has returned on the first one, if it was drawn.
        """
        task, stand, number = self.task, self.stand, bundle.numbers[0]
        task.tell("running probes", number, len(self.probes))
        base = None if number or task.given or task.batches else tried
        also = self.rewritten.ahead if self.rewritten.asks(bundle) else None
        run = stand.baseline(bundle.name, bundle.feeds, base=base, also=also)
        if bundle.count and (run is None or not bundle.divides(run, self.outputs)):
            self.pending = [*bundle.apart(), *self.pending]
            return
        if run is None:
            return  # sizes that the model does not take
        if not self.looked and says_something(bundle.feeds):
            self.looked = True
            self.amplified, self.growth = amplification(stand, bundle.probes[0], run, quick=task.level != "full")
            self.checks = _check_regions(stand, task, self.elements)
            stand.lost = any(check.verdict is Verdict.FAIL for check in self.checks)
            self.folding.back(self.checks)
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
            self.records[number] = _record(probe, used=True, rows=bundle.count)
            if self.figures is not None and (number < len(task.given) if task.given else probe.real):
                row = bundle.row(run, place)
                sides = {"reference": row.reference, "unfolded": row.unfolded, "candidate": returned[place]}
                sides = {**sides, "original": answered[place]} if answered and answered[place] else sides
                told = {side: {name: got[name] for name in self.outputs if name in got} for side, got in sides.items()}
                self.figures.add(probe.feeds, number, told)


def _search(task: _Task, stand: Stand, elements: _Elements, used: Sequence[Probe]) -> Search:
    task.tell("looking for the fault", 0, 1)
    return Search(
        unfolded=task.unfolded,
        folded=task.folded,
        regions=task.regions,
        reference=stand.reference,
        inside=task.inside,
        layers=task.layers,
        floating=elements.floating,
        probes=used,
    )


def _prepared(
    task: _Task, elements: _Elements, decided: Mapping[str, Decision | None]
) -> tuple[Stand, Sizes, Mapping[str, Array] | None]:
    """Return the programs, the sizes that they take, and what the unfolded one returned on them."""
    unfolded = opened(task.unfolded, elements.floating)
    if unfolded is not task.unfolded:
        try:  # a loop whose choices change their sizes from turn to turn cannot return them
            stand = _stand(task, elements, decided, unfolded, opened(task.folded, elements.floating))
            return stand, *accepted_sizes(stand, task.seed)
        except BnfoldError:
            pass
    stand = _stand(task, elements, decided, task.unfolded, task.folded)
    return stand, *accepted_sizes(stand, task.seed)


def _stand(
    task: _Task,
    elements: _Elements,
    decided: Mapping[str, Decision | None],
    unfolded: ModelProto,
    folded: ModelProto,
) -> Stand:
    decisions = decisions_of(unfolded, elements.floating)
    shared = within(decisions, unfolded, folded)
    computed = [name for item in decided.values() if item is not None for name in item.values]
    fixed = [name for item in decided.values() if item is not None for name in item.fixed]
    inputs = inputs_of(unfolded)
    inner = tuple(dict.fromkeys([*computed, *decisions.floats, *decisions.chosen]))
    return Stand(
        inputs=in_common(inputs, inputs_of(folded)) if task.apart else inputs,
        unfolded=Session(unfolded, also=inner),
        folded=_folded_session(folded, shared),
        original=task.original,
        reference=Reference(unfolded, foreign=run_node),
        rounded=rounding_model(unfolded, folded),
        outputs=tuple(value.name for value in task.unfolded.graph.output),
        decisive=tuple(dict.fromkeys([*inner, *fixed])),
        decisions=decisions,
        shared=shared,
        wanted=_entering(task.regions) if task.regions else None,
    )


def _folded_session(folded: ModelProto, also: Sequence[str]) -> Session:
    try:
        return Session(folded, also=also)
    except BnfoldError as error:
        raise ParityError(f"the folded model cannot be loaded: {error}", hint="Report the model.") from error


def _record(probe: Probe, *, used: bool, rows: int = 0) -> ProbeRecord:
    shapes = tuple((name, tuple(value.shape)) for name, value in probe.feeds.items())
    return ProbeRecord(probe.name, probe.origin, shapes, used, rows)


def _check_regions(stand: Stand, task: _Task, elements: _Elements) -> list[RegionCheck]:
    def check(region: Region) -> RegionCheck:
        values = [
            {name: _stored(visit[name], elements.of(name)) for name in region.inputs}
            for visit in stand.captured.get(region.scope, ())
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

    checks = list[RegionCheck]()
    with ThreadPoolExecutor(LANES) as lanes:
        for found in lanes.map(check, task.regions):
            task.tell("checking folds", len(checks), len(task.regions))
            checks.append(found)
    task.tell("checking folds", len(task.regions), len(task.regions))
    stand.captured = {}
    return checks


def _entering(regions: Sequence[Region]) -> dict[Scope, set[str]]:
    wanted: dict[Scope, set[str]] = {}
    for region in regions:
        wanted.setdefault(region.scope, set()).update(region.inputs)
    return wanted


def _stored(value: Array, element: int) -> Array:
    """Round a captured value to the type that the model stores it in."""
    if not computes_with(value):
        return value
    with np.errstate(over="ignore", under="ignore"):
        return value.astype(helper.tensor_dtype_to_np_dtype(element if element in FLOATS else TensorProto.FLOAT))


def _laws(
    stand: Stand,
    folded: ModelProto,
    *,
    probes: Sequence[Probe],
    records: Sequence[ProbeRecord],
    compared: Sequence[Comparison],
    once: Mapping[str, Array],
) -> tuple[Law, ...]:
    """Try the laws on the first probe that says something, for which the folded model's outputs are known already."""
    used = [probe.feeds for probe, record in zip(probes, records, strict=True) if record.used]
    first = next((feeds for feeds in used if says_something(feeds)), used[0])
    noise = max((item.baseline for item in compared if item.kind == "float" and item.verdict.passed), default=0.0)
    other = jittered({name: turned(value) for name, value in first.items()}, 998)
    return (
        batch_independence(
            stand.folded_run,
            stand.inputs,
            first,
            other,
            alone=once,
            noise=noise,
            decisions=stand.decisions,
            exact=lambda feeds: Reference(folded, foreign=run_node).run(feeds, tuple(once)),
        ),
        determinism(stand.folded_run, first, once),
    )


def _overall(
    folding: Sequence[Comparison],
    translation: Sequence[Comparison],
    regions: Sequence[RegionCheck],
    laws: Sequence[Law],
    behaviour: Sequence[Agreement | Measured],
) -> Verdict:
    verdicts = [
        *(item.verdict for item in folding),
        *(item.verdict for item in translation),
        *(item.verdict for item in regions),
        *(item.verdict for item in laws),
        *(item.verdict for item in behaviour),
    ]
    if not all(verdict.passed for verdict in verdicts):
        return worst_of(verdicts)
    floats = [item for item in folding if item.kind == "float"]
    better = regions and floats and all(item.verdict is Verdict.PASS_MORE_ACCURATE for item in floats)
    return Verdict.PASS_MORE_ACCURATE if better else Verdict.PASS
