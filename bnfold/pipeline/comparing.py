"""Comparing two artifacts that share a signature, whatever their formats."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bnfold import fold as folding
from bnfold import parity
from bnfold.frontends.loaded import Array, Runner
from bnfold.graph.ports import renamed
from bnfold.parity.verdict import Parity, worst_of
from bnfold.pipeline.checks import check_batch
from bnfold.pipeline.layers import layers_of
from bnfold.pipeline.metrics import OwnMetric
from bnfold.pipeline.options import DEFAULTS, Options, Progress
from bnfold.pipeline.pairing import pairs
from bnfold.pipeline.reading import Clock, given_of, level_of, read
from bnfold.pipeline.reporting import report_of
from bnfold.pipeline.reproduction import write_reproduction
from bnfold.report import Paired, Report

__all__ = ["verify"]


def verify(
    original: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    options: Options = DEFAULTS,
    *,
    progress: Progress | None = None,
) -> Report:
    """Compare what two artifacts compute, both in inference mode.

    Args:
        original: What is right by definition; anything that ``convert`` takes.
        candidate: What is judged.
        options: What the frontends need to know, and how to compare.
        progress: Told the step that runs, and how much of it is done.

    Returns:
        The report of the comparison: its ``verdict`` is data here, and raises nothing.

    Raises:
        SourceError: If one of the two cannot be read, or if they do not have the same inputs and outputs.
        OSError: If a file cannot be read.
    """
    clock = Clock(progress)
    source = read(Path(original), options, clock)
    other = read(Path(candidate), options, clock)
    paired = pairs(source.model, other.model)
    judged = renamed(other.model, {pair.other: pair.name for pair in paired}) if paired else other.model
    run = None if other.loaded.run is None else _renamed(other.loaded.run, paired)
    check_batch(options, source.model)
    given = given_of(options, source)
    metric = None if options.metric is None else OwnMetric(options.metric, given)
    feeds = tuple(item.feeds for item in given)
    level = level_of(options, source.model) or "full"
    own: Parity | None = None
    with clock.step("verify") as done:
        proof = parity.verify(
            unfolded=source.model,
            folded=judged,
            original=source.loaded.run,
            layers=source.loaded.layers,
            level=level,
            seed=options.seed,
            feeds=feeds,
            batches=options.batch,
            metric=metric,
            apart=True,
            progress=done,
        )
        if metric is not None:
            metric.require()
        if run is not None:
            # The candidate, too, has an original program: what was compared must be what that computes.
            own = parity.verify(
                unfolded=judged,
                folded=judged,
                original=run,
                level=level,
                seed=options.seed,
                feeds=feeds,
                batches=options.batch,
                progress=done,
            )
            if not own.verdict.passed:
                said = f"{other.account.path}: {own.summary.partition(': ')[2]}"
                proof = replace(proof, verdict=worst_of([proof.verdict, own.verdict]), detail=said)
    written = None
    if options.repro is not None and proof.failed:
        from bnfold.parity.reproduce import Case

        case = Case(
            unfolded=source.model,
            folded=judged,
            proof=proof,
            original=source.loaded.run,
            seed=options.seed,
            feeds=feeds,
            batches=options.batch,
        )
        if proof.detail and own is not None and own.failed:  # it is the second one's own translation
            case = replace(case, unfolded=judged, proof=own, original=run)
        written = write_reproduction(case, options.repro)
    return report_of(
        "verify",
        source,
        options,
        clock,
        plan=folding.plan(source.model, keep=("*",)),
        proof=proof,
        after=other.model,
        other=other.account,
        paired=paired,
        reproduction="" if written is None else str(options.repro),
        layers=layers_of(
            source.model,
            folding.Folded(judged, ()),
            proof=proof,
            options=options,
            feeds=feeds,
            step=clock.step,
            original=source.loaded.layers,
        ),
    )


def _renamed(run: Runner, paired: Sequence[Paired]) -> Runner:
    """Return a program that is fed, and that answers, under the names of the first model."""
    theirs = {pair.name: pair.other for pair in paired}
    ours = {pair.other: pair.name for pair in paired if pair.kind == "output"}

    def called(feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = run({theirs.get(name, name): value for name, value in feeds.items()})
        return {ours.get(name, name): value for name, value in found.items()}

    return called
