"""A report in one line that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnfold.parity.verdict import Comparison, Parity, Verdict
from bnfold.report.record import Report
from bnfold.report.render_layout import plural

__all__ = ["Conclusion", "at_default_level", "conclusion", "worst_output"]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What to make of a run.

    Attributes:
        kind: ``"good"``, ``"doubtful"`` or ``"bad"``.
        word: The verdict in a word or two.
        says: What it means for this model, in one sentence.
        next: What to do now, in one sentence.
    """

    kind: str
    word: str
    says: str
    next: str


_WORDS: Mapping[str, tuple[str, str]] = {
    "pass": ("good", "PASS"),
    "pass-more-accurate": ("good", "PASS (more accurate)"),
    "rolled-back": ("good", "ROLLED BACK"),
    "inconclusive": ("doubtful", "INCONCLUSIVE"),
    "fail": ("bad", "FAIL"),
    "not-verified": ("doubtful", "NOT VERIFIED"),
}


def conclusion(report: Report) -> Conclusion:
    """Return the verdict of a report, what it means, and what to do next."""
    kind, word = _WORDS[report.verdict]
    if report.verdict == "not-verified":
        check = "Compare the two before you rely on it: bnfold verify ORIGINAL FOLDED."
        return Conclusion(kind, word, f"Nobody has checked what the result computes. {_folded(report)}", check)
    if report.verdict in {"fail", "inconclusive"}:
        return Conclusion(kind, word, _sentence(report.reason), _what_now(report))
    if report.command == "verify":
        said = f"B computes what A computes{_errors(report.parity, 'A', 'B')}."
        return Conclusion(kind, word, said, "B can take the place of A.")
    said = f"{_folded(report)} The result computes what the original computes{_errors(report.parity)}."
    if report.verdict == "rolled-back":
        count = sum(len(piece.sources) for piece in report.rolled_back)
        taken = "was taken back because it" if count == 1 else "were taken back because they"
        said = f"{plural(count, 'fold')} {taken} failed the check; the rest passes. {said}"
    level = at_default_level(report.parity)
    if level is not None and level.verdict is Verdict.FAIL:
        where = "where onnxruntime's graph optimization is off (ORT_DISABLE_ALL)"
        why = "at its default level onnxruntime changes what the model computes"
        return Conclusion(kind, word, said, f"It can take the place of the original {where}: {why}.")
    return Conclusion(kind, word, said, "It can take the place of the original.")


def at_default_level(parity: Parity | None) -> Comparison | None:
    """Return the output that onnxruntime's own rewriting of the graph moved most; None where that was not tried."""
    return None if parity is None else worst_output(parity.rewritten)


def worst_output(comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the output that came closest to failing, or failed by most; None where there is none."""
    ranks = {Verdict.FAIL: 2, Verdict.INCONCLUSIVE: 1}
    return max(comparisons, key=lambda one: (ranks.get(one.verdict, 0), one.closest), default=None)


def _folded(report: Report) -> str:
    total = len(report.batch_norms)
    if not total:
        return "There is no batch norm in it."
    folded = len(report.folded)
    if folded == total:
        return "Its one batch norm is folded." if total == 1 else f"All {total} batch norms are folded."
    return f"{folded} of {plural(total, 'batch norm')} {'is' if folded == 1 else 'are'} folded."


def _errors(parity: Parity | None, original: str = "the original", folded: str = "") -> str:
    floats = [item for item in parity.folding if item.kind == "float"] if parity is not None else []
    if not floats:
        return ""
    worst: Comparison = max(floats, key=lambda item: item.closest)
    whose = folded or "its"
    error = f"{whose} error" if not folded else f"the error of {folded}"
    why = f"; rounding the weights once does {worst.baseline:.2g}" if worst.rounds_weights else ""
    return f": {error} against float64 is {worst.candidate:.2g}, that of {original} {worst.unfolded:.2g}{why}"


def _what_now(report: Report) -> str:
    verifying = report.command == "verify"
    if report.verdict == "inconclusive":
        return "Give it real inputs with --data" + ("." if verifying else "; without a proof nothing was written.")
    if verifying:
        return "Do not put B in the place of A; look below at which outputs differ, and on which inputs."
    blames = "" if report.parity is None else report.parity.blames
    if blames == "translation":
        return "Do not use the result. Not the folding but the conversion differs: try another --opset, and report it."
    if blames == "the model":
        return "Do not use the result: the model itself does not behave like one in inference mode."
    return "Do not use the result: nothing was written without --force. Report the model."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text and not text.endswith(".") else text
