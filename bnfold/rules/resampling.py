"""Carriers that stretch an image, or put a border around it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.attributes import fits_attribute
from bnfold.rules.carrying import Index, along_axes, both, picked, size_of, too_large, unpicked, whole_numbers
from bnfold.rules.declare import Carried, Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _constant_list(node: NodeView, position: int) -> tuple[float, ...] | None:
    constant = node.constant(position)
    return None if constant is None or not constant.size else tuple(float(item) for item in constant.reshape(-1))


def _scales(node: NodeView) -> tuple[float, ...] | None:
    """Return the factors that are given, one an axis or one an entry of ``axes``; None where sizes are given."""
    if node.op_type == "Upsample" and node.opset < 9:
        given = node.attributes.get("scales")
        return tuple(float(item) for item in given) if isinstance(given, tuple) else None
    return _constant_list(node, 1 if node.op_type == "Upsample" or node.opset < 11 else 2)


def _keeps(node: NodeView, axis: int, rank: int) -> bool | None:
    """Tell whether an axis stays as it is; None where that is not known."""
    given = whole_numbers(node.attributes.get("axes"))
    axes = tuple(range(rank))
    if given is not None:
        axes = tuple(each + rank if each < 0 else each for each in given)
        if axis not in axes:
            return True
    scales = _scales(node)
    if scales is not None:
        return scales[axes.index(axis)] == 1.0 if len(scales) == len(axes) else None
    if node.op_type == "Upsample" or node.opset < 11 or not node.has_input(3):
        return None  # the factors are computed, and a size alone does not tell them
    before, after = node.shape(0), node.output_shape()
    if before is None or after is None or len(after) != rank or before[axis] is None or after[axis] is None:
        return None
    same = before[axis] == after[axis]
    return same if same or (isinstance(before[axis], int) and isinstance(after[axis], int)) else None


def _resize(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    transform = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    mode = node.attributes.get("mode", "nearest")
    if transform == "tf_crop_and_resize":
        return Refusal(Reason.PADDED_SHIFT, f"{node.name} fills in a number outside of its box")
    if mode not in {"nearest", "linear", "cubic"} and node.op_type != "Upsample":
        return Refusal(Reason.NO_RULE, f"{node.name} has a mode {mode} that has no rule")
    # Along an axis with factor 1 every mode reads each element itself, but for one that adds half an element.
    if field.axes() and transform == "tf_half_pixel_for_nn":
        rounds = node.attributes.get("nearest_mode", "round_prefer_floor")
        if mode != "nearest" or rounds not in {"floor", "round_prefer_floor"}:
            return Refusal(Reason.NO_RULE, f"{node.name} reads half an element further along every axis")
    for axis in field.axes():
        keeps = _keeps(node, axis, field.rank)
        if keeps is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"it is not known whether {node.name} stretches axis {axis}")
        if not keeps:
            return Refusal(Reason.SCRAMBLED, f"{node.name} stretches axis {axis}, along which the map varies")
    return field  # the weights of what is read for one element add up to 1


# Pad


def _pads(node: NodeView, rank: int) -> tuple[tuple[int, int], ...] | Refusal:
    """Return how many elements join each axis, in front and behind."""
    axes = tuple(range(rank))
    given: object = node.attributes.get("pads", node.attributes.get("paddings"))
    if node.opset >= 11:
        constant = node.constant(1)
        if constant is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the pads of {node.name} are computed while the model runs")
        given = constant
        if node.has_input(3):
            chosen = node.constant(3)
            if chosen is None:
                return Refusal(Reason.UNKNOWN_SHAPE, f"the axes of {node.name} are computed while the model runs")
            axes = tuple(axis + rank if axis < 0 else axis for axis in whole_numbers(chosen) or ())
    given = whole_numbers(given)
    fits = given is not None and len(given) == 2 * len(axes) and len(set(axes)) == len(axes)
    if given is None or not fits or any(not 0 <= axis < rank for axis in axes):
        return Refusal(Reason.UNKNOWN_SHAPE, f"the pads of {node.name} do not fit a value with {rank} axes")
    found = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        found[axis] = (given[place], given[place + len(axes)])
    return tuple(found)


def _padded_index(size: int, pads: tuple[int, int], mode: str) -> Index | None:
    """Return which element stands at each place of a padded axis; −1 where none does."""
    start, stop = max(0, -pads[0]), size - max(0, -pads[1])
    index = np.arange(size)[start:stop]
    joined = (max(0, pads[0]), max(0, pads[1]))
    if not index.size:
        return None
    if mode == "constant":
        return np.pad(index, joined, constant_values=-1)
    if min(pads) < 0 or (mode == "reflect" and max(joined) >= size) or (mode == "wrap" and max(joined) > size):
        return None  # implementations differ
    return np.pad(index, joined, mode=mode)  # type: ignore[call-overload, no-any-return]


def _pad(node: NodeView, field: Field, direction: Direction) -> Field | Carried | Refusal:
    pads = _pads(node, field.rank)
    if isinstance(pads, Refusal):
        return pads
    given = node.attributes.get("mode", "constant")
    mode = given if isinstance(given, str) else "constant"
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        return Refusal(Reason.NO_RULE, f"{node.name} has a mode {mode} that has no rule")
    padded = tuple(axis for axis in range(field.rank) if pads[axis] != (0, 0))
    result, border = field, np.zeros(field.shape, dtype=bool)
    for axis in along_axes(field, padded):
        size = field.shape[axis] if direction is Direction.FORWARD else size_of(node.shape(0), axis)
        if size is not None and (refusal := too_large(node, (size + sum(map(abs, pads[axis])),))) is not None:
            return refusal
        index = None if size is None else _padded_index(size, pads[axis], mode)
        if size is None or index is None or (direction is Direction.BACKWARD and index.size != field.shape[axis]):
            return Refusal(Reason.UNKNOWN_SHAPE, f"it is not known what {node.name} puts along axis {axis}")
        found = picked(result, axis, index) if direction is Direction.FORWARD else unpicked(result, axis, index, size)
        if found is None:
            return Refusal(Reason.SCRAMBLED, f"{node.name} repeats elements along axis {axis}, each with another map")
        result = found
    if mode != "constant" or not any(max(pair) > 0 for pair in pads):
        return result
    # What the border's number meets: the map behind the node, wherever something was put.
    behind = result if direction is Direction.FORWARD else field
    border = np.zeros(behind.shape, dtype=bool)
    for axis in padded:
        place = np.arange(behind.shape[axis])
        joined = (place < pads[axis][0]) | (place >= behind.shape[axis] - pads[axis][1])
        if behind.shape[axis] == 1:
            joined = np.full(1, max(pads[axis]) > 0)
        border |= np.expand_dims(joined, tuple(other for other in range(behind.rank) if other != axis))
    scale, shift = behind.scale[border], behind.shift[border]
    return _with_number(node, result, scale, shift, direction)


def _with_number(
    node: NodeView, result: Field, scale: Float64Array, shift: Float64Array, direction: Direction
) -> Field | Carried | Refusal:
    """Put another number around the value, one that gives on its side what the number gives on the other."""
    number = _number(node)
    if number is None:
        return Refusal(Reason.NO_RULE, f"{node.name} pads with a number that is not known")
    with np.errstate(all="ignore"):
        if bool((scale * number + shift == number).all()):
            return result
        wanted = scale * number + shift if direction is Direction.BACKWARD else (number - shift) / scale
    if not (np.isfinite(wanted).all() and (wanted == wanted[0]).all()):
        return Refusal(
            Reason.PADDED_SHIFT, f"{node.name} pads all channels with {number:g}, and they take different maps"
        )
    constant = node.constant(2)
    changed = np.full(() if constant is None else constant.shape, wanted[0])
    if node.opset < 11 and not fits_attribute(node, changed):
        return Refusal(Reason.PADDED_SHIFT, f"{node.name} pads with a float32, which {wanted[0]:g} is not")
    return Carried({0: result}, {2: changed})


def _number(node: NodeView) -> float | None:
    if not node.has_input(2):
        return node.number("value", 0.0) if node.opset < 11 else 0.0
    constant = node.constant(2)
    if constant is None or constant.size != 1 or constant.dtype != np.float64:
        return None
    return float(constant.astype(np.float64).reshape(-1)[0])


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Resize",
            "(s, o) on both sides, along axes that are not stretched",
            *both(_resize),
            (
                Example(
                    "a batch norm behind an image that is enlarged",
                    f"""(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, float[4] factors = {{1.0, 1.0, 2.0, 2.0}}, {_MEAN}> {{
                       h = Conv(x, W)
                       u = Resize<mode="linear">(h, , factors)
                       y = BatchNormalization(u, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "a map that differs between the columns that are stretched",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, float[4] factors = {1.0, 1.0, 2.0, 2.0}, double[8] c> {
                       h = Conv(x, W)
                       u = Resize<mode="nearest">(h, , factors)
                       y = Mul(u, c) }""",
                    refused=Reason.SCRAMBLED,
                ),
            ),
        ),
        Carrier(
            "Upsample",
            "(s, o) on both sides, along axes that are not stretched",
            *both(_resize),
            (
                Example(
                    "a scale and a shift behind an image that is enlarged",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[6] b, float[4] factors = {1.0, 1.0, 2.0, 2.0}, double[6,1,1] c,
                        double[6,1,1] d> {
                       h = Conv(x, W, b)
                       u = Upsample<mode="nearest">(h, factors)
                       m = Mul(u, c)
                       y = Add(m, d) }""",
                    opset=9,
                ),
                Example(
                    "a map that differs between the columns that are stretched",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, float[4] factors = {1.0, 1.0, 2.0, 2.0}, double[8] c> {
                       h = Conv(x, W)
                       u = Upsample<mode="nearest">(h, factors)
                       y = Mul(u, c) }""",
                    refused=Reason.SCRAMBLED,
                    opset=9,
                ),
            ),
        ),
        Carrier(
            "Pad",
            "(s, o) on both sides; a number that is put around becomes s·v + o, if that is the same for all",
            *both(_pad),
            (
                Example(
                    "a reflected border in front of a layer",
                    f"""(double[1,6,5,5] x) => (double y)
                       <double[2,6,3,3] W, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       p = Pad<mode="reflect">(h, pads)
                       y = Conv(p, W) }}""",
                ),
                Example(
                    "channels of zeros join a shortcut",
                    """(double[1,6,5,5] x) => (double y)
                       <double[2,8,3,3] W, int64[8] pads = {0, 1, 0, 0, 0, 1, 0, 0}, double[6,1,1] c, double[6,1,1] d> {
                       h = Mul(x, c)
                       g = Add(h, d)
                       p = Pad(g, pads)
                       y = Conv(p, W) }""",
                ),
                Example(
                    "a border of zeros around what takes a shift",
                    """(double[1,6,5,5] x) => (double y)
                       <double[2,6,3,3] W, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, double[6,1,1] d> {
                       h = Add(x, d)
                       p = Pad(h, pads)
                       y = Conv(p, W) }""",
                    refused=Reason.PADDED_SHIFT,
                ),
            ),
        ),
    )
}
