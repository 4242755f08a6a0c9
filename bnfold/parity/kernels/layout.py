"""Operations that move, cut, make or convert values without computing on them."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required, widen

__all__ = ["LAYOUT"]

_WIDENED = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def _identity(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (required(inputs, 0),)


def _dropout(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, trains = required(inputs, 0), given(inputs, 2)
    # Without a seed nobody can say what a training dropout computes; a ratio of 0 drops nothing.
    ratio = given(inputs, 1)
    active = (trains is not None and bool(trains)) or (call.version < 7 and not call.integer("is_test"))
    if active and (ratio is None or float(ratio) != 0) and call.number("ratio", 0.5) != 0:
        raise ValueError("a dropout in training mode has no reference: its output is random")
    return (x, np.ones(x.shape, dtype=bool))


def _reshape(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, shape = required(inputs, 0), given(inputs, 1)
    wanted = list(call.integers("shape")) if shape is None else [int(size) for size in shape.reshape(-1)]
    if not call.integer("allowzero"):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return (x.reshape(wanted),)


def _flatten(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    axis = call.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return (x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), int(np.prod(x.shape[axis:], dtype=np.int64))),)


def _transpose(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.transpose(required(inputs, 0), call.integers("perm") or None),)


def _axes(call: Call, inputs: Inputs) -> tuple[int, ...]:
    axes = given(inputs, 1)
    return call.integers("axes") if axes is None else tuple(int(axis) for axis in axes.reshape(-1))


def _squeeze(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.squeeze(required(inputs, 0), axis=_axes(call, inputs) or None),)


def _unsqueeze(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.expand_dims(required(inputs, 0), _axes(call, inputs)),)


def _concat(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.concatenate([part for part in inputs if part is not None], axis=call.integer("axis", 1)),)


def _gather(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.take(required(inputs, 0), required(inputs, 1).astype(np.int64), axis=call.integer("axis")),)


def _gather_elements(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, places, axis = required(inputs, 0), required(inputs, 1).astype(np.int64), call.integer("axis")
    axis += x.ndim if axis < 0 else 0
    grid: list[Array] = list(
        np.indices(places.shape, sparse=True)
    )  # the other axes of the places may be shorter than those of x
    grid[axis] = places
    return (x[tuple(grid)],)


def _expand(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, shape = required(inputs, 0), tuple(int(size) for size in required(inputs, 1).reshape(-1))
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)),)


def _slice(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    if call.version < 10:
        starts, ends = call.integers("starts"), call.integers("ends")
        axes, steps = call.integers("axes"), call.integers("steps")
    else:
        starts, ends, axes, steps = (_integers(given(inputs, position)) for position in range(1, 5))
    index = [slice(None)] * x.ndim
    for number, axis in enumerate(axes or tuple(range(len(starts)))):
        index[axis] = _span(x.shape[axis], starts[number], ends[number], steps[number] if steps else 1)
    return (x[tuple(index)],)


def _integers(value: Array | None) -> tuple[int, ...]:
    return () if value is None else tuple(int(item) for item in value.reshape(-1))


def _span(size: int, start: int, end: int, step: int) -> slice:
    """Bounds are counted from the end if negative, then held inside; a backward one may end in front of the first."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, None if end < 0 else end, step)


def _split(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, sizes = required(inputs, 0), given(inputs, 1)
    axis = call.integer("axis")
    parts = call.integers("split") if sizes is None else tuple(int(size) for size in sizes.reshape(-1))
    if not parts:
        count = call.integer("num_outputs", len(call.outputs))
        each = -(-x.shape[axis] // count)
        parts = tuple(min(each, x.shape[axis] - each * number) for number in range(count))
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis=axis))


def _shape(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    shape = required(inputs, 0).shape
    end = call.attributes.get("end")
    return (np.asarray(shape[slice(call.integer("start"), end if end is None else int(end))], dtype=np.int64),)


def _size(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.asarray(required(inputs, 0).size, dtype=np.int64),)


def _tile(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, repeats = required(inputs, 0), required(inputs, 1)
    if call.version < 6:
        counts = [1] * x.ndim
        counts[int(required(inputs, 2))] = int(repeats)
        return (np.tile(x, counts),)
    return (np.tile(x, [int(count) for count in repeats.reshape(-1)]),)


def _element_type(call: Call, default: int = TensorProto.FLOAT) -> int:
    to = call.attributes.get("to", default)
    return int(TensorProto.DataType.Value(to)) if isinstance(to, str) else int(to)


def _converted(x: Array, element: int, *, saturate: bool) -> Array:
    if element in _WIDENED:
        # Text is read as it stands; a float of any width stays what it is: rounding is what the reference leaves out.
        return x.astype(np.float64)
    if element == TensorProto.STRING:
        return x.astype(np.str_).astype(object)
    target = helper.tensor_dtype_to_np_dtype(element)
    if x.dtype.kind == "f" and target.kind in "iu" and target.itemsize:
        # What lies outside of the target's range is undefined; inside, the fraction is cut off.
        with np.errstate(invalid="ignore"):
            return np.trunc(x).astype(target)
    if saturate and target.name.startswith("float8"):
        return np.asarray(onnx.numpy_helper.saturate_cast(x, target))
    return x.astype(target)


def _cast(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (_converted(required(inputs, 0), _element_type(call), saturate=bool(call.integer("saturate", 1))),)


def _cast_like(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    element = helper.np_dtype_to_tensor_dtype(required(inputs, 1).dtype)
    return (_converted(required(inputs, 0), element, saturate=bool(call.integer("saturate", 1))),)


def _constant(call: Call, _inputs: Inputs) -> tuple[Array, ...]:
    for name, value in call.attributes.items():
        if value is None or not name.startswith(("value", "sparse_value")):
            continue
        if name in {"value_int", "value_ints"}:
            return (np.asarray(value, dtype=np.int64),)
        if name in {"value_float", "value_floats"}:
            return (np.asarray(value, dtype=np.float64),)
        if name in {"value_string", "value_strings"}:
            return (np.asarray(value, dtype=object),)
        return (widen(np.asarray(value)),)
    raise ValueError("a constant without a value")


def _constant_of_shape(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    value = call.attributes.get("value")
    filler = np.zeros((), dtype=np.float64) if value is None else widen(np.asarray(value)).reshape(())
    return (np.full([int(size) for size in required(inputs, 0).reshape(-1)], filler, dtype=filler.dtype),)


def _pad(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, mode = required(inputs, 0), call.text("mode", "constant")
    if call.version < 11:
        pads = call.integers("pads") or call.integers("paddings")
        value, axes = np.asarray(call.number("value", 0.0), dtype=x.dtype), tuple(range(x.ndim))
    else:
        pads = tuple(int(size) for size in required(inputs, 1).reshape(-1))
        filler, chosen = given(inputs, 2), given(inputs, 3)
        value = np.zeros((), dtype=x.dtype) if filler is None else filler.reshape(())
        axes = tuple(range(x.ndim)) if chosen is None else tuple(int(axis) % x.ndim for axis in chosen.reshape(-1))
    widths = [(0, 0)] * x.ndim
    for number, axis in enumerate(axes):
        widths[axis] = (pads[number], pads[len(axes) + number])
    # Negative pads cut, and they do so first.
    x = x[tuple(slice(max(0, -low), x.shape[axis] - max(0, -high)) for axis, (low, high) in enumerate(widths))]
    widths = [(max(0, low), max(0, high)) for low, high in widths]
    if mode == "constant":
        return (np.pad(x, widths, constant_values=value),)
    return (np.pad(x, widths, mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode]),)  # type: ignore[call-overload]


def _along(parameter: Array, x: Array, call: Call) -> Array:
    """Spread a scale or a zero point over the tensor that it belongs to: one, one a slice, or one a block."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis = call.integer("axis", 1) % x.ndim
    if parameter.ndim == 1:
        return parameter.reshape([-1 if position == axis else 1 for position in range(x.ndim)])
    block = call.integer("block_size") or -(-x.shape[axis] // parameter.shape[axis])
    return np.take(np.repeat(parameter, block, axis=axis), np.arange(x.shape[axis]), axis=axis)


def _dequantize(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, scale, zero = required(inputs, 0), required(inputs, 1), given(inputs, 2)
    wide = x.astype(np.float64)
    if zero is not None:
        wide = wide - _along(zero.astype(np.float64), x, call)
    return (wide * _along(scale, x, call),)


def _quantize(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, scale, zero = required(inputs, 0), required(inputs, 1), given(inputs, 2)
    element = call.integer("output_dtype")
    target = (
        zero.dtype if zero is not None else helper.tensor_dtype_to_np_dtype(element) if element else np.dtype(np.uint8)
    )
    y = x / _along(scale, x, call)
    if target.name.startswith("float"):
        return (np.asarray(onnx.numpy_helper.saturate_cast(y, target)),)
    y = np.rint(y)
    if zero is not None:
        y = y + _along(zero.astype(np.float64), x, call)
    limits = ml_dtypes.iinfo(target)  # type: ignore[no-untyped-call]
    return (np.clip(np.nan_to_num(y), int(limits.min), int(limits.max)).astype(target),)


LAYOUT: Mapping[str, Kernel] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantize,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Identity": _identity,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The layout operations of the standard domain."""
