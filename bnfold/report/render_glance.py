"""An artifact that was looked at, as people read it in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.report.render_layout import file_rows, grid, plural, shown, size, some

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from bnfold.frontends.glance import Glance, Port, SeenBatchNorm

__all__ = ["render_glance"]

_STATISTICS = {
    "moving": "with the statistics of training",
    "batch": "with the statistics of each batch",
    "switched": "switched between training and inference",
    "unknown": "with statistics that were not found",
}
_NEXT = "What folds into what is seen with: bnfold inspect --convert, which takes {framework}."


def render_glance(glance: Glance, *, verbose: bool = False) -> RenderableType:
    """Return what the terminal shows of an artifact that was looked at.

    Args:
        glance: What to show.
        verbose: Whether to name everything that a suspicion concerns.
    """
    table = grid()
    for label, content in _rows(glance, verbose=verbose):
        table.add_row("", shown(label), content)
    return table


def _rows(glance: Glance, *, verbose: bool) -> Iterator[tuple[str, Text | RenderableType]]:
    facts = [glance.description, glance.framework]
    facts += [] if glance.parameters is None else [f"{size(glance.parameters, '')} parameters"]
    yield from file_rows(glance.path, [*facts, size(glance.bytes)])
    for label, ports in (("inputs", glance.inputs), ("outputs", glance.outputs)):
        for number, port in enumerate(ports):
            yield "" if number else label, shown(_port(port))
    for number, mode in enumerate(glance.mode_inputs):
        value = f"{mode.default} by default" if mode.default else "has to be fed"
        kind = mode.kind if mode.kind.endswith("constant") else f"{mode.kind}, {value}"
        decides = f"decides {plural(mode.decides, 'branch')}".replace("branchs", "branches")
        yield "" if number else "mode", shown(f"{mode.name}   {kind}   {decides}")
    yield "batch norms", shown(_counted(glance.batch_norms))
    if glance.batch_norms:
        yield "", _batch_norms(glance.batch_norms)
    for number, suspicion in enumerate(glance.suspicions):
        yield "" if number else "look at", shown(suspicion.says, "yellow")
        if suspicion.about:
            yield "", shown(", ".join(suspicion.about) if verbose else some(suspicion.about))
        yield "", shown(f"hint: {suspicion.hint}", "dim")
    later = _NEXT.format(framework="PyTorch" if glance.format == "pt2" else "TensorFlow")
    for number, question in enumerate((*glance.open_questions, later)):
        yield "" if number else "not known", shown(question, "dim")


def _port(port: Port) -> str:
    if port.shape is None:
        return f"{port.name}   {port.dtype}".rstrip()
    return f"{port.name}   {port.dtype} ({', '.join('?' if axis is None else str(axis) for axis in port.shape)})"


def _counted(batch_norms: tuple[SeenBatchNorm, ...]) -> str:
    counts = Counter(one.statistics for one in batch_norms)
    said = [f"{count} {_STATISTICS[statistics]}" for statistics, count in counts.items()]
    return " · ".join(said) or "none found"


def _batch_norms(batch_norms: tuple[SeenBatchNorm, ...]) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 3, 0, 0))
    for _column in range(3):
        table.add_column(overflow="fold")
    several = len({one.statistics for one in batch_norms}) > 1
    for one in batch_norms:
        facts = [] if one.channels is None else [plural(one.channels, "channel")]
        facts += [] if one.epsilon is None else [f"ε {one.epsilon:g}"]
        facts += [one.statistics] if several else []
        table.add_row(
            shown(one.name), shown(" · ".join(facts)), shown(f"behind {one.behind}" if one.behind else "", "dim")
        )
    return table
