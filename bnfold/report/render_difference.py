"""How two files differ, as people read it in a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bnfold.report.difference import BatchNormChange, Change, Difference, FileChange, NodeChange, WeightChange
from bnfold.report.render_layout import grid, plural, shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["render_difference"]

_SHOWN = 8
"""Rows of one kind that are shown before the rest is counted."""
_WORDS: Mapping[Change, str] = {"removed": "gone", "added": "new", "changed": "changed"}
_COLORS: Mapping[Change, str] = {"removed": "red", "added": "green", "changed": "yellow"}


def render_difference(difference: Difference, *, verbose: bool = False) -> RenderableType:
    """Return what the terminal shows of a comparison of two files.

    Args:
        difference: What to show.
        verbose: Whether to show everything that differs, and not only the first of each kind.
    """
    table = grid()
    for label, content in _rows(difference, verbose=verbose):
        table.add_row("", shown(label), content)
    return table


def _rows(found: Difference, *, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    yield "A", shown(f"{found.a}   {plural(found.nodes_a, 'node')}")
    yield "B", shown(f"{found.b}   {plural(found.nodes_b, 'node')}")
    if found.ops:
        yield "operations", shown(" · ".join(f"{count.op_type} {count.a} → {count.b}" for count in found.ops))
    if found.batch_norms:
        kept = [f"{found.batch_norms_kept} as they were"] if found.batch_norms_kept else []
        yield "batch norms", shown(" · ".join([*_counted(found.batch_norms), *kept]))
        yield from _listed([_batch_norm(change) for change in found.batch_norms], verbose=verbose)
    if found.nodes:
        yield "nodes", shown(" · ".join(_counted(found.nodes)))
        told = {(change.scope, change.name) for change in found.batch_norms if change.change != "changed"}
        others = [change for change in found.nodes if (change.scope, change.name) not in told]
        yield from _listed([_node(change) for change in others], verbose=verbose)
    if found.weights:
        equal = [f"{found.weights_equal} as they were"] if found.weights_equal else []
        yield "weights", shown(" · ".join([*_counted(found.weights), *equal]))
        order = sorted(found.weights, key=lambda change: change.change != "changed")
        yield from _listed([_weight(change) for change in order], verbose=verbose)
    for number, change in enumerate(found.others if verbose else found.others[:_SHOWN]):
        yield "" if number else "file", _other(change)
    if not verbose and len(found.others) > _SHOWN:
        yield "", _more(len(found.others) - _SHOWN)
    same = "SAME MODEL" if found.others else "EQUAL"
    word, style = (same, "bold green") if found.equal else ("DIFFERENT", "bold yellow")
    yield "result", shown(word, style)


def _counted(changes: Sequence[BatchNormChange | NodeChange | WeightChange]) -> list[str]:
    counts = Counter(change.change for change in changes)
    return [f"{counts[kind]} {word}" for kind, word in _WORDS.items() if counts[kind]]


def _listed(lines: Sequence[Text], *, verbose: bool) -> Iterator[tuple[str, Text]]:
    for line in lines if verbose else lines[:_SHOWN]:
        yield "", line
    if not verbose and len(lines) > _SHOWN:
        yield "", _more(len(lines) - _SHOWN)


def _more(count: int) -> Text:
    return shown(f"and {count} more; -v shows all", "dim")


def _place(scope: str, name: str) -> str:
    return f"{scope} / {name}" if scope else name


def _batch_norm(change: BatchNormChange) -> Text:
    became = f", which is an operation {change.becomes} now" if change.becomes else ""
    return shown(f"{_WORDS[change.change]}  {_place(change.scope, change.name)}{became}", _COLORS[change.change])


def _node(change: NodeChange) -> Text:
    what = f": {', '.join(change.what)}" if change.what else ""
    said = f"{_WORDS[change.change]}  {change.op_type} {_place(change.scope, change.name)}{what}"
    return shown(said, _COLORS[change.change])


def _weight(change: WeightChange) -> Text:
    name = _place(change.scope, change.name) + (f" → {change.renamed}" if change.renamed else "")
    parts = [f"{_WORDS[change.change]}  {name}", _type(change), _extent(change)]
    return shown("   ".join(part for part in parts if part), _COLORS[change.change])


def _type(change: WeightChange) -> str:
    one, other = (f"{dtype} {list(shape)}" for dtype, shape in _sides(change))
    if change.change != "changed":
        return other if change.change == "added" else one
    if change.shape_a != change.shape_b:
        return f"{one} → {other}"
    return one if change.dtype_a == change.dtype_b else f"{change.dtype_a} → {change.dtype_b} {list(change.shape_a)}"


def _sides(change: WeightChange) -> tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]:
    return (change.dtype_a, change.shape_a), (change.dtype_b, change.shape_b)


def _extent(change: WeightChange) -> str:
    if change.change != "changed" or change.shape_a != change.shape_b:
        return ""
    if not change.changed:
        return "the same values"
    return ", ".join([f"{change.changed} of {change.elements} values", *_distance(change)])


def _distance(change: WeightChange) -> Iterator[str]:
    if math.isinf(change.ulps):
        yield "NaN or infinity in one of the two"
        return
    if not math.isnan(change.ulps):
        yield f"{change.ulps:.0f} ulp" if change.ulps < 1e6 else f"{change.ulps:.2g} ulp"
    if not math.isnan(change.largest):
        yield f"by {change.largest:.3g} at most"


def _other(change: FileChange) -> Text:
    kind: Change = "changed" if change.a and change.b else "removed" if change.a else "added"
    what = f"{change.a} → {change.b}" if change.a and change.b else change.a or change.b
    return shown(f"{_WORDS[kind]}  {change.kind} {change.name}: {what}", _COLORS[kind])
