"""Batch norms on their way through tf2onnx: one marked node each, which becomes one ONNX BatchNormalization.

TensorFlow writes a batch norm as several arithmetic operations, or as an operation that knows only four axes and no
float64. A marker is an operation that passes its input on, its channel on axis 1, and that no optimiser looks into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bnfold.frontends.tensorflow.concrete import Frozen, nodes_of
from bnfold.frontends.tensorflow.guests import tf2onnx
from bnfold.frontends.tensorflow.io_names import nodes_in
from bnfold.frontends.tensorflow.operations import operations_known
from bnfold.frontends.tensorflow.to_onnx import to_onnx

if TYPE_CHECKING:
    import onnx

__all__ = ["MARKER", "BatchNorm", "convert", "marker_key"]

MARKER = "CheckNumericsV2"


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """What one batch norm layer computes with, in the precision that it computes in.

    Attributes:
        name: Path of the layer in the model, such as ``encoder/bn1``.
        gamma: Multiplier, shape ``(C,)``; ones where the layer has none.
        beta: Shift, shape ``(C,)``; zeros where the layer has none.
        running_mean: Shape ``(C,)``.
        running_var: Shape ``(C,)``, in units of x².
        epsilon: Added to ``running_var``, in units of x².
    """

    name: str
    gamma: npt.NDArray[np.floating[Any]]
    beta: npt.NDArray[np.floating[Any]]
    running_mean: npt.NDArray[np.floating[Any]]
    running_var: npt.NDArray[np.floating[Any]]
    epsilon: float


def marker_key(node: Any) -> str:
    """Return the key in a marker; some other text in a check for finite numbers that the network brought itself."""
    return str(node.attr["message"].s.decode("utf-8", "replace"))


def convert(frozen: Frozen, batch_norms: Mapping[str, BatchNorm], opset: int | None) -> onnx.ModelProto:
    """Return a frozen graph as ONNX, with one BatchNormalization for every marker in it.

    Args:
        frozen: The graph.
        batch_norms: What its markers stand for, by their keys.
        opset: ONNX opset to convert to; None means the default.

    Raises:
        UnsupportedOpError: If an operation has no ONNX form.
    """
    with _markers_known(batch_norms), operations_known():
        model = to_onnx(frozen.graph_def, inputs=frozen.inputs, outputs=frozen.outputs, opset=opset)
    _name_by_layer(model, frozen, batch_norms)
    return model


def _name_by_layer(model: onnx.ModelProto, frozen: Frozen, batch_norms: Mapping[str, BatchNorm]) -> None:
    """Name every batch norm node after its layer; later calls of one layer get a number behind it."""
    layers = {
        node.name: batch_norms[key]
        for node in nodes_of(frozen.graph_def)
        if node.op == MARKER and (key := marker_key(node)) in batch_norms
    }
    nodes = list(nodes_in(model.graph))
    norms = {node.name: node for node in nodes if node.op_type == "BatchNormalization" and node.name in layers}
    assert len(norms) == len(layers), f"{len(layers)} batch norms left, {len(norms)} arrived"
    taken = {node.name for node in nodes}
    for name, norm in layers.items():
        number, free = 1, norm.name
        while free in taken:
            number += 1
            free = f"{norm.name}:{number}"
        taken.add(free)
        norms[name].name = free


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
    def write(graph: Any, node: Any, **_: Any) -> None:
        norm = batch_norms.get(marker_key(node))
        for attribute in list(node.attr):
            del node.attr[attribute]
        if norm is None:  # the network's own check for finite numbers, which passes its input on
            node.type = "Identity"
            return
        name, source, outputs = node.name, node.input[0], list(node.output)
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
            [source, *(_constant(graph, f"{norm.name}/{what}", value) for what, value in constants.items())],
            # ONNX has no such attribute, so it is not written; here it keeps apart layers that compute the same.
            attr={"epsilon": float(epsilon), "layer": norm.name},
            outputs=outputs,
            shapes=shapes,
            dtypes=dtypes,
            name=name,
        )

    return write


def _variance_for(norm: BatchNorm, epsilon: np.float32) -> np.ndarray[Any, Any]:
    """Return the variance to store: in float64, what ONNX's float32 epsilon loses of the layer's is put in here."""
    if norm.running_var.dtype != np.float64:
        return norm.running_var
    exact: np.ndarray[Any, Any] = norm.running_var + (norm.epsilon - float(epsilon))
    return exact


def _constant(graph: Any, name: str, value: np.ndarray[Any, Any]) -> str:
    known = graph.get_node_by_name(name)
    if known is not None and known.is_const() and np.array_equal(known.get_tensor_value(as_list=False), value):
        return str(known.output[0])  # a layer that is called again
    return str(graph.make_const(_free(graph, name), value).output[0])


def _free(graph: Any, name: str) -> str:
    number, free = 1, name
    while graph.get_node_by_name(free) is not None:
        number += 1
        free = f"{name}:{number}"
    return free
