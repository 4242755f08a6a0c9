"""Where the rooms meet: read, put in inference mode, fold, prove, account for it."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold import fold as folding
from bnfold import parity
from bnfold.errors import UnknownFormatError
from bnfold.frontends import sniff
from bnfold.frontends.loaded import Array
from bnfold.parity.verdict import Parity
from bnfold.pipeline.checks import check_batch, check_keep, check_numbers
from bnfold.pipeline.conversion import Conversion, stamp
from bnfold.pipeline.feeds import Given
from bnfold.pipeline.layers import layers_of
from bnfold.pipeline.local_functions import inline_batch_norms
from bnfold.pipeline.metrics import OwnMetric
from bnfold.pipeline.options import DEFAULTS, Options, Progress
from bnfold.pipeline.own_answer import own_answer
from bnfold.pipeline.reading import Clock, Reading, given_of, level_of, read
from bnfold.pipeline.reporting import report_of
from bnfold.pipeline.reproduction import write_reproduction
from bnfold.pipeline.rollback import to_take_back
from bnfold.report import Command, Report, RolledBack

if TYPE_CHECKING:
    import onnx

    from bnfold.parity.reproduce import Case

__all__ = ["convert", "fold_onnx", "inspect"]

_EVERYTHING = ("*",)


def convert(
    path: str | os.PathLike[str],
    options: Options = DEFAULTS,
    *,
    progress: Progress | None = None,
    unverified: bool = False,
) -> Conversion:
    """Turn a trained network into a folded ONNX model in inference mode, and prove that it computes the same.

    Args:
        path: An ONNX file, a Keras file, a SavedModel, a TF1 frozen graph, or a TF1 checkpoint.
        options: What to do and how to prove it.
        progress: Told the step that runs, and how much of it is done.
        unverified: Hand the result back even where it was refuted or nothing could be told; its report says so.

    Raises:
        SourceError: If the artifact cannot be converted.
        ParityError: If the result does not compute what the original computes.
        InconclusiveError: If the comparison cannot tell.
        OSError: If a file cannot be read.
    """
    conversion = _converted("convert", Path(path), options, progress)
    return conversion if unverified else conversion.require()


def fold_onnx(
    path: str | os.PathLike[str],
    options: Options = DEFAULTS,
    *,
    progress: Progress | None = None,
    unverified: bool = False,
) -> Conversion:
    """Do the same as ``convert`` for an ONNX file, and refuse anything else.

    Args:
        path: An ONNX file.
        options: What to do and how to prove it.
        progress: Told the step that runs, and how much of it is done.
        unverified: Hand the result back even where it was refuted or nothing could be told; its report says so.

    Raises:
        SourceError: If it is no ONNX file, or one that cannot be folded.
        ParityError: If the result does not compute what the original computes.
        InconclusiveError: If the comparison cannot tell.
        OSError: If a file cannot be read.
    """
    found = sniff.sniff(Path(path))
    if found is not sniff.Format.ONNX:
        raise UnknownFormatError(
            f"{path} is no ONNX file but a {found.described}", hint="Use bnfold convert, which reads it."
        )
    conversion = _converted("fold", Path(path), options, progress)
    return conversion if unverified else conversion.require()


def inspect(path: str | os.PathLike[str], options: Options = DEFAULTS, *, progress: Progress | None = None) -> Report:
    """Say what an artifact is, what its signature is, and what would become of every batch norm.

    Args:
        path: Anything that ``convert`` takes.
        options: What to leave as it is; nothing is verified.
        progress: Told the step that runs, and how much of it is done.

    Raises:
        SourceError: If the artifact cannot be converted.
        OSError: If a file cannot be read.
    """
    clock = Clock(progress)
    source = read(Path(path), options, clock)
    keep = _EVERYTHING if options.fold == "none" else options.keep
    with clock.step("plan"):
        source = _without_functions(source, keep, options)
        plan = folding.plan(source.model, keep=keep, fewest=options.fold == "fewest")
        check_keep(plan, options.keep)
    return report_of("inspect", source, options, clock, plan=plan)


def _without_functions(source: Reading, keep: Collection[str], options: Options) -> Reading:
    """Replace the model's own functions by their nodes where that lets a batch norm fold."""
    if keep == _EVERYTHING:
        return source
    model = inline_batch_norms(source.model, keep, fewest=options.fold == "fewest")
    return source if model is source.model else replace(source, model=model, whole=source.model)


@dataclass(frozen=True, slots=True)
class _Proving:
    """How the folded models of one conversion are verified, each on the same inputs."""

    source: Reading
    options: Options
    given: tuple[Given, ...]
    metric: OwnMetric | None
    clock: Clock

    def prove(self, folded: folding.Folded) -> Parity | None:
        """Verify a folded model; None where nobody asked for it."""
        level = level_of(self.options, self.source.model)
        if level is None:
            return None
        with self.clock.step("verify") as done:
            proof = parity.verify(
                unfolded=self.source.model,
                folded=folded.model,
                regions=folded.regions,
                original=self.source.original(),
                inside=self.source.inside(),
                layers=self.source.loaded.layers,
                level=level,
                seed=self.options.seed,
                feeds=self._feeds,
                batches=self.options.batch,
                metric=self.metric,
                progress=done,
            )
        if self.metric is not None:
            self.metric.require()
        return proof

    def judge(self, folded: onnx.ModelProto) -> Parity:
        """Verify a model that holds a part of the folds, as a whole."""
        with self.clock.step("look for the fault") as done:
            return parity.verify(
                unfolded=self.source.model,
                folded=folded,
                level=level_of(self.options, self.source.model) or "full",
                seed=self.options.seed,
                feeds=self._feeds,
                batches=self.options.batch,
                progress=done,
            )

    def case(self, folded: folding.Folded, proof: Parity) -> Case:
        """Return what somebody needs to know to reproduce what failed."""
        from bnfold.parity.reproduce import Case

        return Case(
            unfolded=self.source.model,
            folded=folded.model,
            proof=proof,
            regions=folded.regions,
            original=self.source.original(),
            inside=self.source.inside(),
            seed=self.options.seed,
            feeds=self._feeds,
            batches=self.options.batch,
        )

    @property
    def _feeds(self) -> tuple[Mapping[str, Array], ...]:
        return tuple(item.feeds for item in self.given)


def _converted(command: Command, path: Path, options: Options, progress: Progress | None) -> Conversion:
    clock = Clock(progress)
    source = read(path, options, clock)
    check_batch(options, source.model)
    given = given_of(options, source)
    metric = None if options.metric is None else OwnMetric(options.metric, given)
    keep = _EVERYTHING if options.fold == "none" else options.keep
    rolled_back: tuple[RolledBack, ...] = ()
    proving = _Proving(source, options, given, metric, clock)
    case: Case | None = None
    while True:
        with clock.step("fold"):
            source = source if rolled_back else _without_functions(source, keep, options)
            put_back = (glob.escape(name) for piece in rolled_back for name in piece.sources)
            plan = folding.plan(source.model, keep=(*keep, *put_back), fewest=options.fold == "fewest")
            check_keep(plan, options.keep)
            check_numbers(plan, path)
            folded = folding.apply(source.model, plan, outside=options.request.outside)
        proving = replace(proving, source=source)
        proof = proving.prove(folded)
        if proof is None:
            break
        if options.repro is not None and case is None and proof.failed:
            case = proving.case(folded, proof)
        wanting = to_take_back(source.model, plan, proof, proving.judge, rolled_back)
        if not wanting:
            break
        # What is to blame is put back, alone, and everything is proven again without it.
        rolled_back += wanting
    own = None
    if proof is not None:
        with clock.step("its own answer") if source.loaded.own is not None else nullcontext():
            own = own_answer(source, given, options.seed)
    written = None if case is None or options.repro is None else write_reproduction(case, options.repro)
    report = report_of(
        command,
        source,
        options,
        clock,
        plan=plan,
        proof=proof,
        after=folded.model,
        rolled_back=rolled_back,
        reproduction="" if written is None else str(options.repro),
        layers=layers_of(
            source.model,
            folded,
            proof=proof,
            options=options,
            feeds=tuple(item.feeds for item in given),
            step=clock.step,
        ),
        own=own,
    )
    stamp(folded.model, report)
    return Conversion(folded.model, report)
