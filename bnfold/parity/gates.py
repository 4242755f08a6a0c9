"""Verification: gate 0, gate A, gate B for translation and for folding, and the laws, over shared runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from bnfold.errors import BnfoldError, ParityError, UnsupportedOpError
from bnfold.graph.region import Region
from bnfold.graph.shapes import infer
from bnfold.parity.compare import match
from bnfold.parity.feeds import Probe, Sizes, draw_probes, jittered, sizes_to_try, turned
from bnfold.parity.inputs import inputs_of
from bnfold.parity.kernels import Array, computes_with, roundoff
from bnfold.parity.lanes import LANES, halved
from bnfold.parity.laws import batch_independence, determinism
from bnfold.parity.local import check_region
from bnfold.parity.margins import decision_behind
from bnfold.parity.reference import Reference, Scope
from bnfold.parity.run import Session, run_node
from bnfold.parity.stand import Runner, Stand
from bnfold.parity.static import check_static
from bnfold.parity.verdict import Comparison, Law, Parity, ProbeRecord, RegionCheck, Verdict, worst_of
from bnfold.parity.whole import Ledger, Run, rounding_model

__all__ = ["Progress", "verify"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def verify(
    *,
    unfolded: ModelProto,
    folded: ModelProto,
    regions: Sequence[Region] = (),
    original: Runner | None = None,
    level: str = "full",
    seed: int = 0,
    feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]] | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Prove, or fail to prove, that a folded model computes what the original computes.

    Args:
        unfolded: The model before folding, in inference mode.
        folded: The model after it.
        regions: What folding changed.
        original: Runs the original program; None where the unfolded model is the original.
        level: ``"full"``, or ``"fast"``: two probes instead of twelve, and two instead of six a fold.
        seed: Of everything random; the same seed gives the same probes.
        feeds: The user's own inputs; they come first.
        progress: Told what is going on.
    """
    started = time.perf_counter()
    tell: Progress = progress or (lambda _what, _done, _of: None)
    static = check_static(unfolded, folded)
    if any(finding.check in {"inputs", "outputs", "onnx.checker"} for finding in static):
        return Parity(Verdict.FAIL, level, static=static, seconds=time.perf_counter() - started)
    try:
        with halved():
            parity = _verify(_Task(unfolded, folded, tuple(regions), original, level, seed, tuple(feeds or ()), tell))
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
    level: str
    seed: int
    given: tuple[Mapping[str, Array], ...]
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
        return self.of(name) in _FLOATS


def _verify(task: _Task) -> Parity:
    unfolded, original = task.unfolded, task.original
    elements = _Elements(unfolded)
    outputs = tuple(value.name for value in unfolded.graph.output)
    decisions = {
        name: decision_behind(unfolded, name, elements.floating) for name in outputs if not elements.floating(name)
    }
    computed = [name for item in decisions.values() if item is not None for name in item.values]
    fixed = [name for item in decisions.values() if item is not None for name in item.fixed]
    stand = Stand(
        inputs=inputs_of(unfolded),
        unfolded=Session(unfolded, also=tuple(dict.fromkeys(computed))),
        folded=_folded_session(task.folded),
        original=original,
        reference=Reference(unfolded, foreign=run_node),
        rounded=rounding_model(unfolded, task.folded),
        outputs=outputs,
        decisive=tuple(dict.fromkeys([*computed, *fixed])),
        wanted=_entering(task.regions) if task.regions else None,
    )
    sizes, tried = _accepted_sizes(stand, task.seed)
    probes = draw_probes(stand.inputs, sizes, level=task.level, seed=task.seed, given=task.given)
    folding = {name: Ledger(name, decisions.get(name)) for name in outputs}
    translation = {name: Ledger(name, decisions.get(name)) for name in outputs} if original else {}
    records, amplification, checks = [], math.nan, list[RegionCheck]()
    growth: dict[str, float] = {}
    once: Mapping[str, Array] = {}
    for number, probe in enumerate(probes):
        task.tell("running probes", number, len(probes))
        records.append(_record(probe, used=False))
        run = stand.baseline(probe.name, probe.feeds, base=None if number or task.given else tried)
        if run is None:
            continue  # sizes that the model does not take
        if not any(record.used for record in records):
            amplification, growth = _amplification(stand, probe, run, quick=task.level != "full")
            checks = _check_regions(stand, task, elements)
            stand.lost = any(check.verdict is Verdict.FAIL for check in checks)
        records[-1] = _record(probe, used=True)
        run = replace(run, amplification=growth)
        returned = _compare(stand, probe, run, folding, stand.folded_run)
        once = once or returned
        if original is not None:
            _compare(stand, probe, run, translation, stand.original_run)
    if not any(record.used for record in records):
        raise UnsupportedOpError(
            "the unfolded model runs on none of the probes", hint="Verify with arrays of your own."
        )
    task.tell("running probes", len(probes), len(probes))
    compared = tuple(ledger.result() for ledger in folding.values())
    translated = tuple(ledger.result() for ledger in translation.values())
    laws = _laws(stand, probes, records, compared, once)
    return Parity(
        verdict=_overall(compared, translated, checks, laws),
        level=task.level,
        regions=tuple(checks),
        folding=compared,
        translation=translated,
        laws=laws,
        amplification=amplification,
        probes=tuple(records),
        engines=(stand.unfolded.engine, stand.folded.engine),
    )


_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

Candidate = Callable[[Mapping[str, Array]], Mapping[str, Array] | None]


def _folded_session(folded: ModelProto) -> Session:
    try:
        return Session(folded)
    except BnfoldError as error:
        raise ParityError(f"the folded model cannot be loaded: {error}", hint="Report the model.") from error


def _accepted_sizes(stand: Stand, seed: int) -> tuple[Sizes, Mapping[str, Array] | None]:
    """Return the first choice of the free axes that the unfolded model runs with, and what it returned."""
    first, refusal = None, ""
    for sizes in sizes_to_try(stand.inputs):
        first = sizes if first is None else first
        try:
            tried = stand.unfolded.run(draw_probes(stand.inputs, sizes, level="fast", seed=seed)[0].feeds)
        except BnfoldError as error:
            refusal = refusal or str(error)
            continue
        return sizes, tried
    if first is None or not stand.inputs:
        return {}, None
    raise UnsupportedOpError(
        f"no size of the free axes was found that the model takes: {refusal}", hint="Verify with arrays of your own."
    )


def _record(probe: Probe, *, used: bool) -> ProbeRecord:
    shapes = tuple((name, tuple(value.shape)) for name, value in probe.feeds.items())
    return ProbeRecord(probe.name, probe.origin, shapes, used)


def _compare(
    stand: Stand, probe: Probe, run: Run, ledgers: Mapping[str, Ledger], candidate: Candidate
) -> Mapping[str, Array]:
    """Give one probe's outputs to the ledgers of one comparison; return the candidate's outputs."""
    value = candidate(probe.feeds)
    if value is None:
        for ledger in ledgers.values():
            ledger.doubt = stand.refusal
        return {}
    run = replace(run, candidate=value)
    memory: dict[int, Run | None] = {}

    def redraw(look: int) -> Run | None:
        if stand.lost:
            return None
        if look not in memory:
            feeds = jittered(probe.feeds, 1000 + look)
            moved = any(not np.array_equal(feeds[name], array) for name, array in probe.feeds.items())
            drawn = stand.baseline(probe.name, feeds, look + 1) if moved else None
            again = None if drawn is None else candidate(feeds)
            memory[look] = None
            if drawn is not None and again is not None:
                memory[look] = replace(drawn, candidate=again, amplification=run.amplification)
        return memory[look]

    for name, ledger in ledgers.items():
        if name not in value:
            ledger.doubt = "the original program does not return it"
            continue
        ledger.add(run, redraw)
    return value


def _amplification(stand: Stand, probe: Probe, run: Run, *, quick: bool) -> tuple[float, dict[str, float]]:
    """Return how a relative change of the inputs grows, and what a last-place change does to each output.

    The quick way sees it in float32, where each run's own rounding comes on top.
    """
    feeds = jittered(probe.feeds, 999)
    before = after = 0.0
    for name, value in probe.feeds.items():
        if computes_with(value):
            wide = value.astype(np.float64)
            before += float((wide * wide).sum())
            after += float(((feeds[name].astype(np.float64) - wide) ** 2).sum())
    if not after or not before:
        return math.nan, {}
    moved, truth = (stand.unfolded.run(feeds), run.unfolded) if quick else (stand.truth(feeds), run.reference)
    growth = {}
    for name in stand.outputs:
        value, reference = moved[name], np.asarray(truth[name])
        if np.shape(value) == np.shape(reference) and roundoff(np.asarray(value).dtype):
            growth[name] = match(value, reference.astype(np.float64)).errors.whole
    return max(growth.values(), default=math.nan) / math.sqrt(after / before), growth


def _check_regions(stand: Stand, task: _Task, elements: _Elements) -> list[RegionCheck]:
    def check(region: Region) -> RegionCheck:
        values = [
            {name: _stored(visit[name], elements.of(name)) for name in region.inputs}
            for visit in stand.captured.get(region.scope, ())
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
        return value.astype(helper.tensor_dtype_to_np_dtype(element if element in _FLOATS else TensorProto.FLOAT))


def _laws(
    stand: Stand,
    probes: Sequence[Probe],
    records: Sequence[ProbeRecord],
    compared: Sequence[Comparison],
    once: Mapping[str, Array],
) -> tuple[Law, ...]:
    """Try the laws on the first probe, for which the folded model's outputs are known already."""
    used = [probe for probe, record in zip(probes, records, strict=True) if record.used]
    first = used[0].feeds
    noise = max((item.baseline for item in compared if item.kind == "float" and item.verdict.passed), default=0.0)
    other = jittered({name: turned(value) for name, value in first.items()}, 998)
    return (
        batch_independence(stand.folded_run, stand.inputs, first, other, alone=once, noise=noise),
        determinism(stand.folded_run, first, once),
    )


def _overall(
    folding: Sequence[Comparison],
    translation: Sequence[Comparison],
    regions: Sequence[RegionCheck],
    laws: Sequence[Law],
) -> Verdict:
    verdicts = [
        *(item.verdict for item in folding),
        *(item.verdict for item in translation),
        *(item.verdict for item in regions),
        *(item.verdict for item in laws),
    ]
    if not all(verdict.passed for verdict in verdicts):
        return worst_of(verdicts)
    floats = [item for item in folding if item.kind == "float"]
    better = regions and floats and all(item.verdict is Verdict.PASS_MORE_ACCURATE for item in floats)
    return Verdict.PASS_MORE_ACCURATE if better else Verdict.PASS
