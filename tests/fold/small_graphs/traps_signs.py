"""Graphs in which a sign, a zero, a pad or a bound decides: what would be wrong stays, the rest is right."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"
_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"

CASES: Cases = {
    "a scale of either sign behind a Relu": Case(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = BN4(r)", f"Conv Relu {BN}", ("sign",)
    ),
    "a scale of either sign in front of a Relu": Case(
        "x[1,4,6,6] | W[4,4,3,3] | n = BN4(x) r = Relu(n) y = Conv(r, W)", f"{BN} Relu Conv", ("sign",)
    ),
    "a negative scale for all, behind a Relu": Case(
        f"{_CONV} k[]=-2.0 | h = Conv(x, W, b) r = Relu(h) y = Mul(r, k)", "Conv Relu Mul"
    ),
    "a scale of zero behind a Relu": Case(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = ZBN4(r)", f"Conv Max | Conv Relu Add | Conv Relu {BN}"
    ),
    "a scale of either sign behind a MaxPool": Case(
        f"{_CONV} | h = Conv(x, W, b) p = MaxPool<kernel_shape=[2,2]>(h) y = BN4(p)", f"Conv MaxPool {BN}", ("sign",)
    ),
    "a scale of either sign in front of a MaxPool": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) p = MaxPool<kernel_shape=[2,2]>(n) y = Conv(p, W)",
        f"{BN} MaxPool Conv",
        ("sign",),
    ),
    "a MaxPool that tells where it found its maxima": Case(
        "x[1,3,6,6] -> y int64:i | W[4,3,3,3] | h = Conv(x, W) p, i = MaxPool<kernel_shape=[2,2]>(h) y = PBN4(p)",
        f"Conv MaxPool {BN}",
        ("no-rule",),
    ),
    "a scale of either sign behind a LeakyRelu": Case(
        f"{_CONV} | h = Conv(x, W, b) r = LeakyRelu(h) y = BN4(r)", f"Conv LeakyRelu {BN}", ("sign",)
    ),
    "a scale of either sign behind a Clip": Case(
        f"{_CONV} lo[]=0.0 hi[]=6.0 | h = Conv(x, W, b) r = Clip(h, lo, hi) y = BN4(r)", f"Conv Clip {BN}", ("sign",)
    ),
    "a negative scale for all behind a Clip": Case(
        f"{_CONV} lo[]=0.0 hi[]=6.0 k[]=-2.0 | h = Conv(x, W, b) r = Clip(h, lo, hi) y = Mul(r, k)",
        "Conv Clip Mul | Conv Clip",
    ),
    "a Clip whose bound is computed": Case(
        "x[1,3,6,6] hi[] | W[4,3,3,3] lo[]=0.0 | h = Conv(x, W) r = Clip(h, lo, hi) y = PBN4(r)",
        f"Conv Clip {BN}",
        ("no-rule",),
    ),
    "a Clip whose lower bound is above its upper one": Case(
        f"{_CONV} lo[]=2.0 hi[]=-1.0 | h = Conv(x, W, b) r = Clip(h, lo, hi) y = PBN4(r)",
        "Conv Max Min",
    ),
    "two bounds, scales of both signs": Case(
        f"{_CONV} lo[]=0.0 hi[]=6.0 | h = Conv(x, W, b) r = Clip(h, lo, hi) y = BN4(r)", f"Conv Clip {BN}", ("sign",)
    ),
    "in front of a padded convolution, a channel that becomes 0": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={1,0,2} o[3]={3,0,-1} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "y = Conv<pads=[1,1,1,1]>(n, W)",
        "Add Conv",
    ),
    "in front of a padded convolution, a channel that becomes 3": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={1,0,2} o[3]={0,3,-1} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "y = Conv<pads=[1,1,1,1]>(n, W)",
        f"{BN} Conv",
        ("padded-shift",),
    ),
    "behind a sum and in front of a rectifier, a channel that becomes 0": Case(
        "x[1,3,6,6] -> y z | U[4,3,1,1] u[4] W[4,4,3,3] V[4,4,1,1] v[4] g[4]={1,0,2,3} o[4]={3,0,-1,1} m[4] "
        "var[4]={1,2,3,4} | s = Conv(x, U, u) n = BatchNormalization(s, g, o, m, var) r = Relu(n) "
        "y = Conv<pads=[1,1,1,1]>(r, W) z = Conv(s, V, v)",
        "Conv Conv Conv Relu",
    ),
    "behind a sum and in front of a rectifier, a channel that becomes 3": Case(
        "x[1,3,6,6] -> y z | U[4,3,1,1] u[4] W[4,4,3,3] V[4,4,1,1] v[4] g[4]={1,0,2,3} o[4]={0,3,-1,1} m[4] "
        "var[4]={1,2,3,4} | s = Conv(x, U, u) n = BatchNormalization(s, g, o, m, var) r = Relu(n) "
        "y = Conv<pads=[1,1,1,1]>(r, W) z = Conv(s, V, v)",
        f"Conv Conv Conv {BN} Relu",
        ("used-elsewhere",),
    ),
    "two Clips in a row, which would be four operations": Case(
        f"{_CONV} lo[]=0.0 hi[]=0.6 low[]=0.1 | h = Conv(x, W, b) c = Clip(h, lo, hi) d = Clip(c, low, hi) y = PBN4(d)",
        f"Conv Clip Clip {BN}",
        ("no-rule",),
    ),
    "two Clips in a row, one of which becomes a Max": Case(
        f"{_CONV} lo[]=0.0 hi[]=0.6 low[]=0.1 | h = Conv(x, W, b) c = Clip(h, lo, hi) d = Clip(c, low) y = PBN4(d)",
        "Conv Max Min Max",
    ),
    "a LeakyRelu of a negative slope": Case(
        f"{_CONV} | h = Conv(x, W, b) r = LeakyRelu<alpha=-0.5>(h) y = PBN4(r)", "Conv LeakyRelu Add"
    ),
    "a PRelu whose slope is computed": Case(
        "x[1,3,6,6] p[4,1,1] | W[4,3,3,3] s[4,1,1]={1,2,3,4} | h = Conv(x, W) r = PRelu(h, p) y = Mul(r, s)",
        "Conv PRelu | Conv PRelu Mul",
    ),
    "the slope of a PRelu": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) n = BN4(h) y = PRelu(z, n)", "Conv PRelu"
    ),
    "a sigmoid": Case(f"{_CONV} | h = Conv(x, W, b) s = Sigmoid(h) y = BN4(s)", f"Conv Sigmoid {BN}", ("no-rule",)),
    "HardSwish in front of a padded convolution": Case(
        f"{_CONV} V[2,4,3,3] | h = Conv(x, W, b) s = HardSwish(h) n = BN4(s) y = Conv<pads=[1,1,1,1]>(n, V)",
        "Conv HardSwish Conv Add",
    ),
    "Gelu": Case(f"{_CONV} | h = Conv(x, W, b) s = Gelu(h) y = BN4(s)", f"Conv Gelu {BN}", ("no-rule",)),
    "Softmax over the channels": Case(
        f"{_CONV} | h = Conv(x, W, b) s = Softmax<axis=1>(h) y = BN4(s)", f"Conv Softmax {BN}", ("no-rule",)
    ),
    "a Softmax over the positions, whose shift does not matter but whose scale does": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) s = Softmax<axis=2>(n) y = Conv(s, W)", f"{BN} Softmax Conv", ("no-rule",)
    ),
    "a quotient with the constant above": Case(f"{_CONV} c[4,1,1] | h = Conv(x, W, b) y = Div(c, h)", "Conv Div"),
    "a power is no product": Case(f"{_CONV} c[4,1,1]={{1,2,3,2}} | h = Conv(x, W, b) y = Pow(h, c)", "Conv Pow"),
    "a division by zero": Case(f"{_CONV} c[4,1,1]={{1,0,2,3}} | h = Conv(x, W, b) y = Div(h, c)", "Conv Div"),
    "a quotient of integers": Case(
        "int32:x[2,3] -> int32:y | int32:c[]=3 int32:d[]=2 | h = Div(x, c) y = Mul(h, d)", "Div Mul"
    ),
    "a scale of zero in front of a Relu": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={0,0.5,2} o[3]={1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = Relu(n) y = Conv(r, W)",
        "Add Relu Conv",
    ),
    "a scale of zero in front of a Relu that stops its shift, in front of pads": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={0,0.5,2} o[3]={-1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = Relu(n) y = Conv<pads=[1,1,1,1]>(r, W)",
        "Add Relu Conv",
    ),
    "a scale of zero in front of a Relu, and then of pads": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={0,0.5,2} o[3]={1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = Relu(n) y = Conv<pads=[1,1,1,1]>(r, W)",
        f"{BN} Relu Conv",
        ("no-rule",),
    ),
    "scales of zero alone in front of a LeakyRelu": Case(
        "x[1,3,6,6] | W[4,3,3,3] g[3]={0,0,0} o[3]={-1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = LeakyRelu<alpha=0.25>(n) y = Conv(r, W)",
        "LeakyRelu Conv",
    ),
    "a scale of zero in front of two readers that differ": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[3,3,1,1] g[3]={0,0.5,2} o[3]={-1,2,3} m[3] var[3] | "
        "n = BatchNormalization(x, g, o, m, var) r = Relu(n) l = LeakyRelu(n) p = MaxPool<kernel_shape=[2,2]>(l) "
        "y = Conv(r, W) z = Conv(p, V)",
        "Add Relu LeakyRelu MaxPool Conv Conv",
    ),
    "a scale of zero in front of a Relu and of a sigmoid": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] g[3]={0,0.5,2} o[3]={-1,2,3} m[3] var[3] | "
        "n = BatchNormalization(x, g, o, m, var) r = Relu(n) z = Sigmoid(n) y = Conv(r, W)",
        f"{BN} Relu Sigmoid Conv",
        ("no-rule",),
    ),
    "a scale of zero in front of a Relu and of a model's output": Case(
        "x[1,3,6,6] -> y n | W[4,3,3,3] g[3]={0,0.5,2} o[3]={-1,2,3} m[3] var[3] | "
        "n = BatchNormalization(x, g, o, m, var) r = Relu(n) y = Conv(r, W)",
        f"{BN} Relu Conv",
        ("model-output",),
    ),
    "a scale of zero in front of a Relu whose value is a model's output": Case(
        "x[1,3,6,6] -> y r | W[4,3,3,3] g[3]={0,0.5,2} o[3]={1,2,3} m[3] var[3] | "
        "n = BatchNormalization(x, g, o, m, var) r = Relu(n) y = Conv(r, W)",
        f"{BN} Relu Conv",
        ("no-rule",),
    ),
    "a scale of zero in front of an Abs and a dense layer": Case(
        "x[2,3] | B[3,4] c[4] g[3]={0,-0.5,2} o[3]={-1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = Abs(n) y = Gemm(r, B, c)",
        "Add Abs Gemm",
    ),
    "a scale of zero and a negative one in front of a Relu": Case(
        "x[2,3] | B[3,4] c[4] g[3]={0,-0.5,2} o[3]={-1,2,3} m[3] var[3] | n = BatchNormalization(x, g, o, m, var) "
        "r = Relu(n) y = Gemm(r, B, c)",
        f"{BN} Relu Gemm",
        ("no-rule",),
    ),
    "a scale of zero in front of a convolution": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] | n = ZBN3(x) y = Conv(n, W, b)", "Conv"
    ),
    "a constant less a value, and the constant again": Case(
        f"{_CONV} c[4,1,1] | h = Conv(x, W, b) d = Sub(c, h) y = Add(d, c)", "Conv"
    ),
    "a variance below minus epsilon": Case(
        f"{_CONV} g[4] o[4] m[4] v[4]={{1,1,-1,1}} | h = Conv(x, W, b) i = BatchNormalization(h, g, o, m, v) "
        f"y = Identity(b)",
        f"Conv {BN} Identity",
        ("variance-not-positive",),
    ),
    "a variance of minus epsilon": Case(
        f"{_CONV} g[4] o[4] m[4] v[4]={{1,0,-0.5,1}} | h = Conv(x, W, b) "
        "i = BatchNormalization<epsilon=0.5>(h, g, o, m, v) y = Identity(b)",
        f"Conv {BN} Identity",
        ("variance-not-positive",),
    ),
    "weights at the end of their range, and a scale of either sign": Case(
        "x[1,2,4,4] | int8:q[4,2,1,1]={-128,127,-128,3,5,-128,7,8} d[]=0.02 | W = DequantizeLinear(q, d) h = "
        "Conv(x, W) "
        "y = BN4(h)",
        f"DequantizeLinear Conv {BN}",
        ("out-of-range",),
        element="float",
    ),
    "weights at the end of their range, and positive scales": Case(
        "x[1,2,4,4] | int8:q[4,2,1,1]={-128,127,-128,3,5,-128,7,8} d[]=0.02 | W = DequantizeLinear(q, d) h = "
        "Conv(x, W) "
        "y = PBN4(h)",
        "DequantizeLinear Conv",
        element="float",
    ),
    "an activation that is quantised and back": Case(
        "x[1,3,6,6] | W[4,3,3,3] d[]=0.05 uint8:z[]=128 | h = Conv(x, W) q = QuantizeLinear(h, d, z) "
        "i = DequantizeLinear(q, d, z) y = BN4(i)",
        f"Conv QuantizeLinear DequantizeLinear {BN}",
        ("no-rule",),
        element="float",
    ),
    "a weight that is quantised when the model runs": Case(
        "x[1,3,6,6] int8:q[4,3,3,3] | d[]=0.02 | W = DequantizeLinear(q, d) h = Conv(x, W) y = BN4(h)",
        f"DequantizeLinear Conv {BN}",
        ("dynamic-weight",),
        element="float",
    ),
    "a value that half precision cannot hold": Case(
        f"{_CONV} float:g[4]={{1e6,1,1,1}} float:o[4] float:m[4] float:var[4] | h = Conv(x, W, b) "
        "y = BatchNormalization(h, g, o, m, var)",
        f"Conv {BN}",
        ("out-of-range",),
        element="float16",
    ),
    "a value that vanishes in half precision": Case(
        f"{_CONV} float:g[4]={{1e-9,1,1,1}} float:o[4] float:m[4] float:var[4] | h = Conv(x, W, b) "
        "y = BatchNormalization(h, g, o, m, var)",
        f"Conv {BN}",
        ("out-of-range",),
        element="float16",
    ),
    "Resize that crops, and fills with a number": Case(
        "x[1,3,6,6] | W[4,3,3,3] float:roi[8]={0,0,0,0,1,1,1.5,1.5} n={1,3,6,6} | i = BN3(x) "
        'z = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=10.0>'
        "(i, roi, _, n) y = Conv(z, W)",
        f"{BN} Resize Conv",
        ("padded-shift",),
    ),
    "Resize over the channels": Case(
        'x[1,3,6,6] | W[4,6,3,3] float:k[4]={1,2,1,1} | i = BN3(x) z = Resize<mode="linear">(i, _, k) y = Conv(z, W)',
        f"{BN} Resize Conv",
        ("scrambled-channel",),
    ),
    "Pad of the channels with zeros": Case(
        "x[1,3,6,6] | W[4,5,3,3] p={0,1,0,0,0,1,0,0} | n = BN3(x) z = Pad(n, p) y = Conv(z, W)", "Pad Conv"
    ),
    "Pad with a number in front of a convolution, a batch norm with a shift": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} v[]=0.5 | n = BN3(x) z = Pad(n, p, v) y = Conv(z, W)",
        f"{BN} Pad Conv",
        ("padded-shift",),
    ),
    "Pad with a number that a caller names": Case(
        "x[1,3,6,6] v[] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} | h = Conv(x, W) z = Pad(h, p, v) y = UBN4(z)",
        f"Conv Pad {BN}",
        ("no-rule",),
    ),
    "AveragePool with pads that count, a shift, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], "
        f"count_include_pad=1>(h) y = BN4(p)",
        "Conv AveragePool Add",
    ),
    "LpPool, a negative scale behind": Case(
        f"{_CONV} s[4,1,1]={{1,-2,3,4}} | h = Conv(x, W, b) p = LpPool<kernel_shape=[2,2]>(h) y = Mul(p, s)",
        "Conv LpPool Mul",
    ),
    "a padded convolution of one column": Case(
        "x[1,3,1,6] | W[4,3,3,1] | n = BN3(x) y = Conv<pads=[1,0,1,0]>(n, W)", "Conv | Conv Add"
    ),
}
