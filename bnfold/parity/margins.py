"""Decisions: outputs that are exact, but stand behind floats. They may differ where the floats nearly decided so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.nodes import STANDARD, attributes_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Decision", "decision_behind", "unexplained"]

_LAYOUT = frozenset({"Cast", "Identity"})
_PICKING = frozenset({"ArgMax", "ArgMin", "TopK"})
_COMPARING = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


@dataclass(frozen=True, slots=True)
class Decision:
    """An operation that turns floats into something exact.

    Attributes:
        op_type: ArgMax, ArgMin, TopK, a comparison, or Cast (to an integer).
        values: Names of the floats that it reads and that are computed.
        fixed: Names of the constants that it reads.
        axis: The axis that it picks along.
        keeps: Whether that axis stays, with size 1.
    """

    op_type: str
    values: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    axis: int = 0
    keeps: bool = True


def decision_behind(model: onnx.ModelProto, output: str, floating: Callable[[str], bool]) -> Decision | None:
    """Return the decision that an output of the main graph comes from, through casts; None if there is none.

    Args:
        model: The model.
        output: Name of an exact output.
        floating: Whether a value is known to be a float, by its name.
    """
    producers = {name: node for node in model.graph.node for name in node.output if name}
    name = output
    while name in producers:
        node = producers[name]
        if node.domain not in STANDARD:
            return None
        read = [item for item in node.input if item]
        computed = tuple(item for item in read if item in producers and floating(item))
        if node.op_type in _PICKING:
            attributes = attributes_of(node)
            axis = int(attributes.get("axis", -1 if node.op_type == "TopK" else 0))
            keeps = node.op_type == "TopK" or bool(attributes.get("keepdims", 1))
            return Decision(node.op_type, computed[:1], axis=axis, keeps=keeps) if computed else None
        if node.op_type in _COMPARING:
            fixed = tuple(item for item in read if item not in computed)
            return Decision(node.op_type, computed, fixed) if computed else None
        if node.op_type == "Cast" and floating(read[0]):
            return Decision("Cast", computed) if computed else None
        if node.op_type not in _LAYOUT:
            return None
        name = read[0]
    return None


def unexplained(
    decision: Decision,
    wrong: Array,
    *,
    value: Array,
    reference: Array,
    truth: Mapping[str, Array],
    unfolded: Mapping[str, Array],
) -> Array:
    """Return which differing elements the margins do not explain.

    A margin explains a difference if it is at most three times the unfolded model's own error in the floats, plus 8u of
    their size, on either side.

    Args:
        decision: What stands behind the output.
        wrong: The elements that differ.
        value: What was decided.
        reference: What float64 decides.
        truth: The floats in float64, by name; constants included.
        unfolded: The floats of the unfolded model.
    """
    if any(name not in truth or name not in unfolded for name in decision.values):
        return wrong
    slack = 0.0
    for name in decision.values:
        exact, rounded = truth[name], unfolded[name].astype(np.float64)
        usable = np.isfinite(exact) & np.isfinite(rounded)
        if exact.shape != rounded.shape or not usable.any():
            return wrong
        noise = float(np.abs(exact - rounded)[usable].max())
        slack += 2 * (3 * noise + 8 * roundoff(unfolded[name].dtype) * float(np.abs(exact[usable]).max()))
    exact = truth[decision.values[0]]
    if decision.op_type in _PICKING:
        axis = decision.axis % exact.ndim
        picked = [np.asarray(item, dtype=np.int64) for item in (value, reference)]
        if not decision.keeps:
            picked = [np.expand_dims(item, axis) for item in picked]
        ours, theirs = (np.take_along_axis(exact, item, axis=axis) for item in picked)
        margin = np.abs(ours - theirs)
        return np.asarray(wrong & (margin.reshape(wrong.shape) > slack))
    if decision.op_type == "Cast":
        near = np.abs(exact - np.rint(exact)).reshape(wrong.shape)
        step = np.abs(np.asarray(value, dtype=np.float64) - np.asarray(reference, dtype=np.float64))
        return np.asarray(wrong & ((near > slack) | (step > 1)))
    names = (*decision.values, *decision.fixed)
    if len(names) != 2 or any(name not in truth for name in names):
        return wrong
    gap = np.abs(truth[names[0]] - truth[names[1]])
    return np.asarray(wrong & (np.broadcast_to(gap, wrong.shape) > slack))
