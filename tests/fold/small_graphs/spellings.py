"""Batch norms that others took apart: every spelling of a constant scale and shift."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"

CASES: Cases = {
    "Mul and Add": Case(f"{_CONV} s[4,1,1] t[4,1,1] | h = Conv(x, W, b) m = Mul(h, s) y = Add(m, t)", "Conv"),
    "Mul and Add, constants first, four axes": Case(
        f"{_CONV} s[1,4,1,1] t[1,4,1,1] | h = Conv(x, W, b) m = Mul(s, h) y = Add(t, m)", "Conv"
    ),
    "Sub, Div, Mul, Add": Case(
        f"{_CONV} m[4,1,1] var[4,1,1] s[4,1,1] t[4,1,1] | h = Conv(x, W, b) i = Sub(h, m) j = Div(i, var) k = "
        f"Mul(j, s) "
        "y = Add(k, t)",
        "Conv",
    ),
    "Sub, Div, Mul, Add in front of a padded convolution that sees no shift": Case(
        "x[1,3,6,6] | W[4,3,3,3] m[3,1,1] var[3,1,1] | i = Sub(x, m) j = Add(i, m) k = Div(j, var) "
        "y = Conv<pads=[1,1,1,1]>(k, W)",
        "Conv",
    ),
    "the root computed in the graph": Case(
        f"{_CONV} g[4,1,1] o[4,1,1] m[4,1,1] var[4,1,1] e[]=0.001 | h = Conv(x, W, b) i = Sub(h, m) v = Add(var, e) "
        "r = Sqrt(v) j = Div(i, r) k = Mul(j, g) y = Add(k, o)",
        "Conv",
    ),
    "the reciprocal of the root, as TensorFlow spells it": Case(
        f"{_CONV} g[4] o[4] m[4] var[4] e[]=0.001 s={{4,1,1}} | h = Conv(x, W, b) v = Add(var, e) r = Sqrt(v) "
        "q = Reciprocal(r) k = Mul(q, g) n = Mul(m, k) p = Sub(o, n) ks = Reshape(k, s) ps = Reshape(p, s) "
        "i = Mul(h, ks) y = Add(i, ps)",
        "Conv",
    ),
    "a power of minus one half": Case(
        f"{_CONV} g[4,1,1] o[4,1,1] m[4,1,1] var[4,1,1] e[]=0.001 n[]=-0.5 | h = Conv(x, W, b) v = Add(var, e) "
        "r = Pow(v, n) k = Mul(r, g) i = Sub(h, m) j = Mul(k, i) y = Add(j, o)",
        "Conv",
    ),
    "a division by what a root gave, and a reciprocal": Case(
        f"{_CONV} var[4,1,1] c[4,1,1] | h = Conv(x, W, b) r = Sqrt(var) i = Reciprocal(r) j = Mul(h, i) y = Sub(j, c)",
        "Conv",
    ),
    "statistics that were given axes in the graph": Case(
        f"{_CONV} s[4] t[4] a={{1,2}} | h = Conv(x, W, b) u = Unsqueeze(s, a) v = Unsqueeze(t, a) m = Mul(h, u) "
        "y = Add(m, v)",
        "Conv",
    ),
    "statistics in a narrow type, cast up": Case(
        f"{_CONV} float16:s[4,1,1] float16:t[4,1,1] | h = Conv(x, W, b) u = Cast<to=11>(s) v = Cast<to=11>(t) "
        f"m = Mul(h, u) "
        "y = Add(m, v)",
        "Conv",
    ),
    "the parameters of one batch norm, packed": Case(
        f"{_CONV} p[8] a={{1,2}} | h = Conv(x, W, b) q, r = Split<axis=0, num_outputs=2>(p) u = Unsqueeze(q, a) "
        "v = Unsqueeze(r, a) m = Mul(h, u) y = Add(m, v)",
        "Conv | Conv Split Unsqueeze Unsqueeze Mul Add",
    ),
    "a batch norm whose parameters are computed": Case(
        f"{_CONV} g[4] o[4] m[4] var[4] e[]=0.1 | h = Conv(x, W, b) v = Add(var, e) n = Identity(m) "
        "y = BatchNormalization(h, g, o, n, v)",
        "Conv",
    ),
    "Neg": Case(f"{_CONV} | h = Conv(x, W, b) y = Neg(h)", "Conv"),
    "a constant less a value": Case(f"{_CONV} c[4,1,1] | h = Conv(x, W, b) y = Sub(c, h)", "Conv"),
    "a constant less a value, in front": Case("x[2,3] | c[3] B[3,4] | h = Sub(c, x) y = Gemm(h, B)", "Gemm"),
    "scalars": Case(
        f"{_CONV} s[]=2.0 t[1]=0.5 | h = Conv(x, W, b) m = Mul(h, s) a = Add(m, t) d = Div(a, s) y = Sub(d, t)", "Conv"
    ),
    "scalars behind a free rank of sizes": Case(
        "x[N,3,H,V] | W[4,3,3,3] s[]=2.0 t[1]=0.5 | h = Conv(x, W) m = Mul(h, s) y = Add(t, m)", "Conv", free=5
    ),
    "constants of the value's whole size, equal along the positions": Case(
        "x[1,3,4,4] | W[2,3,3,3] s[1,2,2,2]={1,1,1,1,3,3,3,3} t[2,2,2]={1,1,1,1,3,3,3,3} | h = Conv(x, W) m = "
        "Mul(h, s) "
        "y = Add(m, t)",
        "Conv",
    ),
    "constants that an Expand gave the value's size": Case(
        f"{_CONV} s[4,1,1] z={{1,4,4,4}} | h = Conv(x, W, b) e = Expand(s, z) y = Mul(h, e)", "Conv | Conv Expand Mul"
    ),
    "constants in Constant nodes": Case(
        "x[2,3] | B[3,2] c[2] | h = Gemm(x, B, c) k = Constant<value = double[2] {2.0, -3.0}>() "
        "l = Constant<value = double[1,2] {1.0, 5.0}>() m = Mul(h, k) y = Add(l, m)",
        "Gemm",
    ),
    "a constant from ConstantOfShape": Case(
        f"{_CONV} z={{4,1,1}} | h = Conv(x, W, b) k = ConstantOfShape<value = double[1] {{2.5}}>(z) y = Mul(h, k)",
        "Conv | Conv ConstantOfShape Mul",
    ),
    "channels last, between two transpositions": Case(
        f"{_CONV} s[4] t[4] | h = Conv(x, W, b) p = Transpose<perm=[0,2,3,1]>(h) m = Mul(p, s) a = Add(m, t) "
        "y = Transpose<perm=[0,3,1,2]>(a)",
        "Conv Transpose Transpose",
    ),
    "a Sum with a constant": Case(f"{_CONV} t[4,1,1] | h = Conv(x, W, b) y = Sum(h, t)", "Conv | Conv Sum"),
    "an Add behind a MatMul is its bias": Case(
        "x[2,5,3] | B[3,4] c[4] s[4] t[4] | h = MatMul(x, B) a = Add(h, c) m = Mul(a, s) y = Add(t, m)", "MatMul Add"
    ),
    "a chain of ten": Case(
        f"{_CONV} p[4,1,1] q[4,1,1] r[4,1,1]={{2,3,-4,5}} | h = Conv(x, W, b) a = Mul(h, p) c = Add(a, q) d = "
        f"Div(c, r) "
        "e = Neg(d) f = Sub(q, e) g = Sub(f, p) i = BN4(g) j = Mul(r, i) k = Neg(j) y = Add(k, k2)".replace("k2", "q"),
        "Conv",
    ),
    "a batch norm in front and behind, taken apart": Case(
        "x[1,3,6,6] | W[4,3,3,3] s[3,1,1] t[3,1,1] u[4,1,1] v[4,1,1] | m = Mul(x, s) a = Add(m, t) h = Conv(a, W) "
        "n = Mul(h, u) y = Add(n, v)",
        "Conv",
    ),
}
