"""From a node of the graph to a linear node as arrays, if it is what its operation promises."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import helper

from bnfold.affine import Linear
from bnfold.rules import Form, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.affine.linear import Attribute
    from bnfold.graph.constants import Constant
    from bnfold.graph.extent import Extent
    from bnfold.graph.view import NodeView

__all__ = [
    "FLOATING",
    "changed_attributes",
    "changed_constants",
    "read_around",
    "read_but_weight",
    "read_linear",
    "stored_dtype",
]

FLOATING = frozenset(np.dtype(each) for each in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
"""The types in which a layer's weights may be stored."""

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_BY_DATA = frozenset({"MatMul", "Einsum", "GatherND"})
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""How many gates there are in a cell."""

_NO_WEIGHT = np.empty(0)

_EPSILON = float(np.float32(1e-5))

# What a linear node's attributes are where the model leaves them out.
_DEFAULTS: dict[str, dict[str, int | float | str]] = {
    "Conv": {"group": 1, "auto_pad": "NOTSET"},
    "ConvTranspose": {"group": 1, "auto_pad": "NOTSET"},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "Einsum": {"equation": ""},
    "Gather": {"axis": 0},
    "GatherND": {"batch_dims": 0},
    "BatchNormalization": {"epsilon": _EPSILON},
    "DequantizeLinear": {"axis": 1, "block_size": 0},
}

# Further constants that rules of an operation read: they must be there if the node has them.
_FURTHER: dict[str, tuple[int, ...]] = {"BatchNormalization": (3, 4), "DequantizeLinear": (0, 2)}

_LISTS = ("strides", "dilations", "pads", "output_padding", "output_shape", "kernel_shape")


def stored_dtype(node: NodeView, form: Form) -> np.dtype[np.generic]:
    """Return the type in which a layer's weight is stored."""
    return _dtype(node.view.type(node.reads[form.weight]).element)


@cache
def _dtype(element: int) -> np.dtype[np.generic]:
    return helper.tensor_dtype_to_np_dtype(element)


def read_linear(node: NodeView, form: Form) -> Linear | Refusal:
    """Return a layer's weights as they are in the model, in float64; a refusal where they are none."""
    if node.view.type(node.reads[form.weight]).element == 0:
        return Refusal(Reason.WEIGHT_TYPE, f"the type of the weight of {node.name} is not known")
    stored = stored_dtype(node, form)
    if stored not in FLOATING:
        return Refusal(Reason.WEIGHT_TYPE, f"the weight of {node.name} is stored as {stored.name}")
    weight = node.weight(form.weight)
    if weight is None or weight.dtype != np.float64:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} is not a constant")
    has_bias = form.bias is not None and node.has_input(form.bias)
    bias = node.weight(form.bias) if has_bias and form.bias is not None else None
    if has_bias and (bias is None or bias.dtype != np.float64):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the bias of {node.name} is not a constant")
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias).all()):
        return Refusal(Reason.NON_FINITE, f"the weight or bias of {node.name} holds NaN or infinity")
    further: dict[int, Constant] = {}
    for position in _FURTHER.get(node.op_type, ()):
        value = node.constant(position)
        if value is None and node.has_input(position):
            return Refusal(Reason.DYNAMIC_WEIGHT, f"input {position} of {node.name} is not a constant")
        if value is not None:
            further[position] = value
    attributes = node.attributes
    misfit = _misfit(node, attributes, form, weight.shape, bias)
    if misfit:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name}: {misfit}")
    return Linear(
        weight=weight.astype(np.float64, copy=False),
        bias=_bias(node, weight.shape, bias).astype(np.float64, copy=False),
        attributes=_all_attributes(node.op_type, attributes),
        weight_input=form.weight,
        data_shape=_data_shape(node, form),
        constants=further,
    )


def read_around(node: NodeView, form: Form) -> tuple[Linear, Extent] | None:
    """Return a layer with an empty weight, and the extent of its weight, which is not copied for it.

    Returns:
        None for a layer that ``read_linear`` refuses, and for one of which that cannot be told without its weight.
    """
    op_type, attributes = node.op_type, node.attributes
    extent = node.extent(form.weight)
    shape = node.view.type(node.reads[form.weight]).shape
    if extent is None or not extent.finite or shape is None or form.bias is None or op_type in _FURTHER:
        return None
    if not all(isinstance(size, int) for size in shape) or stored_dtype(node, form) not in FLOATING:
        return None
    sizes = cast("tuple[int, ...]", shape)
    bias = None
    if node.has_input(form.bias):
        bias, known = node.constant(form.bias), node.extent(form.bias)
        if bias is None or known is None or not known.finite or bias.dtype != np.float64:
            return None
    if _misfit(node, attributes, form, sizes, bias):
        return None
    return read_but_weight(node, form), extent


def read_but_weight(node: NodeView, form: Form) -> Linear:
    """Return a layer that can be read, with an empty weight, which is not copied for it."""
    bias = node.weight(form.bias) if form.bias is not None and node.has_input(form.bias) else None
    shape = cast("tuple[int, ...]", node.view.type(node.reads[form.weight]).shape)
    every = _all_attributes(node.op_type, node.attributes)
    around = _bias(node, shape, bias).astype(np.float64, copy=False)
    return Linear(_NO_WEIGHT, around, every, form.weight, _data_shape(node, form))


def _all_attributes(op_type: str, attributes: Mapping[str, object]) -> Mapping[str, Attribute]:
    return {**_DEFAULTS.get(op_type, {}), **attributes}  # type: ignore[dict-item]


def changed_attributes(node: NodeView, linear: Linear) -> Mapping[str, Attribute | None]:
    """Return the attributes in which a linear node is no more what the model says; None for one that is its default."""
    defaults = _DEFAULTS.get(node.op_type, {})
    return {
        name: None if value == defaults.get(name) else value
        for name, value in linear.attributes.items()
        if value != node.attributes.get(name, defaults.get(name))
    }


def changed_constants(node: NodeView, linear: Linear) -> Mapping[int, npt.NDArray[np.generic]]:
    """Return the further constants of a linear node that are no more what the model says, in the types of the model."""
    changed = {}
    for position, array in linear.constants.items():
        before = node.constant(position)
        if before is None or before.shape != array.shape or not np.array_equal(before, array):
            stored = helper.tensor_dtype_to_np_dtype(node.view.type(node.reads[position]).element)
            changed[position] = array.astype(stored)
    return changed


def _bias(node: NodeView, shape: tuple[int, ...], bias: Constant | None) -> Constant:
    """Return a bias in the shape in which rules expect it, zeros where a node has none."""
    if node.op_type == "Gemm":
        return np.zeros((1, 1)) if bias is None else bias.reshape((1,) * (2 - bias.ndim) + bias.shape)
    if node.op_type == "LayerNormalization":
        return np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)
    if bias is not None:
        return bias
    if node.op_type in _CONVOLUTIONS:
        return np.zeros(_outputs(node, shape))
    if node.op_type in _RECURRENT:
        return np.zeros((shape[0], 2 * shape[1]))
    return np.zeros(1)


def _data_shape(node: NodeView, form: Form) -> tuple[int | None, ...]:
    """Return the shape of the data input where some rule of the operation asks for it."""
    op_type = node.op_type
    asked = op_type in _BY_DATA
    if op_type in _CONVOLUTIONS:
        asked = str(node.attributes.get("auto_pad", "")).startswith("SAME")
    shape = (node.shape(form.data) if asked else None) or ()
    return tuple(size if isinstance(size, int) else None for size in shape)


def _outputs(node: NodeView, shape: tuple[int, ...]) -> int:
    """Return the number of output channels of a convolution."""
    return int(shape[0] if node.op_type == "Conv" else shape[1] * node.integer("group", 1))


def _misfit(
    node: NodeView, attributes: Mapping[str, object], form: Form, shape: tuple[int, ...], bias: Constant | None
) -> str:
    """Say how a node contradicts its operation; such a model does not run, and is no reason to fail."""
    if 0 in shape:
        return "its weight is empty"
    op_type = node.op_type
    for name, default in _DEFAULTS.get(op_type, {}).items():
        if name not in attributes:
            continue
        given = attributes[name]
        if not isinstance(given, (int, float) if isinstance(default, float) else type(default)):
            return f"its {name} is {given!r}"
        if isinstance(given, float) and not np.isfinite(given):
            return f"its {name} is not finite"
    if op_type in _CONVOLUTIONS:
        return _convolution_misfit(node, attributes, shape, bias)
    if op_type == "Gemm":
        return _gemm_misfit(form, shape, bias)
    if op_type == "DequantizeLinear":
        return _quantised_misfit(node, shape)
    if bias is None:
        return ""
    if op_type in _RECURRENT:
        wanted: tuple[int, ...] = (shape[0], 2 * shape[1])
        return "" if bias.shape == wanted else f"its B has shape {list(bias.shape)}, not {list(wanted)}"
    if op_type == "LayerNormalization":
        fits = bias.ndim <= len(shape) and all(
            size in (1, own) for size, own in zip(bias.shape[::-1], shape[::-1], strict=False)
        )
        return "" if fits else f"its B of shape {list(bias.shape)} does not fit its Scale of {list(shape)}"
    if bias.shape != shape:
        return f"its offset of shape {list(bias.shape)} is not one number a channel"
    return ""


def _convolution_misfit(
    node: NodeView, attributes: Mapping[str, object], shape: tuple[int, ...], bias: Constant | None
) -> str:
    spatial = len(shape) - 2
    for name in _LISTS:
        if name not in attributes:
            continue
        given, length = attributes[name], 2 * spatial if name == "pads" else spatial
        if not isinstance(given, tuple) or len(given) != length or not all(isinstance(item, int) for item in given):
            return f"its {name} are not {length} numbers"
    if 0 in attributes.get("strides", ()):  # type: ignore[operator]
        return "its strides are none"
    if attributes.get("kernel_shape", shape[2:]) != shape[2:]:
        return f"its kernel_shape is not that of its weight, {list(shape)}"
    if bias is not None and bias.shape != (_outputs(node, shape),):
        return f"its bias of shape {list(bias.shape)} is not one number a channel"
    return ""


def _gemm_misfit(form: Form, shape: tuple[int, ...], bias: Constant | None) -> str:
    columns = shape[form.output_axis] if form.weight == 1 else None
    rows = shape[form.output_axis] if form.weight == 0 else None
    sizes = (1,) * (2 - bias.ndim) + bias.shape if bias is not None and bias.ndim <= 2 else None
    if bias is not None and (sizes is None or not _fits(sizes[0], rows) or not _fits(sizes[1], columns)):
        return f"its C of shape {list(bias.shape)} does not fit its factors"
    return ""


def _quantised_misfit(node: NodeView, scales: tuple[int, ...]) -> str:
    size = math.prod(scales)
    stored, zero = node.constant(0), node.constant(2)
    axis, block = node.integer("axis", 1), node.integer("block_size", 0)
    if stored is None or (zero is not None and zero.shape != scales and max(zero.size, size) > 1):
        return f"its zero points are not of the shape of its scales, {list(scales)}"
    if size == 1 and not block:
        return ""
    if block < 0 or not -stored.ndim <= axis < stored.ndim:
        return f"its blocks of {block} elements along axis {axis} do not fit a tensor of {stored.ndim} axes"
    wanted: list[int] = [stored.shape[axis]]
    if block:
        wanted = list(stored.shape)
        wanted[axis] = -(-stored.shape[axis] // block)
    return "" if list(scales) == wanted else f"its scales have shape {list(scales)}, not {wanted}"


def _fits(size: int, wanted: int | None) -> bool:
    return wanted is None or size in (1, wanted)
