"""Nodes of a TensorFlow graph: what they read, hold and are, from their protobuf messages alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.errors import CorruptModelError
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.messages import array_of, is_own, outputs_of

__all__ = [
    "TEXT",
    "Ref",
    "Value",
    "attribute",
    "const_node",
    "control_inputs",
    "count_of",
    "data_inputs",
    "demand_arity",
    "demand_possible_sizes",
    "dtype_of",
    "is_variable",
    "node_of",
    "output_names",
    "ref_of",
    "small_value",
    "text_of",
    "value_of",
]

Value = npt.NDArray[Any]

Ref = tuple[str, int]
"""A tensor: the name of its node, and which of the node's outputs it is."""

_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable", "AutoReloadVariable"})
_MOST_ELEMENTS = 1 << 29
_SMALL = 4096
TEXT = 7
"""TensorFlow's number of the type of texts."""


def demand_arity(node: Any, library: Mapping[str, Any]) -> None:
    """Refuse a node that reads more or fewer tensors than its operation takes."""
    if node.op in library:
        return
    definition = tensorflow("tensorflow.python.framework.op_def_registry").get(node.op)
    if definition is None:
        return
    wanted = 0
    for argument in definition.input_arg:
        if argument.number_attr:
            wanted += attribute(node, argument.number_attr).i
        elif argument.type_list_attr:
            wanted += len(attribute(node, argument.type_list_attr).list.type)
        else:
            wanted += 1
    given = len(data_inputs(node))
    if given != wanted:
        raise CorruptModelError(
            f"the node {node.name} reads {given} tensors, and {node.op} takes {wanted}",
            hint="Get the file again: it is damaged.",
        )


def output_names(node: Any, library: Mapping[str, Any]) -> list[Any] | None:
    """Return the definitions of an operation's output arguments; None where the operation is not known."""
    if node.op in library:
        return list(library[node.op].signature.output_arg)
    if is_own(node):
        return outputs_of(node)
    definition = tensorflow("tensorflow.python.framework.op_def_registry").get(node.op)
    return None if definition is None else list(definition.output_arg)


def demand_possible_sizes(nodes: Iterable[Any]) -> None:
    """Refuse constants that would fill the memory: one number and a shape are enough to write such a one."""
    for node in nodes:
        if node.op == "Const" and (count := count_of(node)) > _MOST_ELEMENTS:
            raise CorruptModelError(
                f"the constant {node.name} says that it holds {count} elements",
                hint="Get the file again: it is damaged.",
            )


def count_of(node: Any) -> int:
    """Return how many elements a ``Const`` says that it has."""
    count = 1
    for dimension in attribute(node, "value").tensor.tensor_shape.dim:
        count *= max(dimension.size, 0)
    return count


def ref_of(text: str) -> Ref:
    """Return the tensor that a node's input, or a user, names; of a control edge, its node with the port -1."""
    if text.startswith("^"):
        return text[1:], -1
    name, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and len(port) < 10:
        return name, int(port)
    return text, 0


def text_of(ref: Ref) -> str:
    """Return how a node's input names a tensor."""
    return ref[0] if ref[1] == 0 else f"{ref[0]}:{ref[1]}"


def data_inputs(node: Any) -> list[Ref]:
    """Return the tensors that a node reads, without control edges."""
    return [ref_of(text) for text in node.input if not text.startswith("^")]


def control_inputs(node: Any) -> Iterator[str]:
    """Yield the names of the nodes that a node waits for without reading them."""
    for text in node.input:
        if text.startswith("^"):
            yield text[1:]


def attribute(node: Any, name: str) -> Any:
    """Return an attribute of a node, an empty one where it has none; reading a missing one directly would add it."""
    if name in node.attr:
        return node.attr[name]
    return node.attr.GetEntryClass()().value if is_own(node) else tensorflow().compat.v1.AttrValue()


def node_of(op: str, name: str, inputs: Iterable[Ref], *, like: Any = None, **types: int) -> Any:
    """Return a new node, with attributes that are types: ``node_of("Identity", "y", [x], T=1)``.

    Args:
        op: Its operation.
        name: Its name.
        inputs: What it reads.
        like: A node of the same kind of message; None means TensorFlow's own.
        types: Its attributes.
    """
    node = tensorflow().compat.v1.NodeDef(op=op, name=name) if like is None else type(like)(op=op, name=name)
    node.input.extend(text_of(ref) for ref in inputs)
    for name_of_type, dtype in types.items():
        node.attr[name_of_type].type = dtype
    return node


def const_node(name: str, value: Value, dtype: int | None = None) -> Any:
    """Return a new ``Const`` node."""
    tf = tensorflow()
    wanted = tf.as_dtype(value.dtype if dtype is None else dtype).base_dtype
    node = tf.compat.v1.NodeDef(op="Const", name=name)
    node.attr["dtype"].type = wanted.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=wanted))
    return node


def is_variable(node: Any) -> bool:
    """Return whether a node is a variable: of references, or of a resource."""
    return node.op in _VARIABLES


def dtype_of(node: Any, port: int = 0) -> int:
    """Return the element type of a node's output as TensorFlow's number, base types for references; 0: unknown."""
    if is_own(node):
        types_of = (attribute(node, name).type for name in ("dtype", "DstT", "T"))
        return next((int(one) % 100 for one in types_of if one), 0)
    types: list[int] = []
    for output in output_names(node, {}) or ():
        if output.type_list_attr:
            types.extend(attribute(node, output.type_list_attr).list.type)
        else:
            count = attribute(node, output.number_attr).i if output.number_attr else 1
            one = output.type or attribute(node, output.type_attr).type
            types.extend([one] * min(int(count), port + 1))
    return int(types[port]) % 100 if port < len(types) else 0


def value_of(node: Any) -> Value:
    """Return the value of a ``Const``.

    Raises:
        CorruptModelError: If it does not hold what its shape says.
    """
    tensor = attribute(node, "value").tensor
    if is_own(node):
        value = array_of(tensor)
        if value is None:
            raise CorruptModelError(
                f"the constant {node.name} does not hold what its shape says", hint="Get the file again: it is damaged."
            )
        return value
    tf = tensorflow()
    try:
        return np.asarray(tf.make_ndarray(tensor))
    except (TypeError, ValueError, AttributeError) as error:
        raise CorruptModelError(
            f"the constant {node.name} does not hold what its shape says: {error}",
            hint="Get the file again: it is damaged.",
        ) from error


def small_value(node: Any) -> Value | None:
    """Return the value of a ``Const`` that is no weight: at most 4096 numbers, or one text. None otherwise."""
    if node.op != "Const" or count_of(node) > _SMALL:
        return None
    if attribute(node, "dtype").type == TEXT:
        texts = attribute(node, "value").tensor.string_val
        return np.array(bytes(texts[0]), object) if len(texts) == count_of(node) == 1 else None
    return value_of(node)
