"""Everything that verification prepares once: the programs, and how they are run on a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import BnfoldError, ParityError
from bnfold.parity.decisions import Decisions, same_choice
from bnfold.parity.feeds import jittered
from bnfold.parity.kernels import roundoff
from bnfold.parity.reference import Reference, Scope
from bnfold.parity.run import Session, run_node
from bnfold.parity.whole import Run, leaves_range

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.parity.inputs import Input
    from bnfold.parity.kernels import Array

__all__ = ["Runner", "Stand", "says_something"]

_DRAWS = 6
"""How often a network is moved to see whether it chooses otherwise then."""
_STRENGTH = 8.0
"""By how many times their round-off its weights are moved: as much as gate B grants, about."""

Runner = Callable[[Mapping[str, "Array"]], dict[str, "Array"]]
"""Runs the original program."""


def says_something(feeds: Mapping[str, Array]) -> bool:
    """Whether a probe has elements: of an empty batch nothing can be told, only that it runs."""
    return not feeds or any(np.size(value) for value in feeds.values())


@dataclass(slots=True)
class Stand:
    """Everything that is prepared once: the programs, and what is known of the inputs."""

    inputs: tuple[Input, ...]
    unfolded: Session
    folded: Session
    original: Runner | None
    reference: Reference
    rounded: ModelProto | None
    """The model that shows what rounding its weights does, where the unfolded model's error does not show it."""
    outputs: tuple[str, ...]
    decisive: tuple[str, ...]
    """Floats that something is chosen by, what is chosen, and the constants beside them."""
    decisions: Decisions = field(default_factory=Decisions)
    """What the model chooses on its way."""
    shared: tuple[str, ...] = ()
    """What of these the folded model has, too."""
    wanted: Mapping[Scope, set[str]] | None = None
    """Inner values that the next reference run keeps, by their scope; None once it has."""
    captured: Mapping[Scope, Sequence[Mapping[str, Array]]] = field(default_factory=dict)
    refusal: str = ""
    """What the original program said when it last refused a probe."""
    ahead: tuple[tuple[Mapping[str, Array], Future[dict[str, Array]]], ...] = ()
    """The folded model's runs on the probes of the last two baselines: they went on beside the reference's."""
    lost: bool = False
    """Whether gate A already rejects a fold: then nothing is looked at twice."""

    def truth(self, feeds: Mapping[str, Array], chosen: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Run the reference; the first time, with the values that gate A starts from.

        Args:
            feeds: The arrays.
            chosen: What a program has chosen; the reference goes on from there instead of from its own choices.
        """
        names = [*self.outputs, *(name for name in self.decisive if name not in self.outputs)]
        if self.wanted is None or chosen is not None or not says_something(feeds):
            return self.reference.run(feeds, names, forced=self.decisions.forced(chosen or {}))
        wanted = {**self.wanted, (): {*self.wanted.get((), ()), *names}}
        self.captured, self.wanted = self.reference.capture(feeds, wanted)[1], None
        main = self.captured[()][0]
        return {name: main[name] for name in names}

    def baseline(
        self,
        probe: str,
        feeds: Mapping[str, Array],
        look: int = 0,
        *,
        base: Mapping[str, Array] | None = None,
        weights: bool = False,
        also: Callable[[Mapping[str, Array]], None] | None = None,
    ) -> Run | None:
        """Run everything that a candidate is compared with; None where the unfolded model does not take the probe.

        Args:
            probe: Its name.
            feeds: The arrays.
            look: Which of the draws of the weights' rounding to take, where one is needed.
            base: What the unfolded model returns, if it has run already.
            weights: Whether to see what rounding the weights does in any case. A fold rounds its weights once more,
                which the unfolded model's own error does not show.
            also: What else shall go on beside the reference's run.
        """
        try:
            if base is None and self.wanted is not None:
                base = self.unfolded.run(feeds)  # what is captured must come from a probe that counts
            with ThreadPoolExecutor(1) as lane:
                beside = None if base is not None else lane.submit(self.unfolded.run, feeds)
                self.ahead = (*self.ahead[-1:], (feeds, lane.submit(self.folded.run, feeds)))
                if also is not None:
                    lane.submit(also, feeds)
                truth, failure = None, None
                try:
                    truth = self.truth(feeds)
                except BnfoldError as error:
                    failure = error
                base = base if beside is None else beside.result()
        except BnfoldError:
            return None
        if truth is None or base is None:
            assert failure is not None
            raise failure
        truth = self.behind(feeds, base, truth)
        rounded = self.rounded
        if rounded is None and (weights or leaves_range(base, truth)):
            rounded = self.reference.model  # its own error says nothing about what it cannot hold
        if rounded is None:
            return Run(probe, truth, base, {})
        same = rounded is self.reference.model
        names = [
            *self.outputs,
            *(name for name in (self.decisive if same else self.shared) if name not in self.outputs),
        ]
        forced = self.decisions.forced(base)
        noisy = Reference(rounded, foreign=run_node, disturbance=look).run(feeds, names, forced=forced)
        quiet = truth if same else Reference(rounded, foreign=run_node).run(feeds, names, forced=forced)
        return Run(probe, truth, base, {}, noisy, quiet)

    def behind(
        self, feeds: Mapping[str, Array], chosen: Mapping[str, Array], truth: dict[str, Array]
    ) -> dict[str, Array]:
        """Return what float64 computes behind a program's own choices; the same where it chooses the same.

        Args:
            feeds: The arrays.
            chosen: What the program has returned.
            truth: What float64 computes behind choices that are known already.
        """
        if not self.decisions.differ(chosen, truth):
            return truth
        try:
            return self.truth(feeds, chosen)
        except BnfoldError:
            return truth  # places that do not exist: the difference shows by itself

    def fragile(self, feeds: Mapping[str, Array], run: Run) -> frozenset[str]:
        """Return what is chosen otherwise in float64 where things are as far off as rounding explains.

        Half of the draws move the inputs and the weights, half of them what something is chosen by: a saturated score
        is the same number as its neighbour once it is rounded.

        Args:
            feeds: The arrays.
            run: What the programs computed of them.
        """
        found: set[str] = set()
        names = self.decisions.chosen
        truth = self.reference.run(feeds, [*names, *self.decisions.first])
        for draw in range(_DRAWS):
            try:
                if draw % 2:
                    moved: dict[Scope, dict[str, Array]] = {(): self._moved(run, truth, draw)}
                    other = self.reference.run(feeds, names, forced=moved)
                else:
                    model = self.reference.model
                    disturbed = Reference(model, foreign=run_node, disturbance=draw, strength=_STRENGTH)
                    other = disturbed.run(jittered(feeds, 3000 + draw), names)
            except BnfoldError:
                continue
            found.update(name for name in names if not same_choice(other[name], truth[name]))
        return frozenset(found)

    def _moved(self, run: Run, truth: Mapping[str, Array], draw: int) -> dict[str, Array]:
        """Return the floats that something is chosen by, moved, and rounded to the type that they are stored in."""
        moved = {}
        for number, name in enumerate(self.decisions.first):
            exact, stored = truth[name], run.unfolded.get(name)
            if not isinstance(stored, np.ndarray) or stored.shape != exact.shape or not roundoff(stored.dtype):
                continue
            known = np.isfinite(exact) & np.isfinite(stored)
            noise = float(np.abs(exact - stored)[known].max(initial=0.0))
            generator = np.random.default_rng([draw, number])
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                most = 4 * noise + _STRENGTH * roundoff(stored.dtype) * np.abs(exact)
                step = generator.uniform(-1, 1, size=exact.shape) * most
                moved[name] = np.where(known, exact + step, exact).astype(stored.dtype)
        return moved

    def folded_run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run the folded model; where the unfolded one runs, not to run is a failure."""
        try:
            known = next((run for fed, run in self.ahead if fed is feeds), None)
            return self.folded.run(feeds) if known is None else known.result()
        except BnfoldError as error:
            raise ParityError(
                f"the folded model does not run where the unfolded one does: {error}", hint="Report the model."
            ) from error

    def original_run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array] | None:
        """Run the original program; None where it refuses a probe, because it may be pickier than its translation."""
        assert self.original is not None
        try:
            return {name: np.asarray(value) for name, value in self.original(feeds).items()}
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            self.refusal = f"the original program refuses every probe: {type(error).__name__}: {line}"
            return None
