"""Whether an artifact answers the same by itself, run by its own framework without being put in inference mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.errors import BnfoldError
from bnfold.frontends.loaded import Array, ModeChange, Runner
from bnfold.parity.feeds import draw_probes, sizes_to_try
from bnfold.parity.inputs import inputs_of
from bnfold.pipeline.feeds import Given
from bnfold.pipeline.reading import Reading
from bnfold.report import OwnAnswer

__all__ = ["own_answer"]

_SAME = 1e-3
_SAME_IN_HALVES = 2e-2
_BATCH = 3
_NAMED = 3


def own_answer(source: Reading, given: Sequence[Given], seed: int) -> OwnAnswer:
    """Return whether the artifact's own answer is the one of inference mode, and why not where it is another.

    Args:
        source: What was read.
        given: The caller's own inputs; the first of them is what both are fed. Otherwise three drawn samples are.
        seed: What these are drawn with.
    """
    loaded = source.loaded
    if loaded.own is None:
        if loaded.own_says:
            return OwnAnswer(None, None, loaded.own_says)
        if source.mode and loaded.run is None:
            return OwnAnswer(None, None, f"{_reasons(source.mode)}; an ONNX runtime may not run that at all")
        return OwnAnswer(agrees=True, error=0.0, why="")
    assert loaded.run is not None
    try:
        error = _difference(source, loaded.run, loaded.own, given, seed)
    except (BnfoldError, ValueError, TypeError, KeyError, RuntimeError, OSError, MemoryError) as failed:
        words = " ".join(str(failed).split())[:160] or type(failed).__name__
        return OwnAnswer(None, None, f"it does not run by itself: {words}")
    if error is None:
        return OwnAnswer(None, None, "nothing that was drawn could be fed")
    halves = any(spec.dtype in ("float16", "bfloat16") for spec in loaded.outputs)
    agrees = error <= (_SAME_IN_HALVES if halves else _SAME)
    return OwnAnswer(agrees, error, "" if agrees else _reasons(source.mode))


def _difference(source: Reading, run: Runner, own: Runner, given: Sequence[Given], seed: int) -> float | None:
    """Return the largest difference of an output, as a share of its largest value; None where nothing could be fed."""
    feeds: Mapping[str, Array] | None = given[0].feeds if given else None
    inputs = inputs_of(source.model)
    expected: Mapping[str, Array] | None = None if feeds is None else run(feeds)
    for sizes in sizes_to_try(inputs) if feeds is None else ():
        feeds = draw_probes(inputs, sizes, level="fast", seed=seed, batches=(_BATCH,))[0].feeds
        try:
            expected = run(feeds)
        except Exception:  # noqa: S112  # a framework says in its own way that sizes do not fit
            continue
        break
    if feeds is None or expected is None:
        return None
    found = own(feeds)
    return max((_far(found[name], value) for name, value in expected.items()), default=0.0)


def _far(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind not in "fVc":
        return float(np.mean(found != expected)) if expected.size else 0.0
    ours, theirs = (np.asarray(value, np.complex128) for value in (found, expected))
    gap = np.abs(ours - theirs)
    gap[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    largest = float(np.max(np.abs(theirs), initial=0.0, where=np.isfinite(theirs)))
    worst = float(np.max(gap, initial=0.0))
    return worst / largest if largest else worst


def _reasons(changes: Sequence[ModeChange]) -> str:
    """Return what was changed to reach inference mode, in a few words, by its kind."""
    said = {
        "training-mode": "the statistics of each batch are used at",
        "statistics": "the statistics of each batch are used at",
        "dropout": "elements are dropped at",
        "switch": "training is switched on by",
        "averaged-weights": "the weights are not the averages of",
    }
    groups: dict[str, list[str]] = {}
    for change in changes:
        groups.setdefault(said.get(change.kind, "something was changed at"), []).append(change.name)
    return "; ".join(
        f"{words} {', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"
        for words, names in groups.items()
    )
