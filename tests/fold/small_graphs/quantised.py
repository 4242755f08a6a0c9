"""Weights that are stored as small integers with a scale, and types narrower or wider than float32."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

_QUANTISED = "x[1,3,6,6] | int8:q[4,3,3,3]"

CASES: Cases = {
    "one scale for the tensor": Case(
        f"{_QUANTISED} d[]=0.02 b[4] | W = DequantizeLinear(q, d) h = Conv(x, W, b) y = PBN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "one scale for each channel": Case(
        f"{_QUANTISED} d[4]={{0.01,0.02,0.03,0.01}} | W = DequantizeLinear<axis=0>(q, d) h = Conv(x, W) y = PBN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "scales of both signs": Case(
        f"{_QUANTISED} d[4]={{0.01,0.02,0.03,0.01}} b[4] | W = DequantizeLinear<axis=0>(q, d) h = Conv(x, W, "
        f"b) y = BN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "scales of both signs, with a zero point": Case(
        "x[1,3,6,6] | uint8:q[4,3,3,3] d[]=0.02 uint8:z[]=128 | W = DequantizeLinear(q, d, z) h = Conv(x, W) "
        "y = BN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "a scale of zero": Case(
        f"{_QUANTISED} d[4]={{0.01,0.02,0.03,0.01}} b[4] | W = DequantizeLinear<axis=0>(q, d) h = Conv(x, W, "
        f"b) y = ZBN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "a bias in int32": Case(
        f"{_QUANTISED} d[4]={{0.01,0.02,0.03,0.01}} int32:r[4] e[4]={{0.01,0.01,0.02,0.01}} | "
        "W = DequantizeLinear<axis=0>(q, d) b = DequantizeLinear<axis=0>(r, e) h = Conv(x, W, b) y = PBN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "Gemm, transposed": Case(
        "x[2,3] | int8:q[4,3] d[4]={0.01,0.02,0.03,0.01} c[4] | B = DequantizeLinear<axis=0>(q, d) "
        "h = Gemm<transB=1>(x, B, c) y = PBN4(h)",
        "DequantizeLinear Gemm",
        element="float",
    ),
    "MatMul with an Add": Case(
        "x[2,3] | int8:q[3,4] d[]=0.02 c[4] | B = DequantizeLinear(q, d) h = MatMul(x, B) a = Add(h, c) y = PBN4(a)",
        "DequantizeLinear MatMul Add",
        element="float",
    ),
    "ConvTranspose": Case(
        "x[1,3,4,4] | int8:q[3,4,2,2] d[]=0.02 b[4] | W = DequantizeLinear(q, d) h = ConvTranspose(x, W, b) y "
        "= PBN4(h)",
        "DequantizeLinear ConvTranspose",
        element="float",
    ),
    "float32": Case("x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv", element="float"),
    "float32, forward, and a chain": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) p = AveragePool<kernel_shape=[2,2]>(n) y = Conv(p, W)",
        "AveragePool Conv",
        element="float",
    ),
    "float16": Case("x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv", element="float16"),
    "float16 with statistics in float32": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] float:g[4] float:o[4] float:m[4] float:var[4] | h = Conv(x, W, b) "
        "y = BatchNormalization(h, g, o, m, var)",
        "Conv",
        element="float16",
    ),
    "float16, cast up for the batch norm and down behind it": Case(
        "x[1,3,6,6] -> y | W[4,3,3,3] b[4] float:g[4] float:o[4] float:m[4] float:var[4] | h = Conv(x, W, b) "
        "c = Cast<to=1>(h) n = BatchNormalization(c, g, o, m, var) y = Cast<to=10>(n)",
        "Conv Cast Cast",
        element="float16",
    ),
    "float16, a Gemm": Case("x[2,3] | B[3,4] | n = BN3(x) y = Gemm(n, B)", "Gemm", element="float16"),
    "bfloat16": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h)", "Conv", element="bfloat16", opset=22
    ),
    "bfloat16, forward": Case("x[2,3] | B[3,4] c[4] | n = BN3(x) y = Gemm(n, B, c)", "Gemm", element="bfloat16"),
}
