"""``bnfold rules``: what folds into what."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import click

from bnfold.cli.base import Command, State
from bnfold.cli.screen import console

__all__ = ["Row", "rows", "rules"]

_SHARED = ("format", "quiet", "verbose", "no_color", "version")


@dataclass(frozen=True, slots=True)
class Row:
    """One rule as it is listed.

    Attributes:
        id: The stable name, which reports and ``bnfold explain`` use.
        kind: ``"source"``, ``"carrier"`` or ``"absorber"``.
        op_type: The operation.
        algebra: What becomes of the affine map, in one line.
    """

    id: str
    kind: str
    op_type: str
    algebra: str


def rows() -> tuple[Row, ...]:
    """Return every rule: sources first, then carriers, then absorbers."""
    from bnfold.fold.step import SHIFT_RULE
    from bnfold.rules import RULES

    sources = [Row(name.lower(), "source", name, rule.algebra) for name, rule in RULES.sources.items()]
    carriers = [Row(name.lower(), "carrier", name, rule.algebra) for name, rule in RULES.carriers.items()]
    absorbers = [Row(rule.id, "absorber", rule.op_type, rule.algebra) for rule in RULES.absorbers.values()]
    shift = Row(
        SHIFT_RULE, "absorber", "Add", "s·(x + c) + o = s·x + (s·c + o): it takes in the shift, the scale goes on"
    )
    return (*sources, *carriers, *absorbers, shift)


@click.command(cls=Command, shared=_SHARED, short_help="List what folds into what.")
@click.pass_obj
def rules(state: State) -> None:
    """List the rules: which nodes are affine maps, what lets them travel, and what takes them in."""
    listed = rows()
    if state.settings.format == "json":
        sys.stdout.write(json.dumps([asdict(row) for row in listed], indent=2, ensure_ascii=False) + "\n")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("rule", "is", "operation", "algebra"):
        table.add_column(title, overflow="fold", no_wrap=title != "algebra")
    for row in listed:
        table.add_row(row.id, row.kind, row.op_type, row.algebra)
    console(sys.stdout, state.settings).print(table)
