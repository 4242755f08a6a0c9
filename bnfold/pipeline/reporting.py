"""The report of a run, from what its steps have found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold.parity.layerwise import Layerwise
from bnfold.parity.verdict import Parity
from bnfold.pipeline.account import affines_of, batch_norms_of
from bnfold.pipeline.measure import measure, versions
from bnfold.pipeline.surroundings import with_surroundings
from bnfold.report import Command, OwnAnswer, Paired, Report, RolledBack, Signature, Source, Verdict

if TYPE_CHECKING:
    import onnx

    from bnfold.fold import FoldPlan
    from bnfold.pipeline.options import Options
    from bnfold.pipeline.reading import Clock, Reading

__all__ = ["report_of"]


def report_of(
    command: Command,
    source: Reading,
    options: Options,
    clock: Clock,
    *,
    plan: FoldPlan,
    proof: Parity | None = None,
    after: onnx.ModelProto | None = None,
    rolled_back: tuple[RolledBack, ...] = (),
    other: Source | None = None,
    paired: tuple[Paired, ...] = (),
    reproduction: str = "",
    layers: Layerwise | None = None,
    own: OwnAnswer | None = None,
) -> Report:
    """Return the report of a run.

    Args:
        command: What was asked for.
        source: What was read.
        options: How it was asked for.
        clock: What took how long.
        plan: What was folded, or would be.
        proof: What verifying found; None where nothing was verified.
        after: The folded model, or the one that was compared.
        rolled_back: What was folded and put back.
        other: What was compared, of ``verify``.
        paired: What the two call differently.
        reproduction: The folder with the piece that shows what failed.
        layers: The error of every value inside.
        own: Whether the artifact agrees by itself.
    """
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
        paired=paired,
        reproduction=reproduction,
        layers=layers,
        own=own,
    )


def _verdict(proof: Parity | None, rolled_back: Sequence[RolledBack]) -> Verdict:
    if proof is None:
        return "not-verified"
    if proof.verdict.passed and rolled_back:
        return "rolled-back"
    verdict: Verdict = proof.verdict.value
    return verdict
