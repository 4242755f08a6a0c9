"""Folding: follow each affine map to the layers that can take it in, plan, then apply."""

from bnfold.fold.apply import Folded, apply
from bnfold.fold.plan import Fold, FoldPlan, Kept, Subject, plan
from bnfold.fold.step import Step

__all__ = ["Fold", "FoldPlan", "Folded", "Kept", "Step", "Subject", "apply", "plan"]
