"""``bnfold explain``: what a reason, a rule or an error means."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from bnfold.cli.base import Command, State
from bnfold.cli.destination import usage
from bnfold.cli.exits import CODES, nearest
from bnfold.cli.rules import rows
from bnfold.cli.screen import console, to_reader

__all__ = ["Explanation", "explain", "explanations"]

_SHARED = ("format", "quiet", "verbose", "no_color", "version")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one name of bnfold means.

    Attributes:
        id: The name.
        kind: ``"reason"``, ``"source"``, ``"carrier"``, ``"absorber"``, ``"form"`` or ``"error"``.
        says: What it means.
        remedy: What to do about it; empty where there is nothing to do.
        folds: Of a rule, what its examples of folding show.
        keeps: Of a rule, what its examples of keeping show, each behind the reason.
    """

    id: str
    kind: str
    says: str
    remedy: str = ""
    folds: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


def explanations() -> tuple[Explanation, ...]:
    """Return everything that has a name and a meaning."""
    from bnfold import errors
    from bnfold.rules import Reason

    reasons = [Explanation(reason.id, "reason", reason.says, reason.remedy) for reason in Reason]
    tables = [
        Explanation(row.id, row.kind, f"{row.op_type}: {row.algebra}", folds=row.folds, keeps=row.keeps)
        for row in rows()
    ]
    tree = [getattr(errors, name) for name in errors.__all__ if name != "BnfoldError"]
    told = [Explanation(error.code, "error", _sentence(error), f"Exit code {error.exit_code}.") for error in tree]
    ours = [Explanation(code, "error", said, f"Exit code {exit_code}.") for code, (exit_code, said) in CODES.items()]
    return (*reasons, *tables, *told, *ours)


@click.command(cls=Command, shared=_SHARED, short_help="Say what a reason, a rule or an error means.")
@click.argument("name", metavar="ID")
@click.pass_obj
def explain(state: State, name: str) -> None:
    """Say what ID means: a reason such as padded-shift, a rule such as conv-output, or an error such as signature.

    An operation, such as Conv, stands for all the rules about it.
    """
    known = explanations()
    found = _named(known, name)
    if not found:
        near = nearest(name, dict.fromkeys(explanation.id for explanation in known))
        raise usage(
            f"nothing is called {name}",
            f"Did you mean {' or '.join(near)}?" if near else "List the rules with: bnfold rules",
        )
    if state.settings.format == "json":
        with to_reader():
            sys.stdout.write(json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        return
    import textwrap

    width = console(sys.stdout, state.settings).width
    with to_reader():
        for explanation in found:
            sys.stdout.write(f"{explanation.id} ({explanation.kind})\n")
            for line, deeper in _lines(explanation):
                indent = "    " if deeper else "  "
                further = f"{indent}  " if deeper else indent
                paragraph = textwrap.wrap(
                    line, width, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False
                )
                sys.stdout.write("\n".join(paragraph) + "\n")
        sys.stdout.flush()


def _named(known: tuple[Explanation, ...], name: str) -> list[Explanation]:
    """Return what has a name, whatever its case; of an operation, all rules about it."""
    exact = [explanation for explanation in known if explanation.id == name.lower()]
    rules = ("source", "carrier", "absorber")
    about = [one for one in known if one.kind in rules and one.says.partition(":")[0].lower() == name.lower()]
    return list(dict.fromkeys((*exact, *about)))


def _lines(explanation: Explanation) -> Iterator[tuple[str, bool]]:
    """Yield what to print, and whether it belongs to the line above."""
    yield explanation.says, False
    if explanation.remedy:
        yield explanation.remedy, False
    for title, examples in (("folds, for example:", explanation.folds), ("is kept, for example:", explanation.keeps)):
        if examples:
            yield title, False
            yield from ((example, True) for example in examples)


def _sentence(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())
