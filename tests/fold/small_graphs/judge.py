"""The judge of the small graphs: onnx's evaluator in float64, and definitions of our own where it knows only a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import product
from math import ceil, floor
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

__all__ = ["TOLERANCE", "compute", "feeds_of", "widened"]

Array = npt.NDArray[Any]

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8}

TOLERANCE = {"double": 1e-10, "float": 2e-6, "float16": 8e-3, "bfloat16": 6e-2}
"""How far a folded graph may be from the original, as a part of the largest output, by the type of its weights."""


class BatchNormalization(OpRun):
    """Of every version, in inference mode: onnx's own knows those since 9, and reads older ones wrongly."""

    def _run(self, x, scale, shift, mean, variance, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        assert not attributes.get("training_mode")
        along = (-1, *[1] * (x.ndim - 2))
        if attributes.get("spatial") == 0:
            along = x.shape[1:]
        epsilon = attributes.get("epsilon") or 1e-5
        root = np.sqrt(variance.reshape(along) + epsilon)
        return ((x - mean.reshape(along)) / root * scale.reshape(along) + shift.reshape(along),)


class _Broadcasting(OpRun):
    """Two operands as their operator set lays them on one another; before 7, only as it is told, and strictly."""

    def laid(self, x: Array, y: Array, attributes: Mapping[str, Any]) -> Array:
        if self.run_params["opsets"][""] >= 7 or x.shape == y.shape:
            return y
        assert attributes.get("broadcast"), f"{y.shape} is not {x.shape}, and nobody said broadcast"
        if y.size == 1:
            return y.reshape(())
        axis = attributes.get("axis")
        axis = x.ndim - y.ndim if axis is None else axis % x.ndim
        assert x.shape[axis : axis + y.ndim] == y.shape, f"{y.shape} is no part of {x.shape} at {axis}"
        return y.reshape(*y.shape, *[1] * (x.ndim - axis - y.ndim))


class Add(_Broadcasting):
    def _run(self, x, y, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        return (x + self.laid(x, y, attributes),)


class Sub(_Broadcasting):
    def _run(self, x, y, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        return (x - self.laid(x, y, attributes),)


class Mul(_Broadcasting):
    def _run(self, x, y, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        return (x * self.laid(x, y, attributes),)


class Div(_Broadcasting):
    def _run(self, x, y, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        y = self.laid(x, y, attributes)
        return (x // y if x.dtype.kind == "i" else x / y,)


def _choice(name: str, choose: Callable[[Array, Array], Array]) -> type[OpRun]:
    def _run(self: OpRun, *values: Array) -> tuple[Array]:
        if self.run_params["opsets"][""] < 8:  # where all shapes have to be the same
            assert len({value.shape for value in values}) == 1
        return (reduce(choose, values),)

    return type(name, (OpRun,), {"_run": _run})


class DequantizeLinear(OpRun):
    """By its definition in float64; onnx's own computes in float32."""

    def _run(self, q, scale, zero=None, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        axis = attributes.get("axis")
        assert not attributes.get("block_size")
        shape = [1] * q.ndim
        if scale.ndim == 1:
            shape[1 if axis is None else axis] = -1
        offset = 0.0 if zero is None else zero.astype(np.float64).reshape(shape)
        return ((q.astype(np.float64) - offset) * scale.astype(np.float64).reshape(shape),)


class Window:
    """Where the windows of a convolution or a pooling lie."""

    def __init__(self, sizes: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]) -> None:
        rank = len(sizes)
        self.kernel = list(kernel)
        self.strides = list(attributes.get("strides") or [1] * rank)
        self.dilations = list(attributes.get("dilations") or [1] * rank)
        pads = list(attributes.get("pads") or [0] * 2 * rank)
        reach = [(taps - 1) * step + 1 for taps, step in zip(kernel, self.dilations, strict=True)]
        auto = attributes.get("auto_pad") or "NOTSET"
        if auto.startswith("SAME"):
            self.out = [ceil(size / stride) for size, stride in zip(sizes, self.strides, strict=True)]
            total = [
                max(0, (out - 1) * stride + taps - size)
                for out, stride, taps, size in zip(self.out, self.strides, reach, sizes, strict=True)
            ]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto == "SAME_UPPER" else large + small
        else:
            rounding = ceil if attributes.get("ceil_mode") else floor
            self.out = [
                rounding((size + pads[axis] + pads[axis + rank] - reach[axis]) / self.strides[axis]) + 1
                for axis, size in enumerate(sizes)
            ]
            for axis, size in enumerate(sizes):  # a window that begins behind the value and its pads is none
                if attributes.get("ceil_mode") and (self.out[axis] - 1) * self.strides[axis] >= size + pads[axis]:
                    self.out[axis] -= 1
        self.pads, self.sizes = pads, list(sizes)

    def taps(self, place: Sequence[int]) -> tuple[list[Any], int]:
        """Return the elements that a window sees, and how many it has with the pads (and nothing behind the pads)."""
        rank = len(self.sizes)
        seen: list[Any] = []
        padded = 0
        for tap in product(*map(range, self.kernel)):
            where = tuple(
                place[axis] * self.strides[axis] + tap[axis] * self.dilations[axis] - self.pads[axis]
                for axis in range(rank)
            )
            padded += all(
                w < size + self.pads[axis + rank] for axis, (w, size) in enumerate(zip(where, self.sizes, strict=True))
            )
            if all(0 <= w < size for w, size in zip(where, self.sizes, strict=True)):
                seen.append(where)
        return seen, padded


def _pooled(x: Array, attributes: Mapping[str, Any], kind: str) -> tuple[Array]:
    window = Window(x.shape[2:], attributes["kernel_shape"], attributes)
    y = np.empty((*x.shape[:2], *window.out))
    for place in np.ndindex(*window.out):
        seen, padded = window.taps(place)
        values = np.stack([x[:, :, *where] for where in seen])
        if kind == "max":
            result = values.max(axis=0)
        elif kind == "average":
            result = values.sum(axis=0) / (padded if attributes.get("count_include_pad") else len(seen))
        else:
            p = attributes.get("p") or 2
            result = (np.abs(values) ** p).sum(axis=0) ** (1 / p)
        y[(slice(None), slice(None), *place)] = result
    return (y,)


class MaxPool(OpRun):
    def _run(self, x, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        (y,) = _pooled(x, attributes, "max")
        # Where it was found: at the first place in its image that holds the number.
        places = [x[index[:2]].reshape(-1).tolist().index(y[index]) for index in np.ndindex(*y.shape)]
        images = np.arange(y.shape[0] * y.shape[1]).repeat(y[0, 0].size) * x[0, 0].size
        return (y, (np.asarray(places) + images).reshape(y.shape))[: len(self.onnx_node.output)]


class AveragePool(OpRun):
    def _run(self, x, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        return _pooled(x, attributes, "average")


class Dropout(OpRun):
    def _run(self, x, *_settings, **_attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN002, ANN003, ANN202
        return (x, np.ones(x.shape, dtype=bool))[: len(self.onnx_node.output)]


class Pad(OpRun):
    """With pads below zero too, which crop."""

    def _run(self, x, pads=None, value=None, axes=None, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        pads = attributes.get("pads", pads) if pads is None else pads
        mode: Any = attributes.get("mode") or "constant"
        number = 0.0 if value is None else float(np.asarray(value).reshape(()))
        chosen = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for place, axis in enumerate(chosen):
            widths[axis] = (int(pads[place]), int(pads[place + len(chosen)]))
        x = x[
            tuple(
                slice(max(0, -begin), size - max(0, -end)) for (begin, end), size in zip(widths, x.shape, strict=True)
            )
        ]
        widths = [(max(0, begin), max(0, end)) for begin, end in widths]
        if mode == "constant":
            return (np.pad(x, widths, constant_values=number),)
        return (np.pad(x, widths, mode=mode),)


class Upsample(OpRun):
    def _run(self, x, scales=None, mode=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        assert mode == "nearest"
        for axis, factor in enumerate(scales):
            x = np.repeat(x, int(factor), axis=axis)
        return (x,)


class GlobalMaxPool(OpRun):
    def _run(self, x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Mean(OpRun):
    def _run(self, *values):  # type: ignore[no-untyped-def] # noqa: ANN002, ANN202
        return (reduce(np.add, values) / len(values),)


class GlobalLpPool(OpRun):
    def _run(self, x, p=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return ((np.abs(x) ** (p or 2)).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / (p or 2)),)


class LpPool(OpRun):
    def _run(self, x, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        return _pooled(x, attributes, "root")


class ConvTranspose(OpRun):
    """By its definition, tap by tap: onnx's own evaluator does not know groups."""

    def _run(self, x, weight, bias=None, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        rank = x.ndim - 2
        group = attributes["group"] or 1
        strides = attributes["strides"] or [1] * rank
        dilations = attributes["dilations"] or [1] * rank
        pads = list(attributes["pads"] or [0] * (2 * rank))
        padding = attributes["output_padding"] or [0] * rank
        reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(weight.shape[2:], dilations, strict=True)]
        full = [
            stride * (size - 1) + taps + extra
            for stride, size, taps, extra in zip(strides, x.shape[2:], reach, padding, strict=True)
        ]
        auto, wanted = attributes.get("auto_pad") or "NOTSET", attributes.get("output_shape")
        if auto.startswith("SAME") and not wanted:
            wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        if wanted:
            total = [have - want for have, want in zip(full, wanted, strict=True)]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto == "SAME_UPPER" else large + small
        each_in, each_out = x.shape[1] // group, weight.shape[1]
        y = np.zeros((x.shape[0], group * each_out, *full))
        for index in np.ndindex(*x.shape):
            image, channel, *position = index
            first = channel // each_in * each_out
            for tap in np.ndindex(*weight.shape[2:]):
                where = (p * s + t * d for p, s, t, d in zip(position, strides, tap, dilations, strict=True))
                y[(image, slice(first, first + each_out), *where)] += x[index] * weight[(channel, slice(None), *tap)]
        crop = tuple(slice(pads[axis], full[axis] - pads[axis + rank]) for axis in range(rank))
        y = y[(slice(None), slice(None), *crop)]
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class Known(OpRun):
    """An operation that only its owner knows."""

    op_domain = "com.example"

    def _run(self, x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return (x * 1.0,)


_OPERATIONS: list[type[OpRun]] = [
    Add,
    AveragePool,
    BatchNormalization,
    ConvTranspose,
    DequantizeLinear,
    Div,
    Dropout,
    GlobalLpPool,
    GlobalMaxPool,
    Known,
    LpPool,
    MaxPool,
    Mean,
    Mul,
    Pad,
    Sub,
    Upsample,
    _choice("Max", np.maximum),
    _choice("Min", np.minimum),
]


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which every float is a double and nothing is rounded on the way."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type in _FLOATS:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del wide.graph.value_info[:]
    _widen(wide.graph)
    return wide


def _widen(graph: onnx.GraphProto) -> None:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                _widen(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = TensorProto.DOUBLE
    for tensor in tensors:
        if tensor.data_type in _FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def feeds_of(model: onnx.ModelProto, *, seed: int, free: int = 2) -> dict[str, Array]:
    """Draw one array for each input; integers are small, and every free dimension is ``free``."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        shape = [dimension.dim_value or free for dimension in value.type.tensor_type.shape.dim]
        element = value.type.tensor_type.elem_type
        if element == TensorProto.BOOL:
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape).astype(bool))
        elif element in _INTEGERS:
            dtype = helper.tensor_dtype_to_np_dtype(element)
            feeds[value.name] = np.asarray(rng.integers(0, 3, shape).astype(dtype))
        else:
            # What a narrow type can hold, so that the same numbers enter wherever the graph is run.
            feeds[value.name] = np.asarray(rng.normal(size=shape)).astype(ml_dtypes.bfloat16).astype(np.float64)
    return feeds


def compute(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model in float64, whatever types it states."""
    with np.errstate(all="ignore"):
        outputs = ReferenceEvaluator(widened(model), new_ops=_OPERATIONS).run(None, dict(feeds))
    return [np.asarray(output) for output in outputs]
