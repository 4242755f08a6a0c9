"""How far a fold may go: what it may leave behind in the place of what it removes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from bnfold.fold.storable import element
from bnfold.rules import BATCH_NORM, Reason, Refusal

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.fold.trail import Route

__all__ = ["STAGES", "Stage", "dearer_than_batch_norm", "worth_it"]

_BLOCK = 8
"""From so many channels on, a runtime keeps images in blocks of channels."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a fold may leave behind.

    Attributes:
        form: The stable name that reports use; empty for an ordinary fold.
        new_add: Whether a batch norm may leave a new Add behind a layer that has no bias.
        apart: Whether the scale of a batch norm goes one way and its shift the other.
        chains: Whether layers right behind one another become one; nothing else is tried then.
        branches: Whether parallel branches become one convolution; nothing else is tried then.
        max_form: Whether a carrier may turn into another operation.
        scale_only: Whether a batch norm may stay as an Add of its shift.
    """

    form: str = ""
    new_add: bool = False
    apart: bool = False
    chains: bool = False
    branches: bool = False
    max_form: bool = False
    scale_only: bool = False


STAGES = (
    Stage(),
    Stage(apart=True),
    Stage(new_add=True),
    Stage(chains=True),
    Stage("branches", branches=True),
    Stage("max-form", max_form=True),
    Stage("scale-only", scale_only=True),
)
"""What is tried, in this order: first everything that leaves nothing behind."""


def dearer_than_batch_norm(draft: Draft, index: int) -> bool:
    """Tell whether a Max or an Add in the place of a batch norm would cost more than the batch norm.

    onnxruntime computes a batch norm on an image in the blocked layout of the convolutions around it, and has no such
    kernel for a Max or an Add with a constant: the image is brought into the other layout and back.
    """
    if draft.fewest:
        return False
    name = draft.wiring.reads(index)[draft.affines[index].data_input]
    shape = draft.affines[index].field.shape
    return len(shape) == 4 and shape[1] >= _BLOCK and element(draft, index, name) == TensorProto.FLOAT


def worth_it(draft: Draft, index: int, route: Route, stage: Stage) -> Route | Refusal:
    """Take a route that puts something new into the graph only for a batch norm, and only where that is allowed."""
    added = sum(1 for step in route.steps if draft.needs_new_add(step, index))
    changed = sum(1 for step in route.steps if step.becomes)
    doubled = sum(1 for step in route.steps if step.becomes == "Clip")  # each is a Max and a Min then
    is_norm = draft.op_type(index) == BATCH_NORM
    if added and not (stage.new_add and is_norm):
        return Refusal(Reason.NO_GAIN, f"{added} new Add would take the place of {draft.name(index)}")
    if (changed and not is_norm) or doubled > 1:
        detail = "another operation" if doubled < 2 else f"{doubled} other operations"
        return Refusal(Reason.NO_GAIN, f"{detail} would take the place of {draft.name(index)}")
    return route
