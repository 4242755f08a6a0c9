"""Values that are the same in every run: computed from constants alone, in float64, and bounded in size."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from bnfold.graph.outside import content, in_memory, is_outside

__all__ = ["EVALUABLE", "Constant", "dequantised", "evaluate", "filled", "plain", "split", "tensor_value", "widen"]

Constant = npt.NDArray[np.generic]
Attributes = Mapping[str, object]

_LARGEST = 1 << 28
"""No constant sub-expression with more elements than this is evaluated."""


_LARGEST_GROWN = 1 << 22
"""No constant is enlarged to more elements than this."""

_FLOATS = frozenset(np.dtype(each) for each in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))


def widen(array: npt.NDArray[np.generic]) -> Constant:
    """Return floating arrays as float64, and all others, eight-bit floats among them, as they are."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
        return array.astype(np.float64) if array.dtype in _FLOATS else array


def _axes(inputs: Sequence[Constant | None], attributes: Attributes) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(axis) for axis in inputs[1].reshape(-1))
    axes = attributes.get("axes")
    return tuple(axes) if isinstance(axes, (list, tuple)) else None


def _data(inputs: Sequence[Constant | None]) -> Constant:
    data = inputs[0]
    assert data is not None
    return data


def _cast(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant:
    to = attributes["to"]
    assert isinstance(to, int)
    return widen(_data(inputs).astype(helper.tensor_dtype_to_np_dtype(to)))


def _reshape(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    data = _data(inputs)
    if len(inputs) < 2 or inputs[1] is None:
        return None
    wanted = [int(size) for size in inputs[1].reshape(-1)]
    if not attributes.get("allowzero"):
        wanted = [data.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return data.reshape(wanted)


def _transpose(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant:
    perm = attributes.get("perm")
    return np.transpose(_data(inputs), tuple(perm) if isinstance(perm, (list, tuple)) else None)


def _squeeze(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant:
    axes = _axes(inputs, attributes)
    return np.squeeze(_data(inputs), axis=axes)


def _unsqueeze(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    axes = _axes(inputs, attributes)
    return None if axes is None else np.expand_dims(_data(inputs), axes)


def _concat(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    axis = attributes.get("axis", 1)
    parts = [part for part in inputs if part is not None]
    return np.concatenate(parts, axis=axis) if isinstance(axis, int) and len(parts) == len(inputs) else None


def _gather(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    axis = attributes.get("axis", 0)
    if not isinstance(axis, int) or inputs[1] is None:
        return None
    return np.take(_data(inputs), inputs[1].astype(np.int64), axis=axis)


def _pointwise(function: Callable[[Constant], Constant]) -> Evaluation:
    def apply(inputs: Sequence[Constant | None], _attributes: Attributes) -> Constant:
        return function(_data(inputs))

    return apply


def _pairwise(function: Callable[[Constant, Constant], Constant]) -> Evaluation:
    def apply(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
        # Before opset 7 these broadcast along a stated axis; such expressions are left to the runtime.
        if len(inputs) != 2 or inputs[1] is None or "broadcast" in attributes or "axis" in attributes:
            return None
        left, right = _data(inputs), inputs[1]
        if max(left.size, right.size) * max(1, min(left.size, right.size)) > _LARGEST and left.shape != right.shape:
            return None
        return function(left, right)

    return apply


def _divide(left: Constant, right: Constant) -> Constant:
    if left.dtype.kind in "iu":  # ONNX truncates towards zero
        return np.trunc(left.astype(np.float64) / right.astype(np.float64)).astype(left.dtype)
    return np.asarray(np.divide(left, right))


Evaluation = Callable[[Sequence[Constant | None], Attributes], "Constant | None"]


def _expand(inputs: Sequence[Constant | None], _attributes: Attributes) -> Constant | None:
    data, wanted = _data(inputs), inputs[1] if len(inputs) > 1 else None
    if wanted is None:
        return None
    sizes = tuple(int(size) for size in wanted.reshape(-1))
    shape = np.broadcast_shapes(data.shape, sizes) if min(sizes, default=0) >= 0 else None
    if shape is None or math.prod(shape) > _LARGEST_GROWN:
        return None
    return np.broadcast_to(data, shape)


def split(data: Constant, count: int, sizes: Constant | None, attributes: Attributes) -> Sequence[Constant] | None:
    """Cut a constant into parts as ``Split`` does; None where the parts do not make up the whole.

    Args:
        data: The constant.
        count: How many outputs the node has.
        sizes: The size of each part along the axis, where an input gives them.
        attributes: The node's attributes.
    """
    axis, given = attributes.get("axis", 0), attributes.get("split")
    if not isinstance(axis, int) or not -data.ndim <= axis < data.ndim or not count:
        return None
    whole = data.shape[axis]
    parts = [int(size) for size in sizes.reshape(-1)] if sizes is not None else None
    if parts is None and isinstance(given, tuple):
        parts = [size if isinstance(size, int) else -1 for size in given]
    if parts is None:
        each = -(-whole // count)
        parts = [each] * (count - 1) + [whole - each * (count - 1)]
    if len(parts) != count or min(parts) < 0 or sum(parts) != whole:
        return None
    return np.split(data, np.cumsum(parts)[:-1], axis=axis)


def filled(sizes: Constant, value: Constant | None) -> Constant | None:
    """Return what ``ConstantOfShape`` computes; None where that would be large.

    Args:
        sizes: The shape.
        value: The node's only element; None where the model leaves it out, which means 0.0.
    """
    shape = tuple(int(size) for size in sizes.reshape(-1))
    if min(shape, default=0) < 0 or math.prod(shape) > _LARGEST_GROWN or (value is not None and value.size != 1):
        return None
    return np.broadcast_to(np.zeros(()) if value is None else value.reshape(()), shape)


EVALUABLE: Mapping[str, Evaluation] = {
    "Abs": _pointwise(np.abs),
    "Add": _pairwise(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _pairwise(_divide),
    "Exp": _pointwise(np.exp),
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _pointwise(lambda data: data),
    "Mul": _pairwise(np.multiply),
    "Neg": _pointwise(np.negative),
    "Pow": _pairwise(lambda left, right: np.power(left, right).astype(left.dtype)),
    "Reciprocal": _pointwise(np.reciprocal),
    "Reshape": _reshape,
    "Sqrt": _pointwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _pairwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The operations of constant sub-expressions that exporters leave behind, each as numpy computes it."""


def evaluate(op_type: str, inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    """Compute one node on constants; None where it is not in the table or its arguments do not fit.

    Floating values are float64 throughout: a constant sub-expression is part of the algebra, rounded once at the end.
    """
    evaluation = EVALUABLE.get(op_type)
    if evaluation is None or not inputs or inputs[0] is None:
        return None
    if sum(part.size for part in inputs if part is not None) > _LARGEST:
        return None
    try:
        with np.errstate(all="ignore"):
            result = evaluation(inputs, attributes)
    except (ValueError, IndexError, TypeError, KeyError):
        return None
    return None if result is None else np.asarray(result)


def dequantised(inputs: Sequence[Constant | None], attributes: Attributes) -> Constant | None:
    """Compute a ``DequantizeLinear`` of constants, ``(q - z) * scale``, in float64; None where they do not fit."""
    q, scale = inputs[0], inputs[1] if len(inputs) > 1 else None
    if q is None or scale is None or q.size > _LARGEST:
        return None
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(scale.shape)
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if not isinstance(axis, int) or not isinstance(block, int) or zero.size != scale.size:
        return None
    try:
        laid = [_laid_out(part.astype(np.float64), q.shape, axis, block) for part in (scale, zero)]
        with np.errstate(all="ignore"):
            return np.asarray((q.astype(np.float64) - laid[1]) * laid[0])
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _laid_out(part: npt.NDArray[np.float64], shape: tuple[int, ...], axis: int, block: int) -> npt.NDArray[np.float64]:
    """Let one number for the whole tensor, for each element of an axis or for each block of one broadcast."""
    if block:
        return np.repeat(part, min(block, shape[axis]), axis=axis).take(range(shape[axis]), axis=axis)
    if part.size == 1:
        return part.reshape(())
    if part.shape != (shape[axis],):
        raise ValueError(f"{part.shape} along axis {axis} of {shape}")
    return part.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


def plain(tensor: TensorProto) -> npt.NDArray[np.float32] | None:
    """Return the numbers of a tensor as they lie in the model, without a copy; None where they lie otherwise.

    What is out of memory is read.
    """
    if tensor.data_type != TensorProto.FLOAT or sys.byteorder != "little":
        return None
    if is_outside(tensor):
        return np.frombuffer(content(tensor), np.float32).reshape(tuple(tensor.dims))
    if tensor.raw_data:  # most there is
        numbers = np.frombuffer(tensor.raw_data, np.float32)
        if numbers.size == math.prod(tensor.dims):
            return numbers.reshape(tuple(tensor.dims))
    return None


def tensor_value(tensor: TensorProto) -> Constant:
    """Return a TensorProto's content, widened."""
    numbers = plain(tensor)
    return widen(np.asarray(numpy_helper.to_array(in_memory(tensor))) if numbers is None else numbers)
