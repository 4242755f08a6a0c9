"""How reports are laid out in a terminal: a column of labels, and what belongs to each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    Row = tuple[str, "Text | RenderableType"]

__all__ = ["FEW", "LABEL", "file_rows", "grid", "plural", "printable", "shown", "size", "some"]

LABEL = 12
"""Columns of the labels."""

FEW = 3
"""How many names are listed before the rest is counted."""


def grid(label: int = LABEL, *, indent: int = 1) -> Table:
    """Return an empty table of labels and contents."""
    from rich.table import Table

    table = Table.grid(padding=(0, 1), pad_edge=False)
    if indent:
        table.add_column(width=indent)
    table.add_column(no_wrap=True, min_width=label, overflow="fold")
    table.add_column(overflow="fold")
    return table


def file_rows(path: str, facts: Sequence[str]) -> Iterator[Row]:
    """Yield what a file is, under its name where that is short enough for a label."""
    name = PurePath(path).name or path
    if len(name) <= LABEL:
        yield name, shown(" · ".join(facts))
    else:
        yield "file", shown(name)
        yield "", shown(" · ".join(facts))


def shown(content: str, style: str = "") -> Text:
    """Return text as a terminal shows it, without control characters."""
    from rich.text import Text

    return Text(printable(content), style=style)


def printable(content: str) -> str:
    """Return text with escapes for control characters: names come from files that anybody may have written."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in content)


def some(names: Sequence[str], *, limit: int = FEW) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size(count: float, unit: str = "B") -> str:
    """Return a number with three digits and a decimal prefix: ``93.8 MB``."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5 or prefix == "G":
            break
        count /= 1000
    digits = 0 if not prefix else max(0, 2 - int(math.log10(max(count, 1))))
    return f"{count:.{digits}f} {prefix}{unit}".rstrip()
