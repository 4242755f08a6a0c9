"""Where the rooms meet: read, put in inference mode, fold, prove, account for it."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnfold import fold as folding
from bnfold import frontends, parity
from bnfold.errors import BnfoldError, UnknownFormatError
from bnfold.fold import FoldPlan
from bnfold.frontends import sniff
from bnfold.frontends.loaded import Array, Loaded, ModeChange, Runner, TensorSpec
from bnfold.graph.overridable import freeze, overridable
from bnfold.inference import to_inference_mode
from bnfold.parity.layerwise import Layerwise
from bnfold.parity.verdict import Parity, worst_of
from bnfold.pipeline.account import affines_of, batch_norms_of
from bnfold.pipeline.checks import check_comparable, check_idle, check_keep, check_numbers
from bnfold.pipeline.conversion import Conversion, stamp
from bnfold.pipeline.feeds import load_feeds
from bnfold.pipeline.layers import layers_of
from bnfold.pipeline.local_functions import inline_batch_norms, inlined_since
from bnfold.pipeline.measure import measure, source_of, versions
from bnfold.pipeline.options import DEFAULTS, LARGE, Options, Progress
from bnfold.pipeline.surroundings import with_surroundings
from bnfold.report import Command, Inlined, Report, RolledBack, Signature, Source, Timing, Verdict

if TYPE_CHECKING:
    import onnx

__all__ = ["convert", "fold_onnx", "inspect", "verify"]

_EVERYTHING = ("*",)
_FROZEN = "asked for with --freeze-initializers"


@dataclass(frozen=True, slots=True)
class _Source:
    """An artifact in inference mode, and the original program to compare with.

    Attributes:
        loaded: What the frontend read.
        model: The model that is folded.
        mode: What was done to reach inference mode.
        account: What was read, for the report.
        whole: The model with all of its functions, where some were replaced by their nodes.
    """

    loaded: Loaded
    model: onnx.ModelProto
    mode: tuple[ModeChange, ...]
    account: Source
    whole: onnx.ModelProto | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What is left to feed in inference mode."""
        left = {value.name for value in self.model.graph.input}
        return tuple(spec for spec in self.loaded.inputs if spec.name in left)

    @property
    def inlined(self) -> tuple[Inlined, ...]:
        """The functions of the file that are nodes of the model now."""
        return inlined_since(self.loaded.model, self.model)

    def original(self) -> Runner | None:
        """Return what runs the original program; None where the model that is folded is the original itself."""
        if self.loaded.run is not None or self.whole is None:
            return self.loaded.run
        from bnfold.parity.run import Session

        # Replacing functions is a translation, and judged as one.
        try:
            return Session(self.whole).run
        except BnfoldError:
            return Session(self.whole, native=False).run


class _Clock:
    """Times the steps, and tells whoever waits which one runs."""

    def __init__(self, progress: Progress | None) -> None:
        self.timings: list[Timing] = []
        self._progress = progress

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Time a block; yields a function that takes what is done in it, how much of it, and of how much."""
        self._tell(name, None)
        started = time.perf_counter()
        yield lambda what, done, of: self._tell(f"{name}: {what}", done / of if of else None)
        self.timings.append(Timing(name, time.perf_counter() - started))

    def _tell(self, name: str, done: float | None) -> None:
        if self._progress is not None:
            self._progress(name, done)


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
    clock = _Clock(progress)
    source = _read(Path(path), options, clock)
    keep = _EVERYTHING if options.fold == "none" else options.keep
    with clock.step("plan"):
        source = _without_functions(source, keep, options)
        plan = folding.plan(source.model, keep=keep, fewest=options.fold == "fewest")
        check_keep(plan, options.keep)
    return _report("inspect", source, options, clock, plan=plan)


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
    clock = _Clock(progress)
    source = _read(Path(original), options, clock)
    other = _read(Path(candidate), options, clock)
    check_comparable(source.model, other.model)
    feeds = _feeds(options, source)
    level = _level(options, source.model) or "full"
    with clock.step("verify") as done:
        proof = parity.verify(
            unfolded=source.model,
            folded=other.model,
            original=source.loaded.run,
            level=level,
            seed=options.seed,
            feeds=feeds,
            progress=done,
        )
        if other.loaded.run is not None:
            # The candidate, too, has an original program: what was compared must be what that computes.
            own = parity.verify(
                unfolded=other.model,
                folded=other.model,
                original=other.loaded.run,
                level=level,
                seed=options.seed,
                feeds=feeds,
                progress=done,
            )
            if not own.verdict.passed:
                said = f"{other.account.path}: {own.summary.partition(': ')[2]}"
                proof = replace(proof, verdict=worst_of([proof.verdict, own.verdict]), detail=said)
    return _report(
        "verify",
        source,
        options,
        clock,
        plan=folding.plan(source.model, keep=_EVERYTHING),
        proof=proof,
        after=other.model,
        other=other.account,
        layers=layers_of(
            source.model, folding.Folded(other.model, ()), proof=proof, options=options, feeds=feeds, step=clock.step
        ),
    )


def _read(path: Path, options: Options, clock: _Clock) -> _Source:
    with clock.step("read"):
        loaded = frontends.load(path, options.request)
        check_idle(options, loaded, path)
        account = source_of(path, loaded)
    frozen: tuple[str, ...] = ()
    with clock.step("inference mode"):
        model = loaded.model
        if options.freeze_initializers:
            frozen, model = overridable(model), freeze(model)
        model, changes = to_inference_mode(model)
    mode = [ModeChange("initializer", name, "input with a default", "constant", _FROZEN) for name in frozen]
    mode += [ModeChange(c.kind, c.name, c.before, c.after, c.proof) for c in changes]
    return _Source(loaded, model, (*loaded.mode, *mode), account)


def _without_functions(source: _Source, keep: Collection[str], options: Options) -> _Source:
    """Replace the model's own functions by their nodes where that lets a batch norm fold."""
    if keep == _EVERYTHING:
        return source
    model = inline_batch_norms(source.model, keep, fewest=options.fold == "fewest")
    return source if model is source.model else replace(source, model=model, whole=source.model)


def _feeds(options: Options, source: _Source) -> Sequence[Mapping[str, Array]] | None:
    return None if options.data is None else (load_feeds(options.data, source.inputs),)


def _level(options: Options, model: onnx.ModelProto) -> Literal["full", "fast"] | None:
    if options.verify is None:
        return "fast" if measure(model).parameters > LARGE else "full"
    return None if options.verify == "off" else options.verify


def _prove(
    source: _Source,
    folded: folding.Folded,
    options: Options,
    feeds: Sequence[Mapping[str, Array]] | None,
    clock: _Clock,
) -> Parity | None:
    level = _level(options, source.model)
    if level is None:
        return None
    with clock.step("verify") as done:
        return parity.verify(
            unfolded=source.model,
            folded=folded.model,
            regions=folded.regions,
            original=source.original(),
            level=level,
            seed=options.seed,
            feeds=feeds,
            progress=done,
        )


def _converted(command: Command, path: Path, options: Options, progress: Progress | None) -> Conversion:
    clock = _Clock(progress)
    source = _read(path, options, clock)
    feeds = _feeds(options, source)
    keep = _EVERYTHING if options.fold == "none" else options.keep
    rolled_back: tuple[RolledBack, ...] = ()
    while True:
        with clock.step("fold"):
            source = source if rolled_back else _without_functions(source, keep, options)
            put_back = (glob.escape(name) for piece in rolled_back for name in piece.sources)
            plan = folding.plan(source.model, keep=(*keep, *put_back), fewest=options.fold == "fewest")
            check_keep(plan, options.keep)
            check_numbers(plan, path)
            folded = folding.apply(source.model, plan)
        proof = _prove(source, folded, options, feeds, clock)
        wanting = _wanting(proof, rolled_back)
        if not wanting:
            break
        # What failed its own check is put back, alone, and everything is proven again without it.
        rolled_back += wanting
    report = _report(
        command,
        source,
        options,
        clock,
        plan=plan,
        proof=proof,
        after=folded.model,
        rolled_back=rolled_back,
        layers=layers_of(source.model, folded, proof=proof, options=options, feeds=feeds, step=clock.step),
    )
    stamp(folded.model, report)
    return Conversion(folded.model, report)


def _wanting(proof: Parity | None, rolled_back: Sequence[RolledBack]) -> tuple[RolledBack, ...]:
    """Return the pieces whose folding failed its own check and can still be put back."""
    gone = {name for piece in rolled_back for name in piece.sources}
    failed = () if proof is None else proof.failed_regions
    return tuple(
        RolledBack(region.sources, region.eta, region.limit, region.detail)
        for region in failed
        if not gone.issuperset(region.sources)
    )


def _verdict(proof: Parity | None, rolled_back: Sequence[RolledBack]) -> Verdict:
    if proof is None:
        return "not-verified"
    if proof.verdict.passed and rolled_back:
        return "rolled-back"
    verdict: Verdict = proof.verdict.value
    return verdict


def _report(
    command: Command,
    source: _Source,
    options: Options,
    clock: _Clock,
    *,
    plan: FoldPlan,
    proof: Parity | None = None,
    after: onnx.ModelProto | None = None,
    rolled_back: tuple[RolledBack, ...] = (),
    other: Source | None = None,
    layers: Layerwise | None = None,
) -> Report:
    batch_norms = batch_norms_of(source.model, plan, rolled_back)
    if options.layerwise and command != "verify":
        batch_norms = with_surroundings(source.model, batch_norms)
    return Report(
        command=command,
        source=source.account,
        signature=Signature(source.inputs, source.loaded.outputs),
        mode=source.mode,
        batch_norms=batch_norms,
        affines=affines_of(plan),
        inlined=source.inlined,
        before=measure(source.model),
        after=None if after is None else measure(after),
        verdict=_verdict(proof, rolled_back),
        reason="" if proof is None or proof.verdict.passed else proof.summary.partition(": ")[2],
        rolled_back=rolled_back,
        parity=proof,
        other=other,
        timings=tuple(clock.timings),
        versions=versions(source.loaded.format),
        seed=options.seed,
        layers=layers,
    )
