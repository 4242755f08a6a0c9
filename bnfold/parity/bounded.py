"""Bounds that no operation of the standard computes: of normalizations, and of resampling with its rounded weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.parity.kernels import Array, Call, Inputs
from bnfold.parity.kernels.call import required
from bnfold.parity.kernels.sampling import SAMPLING
from bnfold.parity.nodes import attributes_of

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["DOMAIN", "bounded"]

DOMAIN = "bnfold.magnitude"
"""The domain of the nodes that ``bounded`` computes; no runtime knows it."""


def bounded(node: NodeProto, inputs: Sequence[Any]) -> Sequence[Array]:
    """Compute what no operation of the standard computes.

    Of a normalization: from its input, the input's bound, and the size of its parameters. Of a resampling: from the
    bound of its input and its sizes.
    """
    attributes = attributes_of(node)
    if node.op_type == "Resize":
        return (_resampled(attributes, inputs),)
    x, s = inputs[:2]
    parameters = [np.asarray(value) for value in inputs[2:] if value is not None]
    if node.op_type in {"Softmax", "LogSoftmax"}:
        return (_softmax(x, s, attributes, logarithm=node.op_type == "LogSoftmax"),)
    shape, rank = x.shape, x.ndim
    if node.op_type in {"LayerNormalization", "RMSNormalization"}:
        axes = tuple(range(int(attributes.get("axis", -1)) % rank, rank))
    elif node.op_type == "GroupNormalization":
        groups = int(attributes["num_groups"])
        x, s, axes = x.reshape(shape[0], groups, -1), s.reshape(shape[0], groups, -1), (2,)
        if attributes["opset"] < 21:  # one parameter a group
            parameters = [np.repeat(parameter, shape[1] // groups) for parameter in parameters]
    else:
        axes = tuple(range(2, rank))
    if node.op_type in {"GroupNormalization", "InstanceNormalization"}:
        parameters = [parameter.reshape(-1, *[1] * (rank - 2)) for parameter in parameters]
    centred = node.op_type != "RMSNormalization"
    epsilon = float(np.float32(attributes.get("epsilon", 1e-5)))
    middle = x.mean(axis=axes, keepdims=True) if centred else np.zeros(())
    moved = s + (s.mean(axis=axes, keepdims=True) if centred else 0.0)
    root = np.sqrt(((x - middle) ** 2).mean(axis=axes, keepdims=True) + epsilon)
    size = np.abs(x - middle) / root
    # d((x - μ)/σ) ≤ (d + |x̂|·rms d)/σ, and a variance that is a difference of two squares rounds like these.
    spread = (moved + size * np.sqrt((moved * moved).mean(axis=axes, keepdims=True))) / root
    spread = spread + size * ((s * s).mean(axis=axes, keepdims=True) / (root * root)) + size
    spread = spread.reshape(shape)
    if parameters:
        spread = spread * parameters[0]
    return (np.asarray(spread + parameters[1] if len(parameters) > 1 else spread),)


def _softmax(x: Array, s: Array, attributes: Mapping[str, Any], *, logarithm: bool) -> Array:
    shape = x.shape
    axis = int(attributes.get("axis", -1 if attributes["opset"] >= 13 else 1))
    if attributes["opset"] < 13:  # everything from the axis on is one distribution
        axis = axis % x.ndim if x.ndim else 0
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        x, s, axis = x.reshape(rows, -1), s.reshape(rows, -1), 1
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    share = np.exp(shifted) / total
    moved = s + (share * s).sum(axis=axis, keepdims=True)
    result = moved + np.abs(shifted - np.log(total)) if logarithm else share * (moved + 1)
    return np.asarray(result).reshape(shape)


def _resampled(attributes: Mapping[str, Any], inputs: Inputs) -> Array:
    """Resample by the weights' absolute values; what the rounding of the weights adds comes from all neighbours.

    A runtime finds in float32 where an element lies, so its weights are off by about u times the axis' size.
    """
    opset = 9 if attributes["old"] else int(attributes["opset"])
    call = Call("Resize", opset, {**attributes, "absolute": 1})
    resample = SAMPLING["Resize"]
    s = required(inputs, 0)
    (result,) = resample(call, inputs)
    exact = attributes.get("coordinate_transformation_mode") != "align_corners"
    changed = [axis for axis, size in enumerate(s.shape) if size != result.shape[axis]]
    ratios = [result.shape[axis] / s.shape[axis] for axis in changed]
    if exact and all(math.frexp(ratio)[0] == 0.5 for ratio in ratios):
        return result
    reach = 2 if attributes.get("mode") == "cubic" else 1
    near = s
    for axis in changed:
        wide = np.pad(near, [(reach, reach) if place == axis else (0, 0) for place in range(s.ndim)], mode="edge")
        near = np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1, axis=axis).max(axis=-1)
    (around,) = resample(call, [near, *inputs[1:]])
    return np.asarray(result + around * max(s.shape[axis] for axis in changed))
