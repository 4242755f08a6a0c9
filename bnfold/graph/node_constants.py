"""What a node says by itself: its attributes, and the constants that it holds or makes of constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper

from bnfold.graph.constants import Constant, filled, split, tensor_value

__all__ = ["attributes_of", "constant_node", "one_of_several"]

_NO_VALUES = frozenset({AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.TENSOR})


def attributes_of(node: NodeProto) -> Mapping[str, object]:
    """Return a node's attributes as Python values, without bodies and tensors; lists are tuples, bytes are text."""
    values: dict[str, object] = {}
    for attribute in node.attribute:
        kind = attribute.type
        if kind in _NO_VALUES or attribute.ref_attr_name:
            continue
        value: object
        if kind == AttributeProto.INT:
            value = attribute.i
        elif kind == AttributeProto.INTS:
            value = tuple(attribute.ints)
        elif kind == AttributeProto.FLOAT:
            value = attribute.f
        elif kind == AttributeProto.STRING:
            value = attribute.s.decode("utf-8", errors="replace")
        else:
            value = helper.get_attribute_value(attribute)
            if not isinstance(value, list):
                continue
            value = tuple(value)
        values[attribute.name] = value
    return values


def one_of_several(node: NodeProto, position: int, inputs: list[Constant | None]) -> Constant | None:
    """Compute an output of a node on constants whose attributes or outputs are not like those of the others."""
    first = inputs[0] if inputs else None
    if first is None:
        return None
    if node.op_type == "ConstantOfShape":
        values = [tensor_value(attribute.t) for attribute in node.attribute if attribute.name == "value"]
        return filled(first, values[0] if values else None)
    parts = split(first, len(node.output), inputs[1] if len(inputs) > 1 else None, attributes_of(node))
    return None if parts is None else parts[position]


def constant_node(node: NodeProto) -> Constant | None:
    """Return what a ``Constant`` node holds; None for text and for sparse tensors."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return None if attribute.t.data_type == TensorProto.STRING else tensor_value(attribute.t)
        if attribute.name in {"value_float", "value_floats"}:
            return np.asarray(helper.get_attribute_value(attribute), dtype=np.float64)
        if attribute.name in {"value_int", "value_ints"}:
            return np.asarray(helper.get_attribute_value(attribute), dtype=np.int64)
    return None
