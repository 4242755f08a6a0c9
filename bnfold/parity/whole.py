"""Gate B: a whole model, output by output, against the float64 reference.

``E(y)`` is the largest of three relative errors (``compare.Errors``). A candidate passes iff, on every probe that
counts, ``E(candidate) ≤ 3·E(unfolded) + 8u``; outputs of fewer than 1000 elements are granted ``4·E(unfolded) + 8u``.

An error is one draw of a rounding error. Where an output is small, a lucky draw of the unfolded model would make a good
candidate fail; so a probe that fails is looked at again with its inputs moved by one unit in the last place, which
redraws every rounding error of both and leaves a mistake where it is. A fold also rounds its weights, which the
unfolded model has as they are: from then on what moving every weight by its round-off does counts as rounding, too.
What fails then, fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, TensorProto

from bnfold.parity.compare import allowed, joined, match, shapes
from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.margins import Decision, unexplained
from bnfold.parity.verdict import Comparison, Verdict

__all__ = ["EXTREME", "Ledger", "Run", "leaves_range", "rounding_model"]

_LOOKS = 8
"""How often the rounding errors of a failing probe are drawn again."""
_HOPELESS = 2.0**-4
"""Where the unfolded model itself is this far from float64, agreeing with it proves nothing."""
_COARSE = 2.0**-2
"""Where rounding moves the worst channel or sample by more than this, only the output as a whole is compared."""
_AS_MANY = 4
"""Where the unfolded model overflows, a candidate may do so in this many times as many places."""
EXTREME = 2.0**-5
"""Where a last-place change of the input changes an output by more than this, nothing can be told from it."""
_BACKED = 4
"""Both reach this many times further where every fold has passed its own check: then only a gross mistake is left to
be excluded, and 50 layers of float16 are off by a tenth however right they are."""

_FINE = roundoff(np.dtype(np.float64))


def _sturdy(_output: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """The outputs of one probe.

    Attributes:
        probe: Its name.
        reference: In float64.
        unfolded: Of the unfolded model.
        candidate: Of the folded model, or of the original program.
        noisy: In float64, with every weight moved by its round-off; for models that store another type than float32.
        quiet: In float64, without; what ``noisy`` is compared with.
        amplification: What a last-place change of the inputs does to each output, relative to it; by output.
        behind: In float64, behind what the candidate has chosen; None where that is what the unfolded model chose.
        fragile: Says by what choices, if any, that nobody can see in the candidate an output may be another one.
    """

    probe: str
    reference: Mapping[str, Array]
    unfolded: Mapping[str, Array]
    candidate: Mapping[str, Array]
    noisy: Mapping[str, Array] = field(default_factory=dict)
    quiet: Mapping[str, Array] = field(default_factory=dict)
    amplification: Mapping[str, float] = field(default_factory=dict)
    behind: Mapping[str, Array] | None = None
    fragile: Callable[[str], bool] = _sturdy

    @property
    def expected(self) -> Mapping[str, Array]:
        """What the candidate is compared with."""
        return self.reference if self.behind is None else self.behind


@dataclass(frozen=True, slots=True)
class _Figures:
    candidate: float
    own: float
    """The unfolded model's error."""
    baseline: float
    """That, or what rounding the weights does, where that is more."""
    noise: float
    """The baseline's relative L2 error alone, which no single element decides."""
    compared: int
    misplaced: int


def _out_of_range(run: Run, output: str) -> str:
    """Return what to say of a probe on which the unfolded model returns nothing finite; nothing if float64 does so."""
    if not np.isfinite(run.reference[output]).any():
        return ""
    return f"the unfolded model leaves the range of {run.unfolded[output].dtype.name}, so nothing can be compared"


def leaves_range(computed: Mapping[str, object], truth: Mapping[str, object]) -> bool:
    """Whether a program returns infinity or NaN where float64 has a number."""
    for name, value in computed.items():
        reference = truth.get(name)
        if not isinstance(value, np.ndarray) or not isinstance(reference, np.ndarray) or not roundoff(value.dtype):
            continue
        if value.shape == reference.shape and not np.isfinite(value).all() and match(value, reference).misplaced:
            return True
    return False


def _flat(run: Run, output: str) -> Run:
    """Return a probe in which an output that is a sequence is one row of its elements; a tensor is as it is."""
    if all(isinstance(side[output], np.ndarray) for side in (run.candidate, run.unfolded, run.reference)):
        return run

    def flat(side: Mapping[str, Array]) -> Mapping[str, Array]:
        return {**side, output: joined(side[output])} if output in side else side

    return replace(
        run,
        reference=flat(run.reference),
        unfolded=flat(run.unfolded),
        candidate=flat(run.candidate),
        behind=None if run.behind is None else flat(run.behind),
        noisy=flat(run.noisy),
        quiet=flat(run.quiet),
    )


def _shown(value: object) -> str:
    return "nothing" if value is None else str(shapes(value))


def rounding_model(unfolded: ModelProto, folded: ModelProto) -> ModelProto | None:
    """Return the model whose weights have to be moved to see what rounding does; None where that is seen anyway.

    onnxruntime computes a float16 model in float32, so the unfolded model's error says nothing about what float16 can
    hold: the folded weights are what is rounded. The reference of a float64 model rounds like the model itself, and so
    does the fold's own arithmetic: there every original weight may be off by its round-off.
    """
    nodes = [item.t for node in unfolded.graph.node for item in node.attribute if item.name == "value"]
    stored = {tensor.data_type for tensor in (*unfolded.graph.initializer, *nodes) if len(tensor.dims) > 0}
    if stored & {TensorProto.FLOAT16, TensorProto.BFLOAT16}:
        return folded
    return unfolded if TensorProto.DOUBLE in stored else None


_UNSEEN = "it stands behind a choice that rounding decides, and what was chosen cannot be seen"

Redraw = Callable[[int], Run | None]


@dataclass(slots=True)
class Ledger:
    """What is known of one output so far, probe by probe.

    Attributes:
        output: Its name.
        decision: The operation that turns floats into this output, where it is exact; None where there is none.
    """

    output: str
    decision: Decision | None = None
    slack: float = 1.0
    """By how many times the candidate may be further off, because it sums in another order and way than the other."""
    backed: bool = False
    """Whether every fold has passed its own check."""
    candidate: float = 0.0
    baseline: float = 0.0
    own: float = 0.0
    compared: int = 0
    probes: int = 0
    aside: int = 0
    unseen: int = 0
    """Probes on which it differs, behind a choice that nobody can see."""
    differing: int = 0
    limit: float = 0.0
    allowed: float = 0.0
    """What the candidate was allowed on the last probe that counted."""
    closest: float = -1.0
    probe: str = ""
    kind: str = "float"
    failure: str = ""
    doubt: str = ""

    def add(self, run: Run, redraw: Redraw) -> None:
        """Take in one probe.

        Args:
            run: Its outputs.
            redraw: Runs the probe again with inputs and weights moved by a last place; None where that cannot be.
        """
        value, reference = run.candidate[self.output], run.expected[self.output]
        if shapes(value) != shapes(reference):
            if run.fragile(self.output):
                self._set_aside()
                return
            if self._resized(redraw):
                self._set_aside("rounding alone changes its shape")
                return
            self._blame(run.probe, f"shape {_shown(value)} is not the reference's {_shown(reference)}")
            return
        run = _flat(run, self.output)
        if roundoff(run.candidate[self.output].dtype):
            self._add_floats(run, lambda look: None if (again := redraw(look)) is None else _flat(again, self.output))
        else:
            self._add_exact(run, redraw)

    def _resized(self, redraw: Redraw) -> bool:
        """Whether rounding alone decides how large the output is."""
        for look in range(_LOOKS):
            again = redraw(look)
            if again is None:
                return False
            if shapes(again.noisy[self.output]) != shapes(again.quiet[self.output]):
                return True
        return False

    def _blame(self, probe: str, why: str) -> None:
        if why and not self.failure:
            self.failure, self.probe = f"{why}, on the probe {probe!r}", probe

    def _set_aside(self, why: str = _UNSEEN) -> None:
        self.aside += 1
        self.unseen += 1
        self.doubt = why

    def _errors(self, run: Run) -> _Figures:
        value, base, reference = (side[self.output] for side in (run.candidate, run.unfolded, run.reference))
        expected = run.expected[self.output]
        if base.shape != reference.shape or value.shape != expected.shape:
            return _Figures(math.inf, math.inf, math.inf, math.inf, 0, 0)
        own = match(base, reference)
        if not own.misplaced or value.shape != base.shape:
            theirs = match(value, expected)
        else:
            # Where the unfolded model itself leaves its type's range, the candidate is not to blame for doing so too;
            # which of the values around it do is a matter of rounding.
            with np.errstate(over="ignore"):
                out = np.isfinite(base) != np.isfinite(reference.astype(base.dtype))
                lost = np.isfinite(value) != np.isfinite(expected.astype(value.dtype))
            as_many = int(lost.sum()) <= _AS_MANY * own.misplaced
            theirs = match(value, expected, excused=out | lost if as_many else out)
            if not theirs.compared and not lost.all():
                theirs = match(value, expected, excused=lost)  # nothing but what the candidate alone can hold
        baseline, whole = own.errors.worst, own.errors.whole
        if self.output in run.noisy and run.noisy[self.output].shape == run.quiet[self.output].shape:
            noise = match(run.noisy[self.output], run.quiet[self.output]).errors
            baseline, whole = max(baseline, noise.worst), max(whole, noise.whole)
        if _COARSE < baseline < math.inf:
            # One faint channel, or one sample, drowns in rounding and would allow anything: the rest is compared alone.
            return _Figures(theirs.errors.whole, own.errors.whole, whole, whole, theirs.compared, theirs.misplaced)
        return _Figures(theirs.errors.worst, own.errors.worst, baseline, whole, theirs.compared, theirs.misplaced)

    def _hopeless(self) -> float:
        return _BACKED * _HOPELESS if self.backed else _HOPELESS

    def _tells_nothing(self, run: Run, figures: _Figures) -> bool:
        """Whether a probe says nothing about this output; it is set aside then."""
        amplified = run.amplification.get(self.output, 0.0)
        extreme = _BACKED * EXTREME if self.backed else EXTREME
        if figures.compared and figures.noise <= self._hopeless() and amplified <= extreme:
            return False
        self.aside += 1
        if not figures.compared and not np.isfinite(run.unfolded[self.output]).any():
            self.doubt = self.doubt or _out_of_range(run, self.output)
        if figures.noise > self._hopeless():
            self.doubt = f"rounding alone changes it by {figures.noise:.2g}"
        elif amplified > extreme:
            self.doubt = f"a change in the input's last place changes it by {amplified:.2g}"
        return True

    def _add_floats(self, run: Run, redraw: Redraw) -> None:
        figures = self._errors(run)
        if figures.misplaced:
            self._blame(
                run.probe, f"NaN or infinity in {figures.misplaced} places where float64 has none, or the reverse"
            )
            return
        self.compared += figures.compared
        if self._tells_nothing(run, figures):
            return
        size = run.reference[self.output].size
        u = max(roundoff(run.candidate[self.output].dtype), roundoff(run.unfolded[self.output].dtype))
        candidate, baseline, own, noise = figures.candidate, figures.baseline, figures.own, figures.noise
        for look in range(0 if self.failure else _LOOKS):  # one failure is enough
            if candidate <= self.slack * allowed(baseline, size, u):
                break
            again = redraw(look)
            if again is None:
                break
            other = self._errors(again)
            candidate = max(candidate, math.inf if other.misplaced else other.candidate)
            baseline, own, noise = max(baseline, other.baseline), max(own, other.own), max(noise, other.noise)
        if self._hopeless() < noise < math.inf:  # a choice that is made inside a branch or a loop, where nobody sees it
            self._set_aside(f"rounding alone changes it by {noise:.2g}")
            return
        limit = self.allowed = self.slack * allowed(baseline, size, u)
        if candidate > limit and run.fragile(self.output):
            self._set_aside()
            return
        self.probes += 1
        if candidate >= self.candidate:
            self.candidate, self.limit = candidate, limit
        self.baseline = max(self.baseline, baseline)
        self.own = max(self.own, own)
        if candidate / limit > self.closest:
            self.closest = candidate / limit
            self.probe = self.probe if self.failure else run.probe
        if candidate > limit:
            self._blame(run.probe, f"error {candidate:.2g} against float64, {limit:.2g} allowed")

    def _steady(self, wrong: Array, redraw: Redraw) -> Array | None:
        """Return which of the wrong elements rounding does not change; None where it is to blame for all of them."""
        unsteady = np.zeros_like(wrong)
        for look in range(_LOOKS):
            again = None if self.failure or not (wrong & ~unsteady).any() else redraw(look)
            if again is None:
                break
            noisy, quiet = again.noisy[self.output], again.quiet[self.output]
            unsteady |= np.asarray(noisy != quiet) if noisy.shape == quiet.shape == wrong.shape else True
        if not unsteady.any():
            return wrong
        self._set_aside(f"rounding alone changes {int(unsteady.sum())} of its {unsteady.size} values")
        return wrong & ~unsteady if (wrong & ~unsteady).any() else None

    def _add_exact(self, run: Run, redraw: Redraw) -> None:
        self.kind = "exact"
        value, base, reference = (side[self.output] for side in (run.candidate, run.unfolded, run.reference))
        # Where the floats behind a choice are compared themselves, its consequences are what they have to be. Else the
        # output is all that tells what was chosen, and the margin has to explain where it differs.
        seen = self.decision is None or all(name in run.candidate for name in self.decision.values)
        reference = run.expected[self.output] if seen else reference
        if value.shape != reference.shape:
            self._blame(run.probe, f"shape {_shown(value)} is not the reference's {_shown(reference)}")
            return
        wrong = np.asarray(value != reference)
        if base.shape == reference.shape:
            # Where the unfolded model decides otherwise than float64, that decision is a matter of rounding.
            wrong &= np.asarray(base == reference)
        if wrong.any() and not seen and self.decision is not None:
            wrong = unexplained(
                self.decision,
                wrong,
                value=value,
                reference=reference,
                truth=run.reference,
                unfolded=run.unfolded,
            )
        if wrong.any() and (run.fragile(self.output) or (self.slack > 1 and self.decision is not None)):
            self._set_aside()
            return
        steady = self._steady(wrong, redraw)
        if steady is None:
            return
        wrong = steady
        self.probes += 1
        self.compared += int(value.size)
        plain = run.reference[self.output]
        self.differing += int((value != plain).sum()) if value.shape == plain.shape else value.size
        if wrong.any():
            self._blame(run.probe, f"{int(wrong.sum())} of {wrong.size} values differ and no margin explains it")

    def result(self) -> Comparison:
        """Return the comparison; nothing compared is never a pass."""
        beside = self.own or self.baseline
        rho = self.candidate / beside if beside else (1.0 if not self.candidate else math.inf)
        verdict, detail = Verdict.PASS, ""
        if self.failure:
            verdict, detail = Verdict.FAIL, self.failure
        elif (self.doubt and not self.probes) or 0 < self.unseen >= self.probes:
            verdict, detail = Verdict.INCONCLUSIVE, self.doubt
        elif not self.probes or not self.compared:
            verdict, detail = Verdict.INCONCLUSIVE, "nothing was compared: no probe has a finite value"
        elif self.kind == "float" and self.candidate < self.own:
            verdict = Verdict.PASS_MORE_ACCURATE
        return Comparison(
            output=self.output,
            kind=self.kind,
            candidate=self.candidate,
            unfolded=self.own,
            baseline=self.baseline,
            limit=self.limit,
            closest=max(self.closest, 0.0),
            probe=self.probe,
            rho=rho,
            probes=self.probes,
            set_aside=self.aside,
            compared=self.compared,
            differing=self.differing,
            verdict=verdict,
            detail=detail,
        )
