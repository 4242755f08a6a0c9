"""Static shapes of a graph's tensors, as TensorFlow's own shape functions find them."""

from __future__ import annotations

from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.net import Net, Ref

__all__ = ["Shape", "shapes_of"]

Shape = tuple[int | None, ...]


def shapes_of(net: Net) -> dict[Ref, Shape]:
    """Return the shapes that are known, None for free axes; of a graph that TensorFlow does not import, nothing."""
    tf = tensorflow()
    found: dict[Ref, Shape] = {}
    try:
        with quiet(), tf.Graph().as_default() as graph:
            tf.import_graph_def(net.graph_def(), name="")
            operations = graph.get_operations()
    except (ValueError, TypeError, KeyError, tf.errors.OpError):
        return found
    for operation in operations:
        for port, tensor in enumerate(operation.outputs):
            if tensor.shape.rank is not None:
                found[operation.name, port] = tuple(tensor.shape.as_list())
    return found
