"""What a model itself says about its inputs: sizes, types, and which values make sense.

In this order: what the file records (a quantization scale), what the first operations say (an embedding's rows, a
division by 255), a batch norm that stands on the input, and at last N(0, 1) and U[0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.errors import UnsupportedOpError
from bnfold.graph.shapes import infer
from bnfold.parity.kernels import Array, computes_with
from bnfold.parity.nodes import attributes_of

__all__ = ["Input", "inputs_of"]

_CARRIERS = frozenset(
    {"Cast", "CastLike", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""A value behind one of these still is the input."""
_READERS = 32


@dataclass(frozen=True, slots=True)
class Input:
    """What is known about an input of a model.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: A size an axis, or the symbol of a free one; axes without a symbol are ``input:axis``.
        origin: Where the range below comes from.
        low: The smallest value that makes sense.
        high: The largest one; integers include it.
        mean: Mean of a normal draw, one number or one a channel; None means a uniform draw.
        deviation: Standard deviation of a normal draw.
        words: What a text is drawn from; empty where it is none.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    origin: str
    low: float = 0.0
    high: float = 1.0
    mean: Array | None = None
    deviation: Array | None = None
    words: tuple[str, ...] = ()

    @property
    def floating(self) -> bool:
        """Whether its values are floats that probes may choose freely."""
        return computes_with(np.empty(0, self.dtype))

    @property
    def peak(self) -> float:
        """The largest magnitude that makes sense."""
        return max(abs(self.low), abs(self.high)) or 1.0

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return its shape for a choice of the free axes."""
        return tuple(size if isinstance(size, int) else sizes[size] for size in self.shape)


def inputs_of(model: ModelProto) -> tuple[Input, ...]:
    """Return what a model's inputs are, as far as the model tells.

    Raises:
        UnsupportedOpError: If an input is no tensor of numbers.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_input(model, value) for value in model.graph.input if value.name not in constants)


def _input(model: ModelProto, value: ValueInfoProto) -> Input:
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or tensor.elem_type == TensorProto.UNDEFINED:
        what = "a sequence" if kind.HasField("sequence_type") else "no tensor"
        raise UnsupportedOpError(
            f"input {value.name} is {what}, and probes are tensors",
            hint="Put what makes the sequence into the model, so that its inputs are tensors.",
        )
    shape: list[int | str] = []
    for axis, size in enumerate(tensor.shape.dim):
        known = size.HasField("dim_value") and size.dim_value > 0
        symbol = size.dim_param or (f"{value.name}:{axis}" if axis else "batch")
        shape.append(int(size.dim_value) if known else symbol)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if tensor.elem_type == TensorProto.STRING:
        words = _words(model)
        return Input(value.name, np.dtype(object), tuple(shape), f"{len(words)} words of the model", words=words)
    bare = Input(value.name, dtype, tuple(shape), "")
    readers = list(itertools.islice(_readers(model, value.name), _READERS))
    found = (_by_reader(bare, model, node, position) for node, position in readers)
    return next((item for item in found if item is not None), None) or _by_type(bare)


def _words(model: ModelProto) -> tuple[str, ...]:
    """Return the texts that the model itself knows, and two that it may not."""
    found = {"": None, "a b": None}
    for node in model.graph.node:
        for attribute in node.attribute:
            found.update(dict.fromkeys(item.decode("utf-8", errors="replace") for item in attribute.strings))
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.STRING:
                found.update(_texts(attribute.t))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.STRING:
            found.update(_texts(tensor))
    return tuple(found)[:_READERS]


def _texts(tensor: TensorProto) -> dict[str, None]:
    return dict.fromkeys(item.decode("utf-8", errors="replace") for item in tensor.string_data)


def _readers(model: ModelProto, name: str) -> Iterator[tuple[NodeProto, int]]:
    """Yield who reads an input, through operations that leave its values alone."""
    names, seen = [name], {name}
    while names:
        current = names.pop()
        for node in model.graph.node:
            for position, read in enumerate(node.input):
                if read != current:
                    continue
                if node.op_type in _CARRIERS and position == 0:
                    names.extend(output for output in node.output[:1] if output not in seen)
                    seen.update(node.output[:1])
                else:
                    yield node, position


def _constant(model: ModelProto, node: NodeProto, position: int) -> Array | None:
    name = node.input[position] if position < len(node.input) else ""
    if not name:
        return None
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    for other in model.graph.node:
        if other.op_type == "Constant" and name in other.output:
            return np.asarray(next(iter(attributes_of(other).values())))
    return None


def _shape_of_table(model: ModelProto, name: str) -> tuple[int, ...]:
    """Return the shape of a table; that of a single number where it is not known. A free size is 0."""
    found = [tensor for tensor in model.graph.initializer if tensor.name == name]
    for node in model.graph.node:
        if node.op_type == "Constant" and name in node.output:
            found += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    if found:
        return tuple(found[0].dims)
    known = infer(model).get((), {}).get(name)  # a table that is computed, if only from constants
    if known is None or known.shape is None:
        return ()
    return tuple(size if isinstance(size, int) else 0 for size in known.shape)


def _rows(node: NodeProto, shape: tuple[int, ...]) -> int:
    """Return how many different numbers may index a table, along whichever of its axes they do; 0 if not known."""
    if node.op_type == "GatherND":  # how many axes it indexes is the size of the index: the shortest will do for all
        batch = attributes_of(node).get("batch_dims", 0)
        return min(shape[batch:], default=0) if isinstance(batch, int) and batch >= 0 else 0
    axis = attributes_of(node).get("axis", 0)
    return shape[axis] if isinstance(axis, int) and -len(shape) <= axis < len(shape) else 0


def _by_reader(bare: Input, model: ModelProto, node: NodeProto, position: int) -> Input | None:
    """Return what one reader of the input says about its values; None if nothing."""
    if node.op_type == "QuantizeLinear" and position == 0:
        return _quantized(bare, _constant(model, node, 1), _constant(model, node, 2))
    if node.op_type in {"Gather", "GatherElements", "GatherND"} and position == 1:
        rows = _rows(node, _shape_of_table(model, node.input[0]))
        return replace(bare, origin=f"an embedding of {rows} rows", high=rows - 1) if rows else None
    if node.op_type == "OneHot" and position == 0:
        depth = _constant(model, node, 1)
        size = 0 if depth is None else int(depth.reshape(-1)[0])
        return replace(bare, origin=f"a one-hot of depth {size}", high=size - 1) if size else None
    if not bare.floating or position > 1:
        return None
    if node.op_type == "BatchNormalization":
        return _normalized(bare, _constant(model, node, 3), _constant(model, node, 4))
    return _pixels(bare, node, _constant(model, node, 1 - position))


def _quantized(bare: Input, scale: Array | None, zero: Array | None) -> Input | None:
    if scale is None or scale.size != 1 or zero is None or zero.dtype.kind not in "iu":
        return None
    limits, step, middle = np.iinfo(zero.dtype), float(scale.reshape(())), int(zero.reshape(()))
    low, high = (limits.min - middle) * step, (limits.max - middle) * step
    return replace(bare, origin="a recorded quantization scale", low=low, high=high)


def _normalized(bare: Input, mean: Array | None, var: Array | None) -> Input | None:
    if mean is None or var is None or not (np.isfinite(mean).all() and np.isfinite(var).all()):
        return None
    middle, spread = mean.astype(np.float64), np.sqrt(np.abs(var.astype(np.float64)))
    low, high = float((middle - 2 * spread).min()), float((middle + 2 * spread).max())
    origin = "the statistics of the batch norm on it"
    return replace(bare, origin=origin, low=low, high=high, mean=middle, deviation=spread)


def _pixels(bare: Input, node: NodeProto, value: Array | None) -> Input | None:
    if value is None or value.dtype.kind != "f" or not value.size or not np.isfinite(value).all():
        return None
    largest = float(np.abs(value).max())
    ranges = {"Div": (100.0, 256.0), "Mul": (1 / 256, 0.01), "Sub": (90.0, 130.0), "Add": (90.0, 130.0)}
    low, high = ranges.get(node.op_type, (1.0, 0.0))
    if not low <= largest <= high:
        return None
    return replace(bare, origin=f"pixels, because its first {node.op_type} is by {largest:.4g}", low=0, high=255)


def _by_type(bare: Input) -> Input:
    """Return what is left to say where no reader says anything."""
    if bare.floating:
        return replace(bare, origin="N(0,1) and U[0,1]", mean=np.zeros(()), deviation=np.ones(()))
    if bare.dtype.kind == "b":
        return replace(bare, origin="booleans")
    if bare.dtype.itemsize == 1:
        limits = np.iinfo(bare.dtype)
        return replace(bare, origin=f"the range of {bare.dtype.name}", low=float(limits.min), high=float(limits.max))
    if "mask" in bare.name.lower():
        return replace(bare, origin="a mask, by its name")
    return replace(bare, origin="small integers", high=3 if bare.shape else 1)
