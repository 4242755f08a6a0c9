"""Layers that take in the batch norm behind them."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

CASES: Cases = {
    "Conv": Case("x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv"),
    "Conv without bias": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) y = BN4(h)", "Conv"),
    "Conv with an empty bias": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W, _) y = BN4(h)", "Conv"),
    "Conv, padded": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) y = BN4(h)", "Conv"),
    "Conv, padded unevenly, strided, dilated": Case(
        "x[1,3,9,8] | W[5,3,2,3] b[5] | h = Conv<pads=[0,2,1,0], strides=[2,1], dilations=[2,1]>(x, W, b) y = BN5(h)",
        "Conv",
    ),
    "Conv, grouped": Case("x[1,4,5,5] | W[6,2,3,3] b[6] | h = Conv<group=2>(x, W, b) y = BN6(h)", "Conv"),
    "Conv, depthwise": Case("x[1,4,5,5] | W[4,1,3,3] | h = Conv<group=4>(x, W) y = BN4(h)", "Conv"),
    "Conv, depthwise with a multiplier": Case("x[1,3,5,5] | W[6,1,3,3] | h = Conv<group=3>(x, W) y = BN6(h)", "Conv"),
    "Conv over one axis": Case("x[2,3,9] | W[4,3,3] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv"),
    "Conv over three axes": Case("x[1,2,4,4,3] | W[4,2,2,2,2] | h = Conv(x, W) y = BN4(h)", "Conv"),
    "Conv, SAME_UPPER": Case('x[1,3,6,6] | W[4,3,3,3] | h = Conv<auto_pad="SAME_UPPER">(x, W) y = BN4(h)', "Conv"),
    "Conv, SAME_LOWER and strided": Case(
        'x[1,3,6,6] | W[4,3,2,2] | h = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, W) y = BN4(h)', "Conv"
    ),
    "Conv, a scale of zero": Case("x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = ZBN4(h)", "Conv"),
    "Conv over free sizes": Case("x[N,3,H,V] | W[4,3,1,1] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv"),
    "ConvTranspose": Case("x[1,3,4,4] | W[3,4,3,3] b[4] | h = ConvTranspose(x, W, b) y = BN4(h)", "ConvTranspose"),
    "ConvTranspose without bias, strided and padded": Case(
        "x[1,3,4,4] | W[3,4,3,3] | "
        "h = ConvTranspose<strides=[2,2], pads=[1,0,1,1], output_padding=[1,0]>(x, W) y = BN4(h)",
        "ConvTranspose",
    ),
    "ConvTranspose, grouped": Case(
        "x[1,4,4,4] | W[4,3,2,2] b[6] | h = ConvTranspose<group=2>(x, W, b) y = BN6(h)", "ConvTranspose"
    ),
    "ConvTranspose, depthwise": Case(
        "x[1,3,4,4] | W[3,2,2,2] | h = ConvTranspose<group=3>(x, W) y = BN6(h)", "ConvTranspose"
    ),
    "ConvTranspose over one axis, dilated": Case(
        "x[2,3,5] | W[3,4,3] | h = ConvTranspose<dilations=[2]>(x, W) y = BN4(h)", "ConvTranspose"
    ),
    "ConvTranspose to a stated shape": Case(
        "x[1,3,4,4] | W[3,4,3,3] | h = ConvTranspose<strides=[2,2], output_shape=[8,8]>(x, W) y = BN4(h)",
        "ConvTranspose",
    ),
    "Gemm": Case("x[2,3] | B[3,4] c[4] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm without C": Case("x[2,3] | B[3,4] | h = Gemm(x, B) y = BN4(h)", "Gemm"),
    "Gemm, a scalar C": Case("x[2,3] | B[3,4] c[] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, C of one element": Case("x[2,3] | B[3,4] c[1] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, C a row": Case("x[2,3] | B[3,4] c[1,4] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, C a column": Case("x[2,3] | B[3,4] c[2,1] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, C a matrix": Case("x[2,3] | B[3,4] c[2,4] | h = Gemm(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, as many rows as columns, C a column": Case(
        "x[4,3] | B[3,4] c[4,1] | h = Gemm<beta=0.5>(x, B, c) y = BN4(h)", "Gemm"
    ),
    "Gemm, transposed both ways, with alpha and beta": Case(
        "x[3,2] | B[4,3] c[4] | h = Gemm<transA=1, transB=1, alpha=0.5, beta=2.5>(x, B, c) y = BN4(h)", "Gemm"
    ),
    "Gemm, beta is zero": Case("x[2,3] | B[3,4] c[4] | h = Gemm<beta=0.0>(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm over a free batch": Case("x[N,3] | B[4,3] c[4] | h = Gemm<transB=1>(x, B, c) y = BN4(h)", "Gemm"),
    "Gemm, the constant on the left": Case(
        "x[3,2] | A[5,3] b[5,1] s[5,1] t[5,1] | h = Gemm(A, x, b) m = Mul(h, s) y = Add(m, t)", "Gemm"
    ),
    "MatMul with an Add": Case("x[2,3] | B[3,4] c[4] | h = MatMul(x, B) a = Add(h, c) y = BN4(a)", "MatMul Add"),
    "MatMul with an Add, the constant first": Case(
        "x[2,3] | B[3,4] c[4] | h = MatMul(x, B) a = Add(c, h) y = BN4(a)", "MatMul Add"
    ),
    "MatMul alone": Case("x[2,3] | B[3,4] | h = MatMul(x, B) y = BN4(h)", "MatMul Add | Gemm"),
    "MatMul alone, a pure scale": Case("x[2,3] | B[3,4] | h = MatMul(x, B) y = SBN4(h)", "MatMul"),
    "MatMul of tokens": Case(
        "x[2,5,3] | B[3,4] s[4] t[4] | h = MatMul(x, B) m = Mul(h, s) y = Add(m, t)", "MatMul Add"
    ),
    "MatMul of tokens, batch norm behind a transposition": Case(
        "x[2,5,3] | B[3,4] | h = MatMul(x, B) t = Transpose<perm=[0,2,1]>(h) y = BN4(t)", "MatMul Transpose Add"
    ),
    "MatMul, the constant on the left": Case("x[2,5,3] | A[4,5] | h = MatMul(A, x) y = BN4(h)", "MatMul Add"),
    "MatMul, the constant on the left, one for each image": Case(
        "x[2,5,3] | A[2,4,5] | h = MatMul(A, x) y = BN4(h)", "MatMul Add"
    ),
    "MatMul, a matrix for each head, the batch norm over the columns": Case(
        "x[1,2,5,3] | B[2,3,4] s[4] t[4] | h = MatMul(x, B) m = Mul(h, s) y = Add(m, t)", "MatMul Add"
    ),
    "MatMul, a matrix for each head, the batch norm over the heads": Case(
        "x[2,3,5,6] | B[3,6,4] | h = MatMul(x, B) y = BN3(h)", "MatMul Add"
    ),
    "Einsum, the product of a matrix": Case(
        'x[2,5,3] | B[3,4] s[4] t[4] | h = Einsum<equation="bij,jk->bik">(x, B) m = Mul(h, s) y = Add(m, t)',
        "Einsum Add",
    ),
    "Einsum, a 1x1 convolution": Case(
        'x[1,3,5,5] | W[4,3] | h = Einsum<equation="bchw,oc->bohw">(x, W) y = BN4(h)', "Einsum Add"
    ),
    "Einsum, the constant first, an Add behind": Case(
        'x[1,3,5,5] | W[4,3] a[4,1,1] | h = Einsum<equation="oc,bchw->bohw">(W, x) i = Add(h, a) y = BN4(i)',
        "Einsum Add",
    ),
    "Einsum, the labels of heads": Case(
        'x[2,5,6] | B[6,3,4] s[3,1] | h = Einsum<equation="bqe,ehd->bqhd">(x, B) y = Mul(h, s)', "Einsum"
    ),
    "a table": Case("int64:i[2] | T[10,4] | h = Gather(T, i) y = BN4(h)", "Gather"),
    "a table of tokens": Case(
        "int64:i[2,5] | T[10,4] s[4] t[4] | h = Gather(T, i) m = Mul(h, s) y = Add(m, t)", "Gather"
    ),
    "a table of tokens, batch norm behind a transposition": Case(
        "int64:i[2,5] | T[10,4] | h = Gather(T, i) t = Transpose<perm=[0,2,1]>(h) y = BN4(t)", "Gather Transpose"
    ),
    "LayerNormalization": Case(
        "x[2,5,4] | g[4] b[4] s[4] t[4] | h = LayerNormalization(x, g, b) m = Mul(h, s) y = Add(m, t)",
        "LayerNormalization",
    ),
    "LayerNormalization without bias": Case(
        "x[2,5,4] | g[4] s[4] t[4] | h = LayerNormalization(x, g) m = Mul(h, s) y = Add(m, t)", "LayerNormalization"
    ),
    "LayerNormalization over two axes": Case(
        "x[2,4,5] | g[4,5] b[4,5] | h = LayerNormalization<axis=1>(x, g, b) y = BN4(h)", "LayerNormalization"
    ),
    "LayerNormalization behind a transposition": Case(
        "x[2,5,4] | g[4] b[4] | h = LayerNormalization(x, g, b) t = Transpose<perm=[0,2,1]>(h) y = BN4(t)",
        "LayerNormalization Transpose",
    ),
    "InstanceNormalization": Case(
        "x[2,4,3,3] | g[4] b[4] | h = InstanceNormalization(x, g, b) y = BN4(h)", "InstanceNormalization"
    ),
    "GroupNormalization with parameters for each channel": Case(
        "x[2,4,3,3] -> y[2,4,3,3] | g[4] b[4] | h = GroupNormalization<num_groups=2>(x, g, b) y = BN4(h)",
        "GroupNormalization",
        opset=21,
    ),
    "GroupNormalization with parameters for each group, one map for each": Case(
        "x[2,4,3,3] -> y[2,4,3,3] | g[2] b[2] s[4,1,1]={2,2,-3,-3} t[4,1,1]={1,1,5,5} | "
        "h = GroupNormalization<num_groups=2>(x, g, b) m = Mul(h, s) y = Add(m, t)",
        "GroupNormalization",
        opset=18,
        checked=False,
    ),
    "RMSNormalization, a scale": Case(
        "x[2,5,4] | g[4] s[4] | h = RMSNormalization(x, g) y = Mul(h, s)", "RMSNormalization", opset=23
    ),
    "RMSNormalization, a batch norm": Case(
        "x[2,5,4] | g[4] | h = RMSNormalization(x, g) t = Transpose<perm=[0,2,1]>(h) y = BN4(t)",
        "RMSNormalization Transpose Add",
        opset=23,
    ),
    "two batch norms behind a convolution": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) i = BN4(h) y = BN4(i)", "Conv"
    ),
    "a batch norm, a Mul, an Add, and a batch norm": Case(
        "x[1,3,6,6] | W[4,3,3,3] s[4,1,1] t[4,1,1] | h = Conv(x, W) i = BN4(h) j = Mul(i, s) k = Add(t, j) y = BN4(k)",
        "Conv",
    ),
    "of both sides of a convolution": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] | n = BN3(x) h = Conv(n, W, b) y = BN4(h)", "Conv"
    ),
}
