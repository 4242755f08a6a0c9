"""Layers with nothing between them: one, where that is no more weights and no more work; else as they were."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases
from tests.fold.small_graphs.traps_uses import overridable

__all__ = ["CASES"]

BN = "BatchNormalization"

CASES: Cases = {
    "1x1 in front of a padded convolution, no bias": Case(
        "x[1,3,6,6] | V[8,3,1,1] W[4,8,3,3] b[4] | h = Conv(x, V) y = Conv<pads=[1,1,1,1]>(h, W, b)", "Conv"
    ),
    "1x1 in front of a padded convolution, with a bias": Case(
        "x[1,3,6,6] | V[8,3,1,1] c[8] W[4,8,3,3] | h = Conv(x, V, c) y = Conv<pads=[1,1,1,1]>(h, W)", "Conv Conv"
    ),
    "1x1 in front of a convolution, with a bias": Case(
        "x[1,3,6,6] | V[8,3,1,1] c[8] W[4,8,3,3] b[4] | h = Conv(x, V, c) y = Conv(h, W, b)", "Conv"
    ),
    "a bias that no tap at the border adds": Case(
        "x[1,3,6] | V[4,3,1] c[4]={1,-1,0,0} W[2,4,3]={1,5,2,1,3,2,4,4,4,1,2,3,3,1,1,3,7,1,0,1,0,5,6,7} | "
        "h = Conv(x, V, c) y = Conv<pads=[1,1]>(h, W)",
        "Conv",
    ),
    "1x1 behind a padded, strided convolution": Case(
        "x[1,3,9,9] | V[16,3,5,5] c[16] W[3,16,1,1] b[3] | h = Conv<pads=[2,2,2,2], strides=[2,2]>(x, V, c) "
        "y = Conv(h, W, b)",
        "Conv",
    ),
    "1x1 with strides behind another": Case(
        "x[1,4,9,9] | V[4,4,3,3] W[4,4,1,1] | h = Conv<strides=[2,1]>(x, V) y = Conv<strides=[1,2]>(h, W)", "Conv"
    ),
    "1x1 with strides in front of another": Case(
        "x[1,4,9,9] | V[4,4,1,1] W[4,4,3,3] | h = Conv<strides=[2,2]>(x, V) y = Conv<pads=[1,0,1,0]>(h, W)", "Conv"
    ),
    "1x1 that pads, behind another": Case(
        "x[1,4,5,5] | V[4,4,1,1] W[4,4,1,1] | h = Conv(x, V) y = Conv<pads=[1,1,1,1]>(h, W)", "Conv Conv"
    ),
    "SAME by its name": Case(
        'x[1,3,6,6] | V[8,3,1,1] W[4,8,3,3] | h = Conv(x, V) y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(h, W)',
        "Conv",
    ),
    "SAME by its name, sizes free": Case(
        'x[1,3,H,W2] | V[8,3,1,1] W[4,8,2,2] | h = Conv(x, V) y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(h, W)',
        "Conv Conv",
        free=6,
    ),
    "SAME by its name, sizes free, no strides": Case(
        'x[1,3,H,W2] | V[8,3,1,1] W[4,8,3,3] | h = Conv(x, V) y = Conv<auto_pad="SAME_UPPER">(h, W)', "Conv", free=6
    ),
    "depthwise, one behind the other": Case(
        "x[1,4,6,6] | V[4,1,3,3] W[4,1,1,1] b[4] | h = Conv<group=4, pads=[1,1,1,1]>(x, V) y = Conv<group=4>(h, W, b)",
        "Conv",
    ),
    "depthwise and pointwise": Case(
        "x[1,4,6,6] | V[4,1,3,3] W[4,4,1,1] | h = Conv<group=4>(x, V) y = Conv(h, W)", "Conv Conv"
    ),
    "four groups in two": Case(
        "x[1,8,6,6] | V[16,2,1,1] W[8,8,3,3] | h = Conv<group=4>(x, V) y = Conv<group=2>(h, W)", "Conv"
    ),
    "an inverted bottleneck": Case("x[1,4,6,6] | V[16,4,1,1] W[4,16,1,1] | h = Conv(x, V) y = Conv(h, W)", "Conv"),
    "a bottleneck": Case("x[1,8,6,6] | V[2,8,1,1] W[8,2,1,1] | h = Conv(x, V) y = Conv(h, W)", "Conv Conv"),
    "rows, then columns": Case("x[1,4,6,6] | V[4,4,1,3] W[4,4,3,1] | h = Conv(x, V) y = Conv(h, W)", "Conv Conv"),
    "rows, then columns, over many channels": Case(
        "x[1,2,6,6] | V[8,2,1,3] W[2,8,3,1] | h = Conv<pads=[0,1,0,1]>(x, V) y = Conv<pads=[1,0,1,0]>(h, W)", "Conv"
    ),
    "3x3 behind 3x3, over many channels": Case(
        "x[1,2,9,9] | V[8,2,3,3] W[2,8,3,3] | h = Conv<pads=[1,1,1,1]>(x, V) y = Conv(h, W)", "Conv"
    ),
    "3x3 behind 3x3, both padded": Case(
        "x[1,2,9,9] | V[8,2,3,3] W[2,8,3,3] | h = Conv<pads=[1,1,1,1]>(x, V) y = Conv<pads=[1,1,1,1]>(h, W)",
        "Conv Conv",
    ),
    "one dimension, dilated": Case(
        "x[1,3,20] | V[8,3,1] W[4,8,3] | h = Conv(x, V) y = Conv<dilations=[2], pads=[2,2]>(h, W)", "Conv"
    ),
    "three in a row": Case(
        "x[1,3,6,6] | V[8,3,1,1] W[8,8,3,3] U[4,8,1,1] b[4] | h = Conv(x, V) g = Conv<pads=[1,1,1,1]>(h, W) "
        "y = Conv(g, U, b)",
        "Conv",
    ),
    "batch norms among them": Case(
        "x[1,3,6,6] | V[8,3,3,3] W[4,8,1,1] | n = BN3(x) h = Conv(n, V) k = BN8(h) g = Conv(k, W) y = BN4(g)", "Conv"
    ),
    "a batch norm between, in front of padding": Case(
        "x[1,3,6,6] | V[8,3,1,1] W[4,8,3,3] | h = Conv(x, V) n = BN8(h) y = Conv<pads=[1,1,1,1]>(n, W)", "Conv Conv"
    ),
    "a collapsible block with its residual": Case(
        "x[1,4,6,6] | V[16,4,3,3] W[4,16,1,1] | r = Relu(x) h = Conv<pads=[1,1,1,1]>(r, V) g = Conv(h, W) "
        "y = Add(g, r)",
        "Relu Conv",
    ),
    "branches of two layers": Case(
        "x[1,4,6,6] | V[8,4,1,1] W[4,8,3,3] U[4,4,1,1] | h = Conv(x, V) g = Conv<pads=[1,1,1,1]>(h, W) k = Conv(x, U) "
        "s = Add(g, k) y = BN4(s)",
        "Conv",
    ),
    "a Relu between": Case(
        "x[1,3,6,6] | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) r = Relu(h) y = Conv(r, W)", "Conv Relu Conv"
    ),
    "what lies between is an output": Case(
        "x[1,3,6,6] -> h y | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) y = Conv(h, W)", "Conv Conv"
    ),
    "somebody asks for the shape of what lies between": Case(
        "x[1,3,6,6] -> y int64:s[4] | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) s = Shape(h) y = Conv(h, W)",
        "Conv Shape Conv",
    ),
    "a body reads what lies between": Case(
        "x[1,3,6,6] bool:c -> y z[1,8,6,6] | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) z = If (c) < "
        "then_branch = one () => (double[1,8,6,6] t) { t = Relu(h) }, "
        "else_branch = two () => (double[1,8,6,6] e) { e = Abs(h) } > y = Conv(h, W)",
        "Conv If Relu Abs Conv",
    ),
    "both in a body, their weights outside": Case(
        "x[1,3,6,6] bool:c -> z[1,4,6,6] | V[8,3,1,1] W[4,8,1,1] | z = If (c) < "
        "then_branch = one () => (double[1,4,6,6] t) { h = Conv(x, V) t = Conv(h, W) }, "
        "else_branch = two () => (double[1,4,6,6] e) { g = Conv(x, V) e = Conv(g, W) } >",
        "If Conv Conv Conv Conv",
    ),
    "a weight that another layer reads": Case(
        "x[1,3,6,6] z[1,3,6,6] -> y w | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) y = Conv(h, W) w = Conv(z, V)",
        "Conv Conv Conv",
    ),
    "a weight that a caller may override": Case(
        "x[1,3,6,6] | V[8,3,1,1] W[4,8,1,1] | h = Conv(x, V) y = Conv(h, W)", "Conv Conv", edit=overridable("W")
    ),
    "a weight that is computed": Case(
        "x[1,3,6,6] W[4,8,1,1] | V[8,3,1,1] | h = Conv(x, V) y = Conv(h, W)", "Conv Conv"
    ),
    "two dense layers": Case(
        "x[2,6] | V[6,5] c[5] W[4,5] b[4] | h = Gemm(x, V, c) y = Gemm<transB=1, alpha=0.5, beta=2.0>(h, W, b)", "Gemm"
    ),
    "a dense layer and a product": Case(
        "x[2,6] | V[6,5] c[5] W[5,4] | h = Gemm<alpha=2.0, beta=0.5>(x, V, c) y = MatMul(h, W)", "Gemm"
    ),
    "a product and a dense layer": Case("x[2,6] | V[6,5] W[5,4] b[4] | h = MatMul(x, V) y = Gemm(h, W, b)", "Gemm"),
    "a dense layer that adds to rows": Case(
        "x[2,6] | V[6,5] c[2,1] W[5,4] | h = Gemm(x, V, c) y = MatMul(h, W)", "Gemm MatMul"
    ),
    "two products of a sequence": Case(
        "x[2,3,6] | V[6,5] W[5,4] b[4] | h = MatMul(x, V) g = MatMul(h, W) y = Add(g, b)", "MatMul Add"
    ),
    "two products, Adds between and behind": Case(
        "x[2,3,6] | V[6,5] c[5] W[5,4] b[4] | h = MatMul(x, V) a = Add(c, h) g = MatMul(a, W) y = Add(g, b)",
        "MatMul Add",
    ),
    "two products, an Add between": Case(
        "x[2,3,6] | V[6,5] c[5] W[5,4] | h = MatMul(x, V) a = Add(h, c) y = MatMul(a, W)", "MatMul Add"
    ),
    "two products, an Add between that varies over the sequence": Case(
        "x[2,3,6] | V[6,5] c[3,1] W[5,4] | h = MatMul(x, V) a = Add(h, c) y = MatMul(a, W)", "MatMul Add MatMul"
    ),
    "three products": Case(
        "x[2,3,6] | V[6,6] W[6,6] U[6,6] | h = MatMul(x, V) g = MatMul(h, W) y = MatMul(g, U)", "MatMul"
    ),
    "a product from the left and one from the right": Case(
        "x[2,4,6] | V[4,4] W[6,6] | h = MatMul(V, x) y = MatMul(h, W)", "MatMul MatMul"
    ),
    "a batch of matrices": Case("x[2,4,6] | V[2,6,6] W[6,6] | h = MatMul(x, V) y = MatMul(h, W)", "MatMul MatMul"),
    "the value on both sides": Case("x[4,4] | V[4,4] | h = MatMul(x, V) y = MatMul(h, h)", "MatMul MatMul"),
    "a dense layer of the value transposed": Case(
        "x[4,4] | V[4,4] W[4,4] | h = Gemm(x, V) y = Gemm<transA=1>(h, W)", "Gemm Gemm"
    ),
    "what lies between overflows in float16 as one": Case(
        "x[2,4] | V[4,4]={300,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1} W[4,4]={300,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1} | "
        "h = MatMul(x, V) y = MatMul(h, W)",
        "MatMul MatMul",
        element="float16",
    ),
    "in float16": Case("x[2,6] | V[6,5] c[5] W[5,4] | h = Gemm(x, V, c) y = Gemm(h, W)", "Gemm", element="float16"),
    "channels that fill no blocks": Case(
        "x[1,30,6,6] | V[32,30,1,1] W[32,32,3,3] | h = Conv(x, V) y = Conv<pads=[1,1,1,1]>(h, W)",
        "Conv Conv",
        element="float",
    ),
    "channels that fill blocks": Case(
        "x[1,28,6,6] | V[32,28,1,1] W[32,32,3,3] | h = Conv(x, V) y = Conv<pads=[1,1,1,1]>(h, W)",
        "Conv",
        element="float",
    ),
    "opset 6": Case(
        "x[2,6] -> y[2,4] | V[6,5] c[5] W[5,4] b[4] | h = Gemm<broadcast=1>(x, V, c) y = Gemm<broadcast=1>(h, W, b)",
        "Gemm",
        opset=6,
        ir_version=3,
    ),
    "a weight behind a Transpose": Case(
        "x[2,6] | V[5,6] W[5,4] | v = Transpose<perm=[1,0]>(V) h = MatMul(x, v) y = MatMul(h, W)", "MatMul"
    ),
    "quantised weights": Case(
        "x[2,6] | int8:V[6,5] d[5] W[5,4] | v = DequantizeLinear<axis=1>(V, d) h = MatMul(x, v) y = MatMul(h, W)",
        "DequantizeLinear MatMul MatMul",
        element="float",
    ),
}
