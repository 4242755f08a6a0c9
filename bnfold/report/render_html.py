"""A report as one page that needs nothing else: no network, no script, no other file.

Everything that a model's file can say (names of nodes, values, layers, the path itself) is text from a stranger. It
reaches the page through Jinja2 with every expression escaped, control characters included, and the page forbids itself
scripts and everything external.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from bnfold.frontends.loaded import TensorSpec
from bnfold.parity.verdict import Verdict
from bnfold.report.conclusion import at_default_level, conclusion, worst_output
from bnfold.report.figures import bars, drawing, plot
from bnfold.report.record import Absorbed, BatchNorm, Measure, Report
from bnfold.report.render_layout import plural, printable, size, some
from bnfold.report.render_text import FORMS, took_in

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_page"]

_TEMPLATES = Path(__file__).parent / "templates"
_EXPONENT = re.compile(r"\d[\d.]*e[-+]\d+")
_MOST_ROWS = 500
"""Rows of a table; of more, the page says where the rest is found."""


def render_page(report: Report) -> str:
    """Return a report as the text of an HTML page, the same bytes for the same report."""
    template = _environment().get_template("page.html.j2")
    verifying = report.command == "verify"
    names = ("A", "B") if verifying else ("original", "folded")
    layers = report.layers
    return template.render(
        report=report,
        title=PurePath(report.source.path).name or report.source.path,
        conclusion=conclusion(report),
        names=names,
        sources=[item for item in (report.source, report.other) if item is not None],
        table=_table(report.before, report.after),
        gates=_gates(report, names),
        outputs=_outputs(report, names),
        kept=_kept(report.batch_norms),
        folded=report.folded,
        most=_MOST_ROWS,
        plots=[] if layers is None else [plot(layers, width=width, height=300.0) for width in (880.0, 348.0)],
        moved=0 if layers is None else sum(item.moved for item in layers.values),
        histograms=_histograms(report),
        verifying=verifying,
        ledger_of=_ledger,
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        figure=_figure,
        size=size,
        plural=plural,
        into=_into,
        form=_form,
        spec=_spec,
        drawing=drawing,
        ratio=_ratio,
        pieces=_pieces,
    )
    return environment


def _shown(thing: object) -> object:
    """Return what an expression is shown as: text without control characters; what is escaped already stays."""
    if isinstance(thing, str) and not hasattr(thing, "__html__"):
        return printable(thing)
    return thing


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield text and the numbers in it that must not be broken at their minus; True marks a number."""
    end = 0
    for number in _EXPONENT.finditer(text):
        yield text[end : number.start()], False
        yield number[0], True
        end = number.end()
    yield text[end:], False


def _figure(number: float) -> str:
    if math.isnan(number):
        return "unknown"
    return f"{number:.2g}" if math.isfinite(number) else "not finite"


def _ratio(one: float, other: float) -> str:
    if not other:
        return "1.00" if not one else "—"
    return f"{one / other:.2f}" if math.isfinite(one / other) else "—"


def _table(before: Measure, after: Measure | None) -> Sequence[tuple[str, str, str]]:
    """Return the rows of the table before and after; where there is no after, its column is empty."""
    later = {} if after is None else after.ops
    changed = [
        op for op in sorted({*before.ops, *later}) if after is not None and before.ops.get(op, 0) != later.get(op, 0)
    ]
    ops = ["BatchNormalization", *(op for op in changed if op != "BatchNormalization")]
    rows = [(op, str(before.ops.get(op, 0)), "" if after is None else str(later.get(op, 0))) for op in ops]
    for name, say in _MEASURES.items():
        rows.append((name, say(before), "" if after is None else say(after)))
    return rows


_MEASURES: Mapping[str, Any] = {
    "nodes": lambda measure: str(measure.nodes),
    "inputs": lambda measure: str(measure.inputs),
    "parameters": lambda measure: size(measure.parameters, ""),
    "size": lambda measure: size(measure.bytes),
}


def _gates(report: Report, names: tuple[str, str]) -> Sequence[tuple[str, str, str, str]]:
    """Return every check in one row: its name, its verdict's kind and word, and its figures."""
    parity = report.parity
    if parity is None:
        return _own(report)
    rows = [
        ("form of the file", _kind(item.verdict.value), item.verdict.says, f"{item.check}: {item.detail}")
        for item in parity.static
    ]
    if parity.regions:
        worst = max(parity.regions, key=lambda region: (not region.verdict.passed, region.eta / region.limit))
        passed = sum(region.verdict.passed for region in parity.regions)
        said = f"{passed} of {len(parity.regions)} within their bounds; worst η {worst.eta:.2g} of {worst.limit:.2g}"
        said += f" allowed: {some(worst.sources)}"
        rows.append(("each fold by itself", _kind(worst.verdict.value), worst.verdict.says, said))
    for gate, comparisons in (("translation", parity.translation), ("whole model", parity.folding)):
        item = worst_output(comparisons)
        if item is not None:
            said = item.detail if not item.verdict.passed else _compared(item, names, gate)
            word = "PASS" if item.verdict.passed else item.verdict.says
            rows.append((gate, _kind(item.verdict.value), word, f"{item.output}: {said}"))
    level = at_default_level(parity)
    if level is not None:
        error = f"error against float64 {level.candidate:.2g}" if level.kind == "float" else "every element agrees"
        said = error if level.verdict.passed else level.detail
        wrong = level.verdict is Verdict.FAIL
        said += "; the file is right, onnxruntime's own graph optimization is not: switch it off" if wrong else ""
        word = "PASS" if level.verdict.passed else level.verdict.says
        row = ("doubtful", "DIFFERS") if wrong else (_kind(level.verdict.value), word)
        rows.append(("onnxruntime at its default level", *row, f"{level.output}: {said}"))
    for choice in parity.behaviour:
        said = f"{choice.output}, {choice.candidate}: {choice.agreed} of {choice.rows} rows choose the same classes"
        said += f"; {choice.explained} differ by less than rounding moves" if choice.explained else ""
        said += f"; {choice.detail}" if choice.detail else ""
        rows.append((choice.metric, _kind(choice.verdict.value), choice.verdict.says, said))
    for figure in parity.measured:
        said = f"float64 {figure.reference:.6g}, {names[0]} {figure.unfolded:.6g}, {names[1]} {figure.candidate:.6g}"
        said += f", the original program {figure.original:.6g}" if math.isfinite(figure.original) else ""
        said += f"; {figure.detail}" if figure.detail else ""
        rows.append((f"metric {figure.name}", _kind(figure.verdict.value), figure.verdict.says, said))
    for law in parity.laws:
        off = f"off by {_figure(law.figure)}, {_figure(law.limit)} allowed" if law.figure else "no difference"
        said = law.detail or off
        rows.append((law.name, _kind(law.verdict.value), law.verdict.says, said))
    return [*rows, *_own(report)]


def _own(report: Report) -> list[tuple[str, str, str, str]]:
    """Return a row for the artifact as its own framework runs it, which need not be in inference mode."""
    own = report.own
    if own is None:
        return []
    name = "the file as its framework runs it"
    if own.agrees is None:
        return [(name, "doubtful", "UNKNOWN", own.why)]
    if own.agrees:
        return [(name, "good", "AGREES", f"the same answers, largest difference {own.error or 0:.2g}")]
    far = "another shape" if own.error is None else f"off by {own.error:.2g} of the largest value"
    return [(name, "doubtful", "DIFFERS", f"{far}; {own.why}" if own.why else far)]


def _compared(item: Any, names: tuple[str, str], gate: str) -> str:
    if item.kind != "float":
        return f"{item.differing} of {item.compared} elements differ"
    one, other = ("the ONNX model", "the original program") if gate == "translation" else names
    return f"error against float64: {one} {item.unfolded:.2g}, {other} {item.candidate:.2g}"


def _kind(verdict: str) -> str:
    return {"fail": "bad", "inconclusive": "doubtful"}.get(verdict, "good")


def _outputs(report: Report, names: tuple[str, str]) -> Sequence[tuple[str, str, Any]]:
    """Return every comparison of an output: which comparison, what kind of verdict, and its figures."""
    if report.parity is None:
        return []
    pairs = [("translation", item) for item in report.parity.translation]
    pairs += [(f"{names[0]} and {names[1]}", item) for item in report.parity.folding]
    return [(gate, _kind(item.verdict.value), item) for gate, item in pairs]


def _kept(batch_norms: Sequence[BatchNorm]) -> Sequence[tuple[Any, Sequence[BatchNorm], Sequence[str]]]:
    """Return batch norms that stay by their reason, with what the owner could change."""
    groups: dict[str, list[BatchNorm]] = {}
    for row in batch_norms:
        if row.kept is not None:
            groups.setdefault(row.kept.reason, []).append(row)
    found = []
    for rows in groups.values():
        remedies = dict.fromkeys(row.kept.remedy for row in rows if row.kept is not None)
        found.append((rows[0].kept, rows, list(remedies)))
    return found


def _histograms(report: Report) -> Mapping[str, Any] | None:
    worst = None if report.layers is None else report.layers.worst
    if worst is None:
        return None
    frame: dict[str, Any] = {"width": 348.0, "height": 190.0}
    return {
        "value": worst.value,
        "errors": bars(worst.errors, logarithmic=True, **frame),
        "values": bars(worst.values, logarithmic=False, **frame),
        "exact": worst.errors.exact,
    }


def _ledger(into: Sequence[Absorbed]) -> Mapping[str, int]:
    """Count the layers that took a map in, by operation."""
    return Counter(step.op_type for step in took_in(into))


def _into(into: Sequence[Absorbed]) -> Sequence[Absorbed]:
    return took_in(into)


def _form(form: str) -> str:
    return FORMS.get(form, "")


def _spec(spec: TensorSpec) -> str:
    shape = ", ".join("?" if axis is None else str(axis) for axis in spec.shape)
    return f"{spec.dtype} ({shape})"
