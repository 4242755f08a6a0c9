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
Kind = Literal["Conv", "Depthwise", "ConvTranspose", "Gemm", "Forward"]
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
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: Array, dtype: npt.DTypeLike) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), name))
        return name

    def model(self, dtype: npt.DTypeLike, flat: bool, output: str, last: int) -> ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shape = ["N", last] if flat else ["N", last, "H", "W"]
        given = ["N", CHANNELS] if flat else ["N", CHANNELS, "H", "W"]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", element, given)],
            [helper.make_tensor_value_info(output, element, shape)],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def build(
    kinds: list[Kind],
    *,
    seed: int,
    statistics: Statistics = "healthy",
    dtype: npt.DTypeLike = np.float32,
    bug: str = "",
    at: int = -1,
) -> Net:
    """Build a net of layers ``linear, batch norm, Relu`` whose statistics are those of its own activations.

    Args:
        kinds: The layers; ``Forward`` is a batch norm in front of a padded convolution, left alone unless it is the
            one with the mistake.
        seed: Of weights and activations.
        statistics: Of the batch norms.
        dtype: Of everything stored.
        bug: A mistake, by name.
        at: The layer that has it.
    """
    generator = np.random.default_rng(seed)
    flat = kinds[0] == "Gemm"
    x = generator.normal(size=(64, CHANNELS) if flat else (4, CHANNELS, SIDE, SIDE))
    before, after = _Side(), _Side()
    regions, names, value = [], [], "x"
    for number, kind in enumerate(kinds):
        value, x = _layer(
            before, after, regions, number, kind, value, x, generator, statistics, dtype, bug if number == at else ""
        )
        names.append(f"bn{number}")
    channels = x.shape[1]
    return Net(
        before.model(dtype, flat, value, channels),
        after.model(dtype, flat, value, channels),
        tuple(regions),
        tuple(names),
    )


def _weight(kind: Kind, generator: np.random.Generator) -> tuple[Array, dict[str, Any]]:
    if kind == "Gemm":
        return generator.normal(size=(CHANNELS, CHANNELS)) / np.sqrt(CHANNELS / 2), {"transB": 1}
    if kind == "Depthwise":
        return generator.normal(size=(CHANNELS, 1, 3, 3)) / np.sqrt(9 / 2), {"group": CHANNELS, "pads": [1, 1, 1, 1]}
    shape = (CHANNELS, CHANNELS // 2, 3, 3)
    scaled = generator.normal(size=shape) / np.sqrt(CHANNELS / 2 * 9 / 2)
    return scaled, {"group": 2, "pads": [1, 1, 1, 1]}


def _layer(
    before: _Side,
    after: _Side,
    regions: list[Region],
    number: int,
    kind: Kind,
    value: str,
    x: Array,
    generator: np.random.Generator,
    statistics: Statistics,
    dtype: npt.DTypeLike,
    bug: str,
) -> tuple[str, Array]:
    w, attributes = _weight(kind, generator)
    op = {"Gemm": "Gemm", "ConvTranspose": "ConvTranspose"}.get(kind, "Conv")
    bias = generator.normal(size=CHANNELS)
    if statistics == "tiny variance":
        w, bias = w * 1e-3, bias * 1e-3
    w, bias = w.astype(dtype), bias.astype(dtype)
    if statistics == "large mean":
        bias = (bias * 200).astype(dtype)
    linear = [f"h{number}", f"W{number}", f"B{number}"]
    gamma = generator.uniform(0.5, 1.5, size=CHANNELS) * np.where(generator.random(CHANNELS) < 0.2, -1, 1)
    beta = 0.5 + generator.normal(size=CHANNELS) * 0.3
    forward = kind == "Forward"
    source = value if forward else linear[0]
    alone = _Side([helper.make_node(op, [value, *linear[1:]], [linear[0]], **attributes)])
    alone.constant(linear[1], w, np.float64)
    alone.constant(linear[2], bias, np.float64)
    h = (
        x
        if forward
        else run_float64(alone.model(np.float64, x.ndim == 2, linear[0], CHANNELS), {value: x, "x": x})[linear[0]]
    )
    axes = tuple(axis for axis in range(h.ndim) if axis != 1)
    mean, var = h.mean(axis=axes).astype(dtype), h.var(axis=axes).astype(dtype)
    gamma, beta = gamma.astype(dtype), beta.astype(dtype)
    parameters = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
    target = before if forward else before
    outputs = (f"b{number}", linear[0]) if forward else (linear[0], f"b{number}")
    for side in (before, after) if forward and not bug else (target,):
        for name, array in parameters.items():
            side.constant(f"{name}{number}", array, dtype)
        side.constant(linear[1], w, dtype)
        side.constant(linear[2], bias, dtype)
        norm = [f"{name}{number}" for name in parameters]
        batch_norm = helper.make_node(
            "BatchNormalization", [source, *norm], [f"b{number}"], name=f"bn{number}", epsilon=EPSILON
        )
        mapped = helper.make_node(op, [f"b{number}" if forward else value, *linear[1:]], [linear[0]], **attributes)
        side.nodes += [batch_norm, mapped] if forward else [mapped, batch_norm]
    if not forward or bug:
        new_w, new_b = _fold(kind, w, bias, parameters, bug)
        after.constant(f"folded_W{number}", new_w, dtype)
        after.constant(f"folded_B{number}", new_b, dtype)
        after.nodes.append(
            helper.make_node(op, [value, f"folded_W{number}", f"folded_B{number}"], [outputs[1]], **attributes)
        )
        per_output = {"Gemm": CHANNELS, "Depthwise": 9}.get(kind, CHANNELS // 2 * 9)
        regions.append(Region((f"bn{number}",), (value,), (outputs[1],), per_output))
    for side in (before, after):
        side.nodes.append(helper.make_node("Relu", [outputs[1]], [f"r{number}"]))
    piece = _Side([node for node in before.nodes if node.output[0] in {*outputs, f"r{number}"}], list(before.tensors))
    wide = piece.model(np.float64, x.ndim == 2, f"r{number}", CHANNELS)
    return f"r{number}", run_float64(wide, {value: x, "x": x})[f"r{number}"]


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
