"""What a terminal shows of a proof beyond the outputs: classes, figures of the user's own, and inner values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bnfold.parity.verdict import Verdict
from bnfold.report.render_layout import plural, shown

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bnfold.parity.layerwise import Layerwise, SharedValue
    from bnfold.parity.verdict import Agreement, Measured, Parity, Suspect
    from bnfold.report.record import Report

__all__ = ["behaviour_rows", "fault_rows", "layer_table", "original_table"]

_MOST = 20
"""Values that are listed unless everything was asked for."""


def behaviour_rows(report: Report, parity: Parity, *, verbose: bool) -> Iterator[tuple[str, Text]]:
    """Yield what gate C found: the classes that are chosen, and the user's own figures."""
    rows = [row for row in parity.behaviour if verbose or not row.verdict.passed or row.metric == "top-1"]
    for row in rows:
        yield "classes", shown(_agreed(report, row))
    for measured in parity.measured:
        yield "metric", shown(_figures(report, measured))


def _agreed(report: Report, row: Agreement) -> str:
    judged = row.candidate if report.command != "verify" or row.candidate == "original" else "B"
    said = f"{row.verdict.says}   {row.output}: {judged} and float64 agree in {row.metric} on {row.agreed} of "
    said += plural(row.rows, "row")
    if row.explained:
        said += f"; {row.explained} by less than rounding moves"
    return f"{row.verdict.says}   {row.output}, {row.metric}: {row.detail}" if row.detail else said


def _figures(report: Report, row: Measured) -> str:
    before, after = ("A", "B") if report.command == "verify" else ("unfolded", "folded")
    figures = [f"float64 {row.reference:.6g}", f"{before} {row.unfolded:.6g}", f"{after} {row.candidate:.6g}"]
    figures += [f"original {row.original:.6g}"] if row.original == row.original else []  # NaN
    head = f"{row.name}: " if row.verdict is Verdict.PASS else f"{row.verdict.says}   {row.name}: {row.detail}; "
    return f"{head}{', '.join(figures)}   over {plural(row.inputs, 'set')} of inputs"


def fault_rows(suspect: Suspect) -> Iterator[tuple[str, Text]]:
    """Yield where a fault enters."""
    figures = f"error {suspect.candidate:.2g}, before {suspect.unfolded:.2g}, {suspect.limit:.2g} allowed"
    if suspect.layer:
        figures = f"no value of the model is within {suspect.limit:.2g} of what it computes"
    right = ", ".join(suspect.between) or "nothing"
    yield "fault", shown(f"{suspect.says}; {right} in front of it is right", "yellow")
    yield "", shown(f"{figures}, on the probe {suspect.probe!r}", "dim")


def layer_table(report: Report, layers: Layerwise, *, verbose: bool) -> Table:
    """Return the errors of the inner values that both models compute, the worst first."""
    from rich import box
    from rich.table import Table

    titles = ("A", "B") if report.command == "verify" else ("unfolded", "folded")
    table = Table(box=box.SQUARE, header_style="", caption=_caption(layers, verbose=verbose), caption_justify="left")
    table.add_column("value", overflow="fold")
    table.add_column("operation")
    for title in (*titles, "allowed"):
        table.add_column(title, justify="right")
    for item in _worst_first(layers.values)[: None if verbose else _MOST]:
        said = "stands for something else" if item.moved else f"{item.folded:.2g}"
        style = "red" if item.beyond else ""
        table.add_row(
            shown(item.value, style),
            shown(item.op_type, style),
            shown(f"{item.unfolded:.2g}"),
            shown(said, style),
            shown(f"{item.limit:.2g}"),
        )
    return table


def original_table(layers: Layerwise, *, verbose: bool) -> Table:
    """Return the original program's layers in their order, each with the value of B that is most like it."""
    from rich import box
    from rich.table import Table

    most = None if verbose else _MOST
    left = 0 if most is None else max(0, len(layers.original) - most)
    caption = f"{plural(len(layers.original), 'layer')} of the original program, on the probe {layers.probe!r}"
    caption += "; what folding has changed is like nothing in B"
    caption += f"; the last {left} with -v" if left else ""
    table = Table(box=box.SQUARE, header_style="", caption=caption, caption_justify="left")
    for title in ("layer of A", "kind", "most like it in B"):
        table.add_column(title, overflow="fold")
    table.add_column("off by", justify="right")
    for item in layers.original[:most]:
        off = f"{item.error:.2g}" if item.value else ""
        table.add_row(shown(item.layer), shown(item.kind), shown(item.value or "nothing of its size", ""), shown(off))
    return table


def _worst_first(values: Sequence[SharedValue]) -> list[SharedValue]:
    return sorted(values, key=lambda item: (item.moved, -(item.folded / item.limit if item.limit else 0.0)))


def _caption(layers: Layerwise, *, verbose: bool) -> str:
    if not layers.values:
        return layers.detail or "no value to compare"
    beyond = sum(item.beyond for item in layers.values)
    said = f"{plural(len(layers.values), 'value')} on the probe {layers.probe!r}, worst first; "
    said += f"{beyond} beyond what rounding explains" if beyond else "all within what rounding explains"
    left = len(layers.values) - _MOST
    return said if verbose or left <= 0 else f"{said}; {left} more with -v"
