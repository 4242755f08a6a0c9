"""From plans and refusals to the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold.fold import Fold, FoldPlan, Step
from bnfold.pipeline.measure import node_outputs
from bnfold.report import Absorbed, Affine, BatchNorm, Kept, RolledBack
from bnfold.rules import BATCH_NORM, Reason, Refusal

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["affines_of", "batch_norms_of"]


def batch_norms_of(model: ModelProto, plan: FoldPlan, rolled_back: Sequence[RolledBack] = ()) -> tuple[BatchNorm, ...]:
    """Return every batch norm of a model once, in the order of the graph.

    Args:
        model: The unfolded model.
        plan: What becomes of its batch norms.
        rolled_back: What was folded, found wanting, and put back.
    """
    rows = [_folded(fold) for fold in plan.folds if fold.subject.op_type == BATCH_NORM]
    details = {name: piece.detail for piece in rolled_back for name in piece.sources}
    for kept in plan.kept:
        subject, taken_back = kept.subject, kept.subject.name in details
        refusal = Refusal(Reason.UNVERIFIED, details[subject.name]) if taken_back else kept.refusal
        row = BatchNorm(
            name=subject.name,
            output=subject.output,
            channels=subject.channels or None,
            outcome="rolled-back" if taken_back else "kept",
            kept=_kept(refusal),
            also=() if taken_back else tuple(_kept(other) for other in kept.also),
        )
        rows.append(row)
    places = {output: place for place, output in enumerate(node_outputs(model))}
    return tuple(sorted(rows, key=lambda row: places.get(row.output, len(places))))


def affines_of(plan: FoldPlan) -> tuple[Affine, ...]:
    """Return the constant affines that a plan folds."""
    return tuple(
        Affine(fold.subject.name, fold.subject.op_type, fold.subject.output, _into(fold.steps))
        for fold in plan.folds
        if fold.subject.op_type != BATCH_NORM
    )


def _folded(fold: Fold) -> BatchNorm:
    subject = fold.subject
    return BatchNorm(subject.name, subject.output, subject.channels or None, "folded", into=_into(fold.steps))


def _into(steps: tuple[Step, ...]) -> tuple[Absorbed, ...]:
    return tuple(Absorbed(step.node, step.op_type, step.rule, str(step.side)) for step in steps)


def _kept(refusal: Refusal) -> Kept:
    reason = refusal.reason
    return Kept(reason.id, reason.says, refusal.detail, reason.remedy)
