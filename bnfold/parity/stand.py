"""Everything that verification prepares once: the programs, and how they are run on a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import BnfoldError, ParityError
from bnfold.parity.reference import Reference, Scope
from bnfold.parity.run import Session, run_node
from bnfold.parity.whole import Run, leaves_range

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.parity.inputs import Input
    from bnfold.parity.kernels import Array

__all__ = ["Runner", "Stand"]

Runner = Callable[[Mapping[str, "Array"]], dict[str, "Array"]]
"""Runs the original program."""


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
    """Floats that an exact output is decided by, and the constants beside them."""
    wanted: Mapping[Scope, set[str]] | None = None
    """Inner values that the next reference run keeps, by their scope; None once it has."""
    captured: Mapping[Scope, Sequence[Mapping[str, Array]]] = field(default_factory=dict)
    refusal: str = ""
    """What the original program said when it last refused a probe."""
    ahead: tuple[Mapping[str, Array], Future[dict[str, Array]]] | None = None
    """The folded model's run on the probe of the last baseline: it went on beside the reference's."""
    lost: bool = False
    """Whether gate A already rejects a fold: then nothing is looked at twice."""

    def truth(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the reference; the first time, with the values that gate A starts from."""
        names = [*self.outputs, *(name for name in self.decisive if name not in self.outputs)]
        if self.wanted is None:
            return self.reference.run(feeds, names)
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
    ) -> Run | None:
        """Run everything that a candidate is compared with; None where the unfolded model does not take the probe.

        Args:
            probe: Its name.
            feeds: The arrays.
            look: Which of the draws of the weights' rounding to take, where one is needed.
            base: What the unfolded model returns, if it has run already.
            weights: Whether to see what rounding the weights does in any case. A fold rounds its weights once more,
                which the unfolded model's own error does not show.
        """
        try:
            if base is None and self.wanted is not None:
                base = self.unfolded.run(feeds)  # what is captured must come from a probe that counts
            with ThreadPoolExecutor(1) as lane:
                beside = None if base is not None else lane.submit(self.unfolded.run, feeds)
                self.ahead = (feeds, lane.submit(self.folded.run, feeds))
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
        rounded = self.rounded
        if rounded is None and (weights or leaves_range(base, truth)):
            rounded = self.reference.model  # its own error says nothing about what it cannot hold
        if rounded is None:
            return Run(probe, truth, base, {})
        noisy = Reference(rounded, foreign=run_node, disturbance=look).run(feeds)
        quiet = truth if rounded is self.reference.model else Reference(rounded, foreign=run_node).run(feeds)
        return Run(probe, truth, base, {}, noisy, quiet)

    def folded_run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run the folded model; where the unfolded one runs, not to run is a failure."""
        try:
            if self.ahead is not None and self.ahead[0] is feeds:
                return self.ahead[1].result()
            return self.folded.run(feeds)
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
