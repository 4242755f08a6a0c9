"""Variables become constants: on the graph alone where that is possible, by TensorFlow where functions hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    attribute,
    const_node,
    data_inputs,
    dtype_of,
    is_variable,
    node_of,
)
from bnfold.frontends.tensorflow.original import session_of
from bnfold.frontends.tensorflow.stored import Stored

__all__ = ["frozen", "stored_values"]

_LONGEST_LIST = 6


def stored_values(net: Net, stored: Stored) -> dict[str, Value]:
    """Return the stored values of a net's variables, by the variables' names.

    Raises:
        CorruptModelError: If one is not stored, or has another shape than the graph says.
    """
    found: dict[str, Value] = {}
    missing: list[str] = []
    for node in net.nodes.values():
        if not is_variable(node):
            continue
        name = stored.name_of(node.name)
        if name is None and not stored.names:  # where restoring is written down, a shared name may be another's
            name = stored.name_of(attribute(node, "shared_name").s.decode(errors="replace"))
        if name is None:
            missing.append(node.name)
            continue
        shape = attribute(node, "shape").shape
        sizes = tuple(dimension.size for dimension in shape.dim)
        if not shape.unknown_rank and shape.dim and not _agree(sizes, stored.shapes[name]):
            raise CorruptModelError(
                f"{stored.place} holds {name} with the shape {list(stored.shapes[name])}, "
                f"and the graph wants {list(sizes)}",
                hint="Give the graph and the values that belong together.",
            )
        found[node.name] = np.asarray(stored.read(name))
    if missing:
        more = f" and {len(missing) - _LONGEST_LIST} more" if len(missing) > _LONGEST_LIST else ""
        raise CorruptModelError(
            f"{stored.place} has no values for {len(missing)} variables that the outputs need: "
            f"{', '.join(sorted(missing)[:_LONGEST_LIST])}{more}",
            hint="Give the graph and the values that belong together.",
        )
    return found


def _agree(wanted: Sequence[int], given: Sequence[int]) -> bool:
    return len(wanted) == len(given) and all(w in (-1, g) for w, g in zip(wanted, given, strict=True))


def frozen(net: Net, outputs: Sequence[Ref], values: Mapping[str, Value]) -> Net:
    """Return the net with constants for its variables."""
    readers = net.consumers()
    handles = [name for name, node in net.nodes.items() if node.op == "VarHandleOp"]
    plain = all(
        net.nodes[reader].op in ("ReadVariableOp", "ResourceGather")
        for handle in handles
        for reader, _ in readers.get(handle, ())
    )
    if not plain:
        return _frozen_by_tensorflow(net, outputs, values)
    result = net.copy()
    for name, node in net.nodes.items():
        if is_variable(node):
            dtype = attribute(node, "dtype").type % 100
            result.nodes[name] = const_node(name, values[name], dtype or None)
        elif node.op == "ReadVariableOp":
            result.nodes[name] = node_of("Identity", name, data_inputs(node)[:1], T=dtype_of(node))
        elif node.op == "ResourceGather":
            result.nodes[name] = _gather(result, node)
        elif node.op.startswith("Ref") and node.op[3:] in ("Identity", "Switch", "Merge", "Enter", "Exit"):
            copied = type(node)()
            copied.CopyFrom(node)
            copied.op = node.op[3:]
            result.nodes[name] = copied
    return result


def _gather(net: Net, node: Any) -> Any:
    axis = const_node(f"{node.name}/axis", np.array(0, np.int32))
    net.nodes[axis.name] = axis
    gather = node_of("GatherV2", node.name, [*data_inputs(node), (axis.name, 0)])
    gather.attr["Tparams"].type = attribute(node, "dtype").type
    gather.attr["Tindices"].type = attribute(node, "Tindices").type
    gather.attr["Taxis"].type = tensorflow().int32.as_datatype_enum
    gather.attr["batch_dims"].i = attribute(node, "batch_dims").i
    return gather


def _frozen_by_tensorflow(net: Net, outputs: Sequence[Ref], values: Mapping[str, Value]) -> Net:
    """Freeze variables whose handles go into functions or loops."""
    tf = tensorflow()
    readable = net.copy()
    for name, node in net.nodes.items():
        reading = f"{name}/Read/ReadVariableOp"  # TensorFlow asks for values under this name
        if node.op == "VarHandleOp" and reading not in net.nodes:
            readable.nodes[reading] = node_of(
                "ReadVariableOp", reading, [(name, 0)], dtype=attribute(node, "dtype").type
            )
    try:
        with session_of(readable, values) as session, quiet():
            graph_def = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, session.graph.as_graph_def(), list(dict.fromkeys(name for name, _ in outputs))
            )
    except (ValueError, KeyError, tf.errors.OpError) as error:
        raise UnsupportedOpError(
            f"variables in loops and branches cannot be turned into constants: {' '.join(str(error).split())[:300]}",
            hint="Name outputs in front of the loops with --outputs.",
        ) from error
    return Net.of(graph_def)
