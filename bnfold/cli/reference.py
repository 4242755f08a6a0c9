"""The pages of ``docs/`` that are read from the code: ``python -m bnfold.cli.reference docs`` writes them."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from bnfold import errors
from bnfold.cli.exits import CODES, EXITS
from bnfold.cli.root import HELP, root

__all__ = ["pages"]

_WIDTH = 100

_GENERATED = "Generated from the code by `python -m bnfold.cli.reference docs`; a test checks that it is current."
_STREAMS = "The result of a command goes to standard output; errors and the progress line go to standard error."
_COMPLETION = """\
For bash, put this line into `~/.bashrc`; for zsh and fish, replace `bash` by `zsh` or `fish`.

```
eval "$(_BNFOLD_COMPLETE=bash_source bnfold)"
```"""
_FORM = "An error is one paragraph on standard error, with a hint that says what to do next:"
_EXAMPLE = """\
```
error[signature]: a frozen graph has no signature; 2 tensors have no consumer: logits:0, aux:0
  hint: Name the outputs, for example: --outputs logits:0
```"""
_MEANING = """\
The code in brackets is stable, and `bnfold explain CODE` prints what stands here. In Python the same errors are raised
as the classes of `bnfold`, all of them a `BnfoldError` with `code` and `hint`."""


def pages() -> Mapping[str, str]:
    """Return the generated pages by their file names."""
    from bnfold.cli.rule_pages import rule_pages
    from bnfold.report.schema import difference_schema, glance_schema, report_schema

    return {
        **rule_pages(),
        "cli.md": _commands_page(),
        "difference.schema.json": json.dumps(difference_schema(), indent=2, ensure_ascii=False) + "\n",
        "errors.md": _errors_page(),
        "glance.schema.json": json.dumps(glance_schema(), indent=2, ensure_ascii=False) + "\n",
        "report.schema.json": json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n",
    }


def _commands_page() -> str:
    with click.Context(root, info_name="bnfold", help_option_names=HELP) as above:
        helps = [_help_section(command, above) for command in root.commands.values()]
    parts = ["# The command line", _GENERATED, _STREAMS, "## Exit codes", _exit_codes(), _help_section(root, None)]
    return "\n\n".join([*parts, *helps, "## Shell completion", _COMPLETION]) + "\n"


def _exit_codes() -> str:
    return _table(("exit code", "meaning"), [(f"**{code}**", said) for code, said in EXITS.items()])


def _help_section(command: click.Command, above: click.Context | None) -> str:
    name = "bnfold" if above is None else command.name
    with click.Context(
        command, info_name=name, parent=above, help_option_names=HELP, terminal_width=_WIDTH, max_content_width=_WIDTH
    ) as ctx:
        shown = command.get_help(ctx)
        lines = "\n".join(line.rstrip() for line in shown.splitlines())
        return f"## {ctx.command_path}\n\n```\n{lines}\n```"


def _errors_page() -> str:
    tree = [getattr(errors, name) for name in errors.__all__ if name != "BnfoldError"]
    rows = [(f"`{error.code}`", str(error.exit_code), f"`{error.__name__}`", _said(error)) for error in tree]
    rows += [(f"`{code}`", str(exit_code), "", said) for code, (exit_code, said) in CODES.items()]
    table = _table(("code", "exit code", "class", "what it means"), sorted(rows))
    parts = ["# Errors", _GENERATED, _FORM, _EXAMPLE, _MEANING, table]
    return "\n\n".join(parts) + "\n"


def _said(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _write(folder: Path) -> None:
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
