"""What a Scan does with its body, and what a loop gives that never turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from bnfold.parity.kernels import Array, widen
from bnfold.parity.program import Compiled

__all__ = ["nothing", "scan_over"]


def scan_over(
    attributes: Mapping[str, Any], graph: Compiled, inputs: list[Any], body: Callable[[dict[str, Any]], list[Any]]
) -> Sequence[Any]:
    """Run a Scan: the body once for each slice of the sequences; ``inputs`` are the states, then the sequences."""
    count = int(attributes["num_scan_inputs"])
    if len(inputs) != len(graph.inputs):
        raise ValueError("the batched Scan of opset 8 has no reference")
    state, sequences = list(inputs[:-count]), list(inputs[-count:])
    outputs = len(graph.outputs) - len(state)
    in_axes = attributes.get("scan_input_axes") or [0] * count
    in_turned = attributes.get("scan_input_directions") or [0] * count
    out_axes = attributes.get("scan_output_axes") or [0] * outputs
    out_turned = attributes.get("scan_output_directions") or [0] * outputs
    moved = [np.moveaxis(item, axis, 0) for item, axis in zip(sequences, in_axes, strict=True)]
    moved = [item[::-1] if turned else item for item, turned in zip(moved, in_turned, strict=True)]
    rows: list[list[Array]] = [[] for _ in range(outputs)]
    for step in range(moved[0].shape[0]):
        entering = [*state, *(item[step] for item in moved)]
        results = body(dict(zip(graph.inputs, entering, strict=True)))
        state = results[: len(state)]
        for row, value in zip(rows, results[len(state) :], strict=True):
            row.append(value)
    stacked = []
    for number, row in enumerate(rows):
        name = graph.outputs[len(state) + number]
        turned = row[::-1] if out_turned[number] else row
        stacked.append(np.stack(turned, axis=out_axes[number]) if row else nothing(graph.declared[name]))
    return [*state, *stacked]


def nothing(declared: onnx.TypeProto) -> Array:
    """Return what a loop without a turn stacks up: no rows of the declared shape."""
    tensor = declared.tensor_type
    sizes = [dimension.dim_value if dimension.HasField("dim_value") else 0 for dimension in tensor.shape.dim]
    return widen(np.zeros((0, *sizes), dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
