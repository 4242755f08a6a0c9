"""Element by element: arithmetic, comparisons and activations, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required, spare

__all__ = ["POINTWISE", "erf"]

_STEP = 1 / 64
_LAST = 6.0
_ORDER = 10
_ROOT = 2 / math.sqrt(math.pi)


def _erf_table() -> Array:
    """Return erf and its scaled derivatives at multiples of the step, shape (order + 1, points)."""
    points = np.arange(0.0, _LAST + _STEP / 2, _STEP)
    rows = [np.array([math.erf(point) for point in points])]
    # erf^(k+1)(x) / (k+1)! with Hermite's recurrence: H(k+1) = 2x·H(k) - 2k·H(k-1).
    bell, older, hermite = _ROOT * np.exp(-points * points), np.zeros_like(points), np.ones_like(points)
    for k in range(_ORDER):
        rows.append((-1) ** k * hermite * bell / math.factorial(k + 1))
        older, hermite = hermite, 2 * points * hermite - 2 * k * older
    return np.stack(rows)


_TABLE = _erf_table()


def erf(x: Array) -> Array:
    """Return the error function to about one unit of float64: Taylor's series around the nearest of 385 points."""
    size = np.minimum(np.abs(x), _LAST)
    nearest = np.rint(np.nan_to_num(size) / _STEP).astype(np.intp)
    offset = size - nearest * _STEP
    result = _TABLE[_ORDER][nearest]
    for k in range(_ORDER - 1, -1, -1):
        result = result * offset + _TABLE[k][nearest]
    return np.copysign(np.where(np.isnan(x), np.nan, result), x)


def _one(function: Callable[[Array], Array]) -> Kernel:
    def kernel(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
        return (function(required(inputs, 0)),)

    return kernel


def _aligned(call: Call, left: Array, right: Array) -> Array:
    """Before opset 7, the right operand was aligned at an axis that the node states."""
    if not call.attributes.get("broadcast") or right.ndim == 0:
        return right
    axis = call.attributes.get("axis")
    start = left.ndim - right.ndim if axis is None else int(axis) % left.ndim
    return right.reshape(*right.shape, *[1] * (left.ndim - start - right.ndim))


def _two(function: Callable[[Array, Array], Array]) -> Kernel:
    def kernel(call: Call, inputs: Inputs) -> tuple[Array, ...]:
        left = required(inputs, 0)
        return (np.asarray(function(left, _aligned(call, left, required(inputs, 1)))),)

    return kernel


def _arithmetic(function: np.ufunc) -> Kernel:
    def kernel(call: Call, inputs: Inputs) -> tuple[Array, ...]:
        out, other = spare(inputs, 0), spare(inputs, 1)
        left, right = required(inputs, 0), required(inputs, 1)
        right = _aligned(call, left, right)
        if left.shape == right.shape and left.dtype == right.dtype:
            out = other if out is None else out
        elif right.dtype != np.float64 or np.broadcast_shapes(left.shape, right.shape) != left.shape:
            out = None
        return (np.asarray(function(left, right, out=out)),)

    return kernel


def _relu(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    out = spare(inputs, 0)
    x = required(inputs, 0)
    return (np.asarray(np.maximum(x, x.dtype.type(0), out=out)),)


def _many(function: Callable[[Array, Array], Array]) -> Kernel:
    def kernel(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
        result = required(inputs, 0)
        for position in range(1, len(inputs)):
            result = np.asarray(function(result, required(inputs, position)))
        return (result,)

    return kernel


def _divide(left: Array, right: Array) -> Array:
    if left.dtype.kind in "iu":  # towards zero, in integers alone: float64 cannot hold every int64
        quotient = np.floor_divide(left, right)
        return np.asarray(quotient + ((quotient < 0) & (quotient * right != left)), dtype=left.dtype)
    return np.asarray(left / right)


def _power(left: Array, right: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.power(left, right)).astype(left.dtype)


def _mean(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    total = required(inputs, 0)
    for position in range(1, len(inputs)):
        total = total + required(inputs, position)
    return (total / len(inputs),)


def _clip(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    out = spare(inputs, 0)
    x = required(inputs, 0)
    low, high = given(inputs, 1), given(inputs, 2)
    if call.version < 11:
        lowest, highest = call.attributes.get("min"), call.attributes.get("max")
        low = None if lowest is None else np.asarray(lowest, dtype=x.dtype)
        high = None if highest is None else np.asarray(highest, dtype=x.dtype)
    # The upper bound wins where the bounds cross.
    x = x if low is None else np.maximum(x, low.reshape(()), out=out)
    return (x if high is None else np.minimum(x, high.reshape(()), out=out),)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _leaky_relu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (np.where(x >= 0, x, call.number("alpha", 0.01) * x),)


def _prelu(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, slope = required(inputs, 0), required(inputs, 1)
    if slope.ndim == 1 and x.ndim > 2 and slope.size == x.shape[1] and _call.version < 7:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return (np.where(x >= 0, x, slope * x),)


def _elu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (np.where(x >= 0, x, call.number("alpha", 1.0) * np.expm1(np.minimum(x, 0))),)


def _selu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    alpha, gamma = call.number("alpha", 1.67326319217681884765625), call.number("gamma", 1.05070102214813232421875)
    return (gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),)


def _celu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, alpha = required(inputs, 0), call.number("alpha", 1.0)
    return (np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha)),)


def _hard_sigmoid(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (np.clip(call.number("alpha", 0.2) * x + call.number("beta", 0.5), 0, 1),)


def _hard_swish(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (x * np.clip(x / 6 + 0.5, 0, 1),)


def _gelu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    if call.text("approximate", "none") == "tanh":
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
    return (0.5 * x * (1 + erf(x / math.sqrt(2))),)


def _thresholded_relu(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (np.where(x > call.number("alpha", 1.0), x, 0.0),)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _swish(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    return (x * _sigmoid(call.number("alpha", 1.0) * x),)


def _where(_call: Call, inputs: Inputs) -> tuple[Array, ...]:
    return (np.where(required(inputs, 0), required(inputs, 1), required(inputs, 2)),)


POINTWISE: Mapping[str, Kernel] = {
    "Abs": _one(np.abs),
    "Add": _arithmetic(np.add),
    "And": _two(np.logical_and),
    "Ceil": _one(np.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _one(np.cos),
    "Div": _two(_divide),
    "Elu": _elu,
    "Equal": _two(lambda left, right: np.asarray(left == right)),
    "Erf": _one(erf),
    "Exp": _one(np.exp),
    "Floor": _one(np.floor),
    "Gelu": _gelu,
    "Greater": _two(np.greater),
    "GreaterOrEqual": _two(np.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Less": _two(np.less),
    "LessOrEqual": _two(np.less_equal),
    "Log": _one(np.log),
    "Max": _many(np.maximum),
    "Mean": _mean,
    "Min": _many(np.minimum),
    "Mish": _one(lambda x: x * np.tanh(_softplus(x))),
    "Mul": _arithmetic(np.multiply),
    "Neg": _one(np.negative),
    "Not": _one(np.logical_not),
    "Or": _two(np.logical_or),
    "PRelu": _prelu,
    "Pow": _two(_power),
    "Reciprocal": _one(lambda x: 1.0 / x),
    "Relu": _relu,
    "Round": _one(np.rint),
    "Selu": _selu,
    "Sigmoid": _one(_sigmoid),
    "Sign": _one(np.sign),
    "Sin": _one(np.sin),
    "Softplus": _one(_softplus),
    "Softsign": _one(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _one(np.sqrt),
    "Sub": _arithmetic(np.subtract),
    "Sum": _many(np.add),
    "Swish": _swish,
    "Tanh": _one(np.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _two(np.logical_xor),
}
"""The pointwise operations of the standard domain."""
