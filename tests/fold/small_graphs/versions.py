"""Operators as older operator sets spell them: attributes for what are inputs today, and broadcasting that was said."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"


def _old(graph: str, after: str, why: tuple[str, ...] = (), *, opset: int = 9, element: str = "double") -> Case:
    return Case(graph, after, why, opset=opset, ir_version=3 if opset < 9 else 4, element=element)


_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"
_BN6 = "BatchNormalization<is_test=1>(h, g, o, m, var)"

CASES: Cases = {
    "Squeeze by an attribute, backward": _old(
        "x[2,3,9,1] | W[4,3,3,1] | h = Conv(x, W) q = Squeeze<axes=[3]>(h) y = BN4(q)", "Conv Squeeze"
    ),
    "Unsqueeze by an attribute, forward": _old(
        "x[2,3] | W[4,3,1,1] | n = BN3(x) q = Unsqueeze<axes=[2,3]>(n) y = Conv(q, W)", "Conv Unsqueeze"
    ),
    "Slice by attributes, backward": _old(
        f"{_CONV} | h = Conv(x, W, b) c = Slice<axes=[1], starts=[1], ends=[-1]>(h) y = BN2(c)", "Conv Slice"
    ),
    "Slice by attributes without axes, forward": _old(
        "x[1,3,6,6] | W[4,2,3,3] | n = BN3(x) c = Slice<starts=[0,1], ends=[1,9]>(n) y = Conv(c, W)", "Conv Slice"
    ),
    "Split by an attribute, backward": _old(
        "x[1,3,6,6] -> y z | W[6,3,3,3] | h = Conv(x, W) a, z = Split<axis=1, split=[4,2]>(h) y = BN4(a)", "Conv Split"
    ),
    "Split into equal parts, forward": _old(
        "x[1,6,6,6] -> y z | W[4,3,3,3] V[2,3,1,1] | n = BN6(x) a, b = Split<axis=1>(n) y = Conv(a, W) z = Conv(b, V)",
        "Split Conv Conv",
    ),
    "Pad by attributes, with zeros, one batch norm for all": _old(
        f"{_CONV} | h = Conv(x, W, b) p = Pad<pads=[0,0,1,1,0,0,1,1]>(h) y = UBN4(p)", "Conv Pad | Conv Pad Add"
    ),
    "Pad by attributes, with a number, a scale": _old(
        f"{_CONV} k[]=2.0 | h = Conv(x, W, b) p = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(h) y = Mul(p, k)",
        "Conv Pad | Conv Pad Mul",
    ),
    "Pad by attributes, reflected, forward": _old(
        'x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) p = Pad<mode="reflect", pads=[0,0,1,1,0,0,1,1]>(n) y = Conv(p, W)',
        "Pad Conv",
    ),
    "ReduceSum by an attribute, backward": _old(
        f"{_CONV} | h = Conv(x, W, b) p = ReduceSum<axes=[2,3]>(h) y = BN4(p)", "Conv ReduceSum"
    ),
    "ReduceMean of the channels, one map for all": _old(
        "x[2,3] | V[1,4] w[4] s[]=2.0 t[]=0.5 | a = Mul(x, s) c = Add(a, t) p = ReduceMean<axes=[1]>(c) y = "
        "Gemm(p, V, w)",
        "ReduceMean Gemm",
    ),
    "Upsample by an attribute, backward": _old(
        f'{_CONV} | h = Conv(x, W, b) u = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(h) y = BN4(u)',
        "Conv Upsample",
        opset=7,
    ),
    "Clip by attributes, forward, one map for all": _old(
        "x[1,3,6,6] | W[4,3,3,3] | n = UBN3(x) c = Clip<min=-1.0, max=1.0>(n) y = Conv(c, W)",
        f"{BN} Clip Conv",
        ("no-rule",),
    ),
    "Clip by attributes, without an upper bound, a batch norm": _old(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=0.0>(h) y = PBN4(c)", "Conv Max | Conv Clip Add"
    ),
    "Clip by attributes in float32, forward, one map for all": _old(
        "x[1,3,6,6] | W[4,3,3,3] | n = UBN3(x) c = Clip<min=-1.0, max=1.0>(n) y = Conv(c, W)",
        "Clip Conv",
        opset=7,
        element="float",
    ),
    "Clip by attributes in float32, backward, one map for all": _old(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=-1.0, max=1.0>(h) y = UBN4(c)",
        "Conv Clip",
        opset=7,
        element="float",
    ),
    "Clip by attributes in float16, backward, one map for all": _old(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=-1.0, max=1.0>(h) y = UBN4(c)",
        "Conv Clip",
        opset=8,
        element="float16",
    ),
    "Clip by one attribute, backward, twice one map for all, one of each below zero": _old(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<max=0.5>(h) i = UBN4(c) y = UBN4(i)",
        "Conv Clip",
        opset=7,
        element="float",
    ),
    "Clip by attributes, of both sides of it one map for all, in powers of two": _old(
        f"{_CONV} s[]=2.0 t[]=0.5 V[2,4,2,2] | h = Conv(x, W, b) m = Mul(h, s) a = Add(m, t) "
        "c = Clip<min=0.0, max=6.0>(a) n = Mul(c, s) y = Sub(n, t)",
        "Conv Clip",
        opset=7,
    ),
    "Clip by attributes, first one map for all, then one for each channel": _old(
        f"{_CONV} s[]=2.0 t[]=0.5 | h = Conv(x, W, b) c = Clip<min=0.0, max=6.0>(h) m = Mul(c, s) a = Add(m, t) "
        "d = Dropout(a) y = PBN4(d)",
        "Conv Max Min Dropout",
        opset=8,
    ),
    "Clip by attributes in float32, one map for all that goes beyond float32": _old(
        f"{_CONV} s[]=1e30 t[]=1e30 | h = Conv(x, W, b) c = Clip<min=0.0, max=1e10>(h) m = Mul(c, s) y = Add(m, t)",
        "Conv Clip Mul",
        opset=9,
        element="float",
    ),
    "Pad by attributes in float32, with zeros, one batch norm for all, forward": _old(
        "x[1,3,6,6] | W[4,3,3,3] | n = UBN3(x) p = Pad<pads=[0,0,1,1,0,0,1,1]>(n) y = Conv(p, W)",
        "Pad Conv",
        opset=7,
        element="float",
    ),
    "Pad by attributes in float32, with a number, one batch norm for all, backward": _old(
        f"{_CONV} | h = Conv(x, W, b) p = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(h) y = UBN4(p)",
        "Conv Pad",
        opset=7,
        element="float",
    ),
    "Pad by attributes, with a number, one map for all in powers of two": _old(
        f"{_CONV} s[]=2.0 t[]=0.5 | h = Conv(x, W, b) p = Pad<pads=[0,0,1,1,0,0,1,1], value=0.25>(h) m = Mul(p, s) "
        "y = Add(m, t)",
        "Conv Pad",
        opset=10,
    ),
    "Pad by attributes, behind a convolution, a map for each channel": _old(
        f"{_CONV} | h = Conv(x, W, b) p = Pad<pads=[0,0,1,1,0,0,1,1]>(h) y = BN4(p)",
        "Conv Pad Add",
        opset=10,
    ),
    "Pad by attributes of channels, a map that is none where they join": _old(
        f"{_CONV} s[6,1,1]={{1,3,-2,4,5,1}} t[6,1,1]={{0,1,2,3,4,0}} | h = Conv(x, W, b) "
        "p = Pad<pads=[0,1,0,0,0,1,0,0]>(h) m = Mul(p, s) y = Add(m, t)",
        "Conv Pad",
        opset=9,
    ),
    "Dropout with a ratio, forward": _old(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) d = Dropout<ratio=0.3>(n) y = Conv(d, W)", "Dropout Conv", opset=10
    ),
    "opset 7, a Relu: Max did not broadcast": _old(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = PBN4(r)", "Conv Relu Add", opset=7
    ),
    "opset 8, a Relu": _old(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = PBN4(r)", "Conv Max | Conv Relu Add", opset=8
    ),
    "opset 6, Dropout that is told to test": _old(
        f"x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] g[4] o[4] m[4] var[4] | k = Conv(x, W) h = Dropout<is_test=1>(k) "
        f"y = {_BN6}",
        "Conv Dropout",
        opset=6,
    ),
    "opset 6, in front of a Clip, one map for all": _old(
        "float:x[1,3,6,6] -> float:y[1,4,4,4] | W[4,3,3,3] g[3]={2,2,2} o[3]={1,1,1} m[3]={3,3,3} var[3]={4,4,4} | "
        "n = BatchNormalization<is_test=1>(x, g, o, m, var) c = Clip<min=-1.0, max=1.0>(n) y = Conv(c, W)",
        "Clip Conv",
        opset=6,
        element="float",
    ),
    "opset 6, behind a Pad, one map for all": _old(
        "x[1,3,6,6] -> y[1,4,6,6] | W[4,3,3,3] g[4]={2,2,2,2} o[4]={1,1,1,1} m[4]={3,3,3,3} var[4]={4,4,4,4} | "
        "k = Conv(x, W) h = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(k) "
        "y = BatchNormalization<is_test=1>(h, g, o, m, var)",
        "Conv Pad",
        opset=6,
        element="float",
    ),
    "opset 6, in front of a padded convolution": _old(
        "x[1,3,6,6] -> y[1,4,6,6] | W[4,3,3,3] g[3] o[3] m[3] var[3] | "
        "n = BatchNormalization<is_test=1>(x, g, o, m, var) y = Conv<pads=[1,1,1,1]>(n, W)",
        "Add Conv",
        opset=6,
    ),
    "opset 6, in front of a padded convolution, one shift for all": _old(
        "x[1,3,6,6] -> y[1,4,6,6] | W[4,3,3,3] g[3]={2,2,2} o[3]={1,1,1} m[3]={3,3,3} var[3]={4,4,4} | "
        "n = BatchNormalization<is_test=1>(x, g, o, m, var) y = Conv<pads=[1,1,1,1]>(n, W)",
        "Add Conv",
        opset=6,
    ),
    "opset 6, behind a MatMul": _old(
        f"x[2,3] -> y[2,4] | B[3,4] g[4] o[4] m[4] var[4] | h = MatMul(x, B) y = {_BN6}", "MatMul Add", opset=6
    ),
    "opset 6, on both sides of a MatMul, a constant Add behind it": _old(
        "x[2,3] -> y[2,4] | B[3,4] c[4] g[3] o[3] m[3] var[3] | n = BatchNormalization<is_test=1>(x, g, o, m, var) "
        "h = MatMul(n, B) y = Add<broadcast=1>(h, c)",
        "MatMul Add | MatMul Add Add",
        opset=6,
    ),
    "opset 6, three batch norms around a MatMul": _old(
        "x[2,3] -> y[2,4] | B[3,4] g[3] o[3] m[3] var[3] h1[4] h2[4] h3[4] var2[4] | "
        "n = BatchNormalization<is_test=1>(x, g, o, m, var) h = MatMul(n, B) "
        "i = BatchNormalization<is_test=1>(h, h1, h2, h3, var2) d = Dropout<is_test=1>(i) "
        "y = BatchNormalization<is_test=1>(d, h2, h3, h1, var2)",
        "MatMul Add Dropout",
        opset=6,
    ),
    "opset 6, behind a MatMul of a constant on the left": _old(
        f"x[2,5,3] -> y[2,4,3] | A[4,5] g[4] o[4] m[4] var[4] | h = MatMul(A, x) y = {_BN6}",
        "MatMul Add",
        opset=6,
    ),
    "opset 6, behind a MatMul of a constant on the left for each image": _old(
        f"x[2,5,3] -> y[2,4,3] | A[2,4,5] g[4] o[4] m[4] var[4] | h = MatMul(A, x) y = {_BN6}",
        "MatMul Add",
        opset=6,
    ),
    "opset 6, behind and in front of a MatMul of matrices for each image": _old(
        "x[2,3,4] -> y[2,3,4] | A[2,3,3] g[3] o[3] m[3] var[3] | n = BatchNormalization<is_test=1>(x, g, o, m, var) "
        "h = MatMul(A, n) y = BatchNormalization<is_test=1>(h, o, g, m, var)",
        f"MatMul Add | {BN} MatMul Add",
        ("no-gain",),
        opset=6,
    ),
    "opset 6, behind a padding": _old(
        f"x[1,3,6,6] -> y[1,4,6,6] | W[4,3,3,3] g[4] o[4] m[4] var[4] | k = Conv(x, W) "
        f"h = Pad<pads=[0,0,1,1,0,0,1,1]>(k) y = {_BN6}",
        "Conv Pad Add",
        opset=6,
    ),
    "opset 6, a sum along an axis, of two convolutions": _old(
        f"x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] V[4,3,3,3] g[4] o[4] m[4] var[4] | k = Conv(x, W) l = Conv(x, V) "
        f"h = Add(k, l) y = {_BN6}",
        "Conv Conv Add | Conv",
        opset=6,
    ),
    "opset 6, Sub, Div, Mul, Add along an axis": _old(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] m[4] var[4] s[4] t[4] | h = Conv(x, W) i = Sub<broadcast=1, "
        "axis=1>(h, m) "
        "j = Div<broadcast=1, axis=1>(i, var) k = Mul<broadcast=1, axis=1>(j, s) y = Add<broadcast=1, axis=1>(k, t)",
        "Conv",
        opset=6,
    ),
    "opset 6, Mul by what lies along the width": _old(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] s[4] | h = Conv(x, W) y = Mul<broadcast=1>(h, s)", "Conv Mul", opset=6
    ),
    "opset 6, Gemm that says that C broadcasts": _old(
        f"x[2,3] -> y[2,4] | B[3,4] c[1] g[4] o[4] m[4] var[4] | h = Gemm<broadcast=1>(x, B, c) y = {_BN6}",
        "Gemm",
        opset=6,
    ),
    "opset 6, a batch norm that trains": _old(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] g[4] o[4] m[4] var[4] | h = Conv(x, W) "
        "y = BatchNormalization(h, g, o, m, var)",
        f"Conv {BN}",
        ("training-mode",),
        opset=6,
    ),
    "opset 9, a batch norm that gives out the statistics of its batch": _old(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] g[4] o[4] m[4] var[4] | h = Conv(x, W) "
        "y, mo, vo, so, to = BatchNormalization(h, g, o, m, var)",
        f"Conv {BN}",
        ("training-mode",),
    ),
}
