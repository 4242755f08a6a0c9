"""Carriers that turn blocks of pixels into channels and back: blocks × blocks channels (deep) against pixels (wide)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.shapes import Shape
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import both, size_of
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]

_LARGEST = 1 << 22
"""No map is laid out over more elements along one axis than this."""

_TO_WIDE = {"DCR": (0, 3, 4, 1, 5, 2), "CRD": (0, 1, 4, 2, 5, 3)}
_TO_DEEP = {"DCR": (0, 3, 5, 1, 2, 4), "CRD": (0, 1, 3, 5, 2, 4)}


def _joined(field: Field, axes: slice, sizes: tuple[int | None, ...]) -> Field | None:
    """Return the field with neighbouring axes laid out as one; None where a size that it takes is not known."""
    given = field.shape[axes]
    if all(size == 1 for size in given):
        one: tuple[int, ...] = (1,)
        inner = given
    else:
        known = tuple(size for size in sizes if size is not None)
        if (
            len(known) != len(sizes)
            or np.prod(known, dtype=np.float64) > _LARGEST
            or any(size not in (1, own) for size, own in zip(given, known, strict=True))
        ):
            return None
        one, inner = (int(np.prod(known)),), known
    before, behind = field.shape[: axes.start], field.shape[axes.stop :]
    return field.reshaped((*before, *inner, *behind), (*before, *one, *behind))


def _widened(field: Field, blocks: int, mode: str, deep: Shape) -> Field | None:
    batch, channels, *spatial = field.shape
    if channels != 1 and channels % (blocks * blocks):
        return None
    block, each = (blocks, channels // (blocks * blocks)) if channels != 1 else (1, 1)
    split = (block, block, each) if mode == "DCR" else (each, block, block)
    result = field.reshaped(field.shape, (batch, *split, *spatial)).transposed(_TO_WIDE[mode])
    for axis in (2, 3):
        joined = _joined(result, slice(axis, axis + 2), (size_of(deep, axis), blocks))
        if joined is None:
            return None
        result = joined
    return result


def _deepened(field: Field, blocks: int, mode: str, wide: Shape) -> Field | None:
    batch, channels, *spatial = field.shape
    if any(size != 1 and size % blocks for size in spatial):
        return None
    split = [(1, 1) if size == 1 else (size // blocks, blocks) for size in spatial]
    shape = (batch, channels, *split[0], *split[1])
    deep = field.reshaped(field.shape, shape).transposed(_TO_DEEP[mode])
    each = size_of(wide, 1)
    return _joined(deep, slice(1, 4), (blocks, blocks, each) if mode == "DCR" else (each, blocks, blocks))


def _blocks(node: NodeView, field: Field, direction: Direction) -> Field | Refusal:
    to_wide = node.op_type == "DepthToSpace"
    given = node.attributes.get("mode", "DCR")
    mode = given if isinstance(given, str) else ""
    blocks = node.integer("blocksize", 0)
    before, after = node.shape(0), node.output_shape()
    unknown: Shape = (None,) * 4
    deep, wide = (before, after) if to_wide else (after, before)
    if field.rank != 4 or blocks < 1 or mode not in _TO_WIDE:
        return Refusal(Reason.UNKNOWN_SHAPE, f"{node.name} does not move blocks of an image")
    widens = to_wide is (direction is Direction.FORWARD)
    found = (
        _widened(field, blocks, mode, deep or unknown) if widens else _deepened(field, blocks, mode, wide or unknown)
    )
    if found is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the sizes that {node.name} moves blocks of are not known")
    return found


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "DepthToSpace",
            "the field moves as the blocks do; each channel behind it is b·b channels in front",
            *both(_blocks),
            (
                Example(
                    "sub-pixel convolution, channels outermost",
                    f"""(double[1,3,6,6] x) => (double y) <double[24,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       a = DepthToSpace<blocksize=2,mode="CRD">(h)
                       y = BatchNormalization(a, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "a batch norm in front of it differs inside the blocks",
                    """(double[1,24,5,5] x) => (double y)
                       <double[2,6,3,3] W, double[24] gamma, double[24] beta, double[24] mean, double[24] var> {
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       a = DepthToSpace<blocksize=2>(h)
                       y = Conv(a, W) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Carrier(
            "SpaceToDepth",
            "the field moves as the blocks do; each channel in front of it is b·b channels behind",
            *both(_blocks),
            (
                Example(
                    "pixels become channels in front of a layer",
                    f"""(double[1,6,8,8] x) => (double y) <double[2,24,3,3] W, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       a = SpaceToDepth<blocksize=2>(h)
                       y = Conv(a, W) }}""",
                ),
                Example(
                    "a batch norm behind it differs between the pixels of one channel",
                    """(double[1,3,6,6] x) => (double y)
                       <double[6,3,3,3] W, double[24] gamma, double[24] beta, double[24] mean, double[24] var> {
                       h = Conv(x, W)
                       a = SpaceToDepth<blocksize=2>(h)
                       y = BatchNormalization(a, gamma, beta, mean, var) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
    )
}
