"""Carriers that slide a window over each channel: a map that is the same at every position may pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Field
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import along_axes, both, is_read, negative, size_of, whole_numbers
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


@dataclass(frozen=True, slots=True)
class _Window:
    """How far a window reaches along one spatial axis, in elements: pads, the taps' whole reach, and its steps."""

    begin: int
    end: int
    reach: int
    dilation: int
    stride: int


def _integers(node: NodeView, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    given = whole_numbers(node.attributes.get(name))
    return default if given is None else given


def _windows(node: NodeView) -> tuple[_Window, ...] | None:
    """Return the window along every spatial axis; None where it is not well formed, or padded by its node itself."""
    kernel = _integers(node, "kernel_shape", ())
    count = len(kernel)
    ones = (1,) * count
    strides, dilations = _integers(node, "strides", ones), _integers(node, "dilations", ones)
    pads = _integers(node, "pads", (0,) * (2 * count))
    if node.attributes.get("auto_pad", "NOTSET") not in {"NOTSET", ""}:
        pads = (0,) * (2 * count)
    if not count or (len(strides), len(dilations), len(pads)) != (count, count, 2 * count):
        return None
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        return None
    return tuple(
        _Window(
            pads[axis], pads[axis + count], (kernel[axis] - 1) * dilations[axis] + 1, dilations[axis], strides[axis]
        )
        for axis in range(count)
    )


def _pads_itself(node: NodeView) -> bool:
    return node.attributes.get("auto_pad", "NOTSET") in {"SAME_UPPER", "SAME_LOWER"}


def _may_be_empty(node: NodeView) -> bool:
    """Whether some window may hold nothing but padding, where a pool gives what no map of its input gives."""
    windows = _windows(node)
    if windows is None:
        return True
    for axis, window in enumerate(windows, start=2):
        last = window.end + (window.stride if node.integer("ceil_mode", 0) else 0)
        if window.begin >= window.reach or window.end >= window.reach or last > window.reach:
            return True
        if window.dilation > 1 and (last or window.begin or _pads_itself(node)):
            size = size_of(node.shape(0), axis)
            if size is None or size < window.dilation:
                return True  # the taps may step over the whole value
    return False


def _over_positions(node: NodeView, field: Field) -> Refusal | None:
    varying = along_axes(field, range(2, field.rank))
    if field.rank < 3:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} pools a value with {field.rank} axes")
    if varying:
        return Refusal(Reason.WRONG_AXIS, f"{node.name} pools over axis {varying[0]}, along which the map varies")
    return None


def _max_pool(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    refusal = _over_positions(node, field) or negative(node, field)
    if refusal is not None:
        return refusal
    if is_read(node, 1):
        return Refusal(Reason.NO_RULE, f"{node.name} also tells where the largest elements stand")
    if node.op_type == "MaxPool" and _may_be_empty(node):
        return Refusal(Reason.NO_RULE, f"a window of {node.name} may hold nothing but padding")
    return field


def _average_pool(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    refusal = _over_positions(node, field)
    if refusal is not None or not field.has_shift or node.op_type == "GlobalAveragePool":
        return refusal or field
    windows = _windows(node)
    if node.integer("count_include_pad", 0):
        padded = windows is None or any(window.begin or window.end for window in windows)
        if padded or _pads_itself(node) or node.integer("ceil_mode", 0):
            return Refusal(Reason.PADDED_SHIFT, f"{node.name} counts zeros that it pads with, which take no shift")
    if _may_be_empty(node):
        return Refusal(Reason.PADDED_SHIFT, f"a window of {node.name} may hold nothing but padding")
    return field


def _norm_pool(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    refusal = _over_positions(node, field)
    if refusal is not None:
        return refusal
    if field.has_shift:
        return Refusal(Reason.NO_RULE, f"{node.name} takes powers, which no shift passes")
    if direction is Direction.FORWARD:
        return Field(np.abs(field.scale), field.shift)
    return negative(node, field) or field


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"
_POSITIVE = "double[6] vars, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "MaxPool",
            "s·max(x) + o = max(s·x + o) for s ≥ 0, padding or not",
            *both(_max_pool),
            (
                Example(
                    "a batch norm behind a padded pool",
                    f"""(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, {_POSITIVE}> {{
                       h = Conv(x, W)
                       p = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(h)
                       y = BatchNormalization(p, vars, beta, mean, var) }}""",
                ),
                Example(
                    "one channel's scale is negative",
                    """(double[1,3,8,8] x) => (double y) <double[2,3,3,3] W, double[2,1,1] c = {1.5, -0.5}> {
                       h = Conv(x, W)
                       p = MaxPool<kernel_shape=[2,2]>(h)
                       y = Mul(p, c) }""",
                    refused=Reason.SIGN,
                ),
            ),
        ),
        Carrier(
            "AveragePool",
            "(s, o) on both sides; the shift only where no padding is counted",
            *both(_average_pool),
            (
                Example(
                    "padding that is not counted",
                    f"""(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       p = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(h)
                       y = BatchNormalization(p, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "padding that is counted, and a shift",
                    """(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, double[6,1,1] c> {
                       h = Conv(x, W)
                       p = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(h)
                       y = Add(p, c) }""",
                    refused=Reason.PADDED_SHIFT,
                ),
            ),
        ),
        Carrier(
            "GlobalAveragePool",
            "(s, o) on both sides",
            *both(_average_pool),
            (
                Example(
                    "a batch norm in front of the head of a classifier",
                    f"""(double[1,6,4,4] x) => (double y) <double[6,3] W, double[3] b, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       p = GlobalAveragePool(h)
                       f = Flatten(p)
                       y = Gemm(f, W, b) }}""",
                ),
                Example(
                    "a map that differs between the positions",
                    """(double[1,6,4,4] x) => (double y) <double[6,3] W, double[3] b, double[4,4] c> {
                       h = Mul(x, c)
                       p = GlobalAveragePool(h)
                       f = Flatten(p)
                       y = Gemm(f, W, b) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "GlobalMaxPool",
            "s·max(x) + o = max(s·x + o) for s ≥ 0",
            *both(_max_pool),
            (
                Example(
                    "a batch norm behind it",
                    f"""(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, {_POSITIVE}> {{
                       h = Conv(x, W)
                       p = GlobalMaxPool(h)
                       y = BatchNormalization(p, vars, beta, mean, var) }}""",
                ),
                Example(
                    "one channel's scale is negative",
                    """(double[1,3,8,8] x) => (double y) <double[2,3,3,3] W, double[2,1,1] c = {1.5, -0.5}> {
                       h = Conv(x, W)
                       p = GlobalMaxPool(h)
                       y = Mul(p, c) }""",
                    refused=Reason.SIGN,
                ),
            ),
        ),
        Carrier(
            "LpPool",
            "s·‖x‖ = ‖s·x‖ for s ≥ 0, ‖s·x‖ = |s|·‖x‖; no shift",
            *both(_norm_pool),
            (
                Example(
                    "a positive scale behind it",
                    """(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, double[6,1,1] vars> {
                       h = Conv(x, W)
                       p = LpPool<kernel_shape=[2,2],p=2>(h)
                       y = Mul(p, vars) }""",
                ),
                Example(
                    "a shift",
                    """(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, double[6,1,1] c> {
                       h = Conv(x, W)
                       p = LpPool<kernel_shape=[2,2],p=2>(h)
                       y = Add(p, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "GlobalLpPool",
            "s·‖x‖ = ‖s·x‖ for s ≥ 0, ‖s·x‖ = |s|·‖x‖; no shift",
            *both(_norm_pool),
            (
                Example(
                    "a positive scale behind it",
                    """(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, double[6,1,1] vars> {
                       h = Conv(x, W)
                       p = GlobalLpPool<p=2>(h)
                       y = Mul(p, vars) }""",
                ),
                Example(
                    "a shift",
                    """(double[1,3,8,8] x) => (double y) <double[6,3,3,3] W, double[6,1,1] c> {
                       h = Conv(x, W)
                       p = GlobalLpPool<p=2>(h)
                       y = Add(p, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
    )
}
