"""From plans and refusals to the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold import fold as folding
from bnfold.fold import Fold, FoldPlan, Step, Subject
from bnfold.fold import Kept as Stays
from bnfold.graph.functions import key_of, obstacles
from bnfold.graph.overridable import freeze, overridable
from bnfold.pipeline.measure import node_outputs
from bnfold.report import Absorbed, Affine, BatchNorm, Kept, RolledBack
from bnfold.rules import BATCH_NORM, Reason, Refusal

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.graph.shapes import GraphPath

__all__ = ["affines_of", "batch_norms_of"]

_MOST_NODES = 20_000
"""Nodes up to which another plan is made only to give advice."""

_FEWEST = "Give --fold fewest: it folds too, and onnxruntime takes longer for what stands in its place."
_FREEZE = "Give --freeze-initializers: weights that are also inputs of the graph are taken as constants then."


def batch_norms_of(model: ModelProto, plan: FoldPlan, rolled_back: Sequence[RolledBack] = ()) -> tuple[BatchNorm, ...]:
    """Return every batch norm of a model once, in the order of the graph.

    Args:
        model: The unfolded model.
        plan: What becomes of its batch norms.
        rolled_back: What was folded, found wanting, and put back.
    """
    folds: dict[tuple[GraphPath, str], list[Fold]] = {}
    for fold in plan.folds:
        if fold.subject.op_type == BATCH_NORM:
            folds.setdefault((fold.graph, fold.subject.output), []).append(fold)
    rows = [_folded(parts) for parts in folds.values()]
    details = {name: piece.detail for piece in rolled_back for name in piece.sources}
    advice = _Advice(model, plan)
    for kept in plan.kept:
        subject, taken_back = kept.subject, kept.subject.name in details
        refusal = Refusal(Reason.UNVERIFIED, details[subject.name]) if taken_back else kept.refusal
        row = BatchNorm(
            name=subject.name,
            output=subject.output,
            channels=subject.channels or None,
            outcome="rolled-back" if taken_back else "kept",
            kept=advice.on(refusal, kept),
            also=() if taken_back else tuple(advice.on(other, kept) for other in kept.also),
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


def _folded(parts: Sequence[Fold]) -> BatchNorm:
    """Return the row of a batch norm; what it left behind may have been folded after it."""
    subject, steps = parts[0].subject, [step for part in parts for step in part.steps]
    into = tuple(dict.fromkeys(_into(steps)))
    return BatchNorm(subject.name, subject.output, subject.channels or None, "folded", parts[-1].form, into)


def _into(steps: Sequence[Step]) -> tuple[Absorbed, ...]:
    return tuple(Absorbed(step.node, step.op_type, step.rule, str(step.side)) for step in steps)


class _Advice:
    """What to tell the owner of a model about what stays in it."""

    def __init__(self, model: ModelProto, plan: FoldPlan) -> None:
        self._model, self._plan = model, plan
        self._staying_frozen: frozenset[str] | None = None
        keys = {f"{function.domain}::{function.name}": key_of(function) for function in model.functions}
        reasons = obstacles(model) if keys else {}
        self._obstacles = {name: reasons[key] for name, key in keys.items() if key in reasons}

    def on(self, refusal: Refusal, kept: Stays) -> Kept:
        """Return the row of a refusal, with what is known of this model beyond the rule."""
        subject = kept.subject
        reason, detail, remedy = refusal.reason, refusal.detail, refusal.reason.remedy
        if reason is Reason.INSIDE_FUNCTION:
            if "*" in self._plan.keep:
                reason = Reason.KEPT_ON_REQUEST
                return Kept(reason.id, reason.says, f"{subject.name} was named", reason.remedy)
            obstacle = self._obstacles.get(subject.scope[0] if subject.scope else "", "")
            if obstacle:
                detail = f"{detail}, and cannot be taken out of it: {obstacle}"
                remedy = "Export the model and its functions with one opset, or without functions of its own."
        elif reason is not Reason.KEPT_ON_REQUEST:
            # What one of bnfold's own options changes is told before what the model's owner could.
            if self._folds_frozen(subject):
                remedy = _FREEZE
            elif any(other.unless == "fewest" for other in (kept.refusal, *kept.also)):
                remedy = _FEWEST
        return Kept(reason.id, reason.says, detail, remedy)

    def _folds_frozen(self, subject: Subject) -> bool:
        """Tell whether a batch norm folds once no initializer can be overridden; of huge graphs nobody asks."""
        if self._staying_frozen is None:
            if not overridable(self._model) or sum(1 for _output in node_outputs(self._model)) > _MOST_NODES:
                return False
            plan = folding.plan(freeze(self._model), keep=self._plan.keep)
            self._staying_frozen = frozenset(kept.subject.output for kept in plan.kept)
        return subject.output not in self._staying_frozen
