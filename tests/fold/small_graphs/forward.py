"""Layers that take in the batch norm in front of them."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

CASES: Cases = {
    "Conv": Case("x[1,3,6,6] | W[4,3,3,3] b[4] | n = BN3(x) y = Conv(n, W, b)", "Conv"),
    "Conv without bias": Case("x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv(n, W)", "Conv"),
    "Conv, grouped": Case("x[1,4,5,5] | W[6,2,3,3] b[6] | n = BN4(x) y = Conv<group=2>(n, W, b)", "Conv"),
    "Conv, depthwise with a multiplier": Case("x[1,3,5,5] | W[6,1,3,3] | n = BN3(x) y = Conv<group=3>(n, W)", "Conv"),
    "Conv over one axis, strided": Case("x[2,3,9] | W[4,3,3] | n = BN3(x) y = Conv<strides=[2]>(n, W)", "Conv"),
    "Conv over three axes, dilated": Case(
        "x[1,2,5,4,3] | W[4,2,2,2,2] | n = BN2(x) y = Conv<dilations=[2,1,1]>(n, W)", "Conv"
    ),
    "Conv, VALID": Case('x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv<auto_pad="VALID">(n, W)', "Conv"),
    "Conv, SAME that pads nothing": Case(
        'x[1,3,6,6] | W[4,3,2,2] | n = BN3(x) y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(n, W)', "Conv"
    ),
    "Conv 1x1, SAME, over free sizes": Case(
        'x[1,3,H,V] | W[4,3,1,1] | n = BN3(x) y = Conv<auto_pad="SAME_LOWER">(n, W)', "Conv"
    ),
    "Conv, padded, no shift": Case("x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) y = Conv<pads=[1,1,1,1]>(n, W)", "Conv"),
    "Conv, padded, all taps but the middle are zero": Case(
        "x[1,2,5,5] | W[1,2,3,3]={0,0,0,0,2,0,0,0,0,0,0,0,0,3,0,0,0,0} | n = BN2(x) y = Conv<pads=[1,1,1,1]>(n, W)",
        "Conv",
    ),
    "Conv, pads that no window reaches": Case(
        "x[1,3,6,6] | W[4,3,2,2] | n = BN3(x) y = Conv<pads=[0,0,1,1], strides=[2,2]>(n, W)", "Conv | Conv Add"
    ),
    "Conv, padded": Case("x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv<pads=[1,1,1,1]>(n, W)", "Conv Add"),
    "Conv, padded on one side, strided": Case(
        "x[1,3,6,7] | W[4,3,3,3] b[4] | n = BN3(x) y = Conv<pads=[1,0,0,0], strides=[2,1]>(n, W, b)", "Conv Add"
    ),
    "Conv, SAME_UPPER": Case(
        'x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(n, W)', "Conv Add"
    ),
    "Conv, SAME_LOWER": Case('x[1,3,6,5] | W[4,3,2,3] | n = BN3(x) y = Conv<auto_pad="SAME_LOWER">(n, W)', "Conv Add"),
    "Conv, padded, over free sizes": Case(
        "x[N,3,H,V] | W[4,3,3,3] | n = BN3(x) y = Conv<pads=[1,1,1,1]>(n, W)", "Conv Add"
    ),
    "Conv, padded, depthwise": Case(
        "x[1,4,6,6] | W[4,1,3,3] | n = BN4(x) y = Conv<pads=[1,1,1,1], group=4>(n, W)", "Conv Add"
    ),
    "Conv, padded, behind a Relu": Case(
        "x[1,3,6,6] | V[4,3,1,1] W[5,4,3,3] | h = Conv(x, V) r = Relu(h) n = PBN4(r) y = Conv<pads=[1,1,1,1]>(n, W)",
        "Conv Max Conv | Conv Relu Conv Add",
    ),
    "Conv, padded, behind a Relu, scales of both signs": Case(
        "x[1,3,6,6] | V[4,3,1,1] W[5,4,3,3] | h = Conv(x, V) r = Relu(h) n = BN4(r) y = Conv<pads=[1,1,1,1]>(n, W)",
        "Conv Relu Conv Add",
    ),
    "ConvTranspose, no shift": Case("x[1,3,4,4] | W[3,4,3,3] | n = SBN3(x) y = ConvTranspose(n, W)", "ConvTranspose"),
    "ConvTranspose, grouped, no shift": Case(
        "x[1,4,4,4] | W[4,3,2,2] | n = SBN4(x) y = ConvTranspose<group=2, strides=[2,2]>(n, W)", "ConvTranspose"
    ),
    "ConvTranspose 1x1": Case("x[1,3,4,4] | W[3,4,1,1] | n = BN3(x) y = ConvTranspose(n, W)", "ConvTranspose"),
    "ConvTranspose, every output gets every tap": Case(
        "x[1,3,6,6] | W[3,4,3,3] | n = BN3(x) y = ConvTranspose<pads=[2,2,2,2]>(n, W)", "ConvTranspose"
    ),
    "ConvTranspose, a pattern of shifts": Case(
        "x[1,3,4,4] | W[3,4,2,2] | n = BN3(x) y = ConvTranspose<strides=[2,2]>(n, W)", "ConvTranspose Add"
    ),
    "Gemm": Case("x[2,3] | B[3,4] c[4] | n = BN3(x) y = Gemm(n, B, c)", "Gemm"),
    "Gemm without C": Case("x[2,3] | B[3,4] | n = BN3(x) y = Gemm<alpha=0.5>(n, B)", "Gemm"),
    "Gemm, transposed, with alpha and beta, C a column": Case(
        "x[2,3] | B[4,3] c[2,1] | n = BN3(x) y = Gemm<transB=1, alpha=0.5, beta=2.0>(n, B, c)", "Gemm"
    ),
    "Gemm, transposed input and a field over its rows": Case(
        "x[3,2] | B[3,4] s[3,1] t[3,1] | m = Mul(x, s) a = Add(m, t) y = Gemm<transA=1>(a, B)", "Gemm"
    ),
    "Gemm, the constant on the left": Case(
        "x[3,2] | A[5,3] s[3,1] t[3,1] | m = Mul(x, s) a = Add(m, t) y = Gemm(A, a)", "Gemm"
    ),
    "MatMul with an Add": Case("x[2,3] | B[3,4] c[4] | n = BN3(x) h = MatMul(n, B) y = Add(h, c)", "MatMul Add"),
    "MatMul alone": Case("x[2,3] | B[3,4] | n = BN3(x) y = MatMul(n, B)", "MatMul Add | Gemm"),
    "MatMul alone, a pure scale": Case("x[2,3] | B[3,4] | n = SBN3(x) y = MatMul(n, B)", "MatMul"),
    "MatMul, the constant on the left": Case(
        "x[2,3,5] | A[4,3] c[4,1] | n = BN3(x) h = MatMul(A, n) y = Add(h, c)", "MatMul Add"
    ),
    "MatMul of tokens behind a transposition": Case(
        "x[2,3,5] | B[3,4] | n = BN3(x) t = Transpose<perm=[0,2,1]>(n) y = MatMul(t, B)", "Transpose MatMul Add"
    ),
    "MatMul, a matrix for each head": Case(
        "x[1,2,5,3] | B[2,3,4] s[3] t[3] c[4] | m = Mul(x, s) a = Add(m, t) h = MatMul(a, B) y = Add(h, c)",
        "MatMul Add",
    ),
    "Einsum": Case(
        'x[1,3,5,5] | W[4,3] c[4,1,1] | n = BN3(x) h = Einsum<equation="bchw,oc->bohw">(n, W) y = Add(h, c)',
        "Einsum Add",
    ),
    "Einsum alone": Case('x[1,3,5,5] | W[3,4] | n = BN3(x) y = Einsum<equation="bchw,co->bhwo">(n, W)', "Einsum Add"),
    "LSTM": Case(
        "x[2,3,5] -> y | W[1,16,3] R[1,16,4] B[1,32] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) "
        "y = LSTM<hidden_size=4>(t, W, R, B)",
        "Transpose LSTM",
    ),
    "LSTM without bias, both directions": Case(
        "x[2,3,5] -> y z w | W[2,16,3] R[2,16,4] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) "
        'y, z, w = LSTM<hidden_size=4, direction="bidirectional">(t, W, R)',
        "Transpose LSTM",
    ),
    "GRU": Case(
        "x[2,3,5] | W[1,12,3] R[1,12,4] B[1,24] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) "
        "y = GRU<hidden_size=4>(t, W, R, B)",
        "Transpose GRU",
    ),
    "GRU, linear before reset, without bias": Case(
        "x[2,3,5] | W[1,12,3] R[1,12,4] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) "
        'y = GRU<hidden_size=4, linear_before_reset=1, direction="reverse">(t, W, R)',
        "Transpose GRU",
    ),
    "RNN": Case(
        "x[2,3,5] -> z | W[1,4,3] R[1,4,4] B[1,8] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) "
        "_, z = RNN<hidden_size=4>(t, W, R, B)",
        "Transpose RNN",
    ),
    "RNN, batch first, with a first state": Case(
        "x[2,3,5] | W[1,4,3] R[1,4,4] h0[2,1,4] | n = BN3(x) t = Transpose<perm=[0,2,1]>(n) "
        "y = RNN<hidden_size=4, layout=1>(t, W, R, _, _, h0)",
        "Transpose RNN",
    ),
    "two convolutions": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[2,3,1,1] | n = BN3(x) y = Conv(n, W) z = Conv(n, V)", "Conv Conv"
    ),
    "a convolution and a Gemm behind a pooling": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] B[3,2] | n = BN3(x) y = Conv(n, W) p = GlobalAveragePool(n) "
        "f = Flatten(p) z = Gemm(f, B)",
        "Conv GlobalAveragePool Flatten Gemm",
    ),
    "a convolution and somebody who asks for the shape": Case(
        "x[1,3,6,6] -> y int64:z | W[4,3,3,3] | n = BN3(x) y = Conv(n, W) z = Shape(n)", "Conv Shape"
    ),
    "the image less its mean, over its deviation": Case(
        "x[1,3,6,6] | m[1,3,1,1]={0.485,0.456,0.406} d[1,3,1,1]={0.229,0.224,0.225} W[4,3,3,3] | "
        "c = Sub(x, m) n = Div(c, d) y = Conv(n, W)",
        "Conv",
    ),
    "the image from 0 to 255, and then its mean": Case(
        "x[1,3,6,6] | k[]=0.00392 m[3,1,1] d[3,1,1]={0.2,0.3,0.4} W[4,3,3,3] b[4] | "
        "a = Mul(x, k) c = Sub(a, m) n = Div(c, d) y = Conv(n, W, b)",
        "Conv",
    ),
    "the image last, and then first": Case(
        "x[1,6,6,3] | m[3] d[3]={0.2,0.3,0.4} W[4,3,3,3] b[4] | "
        "c = Sub(x, m) n = Div(c, d) t = Transpose<perm=[0,3,1,2]>(n) y = Conv(t, W, b)",
        "Transpose Conv",
    ),
    "two batch norms in front of a convolution": Case(
        "x[1,3,6,6] | W[4,3,3,3] | i = BN3(x) n = BN3(i) y = Conv(n, W)", "Conv"
    ),
    "behind a sigmoid": Case(
        "x[1,3,6,6] | V[4,3,1,1] W[2,4,3,3] | h = Conv(x, V) s = Sigmoid(h) n = BN4(s) y = Conv(n, W)",
        "Conv Sigmoid Conv",
    ),
    "behind a Relu, scales of both signs": Case(
        "x[1,3,6,6] | V[4,3,1,1] W[2,4,3,3] | h = Conv(x, V) s = Relu(h) n = BN4(s) y = Conv(n, W)", "Conv Relu Conv"
    ),
}
