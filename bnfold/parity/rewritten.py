"""The folded model as onnxruntime rewrites it at its default level, which is how most people run it.

Folding is proved on the graph as it stands. What onnxruntime makes of that graph is its own affair, and some of its
rewritings are wrong: so that is compared with float64, too. It decides nothing about the folded file; it says whether
the file may be run at the default level, which is the fast one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bnfold.errors import BnfoldError
from bnfold.parity.run import Session
from bnfold.parity.sides import Side, compare
from bnfold.parity.static import fits_one_message

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.parity.kernels import Array
    from bnfold.parity.margins import Decision
    from bnfold.parity.rows import Bundle
    from bnfold.parity.stand import Stand
    from bnfold.parity.verdict import Comparison, RegionCheck
    from bnfold.parity.whole import Run

__all__ = ["Rewritten"]

_ROWS = 3
_SLACK = 16.0
"""Its kernels sum in another order, some of them one number after the other: a mean over 112×112 pixels was off by four
times as much as without. Mistakes in rewriting that are known are off by a third and more."""
_NO_KERNELS = "onnxruntime has no kernels for it"


class Rewritten:
    """A folded model in onnxruntime at its default level, and what is known of it."""

    def __init__(self, model: ModelProto, outputs: Sequence[str], decisions: Mapping[str, Decision | None]) -> None:
        """Prepare to load the model; that it cannot be loaded is what comes of comparing it.

        Args:
            model: The folded model.
            outputs: What is compared; without any, nothing is run.
            decisions: What decides an exact output, by the output.
        """
        self._side = Side("rewritten", outputs, decisions, {}, slack=_SLACK)
        self._session: Session | None = None
        self._unread: ModelProto | None = None
        self._returned: list[tuple[Mapping[str, Array], Mapping[str, Array] | None]] = []
        self._refusal = ""
        if not outputs:
            return
        if not fits_one_message(model):
            self._refusal = "it is too large to be loaded once more"
            return
        self._unread = model

    def ahead(self, feeds: Mapping[str, Array]) -> None:
        """Run a probe before anybody asks, beside what else runs."""
        self._returned = [*self._returned[-1:], (feeds, self._answered(feeds))]

    def asks(self, bundle: Bundle) -> bool:
        """Whether anything is to be learnt from these probes; from the largest batches nothing more is."""
        return bool(self._side.ledgers) and bundle.count <= _ROWS

    def add(self, stand: Stand, bundle: Bundle, run: Run, checks: Sequence[RegionCheck]) -> None:
        """Compare what comes of some probes.

        Args:
            stand: Runs everything else.
            bundle: What is fed.
            run: What everything else returned.
            checks: What gate A found.
        """
        if self.asks(bundle):
            self._side.back(checks)
            compare(stand, bundle, run, self._side, self._run, refusal=lambda: self._refusal)

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return what came of it, one entry an output."""
        return self._side.comparisons()

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array] | None:
        for fed, returned in self._returned:
            if fed is feeds:
                return returned
        return self._answered(feeds)

    def _answered(self, feeds: Mapping[str, Array]) -> Mapping[str, Array] | None:
        if self._unread is not None:
            try:
                self._kept(Session(self._unread, rewritten=True))
            except BnfoldError as error:
                self._refusal = f"onnxruntime does not load it at its default level: {error}"
            self._unread = None
        if self._session is None:
            return None
        try:
            returned = self._session.run(feeds)
        except BnfoldError as error:
            self._refusal = f"onnxruntime does not run it at its default level: {error}"
            return None
        return returned if self._kept(self._session) else None

    def _kept(self, session: Session) -> bool:
        """Go on with a session only as long as onnxruntime itself computes, and no kernel of ours stands in."""
        if session.native:
            self._session = session
        else:
            self._session, self._refusal = None, _NO_KERNELS
        return session.native
