"""Resize and its older name, Upsample: every axis by itself, as a few weighted rows of the input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required

__all__ = ["SAMPLING", "is_plain_resize"]

_COORDINATES = frozenset({"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn"})


def is_plain_resize(attributes: Mapping[str, object]) -> bool:
    """Whether a Resize is of a kind that this kernel computes: no antialiasing, no crop, no kept aspect ratio."""
    return (
        attributes.get("coordinate_transformation_mode", "half_pixel") in _COORDINATES
        and not attributes.get("antialias")
        and attributes.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _resize(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    old = call.op_type == "Upsample" or call.version < 11
    scales, sizes = (given(inputs, 1), None) if old else (given(inputs, 2), given(inputs, 3))
    if scales is None and call.attributes.get("scales") is not None:
        scales = np.asarray(call.attributes["scales"], dtype=np.float64)
    axes = tuple(axis % x.ndim for axis in call.integers("axes")) or tuple(range(x.ndim))
    for number, axis in enumerate(axes):
        size = x.shape[axis]
        if sizes is not None and sizes.size:
            out = int(sizes[number])
            scale = out / size
        else:
            assert scales is not None
            scale = float(scales[number])
            out = int(np.floor(np.float32(size) * np.float32(scale)))
        if out != size or scale != 1:
            x = _along(call, x, axis, out, scale, old=old)
    return (x,)


def _along(call: Call, x: Array, axis: int, out: int, scale: float, *, old: bool) -> Array:
    size, mode = x.shape[axis], call.text("mode", "nearest")
    transform = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        # Which element is nearest is a decision, and every runtime takes it in float32.
        where = _coordinates(transform, out, size, scale, np.float32)
        index = _nearest(where, "floor" if old else call.text("nearest_mode", "round_prefer_floor"))
        return np.take(x, np.clip(index, 0, size - 1), axis=axis)
    where = _coordinates(transform, out, size, scale, np.float64)
    if mode == "linear" or (old and mode == "bilinear"):
        where = np.clip(where, 0, size - 1)
        first = np.floor(where)
        taps = np.stack([first, first + 1], axis=1)
        weights = np.stack([1 - (where - first), where - first], axis=1)
    else:
        first = np.floor(where)
        taps = first[:, None] + np.arange(-1, 3)
        weights = _cubic(np.abs(where[:, None] - taps), call.number("cubic_coeff_a", -0.75))
        if call.integer("exclude_outside"):
            weights = np.where((taps >= 0) & (taps < size), weights, 0.0)
            weights = weights / weights.sum(axis=1, keepdims=True)
        if call.integer("absolute"):  # no attribute of the standard's: what the bound of an error asks for
            weights = np.abs(weights)
    index = np.clip(taps, 0, size - 1).astype(np.int64)
    spread = [-1 if position == axis else 1 for position in range(x.ndim)]
    parts = (np.take(x, index[:, tap], axis=axis) * weights[:, tap].reshape(spread) for tap in range(index.shape[1]))
    return np.asarray(sum(parts))


def _coordinates(transform: str, out: int, size: int, scale: float, dtype: type[np.floating]) -> Array:
    """Return where every output element lies in the input."""
    position, factor, half = np.arange(out, dtype=dtype), dtype(scale), dtype(0.5)
    if transform == "align_corners":
        # The sizes as they are: onnxruntime's reading, where the standard's text allows a fractional one.
        return np.asarray(position * dtype(size - 1) / dtype(max(out - 1, 1)))
    if transform == "asymmetric":
        return np.asarray(position / factor)
    if transform == "tf_half_pixel_for_nn":
        return np.asarray((position + half) / factor)
    if transform == "pytorch_half_pixel" and out == 1:
        return np.zeros(out, dtype=dtype)
    return np.asarray((position + half) / factor - half)


def _nearest(where: Array, mode: str) -> Array:
    half = where.dtype.type(0.5)
    rounded = {"floor": where, "ceil": where, "round_prefer_ceil": where + half}.get(mode, where - half)
    down = mode in {"floor", "round_prefer_ceil"}
    return np.asarray(np.floor(rounded) if down else np.ceil(rounded)).astype(np.int64)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


SAMPLING: Mapping[str, Kernel] = {"Resize": _resize, "Upsample": _resize}
"""The resampling operations of the standard domain."""
