"""What verification found: every figure, each with the verdict that it leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Agreement",
    "Comparison",
    "Finding",
    "Law",
    "Measured",
    "Parity",
    "ProbeRecord",
    "RegionCheck",
    "Suspect",
    "Verdict",
    "worst_of",
]


class Verdict(Enum):
    """How a check ended. There is no success with a warning."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    PASS_MORE_ACCURATE = "pass-more-accurate"  # noqa: S105 - the same
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"

    @property
    def passed(self) -> bool:
        """Whether the result may be written."""
        return self in {Verdict.PASS, Verdict.PASS_MORE_ACCURATE}

    @property
    def says(self) -> str:
        """The verdict in the words of the reports."""
        return {
            Verdict.PASS: "PASS",
            Verdict.PASS_MORE_ACCURATE: "PASS (more accurate than the original)",
            Verdict.INCONCLUSIVE: "INCONCLUSIVE",
            Verdict.FAIL: "FAIL",
        }[self]


def worst_of(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict of several checks together: the worst; being more accurate takes all of them."""
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS_MORE_ACCURATE if verdicts else Verdict.PASS


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that gate 0 found wrong without running anything."""

    check: str
    detail: str
    verdict: Verdict = Verdict.FAIL


@dataclass(frozen=True, slots=True)
class RegionCheck:
    """Gate A for one region: its folded nodes against its original ones in float64.

    Attributes:
        sources: Names of what was folded in it.
        outputs: Values that were compared.
        eta: Largest componentwise backward error, in units of ``u·S``; infinite where an exact zero was missed.
        limit: ``4 + 2√n``.
        probe: The probe on which the largest was found.
        probes: How many probes were run.
        compared: How many elements were compared, over all probes.
        verdict: PASS iff ``eta <= limit`` and something was compared.
        detail: Why, in one line, where the verdict is not PASS.
    """

    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    eta: float
    limit: float
    probe: str
    probes: int
    compared: int
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Gate B for one output: two programs against the float64 reference.

    For folding the candidate is the folded model and the baseline the unfolded one; for translation the candidate is
    the original program. Errors are relative; see ``compare.Errors``.

    Attributes:
        output: Name of the output.
        kind: ``"float"``, or ``"exact"`` for integers, booleans and text.
        candidate: Largest error of the candidate, over the probes that count.
        unfolded: Largest error of the unfolded model, over the same probes.
        baseline: That, or what rounding the weights does, where that is more: what the limit is made of.
        limit: What the candidate was allowed on the probe of its largest error.
        closest: Its error over what it was allowed, the largest of all probes; above 1 it failed there.
        probe: The probe of that.
        rho: ``candidate / unfolded``; 1 where both are exact.
        probes: Probes that count: something finite was compared, and the baseline itself is trustworthy.
        set_aside: Probes that prove nothing.
        compared: Elements compared, over all probes.
        differing: Elements of an exact output that differ from the reference.
        verdict: Its verdict.
        detail: Why, in one line, where it did not pass.
    """

    output: str
    kind: str
    candidate: float
    unfolded: float
    baseline: float
    limit: float
    closest: float
    probe: str
    rho: float
    probes: int
    set_aside: int
    compared: int
    differing: int
    verdict: Verdict
    detail: str = ""

    @property
    def rounds_weights(self) -> bool:
        """Whether more of the error than the original has comes from rounding the folded weights to their type."""
        return self.candidate > self.baseline / 4 > self.unfolded


@dataclass(frozen=True, slots=True)
class Law:
    """Something that holds for every network in inference mode, whatever it computes.

    Attributes:
        name: ``"batch independence"`` or ``"determinism"``.
        figure: The largest violation, relative to the output's root mean square.
        limit: What rounding explains.
        verdict: PASS, FAIL, or PASS with a detail that says why the law does not apply.
        detail: One line.
    """

    name: str
    figure: float
    limit: float
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """One set of inputs, as reports name it.

    Attributes:
        name: What it is, for example ``"hot pixel"``.
        origin: Where its values come from, for example ``"an embedding of 30522 rows"``.
        shapes: The shape of every input.
        used: Whether the model accepted it.
        rows: How many rows the batch had in which it was run beside others; 0 where it was run alone.
    """

    name: str
    origin: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    used: bool = True
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Gate C for one output that looks like a classifier's: whether the candidate chooses what float64 chooses.

    Attributes:
        output: Name of the output.
        metric: ``"top-1"`` or ``"top-5"``.
        candidate: Who is judged: ``"folded"``, or ``"original"`` where the translation is.
        agreed: Rows in which the same classes are chosen.
        rows: Rows that were compared, over all probes that count.
        explained: Rows that differ, where float64 itself decides by less than rounding moves.
        verdict: FAIL where a row differs for another reason.
        detail: Why, in one line, where it did not pass.
    """

    output: str
    metric: str
    candidate: str
    agreed: int
    rows: int
    explained: int
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure that the user's own function found, the mean over the inputs that it was asked about.

    Attributes:
        name: What the function calls it.
        reference: Of the float64 reference.
        unfolded: Of the model before folding, or of the first of two models.
        candidate: Of the folded model, or of the second of two models.
        original: Of the original program; NaN where the unfolded model is the original.
        inputs: How many sets of inputs it was asked about.
        verdict: FAIL where a condition no longer holds, or a figure is not finite any more; else PASS: what a figure
            may be, nobody but its author knows.
        detail: Why, in one line, where it did not pass.
    """

    name: str
    reference: float
    unfolded: float
    candidate: float
    original: float
    inputs: int
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Where a fault enters: the first value that is off on the way to a wrong output.

    Attributes:
        value: Its name.
        op_type: The operation that computes it before folding.
        node: The name of that node.
        between: The values in front of it that are right, or that the model is fed.
        unfolded: Its error in the unfolded model; NaN where the value itself could not be compared.
        candidate: Its error in the folded model, or in the original program.
        limit: What rounding explains.
        probe: The inputs on which it shows.
        sources: What was folded between the two.
        layer: Whether it is a layer of the original program, which has no counterpart in the model that is wrong.
    """

    value: str
    op_type: str
    node: str
    between: tuple[str, ...]
    unfolded: float
    candidate: float
    limit: float
    probe: str
    sources: tuple[str, ...] = ()
    layer: bool = False

    @property
    def says(self) -> str:
        """Where it is, in words."""
        if self.layer:
            return f"the first layer of the original that is off is {self.value} ({self.op_type})"
        return f"the first value that is off is {self.value} ({self.op_type} {self.node})"


@dataclass(frozen=True, slots=True)
class Parity:
    """Everything that verification measured.

    Attributes:
        verdict: The verdict of everything together.
        level: ``"full"`` or ``"fast"``.
        static: Findings of gate 0; empty means that it passed.
        regions: Gate A, one entry a region.
        folding: Gate B, unfolded against folded, one entry an output.
        translation: Gate B, original against unfolded, one entry an output; empty where there is no other original.
        rewritten: Gate B once more, for the folded model as onnxruntime rewrites it at its default level. It says
            whether the file may be run at that level, and nothing about the file; empty where two files are compared.
        behaviour: Gate C, one entry an output that looks like a classifier's, and a program that is judged.
        measured: Figures of the user's own function; empty where there is none.
        laws: Batch independence and determinism of the folded model.
        suspect: Where the fault enters, of a whole model that is wrong; None where nothing is, or nothing was found.
        amplification: How much a relative change of the input grows on its way to the output.
        probes: What was fed.
        engines: What ran the unfolded and the folded model.
        seconds: Wall time of the verification.
        detail: Why, where the verdict comes from none of the above.
    """

    verdict: Verdict
    level: str
    static: tuple[Finding, ...] = ()
    regions: tuple[RegionCheck, ...] = ()
    folding: tuple[Comparison, ...] = ()
    translation: tuple[Comparison, ...] = ()
    rewritten: tuple[Comparison, ...] = ()
    behaviour: tuple[Agreement, ...] = ()
    measured: tuple[Measured, ...] = ()
    laws: tuple[Law, ...] = ()
    suspect: Suspect | None = None
    amplification: float = math.nan
    probes: tuple[ProbeRecord, ...] = ()
    engines: tuple[str, ...] = ()
    seconds: float = 0.0
    detail: str = ""

    @property
    def failed_regions(self) -> tuple[RegionCheck, ...]:
        """The folds that gate A rejects; taking them back is the first remedy."""
        return tuple(check for check in self.regions if check.verdict is Verdict.FAIL)

    @property
    def failed(self) -> bool:
        """Whether anything speaks against the result."""
        return self.verdict is Verdict.FAIL

    @property
    def blames(self) -> str:
        """Who is to blame for a failure: ``"folding"``, ``"translation"``, ``"the model"``, or nobody: ``""``."""
        ours = [item for item in self.behaviour if item.candidate == "folded"]
        checks: tuple[RegionCheck | Comparison | Finding | Agreement | Measured, ...]
        checks = (*self.regions, *self.folding, *self.static, *ours, *self.measured)
        if any(item.verdict is Verdict.FAIL for item in checks):
            return "folding"
        others: tuple[Comparison | Agreement, ...] = (*self.translation, *self.behaviour)
        if any(item.verdict is Verdict.FAIL for item in others):
            return "translation"
        return "the model" if any(item.verdict is Verdict.FAIL for item in self.laws) else ""

    @property
    def at_default_level(self) -> Verdict | None:
        """Whether onnxruntime may run the folded model at its default level; None where that was not tried."""
        return worst_of([item.verdict for item in self.rewritten]) if self.rewritten else None

    @property
    def rho(self) -> float:
        """The folded model's error over the unfolded one's, the worst of all outputs; NaN where there are none."""
        return max((item.rho for item in self.folding if item.kind == "float"), default=math.nan)

    @property
    def summary(self) -> str:
        """The verdict and its ground, in one line that a person can act on."""
        if self.verdict.passed:
            parts = [f"{len(self.regions)} folded regions within their error bounds"] if self.regions else []
            if not math.isnan(self.rho):
                worst = max((item for item in self.folding if item.kind == "float"), key=lambda item: item.rho)
                said = f"error {self.rho:.2f} times the original's against float64"
                if worst.rounds_weights:
                    said = (
                        f"error {worst.candidate:.2g} against float64, where rounding the weights once does "
                        f"{worst.baseline:.2g} and the original is off by {worst.unfolded:.2g}"
                    )
                parts.append(said)
            if self.translation:
                parts.append("agrees with the original program")
            return f"{self.verdict.says}: {', '.join(parts) or 'nothing was folded'}"
        where = "" if self.suspect is None else f"; {self.suspect.says}"
        told = {item.output for item in (*self.folding, *self.translation) if item.detail}
        reasons = [
            *(f"gate 0, {item.check}: {item.detail}" for item in self.static),
            *(f"fold of {', '.join(item.sources)}: {item.detail}" for item in self.regions if item.detail),
            *(f"output {item.output}: {item.detail}{where}" for item in self.folding if item.detail),
            *(
                f"translation, not folding: output {item.output}: {item.detail}{where}"
                for item in self.translation
                if item.detail
            ),
            *(
                f"output {item.output}, {item.metric}: {item.detail}"
                for item in self.behaviour
                if item.detail and item.output not in told
            ),
            *(f"metric {item.name}: {item.detail}" for item in self.measured if item.detail),
            *(f"{item.name}: {item.detail}" for item in self.laws if not item.verdict.passed),
            *((self.detail,) if self.detail else ()),
        ]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"{self.verdict.says}: {reasons[0] if reasons else 'no reason was kept'}{more}"
