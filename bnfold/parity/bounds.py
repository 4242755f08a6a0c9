"""What each operation does to a bound on rounding errors.

Every value ``v`` has a bound ``S(v)``: its own rounding error is at most a small multiple of ``u·S(v)``. A sum of
products sums up magnitudes; a function that stretches distances at most L times takes ``S`` to ``L·S`` and adds what
computing it rounds; a product of two computed values is ``|a|·S(b) + S(a)·|b|``, to the first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from onnx import NodeProto

from bnfold.parity.bounded import DOMAIN
from bnfold.parity.kernels import Array, is_plain_resize
from bnfold.parity.nodes import attributes_of

__all__ = ["RULES", "Bound", "Writer"]


class Writer(Protocol):
    """The model of magnitudes while it grows."""

    opset: int

    def moves(self, name: str) -> bool:
        """Whether a value is a float that depends on what is fed."""

    def exact(self, name: str) -> bool:
        """Whether a value is what was fed, without any rounding, so that its bound is its absolute value."""

    def known(self, name: str) -> Array | None:
        """Return a constant."""

    def bound(self, name: str) -> str:
        """Return the name of a value's bound, or that of what the bound of a constant is: its absolute value."""

    def value(self, name: str) -> str:
        """Return the name of a value, and see to it that it is computed."""

    def emit(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""

    def constant(self, array: Array | float) -> str:
        """Add a constant; return its name."""

    def like(self, node: NodeProto, bounds: Mapping[int, str], *, op_type: str = "") -> tuple[str, ...]:
        """Add a copy of a node that reads bounds: these, by position, and those of its inputs elsewhere."""


Bound = Callable[[Writer, NodeProto], "tuple[str, ...] | None"]
"""Writes the bounds of a node's outputs; None where it has none."""


def _same(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    return writer.like(node, {})


def _named(op_type: str) -> Bound:
    return lambda writer, node: writer.like(node, {}, op_type=op_type)


def _unchanged(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    return (writer.bound(node.input[0]),)


def _magnitude(writer: Writer, name: str) -> str:
    """Return the absolute value of a value: for what is exact that is its bound."""
    if not writer.moves(name) or writer.exact(name):
        return writer.bound(name)
    return writer.emit("Abs", writer.value(name))


def _product(*factors: int) -> Bound:
    """An operation that is linear in each of some inputs, and sums up what stands in the others."""

    def rule(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
        places = [place for place in factors or range(len(node.input)) if writer.moves(node.input[place])]
        rounded = [place for place in places if not writer.exact(node.input[place])]
        if len(places) < 2:
            return writer.like(node, {})
        total = ""
        for place in rounded or places[:1]:
            bounds = {other: _magnitude(writer, node.input[other]) for other in places if other != place}
            (term,) = writer.like(node, bounds)
            total = term if not total else writer.emit("Add", total, term)
        return (total,)

    return rule


def _gemm(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    copy = NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.name in {"alpha", "beta"}:
            attribute.f = abs(attribute.f)
    return _product(0, 1)(writer, copy)


def _divide(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    above, below = node.input[:2]
    if not writer.moves(below):
        return writer.like(node, {})
    if writer.opset < 7:
        return None
    # |a/b| ≤ S(a)/|b| + |a/b|·S(b)/|b|
    quotient = writer.emit("Abs", writer.value(node.output[0]))
    spread = writer.emit("Add", writer.bound(above), writer.emit("Mul", quotient, writer.bound(below)))
    return (writer.emit("Div", spread, _magnitude(writer, below)),)


def _stretched(stretch: Callable[[Mapping[str, Any]], tuple[float, float]]) -> Bound:
    """A function with a Lipschitz constant: ``L·S + what computing it rounds``, both from the node's attributes."""

    def rule(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
        factor, offset = stretch(attributes_of(node))
        result = writer.bound(node.input[0])
        if factor != 1:
            result = writer.emit("Mul", result, writer.constant(factor))
        return (writer.emit("Add", result, writer.constant(offset)) if offset else result,)

    return rule


def _leaky(attributes: Mapping[str, Any]) -> tuple[float, float]:
    return max(1.0, abs(float(attributes.get("alpha", 0.01)))), 0.0


def _exponential(attributes: Mapping[str, Any]) -> tuple[float, float]:
    alpha = abs(float(attributes.get("alpha", 1.0)))
    return max(1.0, alpha), alpha  # exp(x) - 1 is computed from exp(x), whose rounding stays


def _selu(attributes: Mapping[str, Any]) -> tuple[float, float]:
    gamma, alpha = float(attributes.get("gamma", 1.0507)), float(attributes.get("alpha", 1.67326))
    return abs(gamma) * max(1.0, abs(alpha)), abs(gamma * alpha)


def _prelu(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    if writer.moves(node.input[1]):
        return None
    bound = writer.bound(node.input[0])
    (falling,) = writer.like(node, {0: writer.emit("Neg", bound)})
    return (writer.emit("Max", bound, writer.emit("Neg", falling)),)


def _clip(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    attributes = attributes_of(node)
    limits: list[Any] = [attributes.get("min"), attributes.get("max")]
    for place, name in enumerate(node.input[1:3]):
        limits[place] = writer.known(name) if name else None
        if name and limits[place] is None:
            return None
    low, high = (None if limit is None else float(np.asarray(limit).reshape(-1)[0]) for limit in limits)
    # A value that is cut off is one of the limits; that is no larger than what was cut off, unless 0 lies outside.
    least = max(0.0, low if low is not None else 0.0, -high if high is not None else 0.0)
    bound = writer.bound(node.input[0])
    return (writer.emit("Max", bound, writer.constant(least)) if least else bound,)


def _largest(sign: float) -> Bound:
    """The larger, or the smaller, of several: the largest bound; a constant counts where it lies beyond 0."""

    def rule(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
        names = []
        for name in node.input:
            constant = writer.known(name)
            if constant is None:
                names.append(writer.bound(name))
            else:
                names.append(writer.constant(np.maximum(sign * constant.astype(np.float64), 0)))
        return (writer.emit("Max", *names),)

    return rule


def _exp(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    value = writer.value(node.output[0])
    return (writer.emit("Mul", value, writer.emit("Add", writer.bound(node.input[0]), writer.constant(1.0))),)


def _sqrt(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    value = writer.value(node.output[0])
    return (writer.emit("Add", writer.emit("Div", writer.bound(node.input[0]), value), value),)


def _log(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    name = node.input[0]
    relative = writer.emit("Div", writer.bound(name), _magnitude(writer, name))
    return (writer.emit("Add", relative, writer.emit("Abs", writer.value(node.output[0]))),)


def _reciprocal(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    name, value = node.input[0], writer.emit("Abs", writer.value(node.output[0]))
    relative = writer.emit("Div", writer.bound(name), _magnitude(writer, name))
    return (writer.emit("Mul", value, writer.emit("Add", relative, writer.constant(1.0))),)


def _power(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    name, exponent = node.input[0], writer.known(node.input[1])
    if exponent is None or writer.opset < 7:
        return None
    value = writer.emit("Abs", writer.value(node.output[0]))
    relative = writer.emit("Div", writer.bound(name), _magnitude(writer, name))
    stretched = writer.emit("Mul", relative, writer.constant(np.abs(exponent.astype(np.float64))))
    return (writer.emit("Mul", value, writer.emit("Add", stretched, writer.constant(1.0))),)


def _where(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    return writer.like(node, {0: writer.value(node.input[0])})


def _batch_norm(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    parameters = [writer.known(name) for name in node.input[1:5]]
    mean, var = parameters[2:]
    if mean is None or var is None or any(parameter is None for parameter in parameters) or len(node.output) > 1:
        return None
    # |γ|·(|x| + |μ|)/√(σ² + ε) + |β|: the mean is subtracted, so it turns negative.
    return writer.like(node, {3: writer.constant(-np.abs(mean)), 4: writer.constant(var)})


def _resize(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    attributes = attributes_of(node)
    if attributes.get("mode", "nearest") == "nearest" and is_plain_resize(attributes):
        return writer.like(node, {})
    if not is_plain_resize(attributes):
        return None
    inputs = [writer.bound(name) if name else "" for name in node.input]
    attributes = {**attributes, "opset": writer.opset, "old": int(node.op_type == "Upsample")}
    return (writer.emit("Resize", *inputs, domain=DOMAIN, **attributes),)


def _scatter(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
    plain = attributes_of(node).get("reduction", "none") in {"none", "add", "max"}
    return writer.like(node, {}) if plain else None


def _ours(*parameters: int) -> Bound:
    """A normalization: its bound takes the values themselves, and is computed here."""

    def rule(writer: Writer, node: NodeProto) -> tuple[str, ...] | None:
        names = [node.input[place] for place in parameters if place < len(node.input) and node.input[place]]
        if sum(1 for name in node.output if name) > 1 or any(writer.moves(name) for name in names):
            return None
        x = node.input[0]
        inputs = [writer.value(x), writer.bound(x), *(writer.bound(name) for name in names)]
        attributes = {**attributes_of(node), "opset": writer.opset}
        return (writer.emit(node.op_type, *inputs, domain=DOMAIN, **attributes),)

    return rule


RULES: Mapping[str, Bound] = {
    **dict.fromkeys(
        (
            *("Cast", "CastLike", "CenterCropPad", "Compress", "Concat", "DepthToSpace", "Dropout", "Expand"),
            *(
                "Flatten",
                "Gather",
                "GatherElements",
                "GatherND",
                "Identity",
                "Pad",
                "Reshape",
                "ReverseSequence",
                "Slice",
            ),
            *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
            *("Add", "AveragePool", "CumSum", "GlobalAveragePool", "Mean", "ReduceMean", "ReduceSum", "Sum"),
            *("GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "ReduceL1", "ReduceL2", "ReduceMax"),
        ),
        _same,
    ),
    **dict.fromkeys(("Abs", "Neg", "Relu"), _unchanged),
    "BatchNormalization": _batch_norm,
    "Celu": _stretched(lambda attributes: (1.0, abs(float(attributes.get("alpha", 1.0))))),
    "Clip": _clip,
    "Conv": _product(0, 1),
    "ConvTranspose": _product(0, 1),
    "Cos": _stretched(lambda _: (1.0, 1.0)),
    "Div": _divide,
    "Einsum": _product(),
    "Elu": _stretched(_exponential),
    "Erf": _stretched(lambda _: (2.2, 0.0)),
    "Exp": _exp,
    "Gelu": _stretched(lambda _: (2.2, 0.0)),
    "Gemm": _gemm,
    "GroupNormalization": _ours(1, 2),
    "HardSigmoid": _stretched(lambda attributes: (abs(float(attributes.get("alpha", 0.2))), 1.0)),
    "HardSwish": _stretched(lambda _: (2.5, 0.0)),
    "InstanceNormalization": _ours(1, 2),
    "LayerNormalization": _ours(1, 2),
    "LeakyRelu": _stretched(_leaky),
    "Log": _log,
    "LogSoftmax": _ours(),
    "MatMul": _product(0, 1),
    "Max": _largest(1.0),
    "Min": _largest(-1.0),
    "Mish": _stretched(lambda _: (2.2, 0.0)),
    "Mul": _product(0, 1),
    "PRelu": _prelu,
    "Pow": _power,
    "RMSNormalization": _ours(1),
    "Reciprocal": _reciprocal,
    "ReduceMin": _named("ReduceMax"),
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Selu": _stretched(_selu),
    "Sigmoid": _stretched(lambda _: (0.25, 1.0)),
    "Sin": _stretched(lambda _: (1.0, 1.0)),
    "Softmax": _ours(),
    "Softplus": _stretched(lambda _: (2.0, 1.0)),
    "Softsign": _stretched(lambda _: (2.0, 0.0)),
    "Sqrt": _sqrt,
    "Sub": _named("Add"),
    "Swish": _stretched(lambda _: (2.1, 0.0)),
    "Tanh": _stretched(lambda _: (2.0, 0.0)),
    "Upsample": _resize,
    "Where": _where,
}
"""Operations of the standard domain with a bound. What jumps (Round, Sign, ThresholdedRelu, comparisons) has none."""
