"""Batch norms that normalise with the statistics of each batch, put on their running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import InferenceModeError
from bnfold.graph.view import GraphView
from bnfold.inference.change import Change, named
from bnfold.inference.program import Program, standard
from bnfold.inference.training import batch_norm_trains

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["use_running_statistics"]


def use_running_statistics(program: Program) -> list[Change]:
    """Switch every batch norm of a model to inference mode, in place.

    Raises:
        InferenceModeError: If the running statistics of one are not in the file, or if something uses the statistics
            that it computes.
    """
    training = [
        (view, node)
        for view in program.views.values()
        for node in view.graph.node
        if standard(node) == "BatchNormalization" and batch_norm_trains(view, node)
    ]
    _refuse_without_statistics(program, training)
    _refuse_used_statistics(training)
    return [_switch(program, view, node) for view, node in training]


def _refuse_without_statistics(program: Program, training: list[tuple[GraphView, NodeProto]]) -> None:
    without = [
        _label(node)
        for view, node in training
        if len(node.input) < 5 or not all(name and program.in_file(view, name) for name in node.input[3:5])
    ]
    if without:
        one = len(without) == 1
        raise InferenceModeError(
            f"{'a batch norm normalises' if one else f'{len(without)} batch norms normalise'} with the statistics of "
            f"each batch, and the file holds no running mean and variance for {'it' if one else 'them'}: "
            f"{named(without)}",
            hint="Export the model again in evaluation mode, with running statistics.",
        )


def _refuse_used_statistics(training: list[tuple[GraphView, NodeProto]]) -> None:
    for view, node in training:
        for name in node.output[1:]:
            if not name:
                continue
            if name in view.outputs:
                raise InferenceModeError(
                    f"'{name}', which the batch norm '{_label(node)}' computes from each batch, is an output",
                    hint="Name the outputs that inference needs with --outputs, or export in evaluation mode.",
                )
            if name in view.consumers or name in view.captured:
                raise InferenceModeError(
                    f"'{name}', which the batch norm '{_label(node)}' computes from each batch, influences an output",
                    hint="Export the model again in evaluation mode.",
                )


def _switch(program: Program, view: GraphView, node: NodeProto) -> Change:
    fresh = _is_fresh(view, node)
    if program.opset >= 14:
        before = "training_mode=1"
        after = "training_mode=0"
        for attribute in node.attribute:
            if attribute.name == "training_mode":
                attribute.i = 0
    elif program.opset >= 7:
        before, after = f"{len(node.output)} outputs (training form)", "1 output"
    else:
        before, after = "is_test=0", "is_test=1"
        _set_flag(node, "is_test")
    del node.output[1:]
    proof = "its running mean and variance are in the file"
    return Change(
        "training-mode", _label(node), before, after, f"{proof}, at their first values 0 and 1" if fresh else proof
    )


def _is_fresh(view: GraphView, node: NodeProto) -> bool:
    mean, var = (view.constant(name) for name in node.input[3:5])
    return mean is not None and var is not None and not np.any(mean) and bool(np.all(var == 1))


def _set_flag(node: NodeProto, name: str) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.i = 1
            return
    node.attribute.add(name=name, type=2, i=1)


def _label(node: NodeProto) -> str:
    return node.name or node.output[0]
