"""Whether what was read is a whole ONNX model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import GraphProto, ModelProto

from bnfold.errors import CorruptModelError, UnknownFormatError
from bnfold.graph.tensors import EXPORT_AGAIN, model_tensors

__all__ = ["check_kind", "check_text"]


def check_kind(model: ModelProto, name: str) -> None:
    """Refuse another kind of message: protobuf's do not say what they are, so it parses, and has none of the parts.

    Raises:
        UnknownFormatError: If it is no ONNX model, or one of a version that is not known.
        CorruptModelError: If it is one that lacks what every model has.
    """
    if not model.HasField("graph") or not model.HasField("ir_version"):
        missing = "graph" if not model.HasField("graph") else "IR version"
        raise UnknownFormatError(
            f"{name} is no ONNX model: it has no {missing}", hint="Name the file that the ONNX exporter wrote."
        )
    if model.ir_version < 1:
        raise CorruptModelError(f"{name} has the impossible IR version {model.ir_version}", hint=EXPORT_AGAIN)
    if model.ir_version > onnx.IR_VERSION:
        raise UnknownFormatError(
            f"{name} says that it is of IR version {model.ir_version}; 1 to {int(onnx.IR_VERSION)} are known",
            hint="Upgrade the onnx package, or export the model with an older IR version.",
        )
    if not model.opset_import and model.ir_version >= 3:
        raise CorruptModelError(f"{name} does not say which operator set it uses", hint=EXPORT_AGAIN)
    if not model.graph.output:
        raise CorruptModelError(f"{name} has a graph without outputs", hint=EXPORT_AGAIN)


def check_text(model: ModelProto) -> None:
    """Refuse names that are no text: they are sorted everywhere, and protobuf hands out broken ones as bytes.

    Raises:
        CorruptModelError: If one is none.
    """
    texts: list[object] = [model.producer_name, model.producer_version, model.domain, model.doc_string]
    texts += (opset.domain for opset in model.opset_import)
    for entry in model.metadata_props:
        texts += entry.key, entry.value
    texts += _graph_texts(model.graph)
    for function in model.functions:
        texts += function.name, function.domain, *function.input, *function.output, *function.attribute
        texts += (opset.domain for opset in function.opset_import)
        for value in function.node:
            texts += _node_texts(value)
    for tensor in model_tensors(model):
        texts.append(tensor.name)
        for entry in tensor.external_data:
            texts += entry.key, entry.value
    for text in texts:
        if not isinstance(text, str):
            raise CorruptModelError(f"one of its names is not text: {text!r:.60}", hint=EXPORT_AGAIN)


def _graph_texts(graph: GraphProto) -> Iterator[object]:
    yield graph.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        for dimension in value.type.tensor_type.shape.dim:
            yield dimension.dim_param
    for node in graph.node:
        yield from _node_texts(node)


def _node_texts(node: onnx.NodeProto) -> Iterator[object]:
    yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for attribute in node.attribute:
        yield attribute.name
        yield attribute.ref_attr_name
        if attribute.HasField("g"):
            yield from _graph_texts(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_texts(graph)
