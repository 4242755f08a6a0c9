"""``bnfold explain``: what a reason, a rule or an error means."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict, dataclass

import click

from bnfold.cli.base import Command, State
from bnfold.cli.destination import usage
from bnfold.cli.exits import CODES, nearest
from bnfold.cli.rules import rows

__all__ = ["Explanation", "explain", "explanations"]

_SHARED = ("format", "quiet", "verbose", "no_color", "version")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one name of bnfold means.

    Attributes:
        id: The name.
        kind: ``"reason"``, ``"source"``, ``"carrier"``, ``"absorber"`` or ``"error"``.
        says: What it means.
        remedy: What to do about it; empty where there is nothing to do.
    """

    id: str
    kind: str
    says: str
    remedy: str = ""


def explanations() -> tuple[Explanation, ...]:
    """Return everything that has a name and a meaning."""
    from bnfold import errors
    from bnfold.rules import Reason

    reasons = [Explanation(reason.id, "reason", reason.says, reason.remedy) for reason in Reason]
    tables = [Explanation(row.id, row.kind, f"{row.op_type}: {row.algebra}") for row in rows()]
    tree = [getattr(errors, name) for name in errors.__all__ if name != "BnfoldError"]
    told = [Explanation(error.code, "error", _sentence(error), f"Exit code {error.exit_code}.") for error in tree]
    ours = [Explanation(code, "error", said, f"Exit code {exit_code}.") for code, (exit_code, said) in CODES.items()]
    return (*reasons, *tables, *told, *ours)


@click.command(cls=Command, shared=_SHARED, short_help="Say what a reason, a rule or an error means.")
@click.argument("name", metavar="ID")
@click.pass_obj
def explain(state: State, name: str) -> None:
    """Say what ID means: a reason such as padded-shift, a rule such as conv-output, or an error such as signature."""
    known = explanations()
    found = [explanation for explanation in known if explanation.id == name]
    if not found:
        near = nearest(name, dict.fromkeys(explanation.id for explanation in known))
        raise usage(
            f"nothing is called {name}",
            f"Did you mean {' or '.join(near)}?" if near else "List the rules with: bnfold rules",
        )
    if state.settings.format == "json":
        sys.stdout.write(json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False) + "\n")
        return
    for explanation in found:
        click.echo(f"{explanation.id} ({explanation.kind})\n  {explanation.says}")
        if explanation.remedy:
            click.echo(f"  {explanation.remedy}")


def _sentence(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())
