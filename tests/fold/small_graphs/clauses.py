"""The algebra clause by clause: for each a graph that folds completely, and one beside it in which something stays."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES", "CLAUSES"]

BN = "BatchNormalization"
_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"
_OWN = "g[4] o[4] m[4] var[4]"

CLAUSES: dict[str, tuple[Case, Case]] = {
    # The gauge
    "var + epsilon must be positive": (
        Case(
            f"{_CONV} g[4] o[4] m[4] var[4]={{-0.5,1,2,3}} | h = Conv(x, W, b) "
            f"y = BatchNormalization<epsilon=1.0>(h, g, o, m, var)",
            "Conv",
        ),
        Case(
            f"{_CONV} g[4] o[4] m[4] var[4]={{-1,1,2,3}} | h = Conv(x, W, b) "
            f"y = BatchNormalization<epsilon=1.0>(h, g, o, m, var)",
            f"Conv {BN}",
            ("variance-not-positive",),
        ),
    ),
    "what is stored must hold it: float16 overflows": (
        Case(
            "x[1,3,6,6] | W[2,3,1,1]={1,2,3,1,2,3} g[2]={900,2} o[2] m[2] var[2]={1,1} | h = Conv(x, W) "
            "y = BatchNormalization(h, g, o, m, var)",
            "Conv",
            element="float16",
        ),
        Case(
            "x[1,3,6,6] | W[2,3,1,1]={100,200,300,1,2,3} g[2]={900,2} o[2] m[2] var[2]={1,1} | h = Conv(x, W) "
            "y = BatchNormalization(h, g, o, m, var)",
            f"Conv {BN}",
            ("out-of-range",),
            element="float16",
        ),
    ),
    "what is stored must hold it: float16 flushes to zero": (
        Case(
            "x[1,3,6,6] | W[2,3,1,1]={1,2,3,1,2,3} g[2]={0.001,2} o[2] m[2] var[2]={1,1} | h = Conv(x, W) "
            "y = BatchNormalization(h, g, o, m, var)",
            "Conv",
            element="float16",
        ),
        Case(
            "x[1,3,6,6] | W[2,3,1,1]={0.001,0.002,0.003,1,2,3} g[2]={0.0001,2} o[2] m[2] var[2]={1,1} | "
            "h = Conv(x, W) y = BatchNormalization(h, g, o, m, var)",
            f"Conv {BN}",
            ("out-of-range",),
            element="float16",
        ),
    ),
    "statistics must be constants": (
        Case(
            f"{_CONV} {_OWN} k[4]={{1,2,3,4}} | n = Add(m, k) h = Conv(x, W, b) "
            "y = BatchNormalization(h, g, o, n, var)",
            "Conv",
        ),
        Case(
            "x[1,3,6,6] k[4] | W[4,3,3,3] b[4] g[4] o[4] m[4] var[4] | n = Add(m, k) h = Conv(x, W, b) "
            "y = BatchNormalization(h, g, o, n, var)",
            f"Add Conv {BN}",
            ("dynamic-parameters",),
        ),
    ),
    "a constant operand is aligned to the right": (
        Case("x[1,3,6,4] | W[4,3,3,1] c[4,1,1] | h = Conv(x, W) y = Mul(h, c)", "Conv"),
        Case("x[1,3,6,4] | W[4,3,3,1] c[4] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"),
    ),
    "a constant must not enlarge the output": (
        Case("x[1,3,6,6] | W[4,3,6,6] c[1,4,1,1] | h = Conv(x, W) y = Add(h, c)", "Conv"),
        Case("x[1,3,6,6] | W[4,3,6,6] c[2,4,1,1] | h = Conv(x, W) y = Add(h, c)", "Conv Add"),
    ),
    "x - c, c - x, x / c and Neg are maps, c / x is none": (
        Case(
            f"{_CONV} c[4,1,1] d[4,1,1]={{1,2,-3,4}} | h = Conv(x, W, b) i = Sub(h, c) j = Sub(d, i) k = Div(j, d) "
            "y = Neg(k)",
            "Conv",
        ),
        Case(f"{_CONV} d[4,1,1]={{1,2,-3,4}} | h = Conv(x, W, b) y = Div(d, h)", "Conv Div"),
    ),
    "a batch norm taken apart, its statistics still computed": (
        Case(
            f"{_CONV} gamma[4] beta[4,1,1] mean[4,1,1] var[4] e[]=0.001 one[]=1.0 a={{1,2}} | v = Add(var, e) "
            "r = Sqrt(v) i = Div(one, r) s = Mul(i, gamma) t = Unsqueeze(s, a) h = Conv(x, W, b) k = Sub(h, mean) "
            "l = Mul(k, t) y = Add(l, beta)",
            "Conv",
        ),
        Case(
            "x[1,3,6,6] e[1] | W[4,3,3,3] gamma[4] mean[4,1,1] var[4] a={1,2} | v = Add(var, e) r = Sqrt(v) "
            "s = Div(gamma, r) t = Unsqueeze(s, a) h = Conv(x, W) k = Sub(h, mean) y = Mul(k, t)",
            "Add Sqrt Div Unsqueeze Conv Mul",
        ),
    ),
    # Backward
    "the producer's output is used only here, but for Shape and Size": (
        Case(
            "x[1,3,6,6] -> y int64:z[4] int64:k[] | W[4,3,3,3] | h = Conv(x, W) z = Shape(h) k = Size(h) y = BN4(h)",
            "Conv Shape Size",
        ),
        Case(
            "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) z = Tanh(h) y = BN4(h)",
            f"Conv Tanh {BN}",
            ("used-elsewhere",),
        ),
    ),
    "Conv, any pads, strides, dilations and groups": (
        Case(
            "x[1,4,9,8,7] | W[6,2,2,1,3] | h = Conv<group=2, pads=[1,0,2,0,1,2], strides=[2,1,2], dilations=[2,1,1]>"
            "(x, W) y = BN6(h)",
            "Conv",
        ),
        Case(
            "x[1,3,6,6] V[4,3,3,3] | W[4,3,3,3] | w = Add(W, V) h = Conv(x, w) y = BN4(h)",
            f"Add Conv {BN}",
            ("dynamic-weight",),
        ),
    ),
    "ConvTranspose, its groups in front": (
        Case("x[1,6,3,3] | W[6,2,2,2] b[6] | h = ConvTranspose<group=3>(x, W, b) y = BN6(h)", "ConvTranspose"),
        Case(
            "x[1,6,3,3] b[6] | W[6,2,2,2] | h = ConvTranspose<group=3>(x, W, b) y = BN6(h)",
            f"ConvTranspose {BN}",
            ("dynamic-weight",),
        ),
    ),
    "Gemm, its C of any shape": (
        Case("x[3,2] | B[4,3] c[2,4] | h = Gemm<transA=1, transB=1, alpha=-0.5, beta=3.0>(x, B, c) y = BN4(h)", "Gemm"),
        Case("x[2,3] c[2,4] | B[3,4] | h = Gemm(x, B, c) y = BN4(h)", f"Gemm {BN}", ("dynamic-weight",)),
    ),
    "MatMul, its shift in an Add": (
        Case("x[2,3] | B[3,4] c[4] | h = MatMul(x, B) a = Add(c, h) y = BN4(a)", "MatMul Add"),
        Case("x[2,3] z[3,4] | | h = MatMul(x, z) y = BN4(h)", f"MatMul {BN}", ("dynamic-weight",)),
    ),
    "Einsum, the label of the output that the constant owns": (
        Case('x[1,3,5,5] | W[4,3] | h = Einsum<equation="bchw,oc->bohw">(x, W) y = BN4(h)', "Einsum Add"),
        Case(
            'x[2,4,3] | B[3,5] | h = Einsum<equation="bij,jk->bik">(x, B) y = BN4(h)', f"Einsum {BN}", ("wrong-axis",)
        ),
    ),
    "Gather of a constant table": (
        Case("int64:i[3] | T[9,4] | h = Gather(T, i) y = BN4(h)", "Gather"),
        Case("int64:i[3] t[9,4] | | h = Gather(t, i) y = BN4(h)", f"Gather {BN}", ("edge-of-graph",)),
    ),
    "norms with the field on their parameters": (
        Case("x[2,4,3,3] | s[4] t[4] | h = InstanceNormalization(x, s, t) y = BN4(h)", "InstanceNormalization"),
        Case(
            "x[2,4,5] | s[5] t[5] | h = LayerNormalization(x, s, t) y = BN4(h)",
            f"LayerNormalization {BN}",
            ("wrong-axis",),
        ),
    ),
    "GroupNormalization of opset 18 has one parameter a group": (
        Case(
            "x[2,4,3,3] -> y[2,4,3,3] | s[2] t[2] | h = GroupNormalization<num_groups=2>(x, s, t) y = UBN4(h)",
            "GroupNormalization",
            opset=18,
            checked=False,
        ),
        Case(
            "x[2,4,3,3] -> y[2,4,3,3] | s[2] t[2] | h = GroupNormalization<num_groups=2>(x, s, t) y = BN4(h)",
            f"GroupNormalization {BN}",
            ("wrong-axis",),
            opset=18,
            checked=False,
        ),
    ),
    "quantised weights take a scale into theirs": (
        Case(
            "x[1,3,6,6] | int8:q[4,3,3,3] s[4] int8:z[4]={1,2,-3,0} b[4] | w = DequantizeLinear<axis=0>(q, s, z) "
            "h = Conv(x, w, b) y = PBN4(h)",
            "DequantizeLinear Conv",
            element="float",
        ),
        Case(
            "x[1,3,2,2] | int8:q[1,3,1,1]={-128,5,7} s[1]={0.1} int8:z[1]={0} g[1]={-1} o[1] m[1] var[1] | "
            "w = DequantizeLinear<axis=0>(q, s, z) h = Conv(x, w) y = BatchNormalization(h, g, o, m, var)",
            f"DequantizeLinear Conv {BN}",
            ("out-of-range",),
            element="float",
        ),
    ),
    # Forward
    "every consumer must absorb it": (
        Case("x[1,3,6,6] -> y z | W[4,3,3,3] V[2,3,1,1] | n = BN3(x) y = Conv(n, W) z = Conv(n, V)", "Conv Conv"),
        Case(
            "x[1,3,6,6] -> y z | W[4,3,3,3] | n = BN3(x) y = Conv(n, W) z = Sigmoid(n)",
            f"{BN} Conv Sigmoid",
            ("no-rule",),
        ),
    ),
    "a shift in front of pads is no bias": (
        Case("x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) y = Conv<pads=[1,1,1,1]>(n, W)", "Conv"),
        Case("x[1,3,6,6] | W[4,3,3,3] c[3,1,1] | n = Add(x, c) y = Conv<pads=[1,1,1,1]>(n, W)", "Add Conv"),
    ),
    "a shift in front of ConvTranspose is a pattern": (
        Case("x[1,3,5,5] | W[3,4,2,2] | n = BN3(x) y = ConvTranspose<pads=[1,1,1,1]>(n, W)", "ConvTranspose"),
        Case(
            "x[1,3,5,5] | W[3,4,2,2] c[3,1,1] | n = Add(x, c) y = ConvTranspose<strides=[2,2]>(n, W)",
            "Add ConvTranspose",
        ),
    ),
    "Gemm and MatMul contract the axis of the field": (
        Case("x[2,3] | B[4,3] | n = BN3(x) y = Gemm<transB=1>(n, B)", "Gemm"),
        Case("x[2,3,5] | B[5,4] | n = BN3(x) y = MatMul(n, B)", f"{BN} MatMul", ("wrong-axis",)),
    ),
    "LSTM, GRU and RNN take it on their input": (
        Case(
            "x[5,2,3] | W[1,4,3] R[1,4,4] s[3] t[3] | n = Mul(x, s) a = Add(n, t) y = RNN<hidden_size=4>(a, W, R)",
            "RNN",
        ),
        Case("x[5,2,3] | W[1,4,3] R[1,4,4] s[2,1] | n = Mul(x, s) y = RNN<hidden_size=4>(n, W, R)", "Mul RNN"),
    ),
}

CASES: Cases = {
    f"{clause}: {what}": case
    for clause, pair in CLAUSES.items()
    for what, case in zip(("folds", "stays"), pair, strict=True)
}
