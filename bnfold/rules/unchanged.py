"""Carriers that leave every element as it is, in inference mode and in real numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Field
from bnfold.graph.elements import LARGEST
from bnfold.graph.view import NodeView
from bnfold.rules.carrying import both, is_read
from bnfold.rules.declare import Carrier, Direction, Example
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["CARRIERS"]


def _unchanged(_node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    return field


def _dropout(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    training = node.constant(2) if node.has_input(2) else np.asarray([False])
    trains = training is None or bool(np.any(training)) or (node.opset < 7 and not node.integer("is_test", 0))
    if trains:
        return Refusal(Reason.NO_RULE, f"{node.name} drops at random")
    if is_read(node, 1):
        return Refusal(Reason.NO_RULE, f"{node.name} also returns its mask")
    return field


def _cast(node: NodeView, field: Field, _direction: Direction) -> Field | Refusal:
    # Between floating types it rounds, and does nothing else. The map is real-number algebra on both sides of that: it
    # is rounded once, in the layer that takes it in, and values are rounded as often as before.
    before, after = node.view.type(node.reads[0]).element, node.attributes.get("to")
    if before not in LARGEST or after not in LARGEST:
        return Refusal(Reason.NO_RULE, f"{node.name} converts from or to a type that is not known to be floating")
    return field


_MEAN = "double[6] gamma, double[6] beta, double[6] mean, double[6] var"

CARRIERS: Mapping[str, Carrier] = {
    carrier.op_type: carrier
    for carrier in (
        Carrier(
            "Identity",
            "(s, o) on both sides",
            *both(_unchanged),
            (
                Example(
                    "between a convolution and its batch norm",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       i = Identity(h)
                       y = BatchNormalization(i, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "something else reads its output",
                    f"""(double[1,3,6,6] x) => (double y, double z) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       i = Identity(h)
                       z = Relu(i)
                       y = BatchNormalization(i, gamma, beta, mean, var) }}""",
                    refused=Reason.USED_ELSEWHERE,
                ),
            ),
        ),
        Carrier(
            "Dropout",
            "(s, o) on both sides: in inference mode it is the identity",
            *both(_dropout),
            (
                Example(
                    "between a batch norm and a dense layer",
                    f"""(double[2,6] x) => (double y) <double[6,3] B, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       i = Dropout(h)
                       y = Gemm(i, B) }}""",
                ),
                Example(
                    "its mask is used",
                    f"""(double[2,6] x) => (double y, bool[2,6] z) <double[6,3] B, {_MEAN}> {{
                       h = BatchNormalization(x, gamma, beta, mean, var)
                       i, z = Dropout(h)
                       y = Gemm(i, B) }}""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
        Carrier(
            "Cast",
            "(s, o) on both sides, between floating types",
            *both(_cast),
            (
                Example(
                    "a batch norm in another type than the layer",
                    f"""(double[1,3,6,6] x) => (double y) <double[6,3,3,3] W, {_MEAN}> {{
                       h = Conv(x, W)
                       w = Cast<to=11>(h)
                       y = BatchNormalization(w, gamma, beta, mean, var) }}""",
                ),
                Example(
                    "what it made whole numbers is scaled",
                    """(double[2,4] x) => (double y) <double[4,6] W, double[6] c> {
                       h = MatMul(x, W)
                       w = Cast<to=7>(h)
                       v = Cast<to=11>(w)
                       y = Mul(v, c) }""",
                    refused=Reason.NO_RULE,
                ),
            ),
        ),
    )
}
