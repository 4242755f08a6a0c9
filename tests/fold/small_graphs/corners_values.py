"""Corners of functions, choices, joins and quantised weights: what is rare, and easily folded wrongly."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"

CASES: Cases = {
    "Relu that two read becomes Max": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[2,4,1,1] | h = Conv(x, W) r = Relu(h) y = PBN4(r) z = Conv(r, V)",
        f"Conv Relu {BN} Conv",
        ("used-elsewhere",),
    ),
    "Relu of features becomes Max": Case("x[2,3] | B[3,4] | h = Gemm(x, B) r = Relu(h) y = PBN4(r)", "Gemm Max"),
    "Relu of tokens, channels last": Case(
        "x[2,5,3] | B[3,4] c[4] s[4]={1,2,3,4} t[4] | h = MatMul(x, B) a = Add(h, c) r = Relu(a) q = "
        "Transpose<perm=[0,2,1]>(r) y = PBN4(q)",
        "MatMul Add Max Transpose",
    ),
    "Relu, Relu, a batch norm": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) r = Relu(h) q = Relu(r) y = PBN4(q)", "Conv Max Max"
    ),
    "Relu on one branch of a sum": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] | h = Conv(x, W) r = Relu(h) g = Conv(x, V) s = Add(r, g) y = PBN4(s)",
        "Conv Relu Conv Add",
    ),
    "Relu on both branches of a sum": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] | h = Conv(x, W) r = Relu(h) g = Conv(x, V) q = Relu(g) s = "
        "Add(r, q) y = PBN4(s)",
        "Conv Max Conv Relu Add",
    ),
    "Relu on both branches of a concatenation": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[2,3,3,3] | h = Conv(x, W) r = Relu(h) g = Conv(x, V) q = Relu(g) s = "
        "Concat<axis=1>(r, q) y = PBN6(s)",
        "Conv Max Conv Max Concat",
    ),
    "Relu and a transposition that two layers read": Case(
        "x[1,3,6,6] -> y z | W[3,3,3,3] V[2,3,1,1] | n = PBN3(x) r = Relu(n) y = Conv(r, W) z = Conv(r, V)",
        "Add Relu Conv Conv",
    ),
    "weights that two convolutions read, quantised": Case(
        "x[1,3,6,6] -> y z | float:q0[1]=1.0 int8:q[4,3,3,3] float:d[4]={0.1,0.2,0.3,0.4} | W = "
        "DequantizeLinear<axis=0>(q, d) h = Conv(x, W) y = BN4(h) z = Conv(x, W)",
        f"DequantizeLinear Conv {BN} Conv",
        ("used-elsewhere",),
        element="float",
    ),
    "quantised weights that are an output": Case(
        "x[1,3,6,6] -> y W | int8:q[4,3,3,3] d[4]={0.1,0.2,0.3,0.4} | W = DequantizeLinear<axis=0>(q, d) h = "
        "Conv(x, W) y = BN4(h)",
        f"DequantizeLinear Conv {BN}",
        ("used-elsewhere",),
        element="float",
    ),
    "quantised weights, a negative axis": Case(
        "x[2,3] | int8:q[3,4] d[4]={0.1,0.2,0.3,0.4} | W = DequantizeLinear<axis=-1>(q, d) h = Gemm(x, W) y = BN4(h)",
        "DequantizeLinear Gemm",
        element="float",
    ),
    "quantised weights, scaled along their inputs": Case(
        "x[2,3] | int8:q[4,3] d[3]={0.1,0.2,0.3} | W = DequantizeLinear<axis=1>(q, d) h = Gemm<transB=1>(x, "
        "W) y = BN4(h)",
        f"DequantizeLinear Gemm {BN}",
        ("wrong-axis",),
        element="float",
    ),
    "quantised weights, zero points for each channel": Case(
        "x[1,3,6,6] | uint8:q[4,3,3,3] d[4]={0.1,0.2,0.3,0.4} uint8:z[4]={120,128,130,7} | W = "
        "DequantizeLinear<axis=0>(q, d, z) h = Conv(x, W) y = BN4(h)",
        f"DequantizeLinear Conv {BN}",
        ("out-of-range",),
        element="float",
    ),
    "quantised weights behind a transposition": Case(
        "x[2,3] | int8:q[4,3] d[4]={0.1,0.2,0.3,0.4} | V = DequantizeLinear<axis=0>(q, d) W = Transpose(V) h "
        "= Gemm(x, W) y = BN4(h)",
        "DequantizeLinear Transpose Gemm",
        element="float",
    ),
    "quantised weights, grouped and transposed": Case(
        "x[1,4,4,4] | int8:q[4,3,2,2] d[]=0.1 | W = DequantizeLinear(q, d) h = ConvTranspose<group=2>(x, W) y = BN6(h)",
        f"DequantizeLinear ConvTranspose {BN}",
        ("wrong-axis",),
        element="float",
    ),
    "quantised weights, forward": Case(
        "x[1,3,6,6] | int8:q[4,3,3,3] d[4]={0.1,0.2,0.3,0.4} b[4] | n = BN3(x) W = "
        "DequantizeLinear<axis=0>(q, d) y = Conv(n, W, b)",
        f"{BN} DequantizeLinear Conv",
        ("wrong-axis",),
        element="float",
    ),
    "quantised weights for the whole, forward": Case(
        "x[1,3,6,6] | int8:q[4,3,3,3] d[]=0.1 b[4] | n = BN3(x) W = DequantizeLinear(q, d) y = Conv(n, W, b)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "quantised weights, a batch norm on both sides": Case(
        "x[1,3,6,6] | int8:q[4,3,3,3] d[]=0.1 b[4] | n = BN3(x) W = DequantizeLinear(q, d) h = Conv(n, W, b) "
        "y = BN4(h)",
        f"{BN} DequantizeLinear Conv",
        ("wrong-axis",),
        element="float",
    ),
    "a choice of constants by a value": Case(
        "x[1,3,6,6] bool:c[1,4,4,4] | W[4,3,3,3] k[4,1,1] l[1] | h = Conv(x, W) w = Where(c, k, h) v = "
        "Where(c, w, l) y = BN4(v)",
        "Conv Where Where",
    ),
    "a choice whose condition alone has the channels": Case(
        "x[1,3,6,6] z[1,1,4,4] bool:c[1,4,1,1] | W[1,3,3,3] V[1,1,1,1] | h = Conv(x, W) g = Conv(z, V) w = "
        "Where(c, h, g) y = BN4(w)",
        f"Conv Conv Where {BN}",
        ("wrong-axis",),
    ),
    "a choice by a constant": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] bool:c[4,1,1]={1,0,1,0} | h = Conv(x, W) g = Conv(x, V) w = "
        "Where(c, h, g) y = BN4(w)",
        "Conv Conv Where",
    ),
    "Concat with a constant, forward": Case(
        "x[1,3,6,6] | k[1,2,6,6] W[4,5,3,3] | n = BN3(x) c = Concat<axis=1>(k, n) y = Conv(c, W)", "Concat Conv"
    ),
    "Concat with a constant along the rows, forward": Case(
        "x[1,3,6,6] | k[1,3,1,6] W[4,3,3,3] | n = BN3(x) c = Concat<axis=2>(k, n) y = Conv(c, W)",
        f"{BN} Concat Conv",
        ("wrong-axis",),
    ),
    "Concat with a constant along the rows, forward, a zero scale": Case(
        "x[1,3,6,6] | k[1,3,1,6] W[4,3,3,3] | n = ZBN3(x) c = Concat<axis=2>(k, n) y = Conv(c, W)",
        f"{BN} Concat Conv",
        ("wrong-axis",),
    ),
    "Concat of one": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) c = Concat<axis=1>(h) y = BN4(c)", "Conv Concat"),
    "Concat of a map and itself, forward": Case(
        "x[1,3,6,6] | W[4,6,3,3] | n = BN3(x) c = Concat<axis=1>(n, n) y = Conv(c, W)", "Concat Conv"
    ),
    "Concat of the batch, forward": Case(
        "x[1,3,6,6] z[2,3,6,6] | W[4,3,3,3] | n = BN3(x) m = BatchNormalization(z, gamma1, beta1, mean1, "
        "var1) c = Concat<axis=0>(n, m) y = Conv(c, W)",
        f"{BN} {BN} Concat Conv",
        (
            "wrong-axis",
            "wrong-axis",
        ),
    ),
    "Sum of one": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) c = Sum(h) y = BN4(c)", "Conv Sum"),
    "Sum with constants": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] k[4,1,1] l[1] | h = Conv(x, W) g = Conv(x, V) c = Sum(k, h, l, g) "
        "y = BN4(c)",
        "Conv Sum",
    ),
    "Mean of two": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] | h = Conv(x, W) g = Conv(x, V) c = Mean(h, g) y = BN4(c)", "Conv Conv Mean"
    ),
    "Max of three, one constant": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] k[4,1,1] | h = Conv(x, W) g = Conv(x, V) c = Max(h, k, g) y = PBN4(c)",
        "Conv Conv Max",
    ),
    "Max of one": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) c = Max(h) y = PBN4(c)", "Conv Max"),
    "Min, scales of both signs": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[4,1,1] | h = Conv(x, W) c = Min(h, k) y = BN4(c)", f"Conv Min {BN}", ("sign",)
    ),
    "Max of two that broadcast": Case(
        "x[1,3,6,6] z[1,4,1,1] | W[4,3,3,3] V[4,4,1,1] | h = Conv(x, W) g = Conv(z, V) c = Max(h, g) y = PBN4(c)",
        "Conv Conv Max",
    ),
    "PRelu with a slope along the width": Case(
        "x[1,3,6,6] | W[4,3,3,3] p[4] | h = Conv(x, W) r = PRelu(h, p) y = PBN4(r)", "Conv PRelu Add"
    ),
    "a slope that a layer computes": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) m = BN4(h) y = PRelu(z, m)", "Conv PRelu"
    ),
    "a slope from in front": Case(
        "z[1,4,4,4] x[1,4,4,4] | W[2,4,1,1] | n = BN4(x) p = PRelu(z, n) y = Conv(p, W)",
        f"{BN} PRelu Conv",
        ("no-rule",),
    ),
    "CumSum of the rows, a scale, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] int64:a[]=2 | h = Conv(x, W) c = CumSum(h, a) y = SBN4(c)", "Conv CumSum"
    ),
    "CumSum of the rows, a batch norm, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] int64:a[]=2 | n = BN3(x) c = CumSum(n, a) y = Conv(c, W)", "Add CumSum Conv"
    ),
    "CumSum of the channels": Case(
        "x[1,3,6,6] | W[4,3,3,3] int64:a[]=1 | h = Conv(x, W) c = CumSum(h, a) y = SBN4(c)",
        f"Conv CumSum {BN}",
        ("wrong-axis",),
    ),
    "CumSum of the channels, one scale for all": Case(
        "x[1,3,6,6] | W[4,3,3,3] int64:a[]=1 k[]=-2.0 | h = Conv(x, W) c = CumSum(h, a) y = Mul(c, k)", "Conv CumSum"
    ),
    "CumSum along what the model is given": Case(
        "x[1,3,6,6] int64:a[] | W[4,3,3,3] | h = Conv(x, W) c = CumSum(h, a) y = SBN4(c)",
        f"Conv CumSum {BN}",
        ("unknown-shape",),
    ),
    "ReverseSequence of the rows, backward": Case(
        "x[2,3,6,6] | W[4,3,3,3] l={1,4} | h = Conv(x, W) c = ReverseSequence<batch_axis=0, time_axis=2>(h, "
        "l) y = BN4(c)",
        "Conv ReverseSequence",
    ),
    "ReverseSequence of the channels": Case(
        "x[2,3,6,6] | W[4,3,3,3] l={1,4} | h = Conv(x, W) c = ReverseSequence<batch_axis=0, time_axis=1>(h, "
        "l) y = BN4(c)",
        f"Conv ReverseSequence {BN}",
        ("wrong-axis",),
    ),
    "ReverseSequence for each channel": Case(
        "x[2,3,6] | W[4,3,3] l={1,4,2,3} | h = Conv(x, W) c = ReverseSequence<batch_axis=1, time_axis=0>(h, "
        "l) y = BN4(c)",
        "Conv ReverseSequence",
    ),
    "ReverseSequence in front of an LSTM": Case(
        "x[2,3,5] | W[1,16,3] R[1,16,4] l={5,2} | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) c = "
        "ReverseSequence<batch_axis=1, time_axis=0>(t, l) y = LSTM<hidden_size=4>(c, W, R)",
        "Transpose ReverseSequence LSTM",
    ),
    "GlobalLpPool, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) p = GlobalLpPool(h) y = PBN4(p)", "Conv GlobalLpPool Add"
    ),
    "GlobalLpPool, a scale of both signs, forward": Case(
        "x[1,3,6,6] | B[3,4] | n = SBN3(x) p = GlobalLpPool(n) f = Flatten(p) y = Gemm(f, B)",
        "GlobalLpPool Flatten Gemm",
    ),
    "ReduceL1 of the positions": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={2,3} | h = Conv(x, W) m = ReduceL1(h, a) y = PBN4(m)", "Conv ReduceL1 Add"
    ),
    "Abs, a scale of both signs, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) m = Abs(n) y = Conv(m, W)", "Abs Conv"
    ),
    "Abs of a shift": Case("x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) m = Abs(n) y = Conv(m, W)", "Add Abs Conv"),
    "GatherND of a table": Case("int64:i[2,1] | T[10,4] | h = GatherND(T, i) y = BN4(h)", "GatherND"),
    "GatherND of elements of a table": Case(
        "int64:i[2,3,2] | T[10,4] s[3] t[3] | h = GatherND(T, i) m = Mul(h, s) y = Add(m, t)", "GatherND Mul Add"
    ),
    "a Squeeze of the channel": Case(
        "x[2,3,6] | W[1,3,3] a={1} c[4] | h = Conv(x, W) q = Squeeze(h, a) y = Mul(q, c)", "Conv Squeeze Mul"
    ),
    "Mean, one of them constant": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[4,1,1] | h = Conv(x, W) m = Mean(k, h) y = BN4(m)", "Conv Mean"
    ),
    "Mean, forward": Case(
        "x[1,3,6,6] z[1,3,6,6] | W[4,3,3,3] | n = BN3(x) k = BatchNormalization(z, gamma1, beta1, mean1, "
        "var1) m = Mean(n, k) y = Conv(m, W)",
        f"{BN} {BN} Mean Conv",
        (
            "no-rule",
            "no-rule",
        ),
    ),
    "Expand that adds axes": Case(
        "x[3,6] | W[1,3,3] k[3,1] s={1,3,6} | h = Mul(x, k) e = Expand(h, s) y = Conv(e, W)", "Expand Conv"
    ),
}
