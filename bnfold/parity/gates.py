"""Verification: gate 0, gate A, gates B and C for translation and for folding, and the laws, over shared runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.errors import BnfoldError, ParityError, UnsupportedOpError
from bnfold.graph.region import Region
from bnfold.parity.behaviour import Figures, Metric, class_axes
from bnfold.parity.decisions import decisions_of, opened, within
from bnfold.parity.feeds import Probe, Sizes, draw_probes
from bnfold.parity.inputs import inputs_of
from bnfold.parity.kernels import Array
from bnfold.parity.lanes import LANES, halved
from bnfold.parity.laws import batch_independence, determinism
from bnfold.parity.localise import Inside
from bnfold.parity.margins import Decision, decision_behind
from bnfold.parity.original_layers import LayerReader
from bnfold.parity.probing import Elements, LawRuns, Progress, Task, Trials
from bnfold.parity.reference import Reference, Scope
from bnfold.parity.rewritten import Rewritten
from bnfold.parity.run import Session, run_node
from bnfold.parity.search import Search
from bnfold.parity.sides import Side
from bnfold.parity.stand import Runner, Stand
from bnfold.parity.static import check_static
from bnfold.parity.trials import accepted_sizes, in_common
from bnfold.parity.verdict import (
    Agreement,
    Comparison,
    Law,
    Measured,
    Parity,
    RegionCheck,
    Verdict,
    worst_of,
)
from bnfold.parity.whole import rounding_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from onnx import ModelProto

__all__ = ["Progress", "verify"]


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
            task = Task(
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


def _verify(task: Task, *, closed: bool = False) -> Parity:
    """Verify; a second time with loops as they are, where some probe shows that they cannot tell what they choose."""
    unfolded, original = task.unfolded, task.original
    elements = Elements(unfolded)
    outputs = tuple(value.name for value in unfolded.graph.output)
    decisions = {
        name: decision_behind(unfolded, name, elements.floating) for name in outputs if not elements.floating(name)
    }
    stand, sizes, tried = _prepared(task, elements, decisions, closed=closed)
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
    lanes = ThreadPoolExecutor(LANES)
    try:
        trials = Trials(task, stand, elements, outputs, probes, folding, translation, rewritten, figures, lanes)
        for bundle in trials.bundles():
            trials.run(bundle, tried)
        trials.settle()
        if stand.reference.model is task.unfolded or all(record.used for record in trials.records):
            return _concluded(trials)
    finally:
        lanes.shutdown(cancel_futures=True)
    return _verify(task, closed=True)


def _concluded(trials: Trials) -> Parity:
    """Say what came of everything, and look for what is to blame."""
    task, stand, elements = trials.task, trials.stand, trials.elements
    folding, translation, checks = trials.folding, trials.translation, trials.checks
    used = [probe for probe, record in zip(trials.probes, trials.records, strict=True) if record.used]
    if not used:
        raise UnsupportedOpError(
            "the unfolded model runs on none of the probes", hint="Verify with arrays of your own."
        )
    task.tell("running probes", len(trials.probes), len(trials.probes))
    compared, translated = folding.comparisons(), translation.comparisons()
    behaviour = (*folding.agreements(), *translation.agreements())
    measured = () if trials.figures is None else trials.figures.results()
    laws = _laws(trials, opened(task.folded, elements.floating), used[0].feeds, compared)
    wrong = not stand.lost and any(side.wrong()[0] for side in (folding, translation))
    return Parity(
        verdict=_overall(compared, translated, checks, laws, (*behaviour, *measured)),
        level=task.level,
        regions=tuple(checks),
        folding=compared,
        translation=translated,
        rewritten=trials.rewritten.comparisons(),
        behaviour=behaviour,
        measured=measured,
        laws=laws,
        suspect=_search(task, stand, elements, used).suspect(folding, translation) if wrong else None,
        amplification=trials.amplified,
        probes=tuple(trials.records),
        engines=(stand.unfolded.engine, stand.folded.engine),
    )


def _search(task: Task, stand: Stand, elements: Elements, used: Sequence[Probe]) -> Search:
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
    task: Task, elements: Elements, decided: Mapping[str, Decision | None], *, closed: bool
) -> tuple[Stand, Sizes, Mapping[str, Array] | None]:
    """Return the programs, the sizes that they take, and what the unfolded one returned on them."""
    unfolded = opened(task.unfolded, elements.floating)
    if unfolded is not task.unfolded and not closed:
        try:  # a loop whose choices change their sizes from turn to turn cannot return them
            stand = _stand(task, elements, decided, unfolded, opened(task.folded, elements.floating))
            return stand, *accepted_sizes(stand, task.seed)
        except BnfoldError:
            pass
    stand = _stand(task, elements, decided, task.unfolded, task.folded)
    return stand, *accepted_sizes(stand, task.seed)


def _stand(
    task: Task,
    elements: Elements,
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
    session = Session(unfolded, also=inner)
    reference = Reference(unfolded, foreign=run_node, arrays=session.weights)
    lane = ThreadPoolExecutor(1)
    lane.submit(reference.constants.warm)  # while the folded model is loaded, and sizes are tried
    lane.shutdown(wait=False)
    return Stand(
        inputs=in_common(inputs, inputs_of(folded)) if task.apart else inputs,
        unfolded=session,
        folded=_folded_session(folded, shared),
        original=task.original,
        reference=reference,
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


def _entering(regions: Sequence[Region]) -> dict[Scope, set[str]]:
    wanted: dict[Scope, set[str]] = {}
    for region in regions:
        wanted.setdefault(region.scope, set()).update(region.inputs)
    return wanted


def _laws(
    trials: Trials, folded: ModelProto, first: Mapping[str, Array], compared: Sequence[Comparison]
) -> tuple[Law, ...]:
    """Try the laws on the first probe that says something, for which the folded model's outputs are known already."""
    stand, once = trials.stand, trials.once
    noise = max((item.baseline for item in compared if item.kind == "float" and item.verdict.passed), default=0.0)
    runs = LawRuns(stand, first, trials.lanes) if trials.law is None else trials.law
    return (
        batch_independence(
            lambda _feeds: runs.beside_another(),
            stand.inputs,
            runs.first,
            runs.other,
            alone=once,
            noise=noise,
            decisions=stand.decisions,
            exact=lambda feeds: Reference(folded, foreign=run_node).run(feeds, tuple(once)),
        ),
        determinism(lambda _feeds: runs.once_more(), runs.first, once),
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
