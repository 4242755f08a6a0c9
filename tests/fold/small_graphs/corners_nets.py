"""Corners of whole nets: values read twice, constants read twice, bodies, residual streams, parallel branches."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"

CASES: Cases = {
    "a value times itself, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) m = Mul(n, n) y = Conv(m, W)", "Mul Conv"
    ),
    "a value less itself, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) m = Sub(n, n) y = Conv(m, W)", "Sub Conv"
    ),
    "a value three times, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) m = Sum(n, n, n) y = Conv(m, W)", "Sum Conv"
    ),
    "the larger of a value and itself, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = PBN3(x) m = Max(n, n) y = Conv(m, W)", "Max Conv"
    ),
    "a value over itself, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) m = Div(n, n) y = Conv(m, W)", f"{BN} Div Conv", ("no-rule",)
    ),
    "a choice of a value and itself, forward": Case(
        "x[1,3,6,6] bool:c[1,1,6,6] | W[4,3,3,3] | n = BN3(x) m = Where(c, n, n) y = Conv(m, W)", "Where Conv"
    ),
    "a value and what a Relu leaves of it, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) r = Relu(n) m = Add(n, r) y = Conv(m, W)",
        f"{BN} Relu Add Conv",
        ("sign",),
    ),
    "a value and what a Relu leaves of it, positive, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] s[3,1,1]={1,2,3} | n = Mul(x, s) r = Relu(n) m = Add(n, r) y = Conv(m, W)",
        "Relu Add Conv",
    ),
    "a value and its transposition, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) t = Transpose<perm=[0,1,3,2]>(n) m = Add(n, t) y = Conv(m, W)",
        "Transpose Add Conv",
    ),
    "a value that is multiplied with itself as a matrix": Case(
        "x[1,4,4] |  | n = BN4(x) y = MatMul(n, n)", f"{BN} MatMul", ("dynamic-weight",)
    ),
    "a slope that is the value itself": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = PBN3(x) m = PRelu(n, n) y = Conv(m, W)", f"{BN} PRelu Conv", ("no-rule",)
    ),
    "a value over what a layer computes": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] V[4,4,1,1] | h = Conv(x, W) e = Exp(z) d = Div(h, e) y = BN4(d)",
        "Conv Exp Div Add",
    ),
    "what divides is normalised": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) n = SBN4(h) e = Exp(z) y = Div(e, n)", "Conv Exp Div"
    ),
    "a constant over a value": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[4,1,1] | h = Conv(x, W) d = Div(k, h) y = SBN4(d)", "Conv Div"
    ),
    "one bound for two Clips": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,4,1,1] lo[]=0.0 hi[]=6.0 | h = Conv(x, W) c = Clip(h, lo, hi) n = "
        "UBN4(c) g = Conv(n, V) y = Clip(g, lo, hi)",
        "Conv Clip Conv Clip",
    ),
    "one bound for two Clips, both normalised": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,4,1,1] lo[]=0.0 hi[]=6.0 | h = Conv(x, W) c = Clip(h, lo, hi) n = "
        "UBN4(c) g = Conv<pads=[1,1,1,1]>(n, V) d = Clip(g, lo, hi) y = UBN4(d)",
        "Conv Clip Conv Clip",
    ),
    "a bound that is also added": Case(
        "x[1,3,6,6] | W[4,3,3,3] lo[]=0.5 | h = Conv(x, W) c = Clip(h, lo) n = UBN4(c) y = Add(n, lo)", "Conv Clip"
    ),
    "a number to pad with that bounds too": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} v[]=0.5 | h = Conv(x, W) z = Pad(h, p, v) n = UBN4(z) y "
        "= Clip(n, v)",
        "Conv Pad Clip",
    ),
    "a constant that is joined twice": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[4,3,3,3] k[1,4,4,4] | h = Conv(x, W) c = Concat<axis=1>(h, k) y = "
        "BN8(c) g = Conv(x, V) d = Add(g, k) z = BN4(d)",
        "Conv Concat Conv Add",
    ),
    "a weight that is also joined": Case(
        "x[1,3,6,6] -> y | W[4,3,4,4] | h = Conv<pads=[1,1,0,0]>(x, W) q = Sigmoid(x) c = Conv(q, W) s = "
        "ReduceMean<keepdims=0>(W) t = Mul(c, s) y = BN4(h)",
        "Conv Sigmoid Conv ReduceMean Mul",
    ),
    "a constant that is an output": Case("x[1,3,6,6] -> y W[4,3,3,3] | W[4,3,3,3] | h = Conv(x, W) y = BN4(h)", "Conv"),
    "a constant behind an Identity that is an output": Case(
        "x[1,3,6,6] -> y V | W[4,3,3,3] | V = Identity(W) h = Conv(x, V) y = BN4(h)", "Identity Conv"
    ),
    "an output that is read too": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[2,4,1,1] | h = Conv(x, W) y = BN4(h) z = Conv(y, V)", "Conv Conv"
    ),
    "an output that is read by another batch norm": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) z = BN4(y)", f"Conv {BN}", ("model-output",)
    ),
    "an input that is an output": Case("x[1,3,6,6] -> y x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv(n, W)", "Conv"),
    "an input that is an output, and two constants": Case(
        "x[1,3,6,6] -> x[1,3,6,6] y | W[4,3,3,3] t[3,1,1] s[3,1,1] | a = Mul(x, s) b = Add(a, t) y = Conv(b, W)", "Conv"
    ),
    "names that a new Add would have": Case(
        "x[2,3] y_shift[1] h_add_shift[1] -> y z w | B[3,4] | h = MatMul(x, B) y = BN4(h) z = Relu(y_shift) w "
        "= Relu(h_add_shift)",
        "MatMul Add Relu Relu",
    ),
    "a Max in a body": Case(
        "x[1,3,6,6] bool:c -> y[1,4,4,4] | W[4,3,3,3] | y = If (c) < then_branch = one () => (double[1,4,4,4] "
        "t) { h = Conv(x, W) r = Relu(h) t = PBN4(r) }, else_branch = two () => (double[1,4,4,4] e) { h2 = "
        "Conv(x, W) r2 = Relu(h2) e = PBN4(r2) } >",
        "If Conv Max Conv Max",
    ),
    "an Add in a body": Case(
        "x[2,3] bool:c -> y[2,4] | B[3,4] | y = If (c) < then_branch = one () => (double[2,4] t) { h = "
        "MatMul(x, B) t = BN4(h) }, else_branch = two () => (double[2,4] e) { h2 = MatMul(x, B) e = BN4(h2) } >",
        "If MatMul Add MatMul Add",
    ),
    "bounds from outside of a body": Case(
        "x[1,3,6,6] bool:c -> y[1,4,4,4] z | W[4,3,3,3] lo[]=0.0 hi[]=6.0 | y = If (c) < then_branch = one () "
        "=> (double[1,4,4,4] t) { h = Conv(x, W) r = Clip(h, lo, hi) t = UBN4(r) }, else_branch = two () => "
        "(double[1,4,4,4] e) { e = Conv(x, W) } > z = Clip(x, lo, hi)",
        "If Conv Clip Conv Clip",
    ),
    "a body that reads what is between": Case(
        "x[1,3,6,6] bool:c -> y z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) r = Relu(h) y = PBN4(r) z = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { t = Identity(r) }, else_branch = two () => "
        "(double[1,4,4,4] e) { e = Abs(r) } >",
        f"Conv Relu {BN} If Identity Abs",
        ("used-in-subgraph",),
    ),
    "a body in a body": Case(
        "x[1,3,6,6] bool:c -> y[1,4,4,4] | W[4,3,3,3] | y = If (c) < then_branch = one () => (double[1,4,4,4] "
        "t) { t = If (c) < then_branch = three () => (double[1,4,4,4] a) { h = Conv(x, W) a = BN4(h) }, "
        "else_branch = four () => (double[1,4,4,4] b) { b = Conv(x, W) } > }, else_branch = two () => "
        "(double[1,4,4,4] e) { e = Conv(x, W) } >",
        "If If Conv Conv Conv",
    ),
    "a Scan over what is normalised": Case(
        "x[1,3,5] -> y[1,5,4] | B[3,4] c[4] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) s = "
        "Scan<num_scan_inputs=1, body = b (double[1,3] r) => (double[1,4] q) { q = Gemm(r, B, c) }>(t) y = "
        "Transpose<perm=[1,0,2]>(s)",
        f"{BN} Transpose Scan Gemm Transpose",
        ("no-rule",),
    ),
    "a Loop whose state is the channel map": Case(
        "x[1,3,6,6] -> y[1,3,6,6] | W[3,3,1,1] V[4,3,1,1] int64:n[]=2 bool:k[]=1 | m = BN3(x) y = Loop (n, k, "
        "m) < body = b (int64 i, bool c, double[1,3,6,6] s) => (bool d, double[1,3,6,6] t) { d = Identity(c) "
        "t = Conv(s, W) } >",
        f"{BN} Loop Identity Conv",
        ("no-rule",),
    ),
    "an IR 3 graph whose Relu becomes a Max": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) r = Relu(h) y = PBN4(r)", "Conv Max", opset=8, ir_version=3
    ),
    "an IR 3 graph that gets an Add": Case(
        "x[2,3] | B[3,4] | h = MatMul(x, B) y = BN4(h)", "MatMul Add", opset=8, ir_version=3
    ),
    "an IR 3 graph with bounds in half precision": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) r = Relu(h) y = PBN4(r)",
        "Conv Max",
        element="float16",
        opset=8,
        ir_version=3,
    ),
    "bfloat16, a Max": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) r = Relu(h) y = PBN4(r)", "Conv Max", element="bfloat16", opset=22
    ),
    "bfloat16, an Add": Case("x[2,3] | B[3,4] | h = MatMul(x, B) y = BN4(h)", "MatMul Add", element="bfloat16"),
    "half precision, a bound that overflows": Case(
        "x[1,3,6,6] | W[4,3,3,3] float:g[4]={1,1,1,1} float:o[4]={70000,1,1,1} float:m[4]={0,0,0,0} "
        "float:var[4] | h = Conv(x, W) r = Relu(h) y = BatchNormalization(r, g, o, m, var)",
        f"Conv Relu {BN}",
        ("no-rule",),
        element="float16",
    ),
    "half precision, a residual stream": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) n = PBN4(h) r = Relu(n) g = "
        "Conv<pads=[1,1,1,1]>(r, V) s = Add(h, g) m = PBN4(s) y = Relu(m)",
        f"Conv Relu Conv Add {BN} Relu",
        ("used-elsewhere",),
        element="float16",
    ),
    "a residual stream of three": Case(
        "x[1,3,6,6] | U[4,3,1,1] u[4] A[4,4,1,1] a[4] B[4,4,1,1] b[4] C[4,4,1,1] | s0 = Conv(x, U, u) n0 = "
        "PBN4(s0) r0 = Relu(n0) f0 = Conv(r0, A, a) s1 = Add(s0, f0) n1 = PBN4(s1) r1 = Relu(n1) f1 = "
        "Conv(r1, B, b) s2 = Add(f1, s1) n2 = PBN4(s2) r2 = Relu(n2) y = Conv(r2, C)",
        "Conv Relu Conv Add Relu Conv Add Relu Conv",
    ),
    "a residual stream that is taken from": Case(
        "x[1,3,6,6] | U[4,3,1,1] A[4,4,1,1] B[4,4,1,1] C[4,4,1,1] | s0 = Conv(x, U) n0 = PBN4(s0) r0 = "
        "Relu(n0) f0 = Conv(r0, A) s1 = Sub(f0, s0) n1 = PBN4(s1) r1 = Relu(n1) f1 = Conv(r1, B) s2 = Sub(s1, "
        "f1) n2 = PBN4(s2) r2 = Relu(n2) y = Conv(r2, C)",
        "Conv Relu Conv Sub Relu Conv Sub Relu Conv",
    ),
    "a residual stream that somebody else reads": Case(
        "x[1,3,6,6] -> y z | U[4,3,1,1] A[4,4,1,1] C[4,4,1,1] | s0 = Conv(x, U) n0 = PBN4(s0) r0 = Relu(n0) "
        "f0 = Conv(r0, A) s1 = Add(s0, f0) n1 = PBN4(s1) r1 = Relu(n1) y = Conv(r1, C) z = Sigmoid(s1)",
        "Conv Relu Conv Add Add Relu Conv Sigmoid",
    ),
    "a residual stream whose sum is pooled": Case(
        "x[1,3,6,6] -> y z | U[4,3,1,1] A[4,4,1,1] C[4,4,1,1] D[4,2] | s0 = Conv(x, U) n0 = PBN4(s0) r0 = "
        "Relu(n0) f0 = Conv(r0, A) s1 = Add(s0, f0) n1 = PBN4(s1) r1 = Relu(n1) y = Conv(r1, C) p = "
        "GlobalAveragePool(s1) q = Flatten(p) z = Gemm(q, D)",
        "Conv Relu Conv Add Relu Conv GlobalAveragePool Flatten Gemm",
    ),
    "a residual stream with padded layers": Case(
        "x[1,3,6,6] | U[4,3,3,3] A[4,4,3,3] C[4,4,3,3] | s0 = Conv<pads=[1,1,1,1]>(x, U) n0 = PBN4(s0) r0 = "
        "Relu(n0) f0 = Conv<pads=[1,1,1,1]>(r0, A) s1 = Add(s0, f0) n1 = PBN4(s1) r1 = Relu(n1) y = "
        "Conv<pads=[1,1,1,1]>(r1, C)",
        "Conv Relu Conv Add Relu Conv",
    ),
    "a residual stream through pooling": Case(
        "x[1,3,6,6] | U[4,3,1,1] A[4,4,1,1] C[4,4,1,1] | s0 = Conv(x, U) n0 = PBN4(s0) r0 = Relu(n0) p = "
        "AveragePool<kernel_shape=[2,2],strides=[2,2]>(s0) f0 = Conv<strides=[2,2]>(r0, A) s1 = Add(p, f0) n1 "
        "= PBN4(s1) r1 = Relu(n1) y = Conv(r1, C)",
        "Conv Relu AveragePool Conv Add Relu Conv",
    ),
    "a scale that goes back, a shift that goes on": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[2,4,2,2] | h = Conv(x, W) r = LeakyRelu(h) n = PBN4(r) y = Conv(n, V)",
        "Conv LeakyRelu Conv",
    ),
    "a scale that goes on, a shift that goes back": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] V[2,4,3,3] | h = Conv(x, W) s = Add(h, z) n = PBN4(s) r = Relu(n) "
        "y = Conv<pads=[1,1,1,1]>(r, V)",
        "Conv Add Relu Conv",
    ),
    "a scale of zero on the way on": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] V[2,4,3,3] | h = Conv(x, W) s = Add(h, z) n = ZBN4(s) r = Relu(n) "
        "y = Conv<pads=[1,1,1,1]>(r, V)",
        "Conv Add Relu Conv",
    ),
    "two sums of one branch": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[4,3,3,3] U[4,3,3,3] | h = Conv(x, W) g = Conv(x, V) f = Conv(x, U) "
        "s = Add(h, g) y = BN4(s) t = Add(g, f) z = BN4(t)",
        f"Conv Conv Conv Add {BN} Add {BN}",
        (
            "used-elsewhere",
            "used-elsewhere",
        ),
    ),
    "RepVGG with a scale of zero": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) a = ZBN4(h) g = Conv(x, V) b = "
        "BN4(g) i = ZBN4(x) s = Add(a, b) t = Add(s, i) y = Relu(t)",
        "Conv Relu",
    ),
    "RepVGG whose branches are subtracted": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = Conv(x, V) b = "
        "BN4(g) i = BN4(x) s = Sub(a, b) y = Sub(i, s)",
        "Conv",
    ),
    "RepVGG, one convolution of which is taken away from the identity": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) i = BN4(x) t = Sub(i, a) y = Relu(t)",
        "Conv Relu",
    ),
    "a convolution taken away from a value, and both from another one": Case(
        "x[1,4,6,6] u[1,4,6,6] | W[4,4,3,3] c[4] | h = Conv<pads=[1,1,1,1]>(x, W, c) i = BN4(x) s = Sub(i, h) "
        "y = Sub(u, s)",
        "Conv Sub | Conv Add",
    ),
    "a convolution taken away from the pooled value, in front of a batch norm": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv(x, W) p = AveragePool<kernel_shape=[3,3]>(x) s = Sub(p, h) y = BN4(s)",
        "Conv",
    ),
    "a sum of two convolutions of two values taken away from the identity": Case(
        "x[1,4,6,6] u[1,4,6,6] | W[4,4,1,1] V[4,4,1,1] | h = Conv(x, W) g = Conv(u, V) s = Add(h, g) i = BN4(x) "
        "y = Sub(i, s)",
        f"Conv Conv Add {BN} Sub",
        ("model-output",),
    ),
    "a convolution that is read twice, taken away from the identity": Case(
        "x[1,4,6,6] -> y z | W[4,4,1,1] | h = Conv(x, W) i = BN4(x) y = Sub(i, h) z = Relu(h)",
        f"Conv Relu {BN} Sub",
        ("model-output",),
    ),
    "RepVGG with an uneven padding": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[2,0,0,2]>(x, W) a = BN4(h) g = Conv(x, V) b = "
        "BN4(g) y = Add(a, b)",
        "Conv",
    ),
    "RepVGG with an even kernel": Case(
        "x[1,4,6,6] | W[4,4,2,2] V[4,4,1,1] | h = Conv<pads=[0,0,1,1]>(x, W) a = BN4(h) g = Conv(x, V) b = "
        "BN4(g) y = Add(a, b)",
        "Conv",
    ),
    "RepVGG with a dilated branch": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = "
        "Conv<pads=[2,2,2,2], dilations=[2,2]>(x, V) b = BN4(g) y = Add(a, b)",
        "Conv Conv Add",
    ),
    "RepVGG with SAME": Case(
        'x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<auto_pad="SAME_UPPER">(x, W) a = BN4(h) g = '
        'Conv<auto_pad="SAME_LOWER">(x, V) b = BN4(g) i = BN4(x) s = Add(a, b) y = Add(s, i)',
        "Conv",
    ),
    "branches of different groups": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,1,3,3] U[4,2,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = "
        "Conv<pads=[1,1,1,1], group=4>(x, V) b = BN4(g) f = Conv<group=2>(x, U) c = BN4(f) s = Add(a, b) y = Add(s, c)",
        "Conv",
    ),
    "branches of different values": Case(
        "x[1,4,6,6] z[1,4,6,6] | W[4,4,3,3] V[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = "
        "Conv<pads=[1,1,1,1]>(z, V) b = BN4(g) y = Add(a, b)",
        "Conv Conv Add",
    ),
    "a branch that somebody else reads": Case(
        "x[1,4,6,6] -> y z | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = Conv(x, V) "
        "b = BN4(g) y = Add(a, b) z = Relu(b)",
        "Conv Conv Add Relu",
    ),
    "a branch of one channel": Case(
        "x[1,1,6,6] | W[4,1,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) i = BN1(x) y = Add(a, i)",
        f"Conv {BN} Add",
        ("channel-mismatch",),
    ),
    "branches whose strides differ": Case(
        "x[1,4,7,7] | W[4,4,3,3] V[4,4,1,1] | h = Conv<strides=[2,2]>(x, W) a = BN4(h) g = "
        "Conv<strides=[3,3]>(x, V) b = BN4(g) y = Add(a, b)",
        "Conv Conv Add",
    ),
    "branches whose sizes agree by chance": Case(
        "x[1,4,3,3] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1], strides=[1,1]>(x, W) g = Conv(x, V) b "
        "= BN4(g) i = BN4(x) s = Add(h, b) y = Sub(s, i)",
        "Conv",
    ),
    "a branch that pools with a stride": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W) a = BN4(h) p = "
        "AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) b = BN4(p) y = Add(a, b)",
        f"Conv AveragePool {BN} Add",
        ("other-grid",),
    ),
    "a branch that pools and does not count its pads": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) p = "
        "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x) b = BN4(p) y = Add(a, b)",
        f"Conv AveragePool {BN} Add",
        ("other-grid",),
    ),
    "a branch that pools the largest": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) p = MaxPool<kernel_shape=[3,3], "
        "pads=[1,1,1,1], strides=[1,1]>(x) b = BN4(p) y = Add(a, b)",
        f"Conv MaxPool {BN} Add",
        ("sign",),
    ),
    "branches of a Gemm": Case(
        "x[2,4] | B[4,4] C[4,4] | h = Gemm(x, B) a = BN4(h) g = Gemm(x, C) b = BN4(g) i = BN4(x) s = Add(a, "
        "b) y = Add(s, i)",
        f"Gemm Gemm {BN} Add Add",
        ("model-output",),
    ),
    "an identity that enlarges": Case(
        "x[1,4,6,6] z[3,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) i = BN4(z) y = Add(a, i)",
        f"Conv {BN} Add",
        ("model-output",),
    ),
}
