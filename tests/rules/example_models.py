"""Build the graphs of rules' examples, with values drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[np.float64]


def build(graph: str, *, seed: int, opset: int = 20, ir_version: int = 9) -> onnx.ModelProto:
    """Parse a graph in ONNX text; initializers without values are drawn, those named ``var…`` positive.

    Args:
        graph: ``(inputs) => (outputs) <initializers> { nodes }``.
        seed: Seed of the values.
        opset: Version of the standard operator set.
        ir_version: Version of the file format.
    """
    parsed = onnx.parser.parse_graph(f"example {graph}")
    rng = np.random.default_rng(seed)
    for value in parsed.value_info:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.uniform(0.3, 2.0, shape) if value.name.startswith("var") else rng.normal(size=shape)
        parsed.initializer.append(numpy_helper.from_array(np.asarray(drawn).astype(dtype), value.name))
    del parsed.value_info[:]
    for output in parsed.output:  # "double y" leaves the shape to inference
        if not output.type.tensor_type.shape.dim:
            output.type.tensor_type.ClearField("shape")
    model = helper.make_model(parsed, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output}
    for output in model.graph.output:
        output.CopyFrom(inferred[output.name])
    return model


def feeds_for(model: onnx.ModelProto, *, seed: int) -> Mapping[str, Array]:
    """Draw one array for each input of a model."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in initializers:
            shape = [dimension.dim_value or 2 for dimension in value.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            drawn = rng.integers(0, 2, size=shape) if dtype.kind == "i" else rng.normal(size=shape)
            feeds[value.name] = np.asarray(drawn).astype(dtype)
    return feeds


class ConvTranspose(OpRun):
    """By its definition, tap by tap: onnx's own evaluator does not know groups."""

    def _run(self, x, weight, bias=None, **attributes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN202
        rank = x.ndim - 2
        group = attributes["group"] or 1
        strides = attributes["strides"] or [1] * rank
        dilations = attributes["dilations"] or [1] * rank
        pads = attributes["pads"] or [0] * (2 * rank)
        padding = attributes["output_padding"] or [0] * rank
        reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(weight.shape[2:], dilations, strict=True)]
        full = [
            stride * (size - 1) + taps + extra
            for stride, size, taps, extra in zip(strides, x.shape[2:], reach, padding, strict=True)
        ]
        each_in, each_out = x.shape[1] // group, weight.shape[1]
        y = np.zeros((x.shape[0], group * each_out, *full))
        for index in np.ndindex(*x.shape):
            image, channel, *position = index
            for out in range(each_out):
                for tap in np.ndindex(*weight.shape[2:]):
                    where = (p * s + t * d for p, s, t, d in zip(position, strides, tap, dilations, strict=True))
                    y[(image, channel // each_in * each_out + out, *where)] += x[index] * weight[(channel, out, *tap)]
        crop = tuple(slice(pads[axis], full[axis] - pads[axis + rank]) for axis in range(rank))
        y = y[(slice(None), slice(None), *crop)]
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class GlobalLpPool(OpRun):
    """By its definition: onnx's own evaluator does not have it."""

    def _run(self, x, p=2):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model of float64 tensors on onnx's own reference evaluator: the judge of every fold."""
    onnx.checker.check_model(model)
    return [
        np.asarray(output)
        for output in ReferenceEvaluator(model, new_ops=[ConvTranspose, GlobalLpPool]).run(None, dict(feeds))
    ]
