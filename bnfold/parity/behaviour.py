"""Gate C: what a model is for. Classes that are chosen, and whatever the user's own function measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.nodes import STANDARD, attributes_of
from bnfold.parity.program import versions_of
from bnfold.parity.verdict import Agreement, Measured, Verdict
from bnfold.parity.whole import Run

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Choices", "Figures", "Metric", "class_axes"]

Metric = Callable[[Mapping[str, Array], Mapping[str, Array], int], Mapping[str, float]]
"""The user's own function: outputs, inputs, and the place of these inputs among the user's; figures by their names."""

_SEVERAL = 5
"""Classes that are looked at together, where there are at least twice as many."""
_WIDEST = 1 << 20
"""Elements of an output beyond which a choice along an axis is no longer looked at."""


def class_axes(model: ModelProto) -> dict[str, int]:
    """Return the outputs that look like a classifier's, with the axis of the classes.

    Those are what a Softmax computes, and what has one row a sample and several numbers in it.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for value in model.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in {"Identity", "Cast"}:
            node = producers.get(node.input[0])
        sizes = value.type.tensor_type.shape.dim
        if node is not None and node.op_type in {"Softmax", "LogSoftmax"} and node.domain in STANDARD:
            version = versions_of(model.opset_import).get("", 1)
            found[value.name] = int(attributes_of(node).get("axis", -1 if version >= 13 else 1))
        elif len(sizes) == 2 and sizes[1].dim_value != 1:
            found[value.name] = 1
    return found


@dataclass(slots=True)
class Choices:
    """What is known of one output's choices so far, probe by probe.

    Attributes:
        output: Its name.
        axis: The axis of its classes.
        candidate: Who is judged.
    """

    output: str
    axis: int
    candidate: str
    agreed: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    explained: dict[int, int] = field(default_factory=dict)
    failure: dict[int, str] = field(default_factory=dict)

    def add(self, run: Run, relative: float) -> None:
        """Take in one probe.

        Args:
            run: Its outputs.
            relative: The error that gate B allows, relative to the output.
        """
        value, base, truth = (side.get(self.output) for side in (run.candidate, run.unfolded, run.expected))
        if not all(isinstance(item, np.ndarray) and roundoff(item.dtype) for item in (value, base, truth)):
            return
        value, base, truth = np.asarray(value), np.asarray(base), np.asarray(truth)
        fits = -truth.ndim <= self.axis < truth.ndim and value.shape == truth.shape == base.shape
        if not fits or truth.ndim < 2 or not 0 < truth.size <= _WIDEST or truth.shape[self.axis] < 2:
            return
        ours, own, exact = (
            np.moveaxis(item, self.axis, -1).astype(np.float64).reshape(-1, item.shape[self.axis])
            for item in (value, base, truth)
        )
        usable = np.isfinite(ours).all(axis=1) & np.isfinite(own).all(axis=1) & np.isfinite(exact).all(axis=1)
        if not usable.any():
            return
        ours, own, exact = ours[usable], own[usable], exact[usable]
        size = float(np.abs(exact).max())
        noise = float(np.abs(own - exact).max())
        u = max(roundoff(value.dtype), roundoff(base.dtype))
        slack = 2 * max(3 * noise + 8 * u * size, relative * size)
        for count in (1, _SEVERAL):
            if count == 1 or exact.shape[1] >= 2 * count:
                self._count(count, ours, exact, slack, run.probe)

    def _count(self, count: int, ours: Array, exact: Array, slack: float, probe: str) -> None:
        chosen, right = (np.sort(np.argsort(-item, axis=1, kind="stable")[:, :count], axis=1) for item in (ours, exact))
        same = (chosen == right).all(axis=1)
        # What float64 gives up by the other choice, class by class: both sets in falling order.
        best, got = (-np.sort(-np.take_along_axis(exact, item, axis=1), axis=1) for item in (right, chosen))
        loss = (best - got).max(axis=1)
        explained = ~same & (loss <= slack)
        wrong = ~same & ~explained
        self.rows[count] = self.rows.get(count, 0) + int(same.size)
        self.agreed[count] = self.agreed.get(count, 0) + int(same.sum())
        self.explained[count] = self.explained.get(count, 0) + int(explained.sum())
        if wrong.any() and count not in self.failure:
            self.failure[count] = (
                f"{int(wrong.sum())} of {same.size} rows are decided otherwise than in float64, by margins up to "
                f"{float(loss[wrong].max()):.2g} where rounding moves {slack:.2g}, on the probe {probe!r}"
            )

    def results(self) -> tuple[Agreement, ...]:
        """Return what was found, one entry a metric."""
        return tuple(
            Agreement(
                output=self.output,
                metric=f"top-{count}",
                candidate=self.candidate,
                agreed=self.agreed[count],
                rows=rows,
                explained=self.explained[count],
                verdict=Verdict.FAIL if count in self.failure else Verdict.PASS,
                detail=self.failure.get(count, ""),
            )
            for count, rows in self.rows.items()
        )


_PROGRAMS = ("reference", "unfolded", "candidate", "original")


@dataclass(slots=True)
class Figures:
    """What the user's own function said so far.

    Attributes:
        metric: The function.
    """

    metric: Metric
    found: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    inputs: int = 0

    def add(self, feeds: Mapping[str, Array], place: int, sides: Mapping[str, Mapping[str, Array]]) -> None:
        """Ask it about one set of inputs.

        Args:
            feeds: The inputs.
            place: Their place among the user's own; those that were drawn come behind.
            sides: The outputs of every program that answered.
        """
        self.inputs += 1
        for program, outputs in sides.items():
            answered = {name: value for name, value in outputs.items() if name in sides["unfolded"]}
            for name, figure in self.metric(answered, feeds, place).items():
                self.found.setdefault(name, {}).setdefault(program, []).append(figure)

    def results(self) -> tuple[Measured, ...]:
        """Return the figures, one entry a name."""
        return tuple(self._measured(name, sides) for name, sides in self.found.items())

    def _measured(self, name: str, sides: Mapping[str, Sequence[float]]) -> Measured:
        conditions = all(isinstance(figure, bool) for figures in sides.values() for figure in figures)
        means = {side: float(np.mean([float(f) for f in figures])) for side, figures in sides.items()}
        detail = ""
        before, after = sides.get("unfolded", ()), sides.get("candidate", ())
        if conditions and any(own and not other for own, other in zip(before, after, strict=False)):
            lost = sum(bool(own) and not other for own, other in zip(before, after, strict=False))
            detail = f"it holds before and no longer after, on {lost} of {len(after)} sets of inputs"
        elif math.isfinite(means.get("unfolded", math.nan)) and not math.isfinite(means.get("candidate", math.nan)):
            detail = f"it is {means.get('candidate', math.nan):g} after, and {means['unfolded']:g} before"
        return Measured(
            name=name,
            **{program: means.get(program, math.nan) for program in _PROGRAMS},
            inputs=self.inputs,
            verdict=Verdict.FAIL if detail else Verdict.PASS,
            detail=detail,
        )
