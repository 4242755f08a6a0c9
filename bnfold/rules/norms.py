"""Normalisations that stay take in what stands behind them: their own scale and offset are per channel already."""

from __future__ import annotations

from dataclasses import replace

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Affine, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal
from bnfold.rules.sources import BATCH_NORM, SOURCES

__all__ = ["BATCH_NORM_OUTPUT"]


def _form(node: NodeView) -> Form | Refusal:
    affine = SOURCES[BATCH_NORM].read(node)
    if not isinstance(affine, Affine):
        return affine or Refusal(Reason.NO_RULE, f"{node.name} is no affine map")
    channels = affine.field.reduced().shape[1]
    shape = node.shape(1)
    if shape is not None and isinstance(shape[0], int):
        channels = shape[0]
    return Form(data=0, weight=1, bias=2, axis=1, channels=channels, output_axis=0, fan_in=1)


def _absorb(norm: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return replace(norm, weight=norm.weight * affine.scale, bias=norm.bias * affine.scale + affine.shift)


BATCH_NORM_OUTPUT = Absorber(
    op_type=BATCH_NORM,
    side=Side.OUTPUT,
    algebra="s·(γ·x̂ + β) + o = (γ·s)·x̂ + (β·s + o)",
    form=_form,
    absorb=_absorb,
    examples=(
        Example(
            "two batch norms in a row, with nothing else to fold into, become one",
            """(double[1,3,5,5] x) => (double y)
               <double[3] gamma, double[3] beta, double[3] mean, double[3] var,
                double[3] gamma2, double[3] beta2, double[3] mean2, double[3] var2> {
               r = Relu(x)
               h = BatchNormalization(r, gamma, beta, mean, var)
               g = BatchNormalization(h, gamma2, beta2, mean2, var2)
               y = Relu(g) }""",
            stays=1,
        ),
        Example(
            "something else reads the first",
            """(double[1,3,5,5] x) => (double y, double z)
               <double[3] gamma, double[3] beta, double[3] mean, double[3] var, double[3,1,1] c> {
               r = Relu(x)
               h = BatchNormalization(r, gamma, beta, mean, var)
               z = Relu(h)
               g = Mul(h, c)
               y = Relu(g) }""",
            refused=Reason.USED_ELSEWHERE,
            stays=1,
        ),
    ),
)
