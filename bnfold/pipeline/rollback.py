"""Taking back the fold that is to blame, and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold import fold as folding
from bnfold.errors import BnfoldError
from bnfold.fold import FoldPlan
from bnfold.parity.verdict import Parity, Suspect, Verdict
from bnfold.report import RolledBack

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Judge", "first_wrong", "to_take_back"]

Judge = Callable[["ModelProto"], Parity]
"""Verifies a folded model as a whole, against the unfolded one, on the same inputs as before."""

_U = 2.0**-24
_MOST = 16
"""Folds that are taken back one after another before it is no longer one fold's fault."""


def to_take_back(
    model: ModelProto, plan: FoldPlan, proof: Parity, judge: Judge, earlier: Sequence[RolledBack]
) -> tuple[RolledBack, ...]:
    """Return what has to be taken back before the folded model is verified again; nothing where that cannot help.

    What failed its own check goes first. Where a whole model is wrong although every fold passes its own, it is the
    fold that the first wrong value accuses; where none is accused, the last of the shortest part of the plan that goes
    wrong.

    Args:
        model: The unfolded model.
        plan: What was folded.
        proof: What verifying it has found.
        judge: Verifies other parts of the plan.
        earlier: What has been taken back already.
    """
    gone = {name for piece in earlier for name in piece.sources}
    pieces = tuple(
        RolledBack(region.sources, region.eta, region.limit, region.detail)
        for region in proof.failed_regions
        if not gone.issuperset(region.sources)
    )
    whole = proof.verdict is Verdict.FAIL and not proof.failed_regions and proof.blames in {"folding", ""}
    if pieces or not whole or len(earlier) >= _MOST:
        return pieces
    if proof.suspect is not None and not gone.issuperset(proof.suspect.sources):
        return (_accused(proof.suspect),)
    wrong = first_wrong(model, plan, judge)
    if wrong is None:
        return ()
    source, found = wrong
    if source in gone:
        return ()
    detail = f"with it and what was folded before it, the whole is wrong: {found.summary.partition(': ')[2]}"
    shown = max(found.folding, key=lambda item: item.closest, default=None)
    eta, limit = (0.0, 0.0) if shown is None else (shown.candidate / _U, shown.limit / _U)
    return (RolledBack((source,), eta, limit, detail),)


def _accused(suspect: Suspect) -> RolledBack:
    detail = (
        f"it passes its own check, but {suspect.value} is the first value of the whole model that is off: error "
        f"{suspect.candidate:.2g} against float64, {suspect.limit:.2g} allowed, on the probe {suspect.probe!r}"
    )
    return RolledBack(suspect.sources, suspect.candidate / _U, suspect.limit / _U, detail)


def first_wrong(model: ModelProto, plan: FoldPlan, judge: Judge) -> tuple[str, Parity] | None:
    """Bisect over the beginnings of a plan; return the fold with which it goes wrong, and what verifying found then.

    None where already the model without any fold is judged wrong, or where the whole plan is not.

    Args:
        model: The unfolded model.
        plan: What was folded, in order.
        judge: Verifies a part of it.
    """

    def judged(count: int) -> Parity:
        try:
            part = folding.apply(model, replace(plan, folds=plan.folds[:count])).model
        except BnfoldError as error:
            return Parity(Verdict.FAIL, "full", detail=str(error))
        return judge(part)

    right, wrong = 0, len(plan.folds)
    if not wrong or judged(0).verdict is Verdict.FAIL:
        return None
    found = judged(wrong)
    if found.verdict is not Verdict.FAIL:
        return None
    while wrong - right > 1:
        middle = (right + wrong) // 2
        seen = judged(middle)
        if seen.verdict is Verdict.FAIL:
            wrong, found = middle, seen
        else:
            right = middle
    return plan.folds[wrong - 1].subject.name, found
