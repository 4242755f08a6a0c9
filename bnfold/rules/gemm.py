"""``Gemm`` in all its forms: Y = α·A'B' + β·C, with the constant on either side and C of any shape."""

from __future__ import annotations

from dataclasses import replace

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["INPUT_SIDE", "OUTPUT_SIDE"]


def _form(node: NodeView, side: Side) -> Form | Refusal:
    weight = next((position for position in (1, 0) if node.is_weight(position)), None)
    if weight is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"neither factor of {node.name} is a constant")
    shape = node.shape(weight)
    if shape is None or len(shape) != 2 or not isinstance(shape[0], int) or not isinstance(shape[1], int):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the shape of the constant factor of {node.name} is not known")
    sizes = (shape[0], shape[1])
    right = weight == 1
    transposed = node.integer("transB" if right else "transA", 0) != 0
    # The axis of the stored factor that runs along Y: columns of B', rows of A'.
    output_axis = int(right) ^ int(transposed)
    if side is Side.OUTPUT:
        axis = int(right)
    else:
        other = node.integer("transA" if right else "transB", 0) != 0
        axis = int(right) ^ int(other)
    return Form(
        data=1 - weight,
        weight=weight,
        bias=2,
        axis=axis,
        channels=sizes[output_axis] if side is Side.OUTPUT else sizes[1 - output_axis],
        output_axis=output_axis,
        fan_in=sizes[1 - output_axis],
    )


def _form_output(node: NodeView) -> Form | Refusal:
    return _form(node, Side.OUTPUT)


def _form_input(node: NodeView) -> Form | Refusal:
    return _form(node, Side.INPUT)


def _output_axis(gemm: Linear) -> int:
    right = gemm.weight_input == 1
    (transposed,) = gemm.ints("transB" if right else "transA")
    return int(right) ^ int(transposed != 0)


def _bias_behind(gemm: Linear, affine: PerChannelAffine) -> Float64Array:
    along_y = (1, -1) if gemm.weight_input == 1 else (-1, 1)
    return gemm.number("beta") * gemm.bias * affine.scale.reshape(along_y) + affine.shift.reshape(along_y)


def _absorb_output(gemm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    along_weight = (-1, 1) if _output_axis(gemm) == 0 else (1, -1)
    return replace(
        gemm,
        weight=gemm.weight * affine.scale.reshape(along_weight),
        bias=_bias_behind(gemm, affine),
        attributes={**gemm.attributes, "beta": 1.0},
    )


def _absorb_input(gemm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    output_axis = _output_axis(gemm)
    along_weight = (1, -1) if output_axis == 0 else (-1, 1)
    along_y = (1, -1) if gemm.weight_input == 1 else (-1, 1)
    taps = (gemm.weight * affine.shift.reshape(along_weight)).sum(axis=1 - output_axis)
    return replace(
        gemm,
        weight=gemm.weight * affine.scale.reshape(along_weight),
        bias=gemm.number("beta") * gemm.bias + gemm.number("alpha") * taps.reshape(along_y),
        attributes={**gemm.attributes, "beta": 1.0},
    )


OUTPUT_SIDE = Absorber(
    op_type="Gemm",
    side=Side.OUTPUT,
    algebra="s·(α·A'B' + β·C) + o = α·A'(B'·s) + 1·(β·C·s + o); with A constant, its rows",
    form=_form_output,
    absorb=_absorb_output,
    new_bias=_bias_behind,
    examples=(
        Example(
            "transposed weight, α and β, C for each column",
            """(double[3,4] x) => (double[3,5] y)
               <double[5,4] B, double[5] C, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm<transB=1, alpha=0.5, beta=2.0>(x, B, C)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "no C",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] B, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm(x, B)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "C is a scalar and β is 0",
            """(double[4,3] x) => (double[3,5] y)
               <double[4,5] B, double C, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm<transA=1, beta=0.0>(x, B, C)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "C for each row",
            """(double[3,4] x) => (double[3,5] y)
               <double[4,5] B, double[3,1] C, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm<beta=3.0>(x, B, C)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "the constant factor stands on the left, the affine varies along the rows",
            """(double[5,4] x) => (double[3,5] y) <double[3,4] A, double[3,5] C, double[3,1] c> {
               h = Gemm<transB=1>(A, x, C)
               y = Mul(h, c) }""",
        ),
        Example(
            "the constant factor stands on the left, the batch norm varies along the columns",
            """(double[4,5] x) => (double[3,5] y)
               <double[3,4] A, double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm(A, x)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "two computed factors",
            """(double[3,4] x, double[4,5] B) => (double[3,5] y)
               <double[5] gamma, double[5] beta, double[5] mean, double[5] var> {
               h = Gemm(x, B)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

INPUT_SIDE = Absorber(
    op_type="Gemm",
    side=Side.INPUT,
    algebra="α·(s·x + o)B' + β·C = α·x(s·B') + 1·(β·C + α·Σ o·B'); with A constant, its columns",
    form=_form_input,
    absorb=_absorb_input,
    examples=(
        Example(
            "transposed weight, α and β",
            """(double[3,4] x) => (double[3,5] y)
               <double[5,4] B, double[5] C, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Gemm<transB=1, alpha=0.5, beta=2.0>(h, B, C) }""",
        ),
        Example(
            "the data is transposed, C is for each row",
            """(double[3,4] x) => (double[4,5] y) <double[3,5] B, double[4,1] C, double[3,1] c, double[3,1] d> {
               m = Mul(x, c)
               h = Add(m, d)
               y = Gemm<transA=1>(h, B, C) }""",
        ),
        Example(
            "the constant factor stands on the left",
            """(double[5,4] x) => (double[3,5] y)
               <double[3,4] A, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Gemm<transB=1, alpha=2.0>(A, h) }""",
        ),
        Example(
            "the data is transposed, so the batch norm's axis is not summed over",
            """(double[4,3] x) => (double[3,5] y)
               <double[4,5] B, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Gemm<transA=1>(h, B) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)
