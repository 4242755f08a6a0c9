"""Markers of batch norm layers become ONNX BatchNormalization nodes under their layers' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from bnfold.frontends.keras.trace import MARKER, BatchNorm, Traced
from bnfold.frontends.tensorflow.guests import tf2onnx
from bnfold.frontends.tensorflow.to_onnx import to_onnx

__all__ = ["convert"]


def convert(traced: Traced, opset: int | None) -> onnx.ModelProto:
    """Return a traced model as ONNX, with one BatchNormalization for every call of a batch norm layer.

    Raises:
        UnsupportedOpError: If an operation has no ONNX form.
    """
    with _markers_known(traced.batch_norms):
        model = to_onnx(traced.graph_def, inputs=traced.inputs, outputs=traced.outputs, opset=opset)
    arrived = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert arrived >= len(traced.batch_norms), f"{len(traced.batch_norms)} batch norms left, {arrived} arrived"
    return model


@contextmanager
def _markers_known(batch_norms: Mapping[str, BatchNorm]) -> Iterator[None]:
    """Teach tf2onnx the marker while the block runs."""
    registry = tf2onnx("tf2onnx.handler").tf_op
    registry(MARKER).register_compat_handler(_writer(batch_norms), 1)
    try:
        yield
    finally:
        registry.get_opsets()[""][1].pop(MARKER, None)


def _writer(batch_norms: Mapping[str, BatchNorm]) -> Callable[..., None]:
    def write(graph: Any, node: Any, **_: Any) -> None:  # noqa: ANN401
        norm = batch_norms.get(node.attr["message"].s.decode("utf-8", "replace"))
        for name in list(node.attr):
            del node.attr[name]
        if norm is None:  # the network's own check for finite numbers, which passes its input on
            node.type = "Identity"
            return
        source, outputs = node.input[0], list(node.output)
        shapes, dtypes = [graph.get_shape(outputs[0])], [graph.get_dtype(outputs[0])]
        graph.remove_node(node.name)
        epsilon = np.float32(norm.epsilon)
        constants = {
            "gamma": norm.gamma,
            "beta": norm.beta,
            "running_mean": norm.running_mean,
            "running_var": _variance_for(norm, epsilon),
        }
        graph.make_node(
            "BatchNormalization",
            [source, *(_constant(graph, f"{norm.name}/{name}", value) for name, value in constants.items())],
            attr={"epsilon": float(epsilon)},
            outputs=outputs,
            shapes=shapes,
            dtypes=dtypes,
            name=_free(graph, norm.name),
        )

    return write


def _variance_for(norm: BatchNorm, epsilon: np.float32) -> np.ndarray[Any, Any]:
    """Return the variance to store: in float64, what ONNX's float32 epsilon loses of the layer's is put in here."""
    if norm.running_var.dtype != np.float64:
        return norm.running_var
    exact: np.ndarray[Any, Any] = norm.running_var + (norm.epsilon - float(epsilon))
    return exact


def _constant(graph: Any, name: str, value: np.ndarray[Any, Any]) -> str:  # noqa: ANN401
    known = graph.get_node_by_name(name)
    if known is not None and known.is_const() and np.array_equal(known.get_tensor_value(as_list=False), value):
        return str(known.output[0])  # a layer that is called again
    return str(graph.make_const(_free(graph, name), value).output[0])


def _free(graph: Any, name: str) -> str:  # noqa: ANN401
    number, free = 1, name
    while graph.get_node_by_name(free) is not None:
        number += 1
        free = f"{name}:{number}"
    return free
