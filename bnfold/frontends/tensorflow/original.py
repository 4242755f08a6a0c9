"""Runs a TensorFlow program as it was written, with its mode inputs fed, to compare a conversion with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.loaded import Array, Runner
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.inputs import PIPELINES
from bnfold.frontends.tensorflow.net import Net, Ref, Value, is_variable

__all__ = ["runner", "session_of"]

_UPDATES = frozenset({"AssignVariableOp", "AssignSubVariableOp", "AssignAddVariableOp", "ResourceScatterUpdate"})


def runner(
    net: Net,
    *,
    inputs: Mapping[str, Ref],
    outputs: Mapping[str, Ref],
    fed: Mapping[Ref, Value],
    variables: Mapping[str, Value],
) -> Runner:
    """Return a function that runs a graph in a session of its own, on arrays by ONNX input name.

    Args:
        net: The graph, cut to what the outputs need.
        inputs: Tensors to feed, by ONNX name.
        outputs: Tensors to compute, by ONNX name.
        fed: Mode inputs, and the values that mean inference.
        variables: Values of the graph's variables by their names.

    Raises:
        CorruptModelError: If TensorFlow does not accept the graph.
    """
    session = session_of(net, variables)
    modes = {_name(ref): value for ref, value in fed.items() if ref[0] in net.nodes}
    idle = _idle(net, session.graph)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with quiet():
            found: Sequence[Array] = session.run(
                [_name(ref) for ref in outputs.values()],
                {**idle, **modes, **{_name(inputs[name]): value for name, value in feeds.items() if name in inputs}},
            )
        return dict(zip(outputs, found, strict=True))

    return run


def session_of(net: Net, variables: Mapping[str, Value]) -> Any:
    """Return a TensorFlow session on a graph of its own, with the variables at their values.

    Raises:
        CorruptModelError: If TensorFlow does not accept the graph.
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    _demand_variables(net)
    graph = tf.Graph()
    try:
        with quiet(), graph.as_default(), tf.device("/cpu:0"):
            tf.import_graph_def(net.graph_def(), name="")
            updates, values = _updates(net, variables, graph)
            updates.append(tf.no_op())
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        words = " ".join(str(error).split())[:400]
        raise _not_accepted(words) from error
    with quiet():
        session = v1.Session(graph=graph, config=v1.ConfigProto(device_count={"GPU": 0}))
        try:
            session.run(updates, values)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            session.close()
            raise _not_accepted(" ".join(str(error).split())[:400]) from error
    return session


def _idle(net: Net, graph: Any) -> dict[str, Array]:
    """Return something to feed for every input pipeline: a program waits for one even where it takes nothing from it.

    What the program does take is fed in its place.
    """
    found = {}
    for node in net.nodes.values():
        if not node.op.startswith(PIPELINES):
            continue
        for tensor in graph.get_operation_by_name(node.name).outputs:
            if graph.is_feedable(tensor) and tensor.dtype.is_numpy_compatible:
                sizes = [1 if size is None else size for size in tensor.shape] if tensor.shape.rank else []
                found[tensor.name] = np.zeros(sizes, tensor.dtype.as_numpy_dtype)
    return found


def _not_accepted(words: str) -> CorruptModelError:
    return CorruptModelError(
        f"TensorFlow {tensorflow().__version__} does not accept the graph: {words}",
        hint="Export the model again, or name outputs in front of the part in question with --outputs.",
    )


def _demand_variables(net: Net) -> None:
    """Refuse a graph in which freezing has left updates of variables behind, in branches that never run."""
    if any(node.op == "VarHandleOp" for node in net.nodes.values()):
        return
    for function in net.graph_def().library.function:
        for node in function.node_def:
            if node.op in _UPDATES:
                raise CorruptModelError(
                    f"the branch {function.signature.name} updates a variable that freezing has made a constant",
                    hint="Give the checkpoint that the graph was frozen from.",
                )


def _updates(net: Net, variables: Mapping[str, Value], graph: Any) -> tuple[list[Any], dict[Any, Value]]:
    """Add an assignment of its stored value to every variable, and return them with what to feed."""
    tf = tensorflow()
    updates: list[Any] = []
    values: dict[Any, Value] = {}
    for node in net.nodes.values():
        if not is_variable(node) or node.name not in variables:
            continue
        tensor = graph.get_tensor_by_name(f"{node.name}:0")
        value = variables[node.name]
        fed = tf.compat.v1.placeholder(value.dtype, value.shape)
        if node.op == "VarHandleOp":
            updates.append(tf.raw_ops.AssignVariableOp(resource=tensor, value=fed))
        else:
            updates.append(tf.raw_ops.Assign(ref=tensor, value=fed).op)
        values[fed] = value
    return updates, values


def _name(ref: Ref) -> str:
    return f"{ref[0]}:{ref[1]}"
