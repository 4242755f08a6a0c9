"""``MatMul`` with a constant on either side, batched or not; its shift takes an Add behind it."""

from __future__ import annotations

from functools import cache

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.contraction import Labels, absorb_input, absorb_output, form_of
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["INPUT_SIDE", "OUTPUT_SIDE"]

_SUM, _ROW, _COLUMN, _BATCH = range(4)


@cache
def _labels(weight_rank: int, data_rank: int, weight_input: int) -> Labels | None:
    """Label the axes of both factors: a vector has only the one that is summed over."""
    ranks = (data_rank, weight_rank) if weight_input == 1 else (weight_rank, data_rank)
    if min(ranks) < 1 or max(ranks) < 2:
        return None
    batch = [tuple(_BATCH + axis for axis in reversed(range(rank - 2))) for rank in ranks]
    left = (*batch[0], _ROW, _SUM) if ranks[0] > 1 else (_SUM,)
    right = (*batch[1], _SUM, _COLUMN) if ranks[1] > 1 else (_SUM,)
    own = tuple(label for label in (_ROW, _COLUMN) if label in (*left, *right))
    output = (*max(batch, key=len), *own)
    return Labels(right, left, output) if weight_input == 0 else Labels(left, right, output)


def _form(node: NodeView, side: Side) -> Form | Refusal:
    weight = next((position for position in (1, 0) if node.is_weight(position)), None)
    if weight is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"neither factor of {node.name} is a constant")
    shape, other = node.shape(weight), node.shape(1 - weight)
    if shape is None or not all(isinstance(size, int) for size in shape):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the shape of the constant factor of {node.name} is not known")
    if other is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the computed factor of {node.name} is not known")
    sizes = [int(size) for size in shape if isinstance(size, int)]
    labels = _labels(len(sizes), len(other), weight)
    if labels is None:
        return Refusal(Reason.WRONG_AXIS, f"{node.name} multiplies shapes {sizes} and {list(other)}")
    return form_of(labels, sizes, weight, side)


def _form_output(node: NodeView) -> Form | Refusal:
    return _form(node, Side.OUTPUT)


def _form_input(node: NodeView) -> Form | Refusal:
    return _form(node, Side.INPUT)


def _labels_of(matmul: Linear) -> Labels:
    labels = _labels(matmul.weight.ndim, len(matmul.data_shape), matmul.weight_input)
    assert labels is not None, "the form has refused these"
    return labels


def _absorb_output(matmul: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return absorb_output(matmul, affine, _labels_of(matmul))


def _absorb_input(matmul: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return absorb_input(matmul, affine, _labels_of(matmul))


OUTPUT_SIDE = Absorber(
    op_type="MatMul",
    side=Side.OUTPUT,
    algebra="s·(xW) + o = x(W·s) + o; with the constant on the left, s·(Wx) + o = (s·W)x + o",
    form=_form_output,
    absorb=_absorb_output,
    examples=(
        Example(
            "with a bias in an Add",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] W, double[5] b, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               m = MatMul(x, W)
               h = Add(m, b)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            stays=1,
        ),
        Example(
            "without a bias: the batch norm becomes one Add",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] W, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = MatMul(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "a sequence, multiplied along its last axis",
            """(double[2,3,4] x) => (double[2,3,5] y) <double[4,5] W, double[5] c, double[5] d> {
               h = MatMul(x, W)
               m = Mul(h, c)
               y = Add(m, d) }""",
            stays=1,
        ),
        Example(
            "the constant stands on the left, batched",
            """(double[2,4,3] x) => (double[2,5,3] y)
               <double[2,5,4] W, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = MatMul(W, x)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "a batch norm over the sequence, not over the features",
            """(double[2,3,4] x) => (double[2,3,5] y)
               <double[4,5] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = MatMul(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "two computed factors",
            """(double[3,4] x, double[4,5] W) => (double[3,5] y)
               <double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = MatMul(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

INPUT_SIDE = Absorber(
    op_type="MatMul",
    side=Side.INPUT,
    algebra="(s·x + o)W = x(s·W) + Σ o·W; with the constant on the left, W(s·x + o) = (W·s)x + Σ W·o",
    form=_form_input,
    absorb=_absorb_input,
    examples=(
        Example(
            "with a bias in an Add",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] W, double[5] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               m = MatMul(h, W)
               y = Add(m, b) }""",
            stays=1,
        ),
        Example(
            "without a bias",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = MatMul(h, W) }""",
        ),
        Example(
            "the constant stands on the left",
            """(double[2,4,3] x) => (double[2,5,3] y)
               <double[5,4] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = MatMul(W, h) }""",
        ),
        Example(
            "batched weights",
            """(double[2,3,4] x) => (double[2,3,5] y) <double[2,4,5] W, double[5] b, double[4] c, double[4] d> {
               m = Mul(x, c)
               h = Sub(m, d)
               p = MatMul(h, W)
               y = Add(p, b) }""",
            stays=1,
        ),
        Example(
            "a batch norm over the sequence, not over the features",
            """(double[2,3,4] x) => (double[2,3,5] y)
               <double[4,5] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = MatMul(h, W) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)
