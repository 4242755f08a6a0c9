"""From a node of the graph to a linear node as arrays, if it is what its operation promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import helper

from bnfold.affine import Linear
from bnfold.rules import Form, Reason, Refusal

if TYPE_CHECKING:
    from bnfold.graph.constants import Constant
    from bnfold.graph.view import NodeView

__all__ = ["read_linear", "stored_dtype"]

_FLOATING = frozenset({"float16", "bfloat16", "float32", "float64"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

# What a linear node's attributes are where the model leaves them out.
_DEFAULTS: dict[str, dict[str, int | float | str]] = {
    "Conv": {"group": 1, "auto_pad": "NOTSET"},
    "ConvTranspose": {"group": 1, "auto_pad": "NOTSET"},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
}


def stored_dtype(node: NodeView, form: Form) -> npt.DTypeLike:
    """Return the type in which a layer's weight is stored."""
    return helper.tensor_dtype_to_np_dtype(node.view.type(node.proto.input[form.weight]).element)


def read_linear(node: NodeView, form: Form) -> Linear | Refusal:
    """Return a layer's weights as they are in the model, in float64; a refusal where they are none."""
    if node.view.type(node.proto.input[form.weight]).element == 0:
        return Refusal(Reason.WEIGHT_TYPE, f"the type of the weight of {node.name} is not known")
    stored = np.dtype(stored_dtype(node, form)).name
    if stored not in _FLOATING:
        return Refusal(Reason.WEIGHT_TYPE, f"the weight of {node.name} is stored as {stored}")
    weight = node.constant(form.weight)
    if weight is None or weight.dtype != np.float64:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} is not a constant")
    has_bias = form.bias is not None and node.has_input(form.bias)
    bias = node.constant(form.bias) if has_bias and form.bias is not None else None
    if has_bias and (bias is None or bias.dtype != np.float64):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the bias of {node.name} is not a constant")
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias).all()):
        return Refusal(Reason.NON_FINITE, f"the weight or bias of {node.name} holds NaN or infinity")
    misfit = _misfit(node, form, weight, bias)
    if misfit:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name}: {misfit}")
    if bias is None:
        bias = np.zeros(_outputs(node, weight) if node.op_type in _CONVOLUTIONS else 1)
    if node.op_type == "Gemm":
        bias = bias.reshape((1,) * (2 - bias.ndim) + bias.shape)
    pads_itself = str(node.attributes.get("auto_pad", "")).startswith("SAME")
    shape = (node.shape(form.data) if pads_itself else None) or ()
    return Linear(
        weight=weight.astype(np.float64),
        bias=bias.astype(np.float64),
        attributes={**_DEFAULTS.get(node.op_type, {}), **node.attributes},  # type: ignore[dict-item]
        weight_input=form.weight,
        spatial=tuple(size if isinstance(size, int) else None for size in shape[2:]),
    )


def _outputs(node: NodeView, weight: Constant) -> int:
    """Return the number of output channels of a convolution."""
    return int(weight.shape[0] if node.op_type == "Conv" else weight.shape[1] * node.integer("group", 1))


def _misfit(node: NodeView, form: Form, weight: Constant, bias: Constant | None) -> str:
    """Say how a node contradicts its operation; such a model does not run, and is no reason to fail."""
    if not weight.size:
        return "its weight is empty"
    if node.op_type in _CONVOLUTIONS:
        spatial = weight.ndim - 2
        for name, length in (("strides", spatial), ("dilations", spatial), ("output_padding", spatial)):
            given = node.attributes.get(name, (1,) * spatial)
            if not isinstance(given, tuple) or len(given) != length:
                return f"its {name} are not {length} numbers"
        pads = node.attributes.get("pads", (0,) * 2 * spatial)
        if not isinstance(pads, tuple) or len(pads) != 2 * spatial or 0 in node.attributes.get("strides", ()):  # type: ignore[operator]
            return "its pads or strides are none"
        if bias is not None and bias.shape != (_outputs(node, weight),):
            return f"its bias of shape {list(bias.shape)} is not one number a channel"
    elif node.op_type == "Gemm":
        if not all(np.isfinite(node.number(name, 1.0)) for name in ("alpha", "beta")):
            return "its alpha or beta is not finite"
        columns = weight.shape[form.output_axis] if form.weight == 1 else None
        rows = weight.shape[form.output_axis] if form.weight == 0 else None
        sizes = (1,) * (2 - bias.ndim) + bias.shape if bias is not None and bias.ndim <= 2 else None
        if bias is not None and (sizes is None or not _fits(sizes[0], rows) or not _fits(sizes[1], columns)):
            return f"its C of shape {list(bias.shape)} does not fit its factors"
    elif bias is not None and bias.shape != (form.channels,):
        return f"its offset of shape {list(bias.shape)} is not one number a channel"
    return ""


def _fits(size: int, wanted: int | None) -> bool:
    return wanted is None or size in (1, wanted)
