"""Small nets with batch norms, folded by hand in numpy: correctly, or with one of the classic mistakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.graph.region import Region
from bnfold.parity.reference import run_float64

Array = npt.NDArray[Any]
Kind = Literal["Conv", "Depthwise", "ConvTranspose", "Gemm", "Forward", "ForwardDepthwise", "ForwardTranspose"]
Statistics = Literal["healthy", "large mean", "tiny variance"]

BUGS = (
    "wrong epsilon",
    "missing bias on one channel",
    "permuted means",
    "Bessel slip",
    "sqrt(var)+eps",
    "swapped gamma and beta",
)
"""The mistakes of a backward fold. The forward shift over padding is the layer kind ``Forward``, folded."""

EPSILON = float(np.float32(1e-3))
CHANNELS = 8
SIDE = 9
SAMPLES = 64
"""How many values a training batch would have had: what a Bessel slip is wrong by."""


@dataclass
class Net:
    """A net before and after folding, and what was folded."""

    unfolded: ModelProto
    folded: ModelProto
    regions: tuple[Region, ...]
    names: tuple[str, ...]


@dataclass
class _Side:
    """One of the two models, growing."""

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: Array, dtype: npt.DTypeLike) -> None:
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), name))

    def model(
        self, dtype: npt.DTypeLike, output: str, *, flat: bool, source: str = "x", free: bool = True
    ) -> ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        spatial: list[str | int] = ["H", "W"] if free else [SIDE, SIDE]
        shape: list[str | int | None] = ["N", CHANNELS, *([] if flat else spatial)]
        values = [helper.make_tensor_value_info(name, element, shape) for name in (source, output)]
        graph = helper.make_graph(self.nodes, "net", values[:1], values[1:], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass
class _Builder:
    generator: np.random.Generator
    statistics: Statistics
    dtype: npt.DTypeLike
    before: _Side = field(default_factory=_Side)
    after: _Side = field(default_factory=_Side)
    regions: list[Region] = field(default_factory=list)

    def layer(self, number: int, kind: Kind, value: str, x: Array, bug: str) -> tuple[str, Array]:
        """Add ``linear, batch norm, Relu``; ``Forward`` has the batch norm in front. Return what comes out of it."""
        w, attributes = _weight(kind, self.generator)
        bias = self.generator.normal(size=CHANNELS)
        if self.statistics == "tiny variance":
            w, bias = w * 1e-3, bias * 1e-3
        if self.statistics == "large mean":
            bias = bias * 200
        w, bias = w.astype(self.dtype), bias.astype(self.dtype)
        forward, flat = kind.startswith("Forward"), x.ndim == 2
        h, b, r = f"h{number}", f"b{number}", f"r{number}"
        op = {"Gemm": "Gemm", "ConvTranspose": "ConvTranspose", "ForwardTranspose": "ConvTranspose"}.get(kind, "Conv")
        mapped = helper.make_node(op, [b if forward else value, f"W{number}", f"B{number}"], [h], **attributes)
        measured = x
        if not forward:
            alone = _Side([mapped])
            alone.constant(f"W{number}", w, np.float64)
            alone.constant(f"B{number}", bias, np.float64)
            measured = run_float64(alone.model(np.float64, h, flat=flat, source=value), {value: x})[h]
        parameters = self.parameters(measured)
        norm = helper.make_node(
            "BatchNormalization",
            [h if not forward else value, *(f"{name}{number}" for name in parameters)],
            [b],
            name=f"bn{number}",
            epsilon=EPSILON,
        )
        out = h if forward else b
        relu = helper.make_node("Relu", [out], [r])
        layer = _Side([norm, mapped, relu] if forward else [mapped, norm, relu])
        layer.constant(f"W{number}", w, self.dtype)
        layer.constant(f"B{number}", bias, self.dtype)
        for name, array in parameters.items():
            layer.constant(f"{name}{number}", array, self.dtype)
        self.before.nodes += layer.nodes
        self.before.tensors += layer.tensors
        if forward and not bug:  # the padding forbids this fold
            self.after.nodes += layer.nodes
            self.after.tensors += layer.tensors
        else:
            weight, offset = _fold(kind, w, bias, parameters, bug)
            self.after.constant(f"folded_W{number}", weight, self.dtype)
            self.after.constant(f"folded_B{number}", offset, self.dtype)
            names = [value, f"folded_W{number}", f"folded_B{number}"]
            self.after.nodes += [helper.make_node(op, names, [out], **attributes), relu]
            fan_in = {"Gemm": CHANNELS, "Depthwise": 9, "ForwardDepthwise": 9}.get(kind, CHANNELS // 2 * 9)
            self.regions.append(Region((f"bn{number}",), (value,), (out,), fan_in))
        return r, run_float64(layer.model(np.float64, r, flat=flat, source=value), {value: x})[r]

    def parameters(self, measured: Array) -> dict[str, Array]:
        axes = tuple(axis for axis in range(measured.ndim) if axis != 1)
        signs = np.where(self.generator.random(CHANNELS) < 0.2, -1, 1)
        gamma = self.generator.uniform(0.5, 1.5, size=CHANNELS) * signs
        beta = 0.5 + self.generator.normal(size=CHANNELS) * 0.3
        every = {"gamma": gamma, "beta": beta, "mean": measured.mean(axis=axes), "var": measured.var(axis=axes)}
        return {name: array.astype(self.dtype) for name, array in every.items()}


def build(
    kinds: list[Kind],
    *,
    seed: int,
    statistics: Statistics = "healthy",
    dtype: npt.DTypeLike = np.float32,
    bug: str = "",
    at: int = -1,
    free: bool = False,
) -> Net:
    """Build a net whose batch norms have the statistics of its own activations.

    Args:
        kinds: The layers; ``Forward…`` is a batch norm in front of a padded convolution, left alone unless it is the
            one with the mistake.
        seed: Of weights and activations.
        statistics: Of the batch norms.
        dtype: Of everything stored.
        bug: A mistake, by name.
        at: The layer that has it.
        free: Whether height and width are left open.
    """
    generator = np.random.default_rng(seed)
    flat = kinds[0] == "Gemm"
    x = generator.normal(size=(64, CHANNELS) if flat else (4, CHANNELS, SIDE, SIDE))
    builder, value = _Builder(generator, statistics, dtype), "x"
    for number, kind in enumerate(kinds):
        value, x = builder.layer(number, kind, value, x, bug if number == at else "")
    before, after = (side.model(dtype, value, flat=flat, free=free) for side in (builder.before, builder.after))
    return Net(before, after, tuple(builder.regions), tuple(f"bn{number}" for number in range(len(kinds))))


def _weight(kind: Kind, generator: np.random.Generator) -> tuple[Array, dict[str, Any]]:
    if kind == "Gemm":
        return generator.normal(size=(CHANNELS, CHANNELS)) / np.sqrt(CHANNELS / 2), {"transB": 1}
    if kind in {"Depthwise", "ForwardDepthwise"}:
        return generator.normal(size=(CHANNELS, 1, 3, 3)) / np.sqrt(9 / 2), {"group": CHANNELS, "pads": [1, 1, 1, 1]}
    shape = (CHANNELS, CHANNELS // 2, 3, 3)
    scaled = generator.normal(size=shape) / np.sqrt(CHANNELS / 2 * 9 / 2)
    return scaled, {"group": 2, "pads": [1, 1, 1, 1]}


def _fold(kind: Kind, w: Array, bias: Array, parameters: dict[str, Array], bug: str) -> tuple[Array, Array]:
    gamma, beta, mean, var = (parameters[name].astype(np.float64) for name in ("gamma", "beta", "mean", "var"))
    epsilon = EPSILON
    if bug == "wrong epsilon":
        epsilon = 1e-5
    if bug == "Bessel slip":
        var = var * SAMPLES / (SAMPLES - 1)
    if bug == "permuted means":
        mean = np.roll(mean, 1)
    if bug == "swapped gamma and beta":
        gamma, beta = beta, gamma
    scale = gamma / (np.sqrt(var) + epsilon if bug == "sqrt(var)+eps" else np.sqrt(var + epsilon))
    shift = beta - mean * scale
    wide, offset = w.astype(np.float64), bias.astype(np.float64)
    if kind == "ForwardDepthwise":
        return wide * scale.reshape(-1, 1, 1, 1), offset + wide.sum(axis=(1, 2, 3)) * shift
    if kind == "ForwardTranspose":  # the input's channels are the first axis, and a group's outputs the second
        half = CHANNELS // 2
        taps = (wide * shift.reshape(-1, 1, 1, 1)).reshape(2, half, half, 9).sum(axis=(1, 3)).reshape(-1)
        return wide * scale.reshape(-1, 1, 1, 1), offset + taps
    if kind == "Forward":
        inputs = np.repeat(scale.reshape(2, -1), CHANNELS // 2, axis=0).reshape(CHANNELS, -1, 1, 1)
        shifts = np.repeat(shift.reshape(2, -1), CHANNELS // 2, axis=0).reshape(CHANNELS, -1, 1, 1)
        return wide * inputs, offset + (wide * shifts).sum(axis=(1, 2, 3))
    if kind == "ConvTranspose":
        half = CHANNELS // 2
        new = (wide.reshape(2, half, half, 3, 3) * scale.reshape(2, 1, half, 1, 1)).reshape(wide.shape)
    else:
        new = wide * scale.reshape(-1, *[1] * (wide.ndim - 1))
    folded = offset * scale + shift
    if bug == "missing bias on one channel":
        folded[3] = 0.0
    return new, folded
