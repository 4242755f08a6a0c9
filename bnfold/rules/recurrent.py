"""``LSTM``, ``GRU`` and ``RNN``: what stands in front of them goes into the weights that read the input."""

from __future__ import annotations

from dataclasses import replace

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["GRU_INPUT", "LSTM_INPUT", "RNN_INPUT"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _form(node: NodeView) -> Form | Refusal:
    shape = node.shape(1) if node.is_weight(1) else None
    sizes = [size for size in shape or () if isinstance(size, int)]
    if len(sizes) != 3:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the weight of {node.name} is not a constant")
    directions, rows, features = sizes
    gates = _GATES[node.op_type]
    if rows % gates or directions not in (1, 2):
        return Refusal(Reason.CHANNEL_MISMATCH, f"the weight of {node.name}, {sizes}, is not of {gates} gates")
    # Time and batch stand in front of the features in either layout.
    return Form(data=0, weight=1, bias=3, axis=2, channels=features, output_axis=1, fan_in=features + rows // gates)


def _absorb(cell: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    rows = cell.weight.shape[1]
    bias = cell.bias.copy()
    # The first half of B belongs to the input, the second to the state: with a reset gate in front of the state's, the
    # two are not the same.
    bias[:, :rows] += cell.weight @ affine.shift
    return replace(cell, weight=cell.weight * affine.scale, bias=bias)


_ALGEBRA = "W·(s·x + o) + Wb = (W·s)·x + (Wb + W·o), for every gate and direction"

LSTM_INPUT = Absorber(
    op_type="LSTM",
    side=Side.INPUT,
    algebra=_ALGEBRA,
    form=_form,
    absorb=_absorb,
    examples=(
        Example(
            "both directions, no bias yet",
            """(double[4,2,3] x) => (double y)
               <double[2,20,3] W, double[2,20,5] R, double[3] c, double[3] d> {
               m = Mul(x, c)
               h = Add(m, d)
               y = LSTM<hidden_size=5, direction="bidirectional">(h, W, R) }""",
        ),
        Example(
            "features in front of the sequence, as a convolution leaves them",
            """(double[2,3,4] x) => (double y)
               <double[1,8,3] W, double[1,8,2] R, double[1,16] B,
                double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               n = BatchNormalization(x, gamma, beta, mean, var)
               h = Transpose<perm=[2,0,1]>(n)
               y, state = LSTM<hidden_size=2>(h, W, R, B) }""",
        ),
        Example(
            "the batch norm stands on the batch, not on the features",
            """(double[4,3,3] x) => (double y)
               <double[1,8,3] W, double[1,8,2] R, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = LSTM<hidden_size=2>(h, W, R) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)

GRU_INPUT = Absorber(
    op_type="GRU",
    side=Side.INPUT,
    algebra=_ALGEBRA,
    form=_form,
    absorb=_absorb,
    examples=(
        Example(
            "a reset gate behind the state's product",
            """(double[4,2,3] x) => (double y)
               <double[1,6,3] W, double[1,6,2] R, double[1,12] B, double[3] c, double[3] d> {
               m = Mul(x, c)
               h = Add(m, d)
               y = GRU<hidden_size=2, linear_before_reset=1, direction="reverse">(h, W, R, B) }""",
        ),
        Example(
            "the weight is passed in",
            """(double[4,2,3] x, double[1,6,3] W) => (double y) <double[1,6,2] R, double[3] c> {
               h = Mul(x, c)
               y = GRU<hidden_size=2>(h, W, R) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

RNN_INPUT = Absorber(
    op_type="RNN",
    side=Side.INPUT,
    algebra=_ALGEBRA,
    form=_form,
    absorb=_absorb,
    examples=(
        Example(
            "the batch in front of the sequence",
            """(double[2,4,3] x) => (double y) <double[1,5,3] W, double[1,5,5] R, double[3] c, double[3] d> {
               m = Mul(x, c)
               h = Add(m, d)
               y = RNN<hidden_size=5, layout=1>(h, W, R) }""",
        ),
        Example(
            "its input is its first state too",
            """(double[1,2,3] x) => (double y) <double[1,3,3] W, double[1,3,3] R, double[3] c> {
               h = Mul(x, c)
               y = RNN<hidden_size=3>(h, W, R, "", "", h) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)
