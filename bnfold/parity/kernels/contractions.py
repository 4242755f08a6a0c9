"""Matrix products, normalizations and reductions, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required, spare

__all__ = ["CONTRACTIONS"]


def _matmul(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.asarray(np.matmul(required(inputs, 0), required(inputs, 1))),)


def _gemm(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    a, b, c = required(inputs, 0), required(inputs, 1), given(inputs, 2)
    a = a.T if call.integer("transA") else a
    b = b.T if call.integer("transB") else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    y = a @ b
    if alpha != 1:
        y = alpha * y
    if c is not None and beta != 0:  # β = 0 means that C is not read, whatever it holds
        y = y + (c if beta == 1 else beta * c)
    return (np.asarray(y, dtype=a.dtype),)


def _per_channel(parameter: Array, rank: int) -> Array:
    return parameter.reshape(-1, *[1] * (rank - 2)) if rank > 1 else parameter.reshape(-1)


def _batch_normalization(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    out = spare(inputs, 0)
    x, gamma, beta, mean, var = (required(inputs, position) for position in range(5))
    if call.version < 9 and call.attributes.get("spatial") == 0:
        # One statistic an element: what stands behind the batch axis is the channel.
        shape = x.shape[1:]
        gamma, beta, mean, var = (parameter.reshape(shape) for parameter in (gamma, beta, mean, var))
        axes: tuple[int, ...] = (0,)
    else:
        gamma, beta, mean, var = (_per_channel(parameter, x.ndim) for parameter in (gamma, beta, mean, var))
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    epsilon, momentum = call.number("epsilon", 1e-5), call.number("momentum", 0.9)
    trains = {
        1: not call.integer("is_test"),
        6: not call.integer("is_test"),
        7: call.asks_for(1),
        9: call.asks_for(1),
    }.get(call.version, bool(call.integer("training_mode")))
    if not trains:
        return (_affine(x, mean, gamma / np.sqrt(var + epsilon), beta, out=out),)
    batch_mean, batch_var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    y = gamma * ((x - batch_mean) / np.sqrt(batch_var + epsilon)) + beta
    running = [
        (old.reshape(-1) * momentum + new.reshape(-1) * (1 - momentum))
        for old, new in ((mean, batch_mean), (var, batch_var))
    ]
    return (y, *running, batch_mean.reshape(-1), batch_var.reshape(-1))


_BLOCK = 1 << 16
"""Elements that three operations go over one after the other: 512 KiB, which stay in a processor's cache."""


def _affine(x: Array, mean: Array, scale: Array, beta: Array, *, out: Array | None) -> Array:
    """Return ``(x - mean)·scale + beta``; the parameters have an axis less than ``x``, which is that of the batch.

    Args:
        x: Shape (N, C, …).
        mean: Shape (C, 1, …), like the other two, or that of one sample.
        scale: What multiplies.
        beta: What is added.
        out: Where it goes, which may be ``x`` itself; None means new memory.
    """
    y = np.empty(x.shape) if out is None else out
    if x.ndim < 3 or x.shape[1] != scale.shape[0]:
        np.subtract(x, mean, out=y)
        y *= scale
        y += beta
        return y
    each = max(1, _BLOCK // max(1, math.prod(x.shape[2:])))
    for sample, first in itertools.product(range(x.shape[0]), range(0, x.shape[1], each)):
        block, place = y[sample, first : first + each], slice(first, first + each)
        np.subtract(x[sample, place], mean[place], out=block)
        block *= scale[place]
        block += beta[place]
    return y


def _instance_normalization(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, scale, bias = (required(inputs, position) for position in range(3))
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    root = np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + call.number("epsilon", 1e-5))
    return (_per_channel(scale, x.ndim) * (centred / root) + _per_channel(bias, x.ndim),)


def _layer_normalization(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, scale, bias = required(inputs, 0), required(inputs, 1), given(inputs, 2)
    axes = tuple(range(call.integer("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + call.number("epsilon", 1e-5))
    y = centred * inverse * scale
    return (y if bias is None else y + bias, mean, inverse)


def _group_normalization(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, scale, bias = (required(inputs, position) for position in range(3))
    groups, channels = call.integer("num_groups"), x.shape[1]
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    root = np.sqrt((centred * centred).mean(axis=2, keepdims=True) + call.number("epsilon", 1e-5))
    if call.version < 21:  # one parameter a group
        scale, bias = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
    return (_per_channel(scale, x.ndim) * (centred / root).reshape(x.shape) + _per_channel(bias, x.ndim),)


def _local_response(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, size = required(inputs, 0), call.integer("size", 1)
    square = np.zeros_like(x)
    for channel in range(x.shape[1]):
        low, high = max(0, channel - (size - 1) // 2), channel + size // 2 + 1
        square[:, channel] = (x[:, low:high] ** 2).sum(axis=1)
    factor = call.number("bias", 1.0) + call.number("alpha", 1e-4) / size * square
    return (x / factor ** call.number("beta", 0.75),)


def _einsum(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.asarray(np.einsum(call.text("equation"), *(required(inputs, i) for i in range(len(inputs))))),)


def _softmax(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    axis = call.integer("axis", -1 if call.version >= 13 else 1)
    shape = x.shape
    if call.version < 13:  # everything from the axis on is one distribution
        axis = axis % x.ndim if x.ndim else 0
        x = x.reshape(int(np.prod(shape[:axis], dtype=np.int64)), -1)
        axis = 1
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    result = shifted - np.log(total) if call.op_type == "LogSoftmax" else np.exp(shifted) / total
    return (result.reshape(shape),)


def _reduction(function: Callable[[Array, tuple[int, ...]], Array]) -> Kernel:
    def kernel(call: Call, inputs: Inputs) -> tuple[Array, ...]:
        x, given_axes = required(inputs, 0), given(inputs, 1)
        axes = call.integers("axes") if given_axes is None else tuple(int(axis) for axis in given_axes.reshape(-1))
        if not axes:
            if call.integer("noop_with_empty_axes"):
                return (np.asarray(function(x[None], (0,))),)
            axes = tuple(range(x.ndim))
        axes = tuple(axis % x.ndim for axis in axes)
        y = function(x, axes)
        if call.integer("keepdims", 1):
            y = np.asarray(y).reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)])
        return (np.asarray(y).astype(x.dtype, copy=False),)

    return kernel


def _bound(x: Array, *, lowest: bool) -> Any:
    """Return what the largest, or the smallest, of nothing is."""
    if x.dtype.kind == "f":
        return -np.inf if lowest else np.inf
    if x.dtype.kind == "b":
        return not lowest
    limits = np.iinfo(x.dtype)
    return limits.min if lowest else limits.max


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    top = x.max(axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    return np.asarray(
        np.log(np.exp(x - top).sum(axis=axes)) + top.reshape([n for a, n in enumerate(top.shape) if a not in axes])
    )


CONTRACTIONS: Mapping[str, Kernel] = {
    "BatchNormalization": _batch_normalization,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "ReduceL1": _reduction(lambda x, axes: np.abs(x).sum(axis=axes)),
    "ReduceL2": _reduction(lambda x, axes: np.sqrt((x * x).sum(axis=axes))),
    "ReduceLogSum": _reduction(lambda x, axes: np.log(x.sum(axis=axes))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(lambda x, axes: x.max(axis=axes, initial=_bound(x, lowest=True))),
    "ReduceMean": _reduction(lambda x, axes: x.mean(axis=axes)),
    "ReduceMin": _reduction(lambda x, axes: x.min(axis=axes, initial=_bound(x, lowest=False))),
    "ReduceProd": _reduction(lambda x, axes: x.prod(axis=axes)),
    "ReduceSum": _reduction(lambda x, axes: x.sum(axis=axes)),
    "ReduceSumSquare": _reduction(lambda x, axes: (x * x).sum(axis=axes)),
    "Softmax": _softmax,
}
"""The contracting operations of the standard domain."""
