"""What in a model belongs to training: the evidence for which way a switch has to point."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from bnfold.graph.view import GraphView
from bnfold.inference.moments import batch_statistics
from bnfold.inference.program import Place, Program, Scalar, is_random, standard

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["batch_norm_trains", "training_nodes"]


def training_nodes(program: Program, live: Collection[Place], pins: Mapping[str, Scalar]) -> set[Place]:
    """Return the live nodes that batch-normalise by the batch, drop or draw at random, once the pins are set."""
    found = batch_statistics(program, live, pins)
    for path, index in live:
        view = program.views[path]
        node = view.graph.node[index]
        match standard(node):
            case "BatchNormalization":
                trains = batch_norm_trains(view, node)
            case "Dropout":
                trains = program.trains(view, node, pins) is not False
            case _:
                trains = is_random(node)
        if trains:
            found.add((path, index))
    return found


def batch_norm_trains(view: GraphView, node: NodeProto) -> bool:
    """Say whether a batch norm uses the statistics of each batch.

    Source: ONNX operators, BatchNormalization of opset 1, 7 and 14: a flag ``is_test``, the number of outputs, and a
    flag ``training_mode`` say so, one after the other.
    """
    if view.opset >= 14:
        return bool(_flag(node, "training_mode"))
    if view.opset >= 7:
        return any(node.output[1:])
    return not _flag(node, "is_test")


def _flag(node: NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)
