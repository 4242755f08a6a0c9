"""The values of small constant tensors: predicates, keep probabilities, axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.messages import dtype_name, is_own
from bnfold.frontends.tensorflow.net import Net, Ref, Value, attribute, data_inputs, small_value

__all__ = ["evaluated", "values_of"]

_LARGEST = 4096

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Identity": lambda x: x,
    "RefIdentity": lambda x: x,
    "StopGradient": lambda x: x,
    "PreventGradient": lambda x: x,
    "Snapshot": lambda x: x,
    "EnsureShape": lambda x: x,
    "LogicalNot": np.logical_not,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Square": np.square,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Pow": np.power,
    "Sign": np.sign,
    "Reciprocal": np.reciprocal,
    "Inv": np.reciprocal,
    "ZerosLike": np.zeros_like,
    "OnesLike": np.ones_like,
    "ExpandDims": lambda x, axis: np.expand_dims(x, int(axis)),
    "Reshape": lambda x, shape: np.reshape(x, tuple(int(size) for size in np.ravel(shape))),
    "Select": np.where,
    "SelectV2": np.where,
}


def values_of(net: Net, pinned: Mapping[Ref, Value]) -> dict[Ref, Value]:
    """Return the values of all small tensors that depend on constants and pinned tensors alone."""
    values: dict[Ref, Value] = dict(pinned)
    for name in net.sorted(control=False):
        if (name, 0) not in values:
            value = evaluated(net.nodes[name], values)
            if value is not None:
                values[name, 0] = value
    return values


def evaluated(node: Any, values: Mapping[Ref, Value]) -> Value | None:
    """Return a node's first output if it is small and its inputs' values are known; None otherwise."""
    if node.op == "Const":
        return small_value(node)
    inputs = data_inputs(node)
    known = [values.get(ref) for ref in inputs]
    if node.op in ("LogicalAnd", "LogicalOr"):
        decided = node.op == "LogicalOr"
        if any(value is not None and value.size == 1 and bool(value.item()) == decided for value in known):
            return np.array(decided)
    given = [value for value in known if value is not None]
    if not given or len(given) != len(inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            return _computed(node, given)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        return None


def _computed(node: Any, given: list[Value]) -> Value | None:
    if node.op == "Cast":
        wanted = attribute(node, "DstT").type % 100
        if is_own(node):
            return np.asarray(given[0].astype(dtype_name(wanted)))
        return np.asarray(given[0].astype(tensorflow().as_dtype(wanted).as_numpy_dtype))
    if node.op in ("Pack", "Stack"):
        return np.stack(given, axis=int(attribute(node, "axis").i))
    if node.op == "Squeeze":
        axes = tuple(int(axis) for axis in attribute(node, "squeeze_dims").list.i)
        return np.squeeze(given[0], axis=axes or None)
    if node.op == "Fill":
        count = int(np.prod(given[0])) if given[0].size else 1
        return np.full(tuple(int(size) for size in given[0]), given[1]) if 0 <= count <= _LARGEST else None
    function = _FUNCTIONS.get(node.op)
    if function is None:
        return None
    value = np.asarray(function(*given))
    return value if value.size <= _LARGEST else None
