"""``bnfold rules``: what folds into what."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from bnfold.cli.base import Command, State
from bnfold.cli.screen import console, to_reader

if TYPE_CHECKING:
    from bnfold.rules import Absorber, Carrier, Example, Source

__all__ = ["KINDS", "Row", "rows", "rules"]

_SHARED = ("format", "quiet", "verbose", "no_color", "version")

KINDS: Mapping[str, str] = {
    "source": "Sources: nodes that are an affine map, y = s·x + o for every channel",
    "carrier": "Carriers: nodes that the map, or one part of it, may pass on its way",
    "absorber": "Absorbers: layers that take it in, where it stands at their -output or -input",
    "form": "Forms: what becomes of a batch norm where weights alone cannot take it in",
}
"""The kinds of rules, in the order in which they are shown, and what each is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule as it is listed.

    Attributes:
        id: The stable name, which reports and ``bnfold explain`` use.
        kind: ``"source"``, ``"carrier"``, ``"absorber"`` or ``"form"``.
        op_type: The operation; of a form, what it turns into.
        algebra: What becomes of the affine map, in one line.
        folds: What its examples of folding show.
        keeps: What its examples of keeping show, each behind the reason.
    """

    id: str
    kind: str
    op_type: str
    algebra: str
    folds: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


def rows() -> tuple[Row, ...]:
    """Return every rule: sources first, then carriers, absorbers, and the forms that a fold may take."""
    return tuple(_rows())


def _rows() -> Iterator[Row]:
    from bnfold.fold.stage import STAGES
    from bnfold.fold.step import CONSTANT_RULE, FACTOR_RULE, SHIFT_RULE
    from bnfold.rules import RULES
    from bnfold.rules.branches import BRANCH_ALGEBRA, BRANCH_RULE
    from bnfold.rules.chains import CHAIN_ALGEBRA, CHAIN_EXAMPLES, CHAIN_RULE

    for kind, table in (("source", RULES.sources), ("carrier", RULES.carriers)):
        rules_of: Mapping[str, Source | Carrier] = table
        for name, rule in rules_of.items():
            yield _row(name.lower(), kind, rule)
    for absorber in RULES.absorbers.values():
        yield _row(absorber.id, "absorber", absorber)
    yield Row(
        SHIFT_RULE, "absorber", "Add", "s·(x + c) + o = s·x + (s·c + o): it takes in the shift, the scale goes on"
    )
    yield Row(FACTOR_RULE, "absorber", "Mul", "s·(c·x) = (s·c)·x: its constant takes in the scale, the shift goes on")
    yield Row(
        CONSTANT_RULE, "absorber", "Carrier", "a constant that a carrier reads changes with the map that passes it"
    )
    yield Row(BRANCH_RULE, "absorber", "Conv", BRANCH_ALGEBRA)
    yield Row(CHAIN_RULE, "absorber", "Conv, Gemm or MatMul", CHAIN_ALGEBRA, *_shown(CHAIN_EXAMPLES))
    tried = {stage.form for stage in STAGES}
    yield from (form for form in _FORMS if form.id in tried)


_FORMS = (
    Row("branches", "form", "Conv", "parallel linear branches of one value become one convolution"),
    Row("max-form", "form", "Max or Min", "s·max(x, 0) + o = max(s·x + o, o): an activation gets constants"),
    Row("bias-map", "form", "Conv", "a shift that padding cuts off becomes a bias for every position"),
    Row("scale-only", "form", "Add", "s·x + o = (s·x) + o: the scale goes into layers, the shift stays as one Add"),
)


def _row(name: str, kind: str, rule: Source | Carrier | Absorber) -> Row:
    return Row(name, kind, rule.op_type, rule.algebra, *_shown(rule.examples))


def _shown(examples: Sequence[Example]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what examples of folding show, and those of keeping."""
    folds = tuple(example.title for example in examples if example.refused is None)
    return folds, tuple(f"{example.refused.id}: {example.title}" for example in examples if example.refused is not None)


@click.command(cls=Command, shared=_SHARED, short_help="List what folds into what.")
@click.pass_obj
def rules(state: State) -> None:
    """List the rules: which nodes are affine maps, what lets them travel, and what takes them in.

    One of them, with what its examples show: bnfold explain conv-input
    """
    listed = rows()
    if state.settings.format == "json":
        with to_reader():
            sys.stdout.write(json.dumps([asdict(row) for row in listed], indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        return
    from rich.table import Table
    from rich.text import Text

    screen = console(sys.stdout, state.settings)
    with screen.capture() as captured:
        for kind, says in KINDS.items():
            screen.print(Text(says, style="bold"))
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=0)
            table.add_column(no_wrap=True, min_width=22)
            table.add_column(overflow="fold")
            for row in listed:
                if row.kind == kind:
                    table.add_row("", Text(row.op_type if kind in ("source", "carrier") else row.id), Text(row.algebra))
            screen.print(table)
            screen.print()
    with to_reader():
        # A table fills its last column with spaces, which are noise in a file.
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().rstrip().splitlines()))
        sys.stdout.flush()
