"""What is tried before anything is compared: sizes that a model takes, and how it amplifies a change of its inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import BnfoldError, SignatureError, UnsupportedOpError
from bnfold.parity.compare import joined, match
from bnfold.parity.feeds import Probe, Sizes, draw_probes, jittered, sizes_to_try
from bnfold.parity.inputs import inputs_of
from bnfold.parity.kernels import Array, computes_with, roundoff

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.parity.inputs import Input
    from bnfold.parity.stand import Stand
    from bnfold.parity.verdict import Parity
    from bnfold.parity.whole import Run

__all__ = ["accepted_sizes", "amplification", "in_common", "redrawn"]

_OWN = "Verify with arrays of your own."


def in_common(inputs: Sequence[Input], others: Sequence[Input]) -> tuple[Input, ...]:
    """Return the inputs of one model with the sizes that are fixed in another one with the same inputs.

    Raises:
        SignatureError: If an input is of another type or size there.
    """
    by_name = {item.name: item for item in others}
    fixed: dict[str, int] = {}
    for item in inputs:
        other = by_name.get(item.name, item)
        fits = len(item.shape) == len(other.shape) and item.dtype == other.dtype
        sizes = list(zip(item.shape, other.shape, strict=False))
        if not fits or any(a != b for a, b in sizes if isinstance(a, int) and isinstance(b, int)):
            raise SignatureError(
                f"input {item.name} is {_shown(item)} here and {_shown(other)} there",
                hint="Compare models that are fed the same arrays.",
            )
        # An axis that is fixed in either is fixed wherever its symbol stands.
        fixed.update({a: b for a, b in sizes if isinstance(a, str) and isinstance(b, int)})
    return tuple(
        replace(item, shape=tuple(fixed.get(size, size) if isinstance(size, str) else size for size in item.shape))
        for item in inputs
    )


def _shown(item: Input) -> str:
    return f"{item.dtype.name} ({', '.join(str(size) for size in item.shape)})"


def accepted_sizes(stand: Stand, seed: int) -> tuple[Sizes, Mapping[str, Array] | None]:
    """Return the first choice of the free axes that the unfolded model runs with, and what it returned.

    Raises:
        UnsupportedOpError: If there is none.
    """
    first, refusal = None, ""
    for sizes in sizes_to_try(stand.inputs):
        first = sizes if first is None else first
        try:
            tried = stand.unfolded.run(draw_probes(stand.inputs, sizes, level="fast", seed=seed)[0].feeds)
        except BnfoldError as error:
            refusal = refusal or str(error)
            continue
        return sizes, tried
    if first is None or not stand.inputs:
        return {}, None
    raise UnsupportedOpError(f"no size of the free axes was found that the model takes: {refusal}", hint=_OWN)


def redrawn(
    model: ModelProto,
    proof: Parity,
    name: str,
    *,
    seed: int,
    given: Sequence[Mapping[str, Array]] = (),
    batches: Sequence[int] = (),
) -> Probe | None:
    """Draw a probe of a verification again: the one of that name, or the first that the model took.

    Args:
        model: The unfolded model.
        proof: What the verification found.
        name: The probe's name.
        seed: What it was drawn with.
        given: The user's own inputs, as the verification got them.
        batches: Sizes of the batch, as the verification got them.
    """
    used = [record for record in proof.probes if record.used]
    wanted = next((record for record in used if record.name == name), used[0] if used else None)
    if wanted is None:
        return None
    known = dict(wanted.shapes)
    inputs = tuple(  # with the sizes that the verification found
        replace(item, shape=known[item.name]) if item.name in known else item for item in inputs_of(model)
    )
    plan = draw_probes(inputs, {}, level=proof.level, seed=seed, given=given, batches=batches)
    return next((probe for probe in plan if probe.name == wanted.name), None)


def amplification(stand: Stand, probe: Probe, run: Run, *, quick: bool) -> tuple[float, dict[str, float]]:
    """Return how a relative change of the inputs grows, and what a last-place change does to each output.

    The quick way sees it in float32, where each run's own rounding comes on top.
    """
    feeds = jittered(probe.feeds, 999)
    before = after = 0.0
    for name, value in probe.feeds.items():
        if computes_with(value):
            wide = value.astype(np.float64)
            before += float((wide * wide).sum())
            after += float(((feeds[name].astype(np.float64) - wide) ** 2).sum())
    if not after or not before:
        return math.nan, {}
    moved, truth = (stand.unfolded.run(feeds), run.unfolded) if quick else ({}, run.reference)
    if not quick or stand.decisions.differ(moved, truth):
        # What is amplified is a change of the floats, behind the same choices.
        moved, truth = stand.truth(feeds, run.unfolded), run.reference
    growth = {}
    for name in stand.outputs:
        value, reference = joined(moved[name]), joined(truth[name])
        if value.shape == reference.shape and roundoff(value.dtype):
            growth[name] = match(value, reference.astype(np.float64)).errors.whole
    return max(growth.values(), default=math.nan) / math.sqrt(after / before), growth
