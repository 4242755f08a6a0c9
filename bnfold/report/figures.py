"""Where the marks of a page's drawings stand: coordinates only, which the templates draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bnfold.parity.layerwise import Histogram, Layerwise, SharedValue
from bnfold.report.record import Neighbour, Surroundings
from bnfold.report.render_layout import printable

__all__ = ["Bar", "Bars", "Box", "Curve", "Drawing", "Edge", "Mark", "Plot", "Tick", "bars", "drawing", "plot"]

_MARK_WIDTH = 3.7
"""The least room of one mark; where values are too many for it, each mark is the worst of several."""
_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 46.0, 12.0, 14.0, 36.0
_CHARACTER = 6.1
"""Width of a character of the drawings' text."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of a scale, where it stands and what it says."""

    at: float
    says: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a curve.

    Attributes:
        x: From the left.
        y: From the top.
        value: What it shows.
        number: Its place among all values, from 1.
        beyond: Whether it is more than rounding explains.
    """

    x: float
    y: float
    value: SharedValue
    number: int
    beyond: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """The errors of one model: its marks, and the line through them as SVG wants it."""

    marks: tuple[Mark, ...]
    line: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Errors layer by layer over a logarithmic scale.

    Attributes:
        width: Of the drawing.
        height: Of the drawing.
        left: Where the scale begins.
        right: Where it ends.
        bottom: Where the horizontal axis lies.
        ticks: Powers of ten.
        places: Numbers of values, along the horizontal axis.
        unfolded: Of the unfolded model.
        folded: Of the folded model.
        limit: The line below which rounding explains the folded model's error.
        group: How many values one mark stands for.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: tuple[Tick, ...]
    places: tuple[Tick, ...]
    unfolded: Curve
    folded: Curve
    limit: str
    group: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram, and what it says."""

    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram of two models.

    Attributes:
        width: Of the drawing.
        height: Of the drawing.
        bottom: Where the bars stand.
        ticks: Along the horizontal axis.
        top: What a bar of full height counts.
        unfolded: Bars of the unfolded model, filled.
        folded: The outline of the folded model's bars, as SVG wants it.
    """

    width: float
    height: float
    bottom: float
    ticks: tuple[Tick, ...]
    top: int
    unfolded: tuple[Bar, ...]
    folded: str


@dataclass(frozen=True, slots=True)
class Box:
    """A node of a drawn graph: where it stands, and as much of its name as there is room for."""

    x: float
    y: float
    width: float
    height: float
    node: Neighbour
    operation: str
    name: str
    centre: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """A line between two nodes, as SVG wants it."""

    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The graph around one batch norm, values flowing downwards."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def plot(layers: Layerwise, *, width: float, height: float) -> Plot | None:
    """Lay out the errors of all values that can be compared; None where there are none.

    Args:
        layers: What was measured.
        width: Of the drawing.
        height: Of the drawing.
    """
    shown = [(number, item) for number, item in enumerate(layers.values, 1) if not item.moved]
    if not shown:
        return None
    group = math.ceil(len(shown) * _MARK_WIDTH / (width - _MARGIN_LEFT - _MARGIN_RIGHT))
    worst = [
        max(shown[first : first + group], key=lambda pair: pair[1].folded / pair[1].limit)
        for first in range(0, len(shown), group)
    ]
    figures = [
        figure
        for _number, item in worst
        for figure in (item.unfolded, item.folded, item.limit)
        if 0 < figure < math.inf
    ]
    low = math.floor(math.log10(min(figures))) if figures else -8
    high = max(math.ceil(math.log10(max(figures))) if figures else 0, low + 1)
    low = max(low, high - 18)
    right, bottom = width - _MARGIN_RIGHT, height - _MARGIN_BOTTOM

    def y(figure: float) -> float:
        if figure >= math.inf or math.isnan(figure):
            return _MARGIN_TOP / 2
        if figure <= 0:
            return bottom
        share = (math.log10(figure) - low) / (high - low)
        return _round(bottom - min(max(share, 0.0), 1.0) * (bottom - _MARGIN_TOP))

    step = (right - _MARGIN_LEFT - 12) / max(len(worst) - 1, 1)
    xs = [_round(_MARGIN_LEFT + 6 + place * step) for place in range(len(worst))]

    def curve(figures: Sequence[float]) -> Curve:
        points = [(x, y(figure)) for x, figure in zip(xs, figures, strict=True)]
        marks = tuple(
            Mark(x, height, item, number, item.beyond)
            for (x, height), (number, item) in zip(points, worst, strict=True)
        )
        return Curve(marks, _line(points))

    every = max(1, math.ceil(len(worst) / (8 if width > 500 else 4)))
    powers = range(low, high + 1, max(1, math.ceil((high - low) / 8)))
    return Plot(
        width=width,
        height=height,
        left=_MARGIN_LEFT,
        right=right,
        bottom=bottom,
        ticks=tuple(Tick(y(10.0**power), f"1e{power:+03d}") for power in powers),
        places=tuple(Tick(xs[place], str(worst[place][0])) for place in range(0, len(worst), every)),
        unfolded=curve([item.unfolded for _number, item in worst]),
        folded=curve([item.folded for _number, item in worst]),
        limit=_line([(x, y(item.limit)) for x, (_number, item) in zip(xs, worst, strict=True)]),
        group=group,
    )


def bars(histogram: Histogram, *, width: float, height: float, logarithmic: bool) -> Bars:
    """Lay out a histogram.

    Args:
        histogram: What to show.
        width: Of the drawing.
        height: Of the drawing.
        logarithmic: Whether its edges grow in equal steps of the logarithm, and not of the number.
    """
    left, right, bottom = 20.0, width - 20.0, height - 24.0
    count = len(histogram.edges) - 1
    top = max([*histogram.unfolded, *histogram.folded, 1])
    step = (right - left) / count

    def y(number: int) -> float:
        return _round(bottom - (bottom - 14) * number / top)

    unfolded = tuple(
        Bar(
            _round(left + place * step + 0.5),
            y(number),
            _round(max(step - 1, 0.5)),
            _round(bottom - y(number)),
            f"{_number(edges[0])} to {_number(edges[1])}: original {number}, folded {other}",
        )
        for place, (number, other, edges) in enumerate(
            zip(histogram.unfolded, histogram.folded, pairwise(histogram.edges), strict=True)
        )
    )
    outline = [f"M{_round(left)} {bottom}"]
    for place, number in enumerate(histogram.folded):
        outline.append(f"V{y(number)}H{_round(left + (place + 1) * step)}")
    outline.append(f"V{bottom}")
    every = max(1, math.ceil(count / 6))
    if logarithmic and every % 2:
        every += 1  # two bins a power of ten: only powers are named
    ticks = tuple(
        Tick(_round(left + place * step), _number(histogram.edges[place])) for place in range(0, count, every)
    )
    return Bars(width, height, bottom, ticks, top, unfolded, "".join(outline))


def drawing(around: Surroundings) -> Drawing:
    """Lay out the graph around a batch norm: one row a step, in front of it above, behind it below."""
    width, tall, gap_x, gap_y = 348.0, 38.0, 8.0, 24.0
    rows: dict[int, list[int]] = {}
    for place, node in enumerate(around.nodes):
        rows.setdefault(node.step, []).append(place)
    wide = (width - 2 * gap_x) / 3 if max(map(len, rows.values())) > 2 else 160.0
    letters = int((wide - 10) / _CHARACTER)
    boxes: dict[int, Box] = {}
    for row, step in enumerate(sorted(rows)):
        members = rows[step]
        x = (width - len(members) * wide - (len(members) - 1) * gap_x) / 2
        for number, place in enumerate(members):
            node = around.nodes[place]
            boxes[place] = Box(
                x=_round(x + number * (wide + gap_x)),
                y=_round(1 + row * (tall + gap_y)),
                width=_round(wide),
                height=tall,
                node=node,
                operation=_shortened(node.op_type, letters),
                name=_shortened(node.name, letters, end=True),
                centre=place == 0,
            )
    edges = tuple(_edge(boxes[one], boxes[other]) for one, other in around.edges)
    height = 2 + len(rows) * (tall + gap_y) - gap_y
    return Drawing(width, height, tuple(boxes[place] for place in sorted(boxes)), edges)


def _edge(one: Box, other: Box) -> Edge:
    x, y = _round(one.x + one.width / 2), _round(one.y + one.height)
    to_x, to_y = _round(other.x + other.width / 2), _round(other.y)
    middle = _round((y + to_y) / 2)
    if to_y <= y:  # beside each other, or back up: around the outside
        side = _round(max(one.x + one.width, other.x + other.width) + 6)
        return Edge(f"M{x} {y}C{side} {y + 16} {side} {_round(to_y - 16)} {to_x} {to_y}")
    return Edge(f"M{x} {y}C{x} {middle} {to_x} {middle} {to_x} {to_y}")


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _round(number: float) -> float:
    return round(number, 1)


def _number(figure: float) -> str:
    return f"{figure:.3g}"


def _shortened(text: str, letters: int, *, end: bool = False) -> str:
    """Return text that fits; of a long name the end tells more than the beginning."""
    text = printable(text)
    if len(text) <= letters:
        return text
    return "…" + text[-(letters - 1) :] if end else text[: letters - 1] + "…"
