"""What holds for every network in inference mode, whatever it computes: batch independence, and determinism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from bnfold.errors import BnfoldError
from bnfold.parity.compare import joined, shapes
from bnfold.parity.decisions import Decisions, same_choice
from bnfold.parity.feeds import batch_symbols
from bnfold.parity.inputs import Input
from bnfold.parity.kernels import Array, computes_with
from bnfold.parity.verdict import Law, Verdict

__all__ = ["batch_independence", "beside_another", "determinism"]

_TOLERANCE = 1e-4
_LARGEST = 0.02
"""Training graphs show 0.03 and more, so no allowance for rounding goes beyond this."""

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def batch_independence(
    run: Run,
    inputs: Sequence[Input],
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    *,
    alone: Mapping[str, Array],
    noise: float = 0.0,
    decisions: Decisions | None = None,
    exact: Run | None = None,
) -> Law:
    """Compare a sample alone with the same sample beside another: ``max |f([x1, x2])[0] − f([x1])[0]| ≤ 1e-4·rms``.

    Args:
        run: The model.
        inputs: What it takes.
        first: Feeds with batch 1.
        second: Other feeds of the same shapes.
        alone: What the model returned for the first ones.
        noise: The model's own rounding error against float64; four times that is granted where it is larger.
        decisions: What the model chooses on its way: behind a choice that rounding made otherwise there is another
            element, which says nothing. What the choice is made by is compared.
        exact: The model in float64; it is asked where rounding might be what breaks the law.
    """
    name, limit = "batch independence", min(max(_TOLERANCE, 4 * noise), _LARGEST)
    both = beside_another(inputs, first, second)
    if both is None:
        return Law(name, 0.0, limit, Verdict.PASS, "does not apply: the batch is not free")
    try:
        beside = run(both)
    except BnfoldError as error:
        return Law(name, 0.0, limit, Verdict.PASS, f"does not apply: the model takes no batch of 2 ({error})")
    worst, where, compared = _largest(alone, beside, decisions)
    if worst > limit and exact is not None:
        # Rounding, too, depends on what is beside it, and a deep network amplifies it. In float64 little is left of it.
        with suppress(BnfoldError):
            worst, where, compared = _largest(exact(first), exact(both), decisions)
    if not compared:
        return Law(name, 0.0, limit, Verdict.PASS, "does not apply: no output has one row a sample")
    if worst <= limit:
        return Law(name, worst, limit, Verdict.PASS)
    detail = (
        f"{where} of a sample changes by {worst:.2g} of its root mean square with what else is in the batch; "
        "the model is not in inference mode"
    )
    return Law(name, worst, limit, Verdict.FAIL, detail)


def beside_another(
    inputs: Sequence[Input], first: Mapping[str, Array], second: Mapping[str, Array]
) -> dict[str, Array] | None:
    """Return feeds with a sample beside another one; None where the batch is not free."""
    batches = set(batch_symbols(inputs))
    batched = {item.name for item in inputs if item.shape and item.shape[0] in batches}
    if not batched:
        return None
    return {key: np.concatenate([value, second[key]]) if key in batched else value for key, value in first.items()}


def _largest(
    alone: Mapping[str, Array], beside: Mapping[str, Array], decisions: Decisions | None
) -> tuple[float, str, int]:
    """Return the largest change of a sample, relative to its root mean square, the output, and what was compared."""
    otherwise = frozenset[str]() if decisions is None else frozenset(_chosen_otherwise(decisions, alone, beside))
    worst, where, compared = 0.0, "", 0
    for output in alone:
        if isinstance(shapes(alone[output]), list) or isinstance(shapes(beside[output]), list):
            continue  # a sequence says nothing about its samples
        if decisions is not None and not otherwise.isdisjoint(decisions.of(output)):
            continue
        value, other = joined(alone[output]), joined(beside[output])
        if not (value.ndim and value.shape[0] == 1 and other.shape == (2, *value.shape[1:]) and computes_with(value)):
            continue
        one, two = value[0].astype(np.float64), other[0].astype(np.float64)
        usable = np.isfinite(one) & np.isfinite(two)
        if not usable.any():
            continue
        compared += int(usable.sum())
        rms = float(np.sqrt((one[usable] ** 2).mean()))
        violation = float(np.abs(one[usable] - two[usable]).max())
        figure = violation / rms if rms else (np.inf if violation else 0.0)
        if figure > worst or not where:
            worst, where = figure, output
    return worst, where, compared


def _chosen_otherwise(decisions: Decisions, alone: Mapping[str, Array], beside: Mapping[str, Array]) -> Iterator[str]:
    """Yield what is chosen otherwise for a sample beside another one, or so that nobody can tell."""
    for name in decisions.chosen:
        if name not in alone or name not in beside:
            continue
        one, two = alone[name], beside[name]
        if one.ndim and two.shape == (2 * one.shape[0], *one.shape[1:]):
            two = two[: one.shape[0]]
        if not same_choice(one, two):
            yield name


def determinism(run: Run, feeds: Mapping[str, Array], first: Mapping[str, Array]) -> Law:
    """Run the same feeds again: every output is what it was the first time, bit for bit."""
    second = run(feeds)
    for output in first:
        value, other = joined(first[output]), joined(second[output])
        same = shapes(first[output]) == shapes(second[output]) and (
            value.tobytes() == other.tobytes() if value.dtype != object else bool(np.all(value == other))
        )
        if not same:
            gap = 1.0
            if value.shape == other.shape and value.dtype.kind in "fiub":
                gap = float(np.nanmax(np.abs(value.astype(np.float64) - other.astype(np.float64)), initial=0.0))
            return Law("determinism", gap, 0.0, Verdict.FAIL, f"two runs differ in {output} by {gap:.2g}")
    return Law("determinism", 0.0, 0.0, Verdict.PASS)
