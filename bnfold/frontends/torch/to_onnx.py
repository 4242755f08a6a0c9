"""An exported program as ONNX, by PyTorch's own exporter, with every batch norm in place.

The exporter's optimiser folds batch norms into convolutions, so it is switched off. What of it is needed comes after
it: constants are computed, because a convolution without a bias is written with a bias that the graph computes.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from bnfold.errors import UnsupportedOpError
from bnfold.frontends.tensorflow.io_names import nodes_in, rename_io
from bnfold.frontends.torch.archive import Packed
from bnfold.frontends.torch.guests import onnxscript, quiet, torch

__all__ = ["to_onnx"]

_OLDEST_OPSET, _NEWEST_OPSET = 18, 23
_DEFAULT_OPSET = 18
_SCOPES = "pkg.torch.onnx.name_scopes"
_SMALL = 1 << 16
_LAYERS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "InstanceNormalization", "LSTM",
    "GRU", "LayerNormalization", "PRelu", "Gather", "GroupNormalization"})  # fmt: skip


def to_onnx(
    packed: Packed,
    program: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int | None = None,
) -> onnx.ModelProto:
    """Return a program as an ONNX model, its batch norms in place and called by the paths of their modules.

    Args:
        packed: The archive it came from.
        program: What ``original.exported`` returned, in inference mode.
        inputs: Names for its inputs, in order.
        outputs: Names for its outputs, in order.
        opset: ONNX opset to export to; None means 18.

    Raises:
        UnsupportedOpError: If an operation has no ONNX form, or the opset cannot be exported to.
        MissingExtraError: If PyTorch or onnxscript is not installed.
    """
    opset = _DEFAULT_OPSET if opset is None else opset
    if not _OLDEST_OPSET <= opset <= _NEWEST_OPSET:
        raise UnsupportedOpError(
            f"PyTorch programs are exported to the ONNX opsets {_OLDEST_OPSET} to {_NEWEST_OPSET}, not to {opset}",
            hint=f"Leave the opset out: the default is {_DEFAULT_OPSET}.",
        )
    library, simplify = torch(), onnxscript("onnxscript.optimizer")
    torch("torch.onnx")
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        try:
            exported = library.onnx.export(
                program, (), dynamo=True, optimize=False, verbose=False, opset_version=opset, external_data=False
            )
            simplify.inline(exported.model)
            simplify.fold_constants(
                exported.model, onnx_shape_inference=True, input_size_limit=_SMALL, output_size_limit=_SMALL
            )
            simplify.remove_unused_nodes(exported.model)
            model: onnx.ModelProto = exported.model_proto
        except Exception as error:  # the exporter raises whatever its steps run into
            raise _refused(packed, error) from error
    _name_by_module(model)
    _own_outputs(model)
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    rename_io(model, dict(zip((*names[0], *names[1]), (*inputs, *outputs), strict=True)))
    _tidy(model)
    return model


def _refused(packed: Packed, error: Exception) -> UnsupportedOpError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).split())[:300] or type(cause).__name__
    missing = re.search(r"(aten\.\w+\.\w+|aten::\w+)", words)
    if missing and "No ONNX function found" in words:
        return UnsupportedOpError(
            f"{packed.path.name}: the operation {missing[1]} has no ONNX form",
            hint="Export the part of the network in front of it.",
        )
    return UnsupportedOpError(
        f"{packed.path.name} cannot be exported to ONNX: {words}",
        hint="Export the part of the network in front of the operation in question.",
    )


def _name_by_module(model: onnx.ModelProto) -> None:
    """Name layers after the modules they were written in; later calls of one module get a number behind the name."""
    nodes = list(nodes_in(model.graph))
    taken = {node.name for node in nodes if node.op_type not in _LAYERS}
    for node in nodes:
        if node.op_type not in _LAYERS:
            continue
        name, number = _module_of(node) or node.name, 1
        free = name
        while free in taken:
            number += 1
            free = f"{name}:{number}"
        taken.add(free)
        node.name = free


def _own_outputs(model: onnx.ModelProto) -> None:
    """Give an output a value of its own where it is an input, a weight, or an output that was there before."""
    taken = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    for place, value in enumerate(model.graph.output):
        if value.name in taken:
            given = value.name
            value.name = f"{given}/returned_{place}"
            model.graph.node.add(op_type="Identity", input=[given], output=[value.name], name=value.name)
        taken.add(value.name)


def _module_of(node: onnx.NodeProto) -> str:
    told: Mapping[str, str] = {prop.key: prop.value for prop in node.metadata_props}
    try:
        scopes = ast.literal_eval(told.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, RecursionError):
        return ""
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""


def _tidy(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes down about source files, and the formulas of sizes that it names axes by."""
    for node in nodes_in(model.graph):
        del node.metadata_props[:]
        node.doc_string = ""
    graphs = [model.graph]
    graphs += [
        attribute.g
        for node in nodes_in(model.graph)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    ]
    for graph in graphs:
        del graph.metadata_props[:]
        del graph.value_info[:]
        for value in (*graph.input, *graph.output, *graph.initializer):
            del value.metadata_props[:]
    del model.metadata_props[:]
    model.graph.name = "main_graph"
