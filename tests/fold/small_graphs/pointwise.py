"""Functions of one element, pooling, resizing and padding: what a batch norm passes if its sign and its shift allow."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"

CASES: Cases = {
    "Relu, backward, becomes Max": Case(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = PBN4(r)", "Conv Max | Conv Relu Add"
    ),
    "Relu, a positive scale, backward": Case(
        f"{_CONV} s[4,1,1]={{0.5,2,1,3}} | h = Conv(x, W, b) r = Relu(h) y = Mul(r, s)", "Conv Relu"
    ),
    "Relu, forward, a positive scale": Case(
        "x[1,3,6,6] | W[4,3,3,3] s[3,1,1]={0.5,2,1} | n = Mul(x, s) r = Relu(n) y = Conv<pads=[1,1,1,1]>(r, W)",
        "Relu Conv",
    ),
    "Relu, forward, a batch norm": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = PBN3(x) r = Relu(n) y = Conv(r, W)", "Max Conv | Add Relu Conv"
    ),
    "Relu between two convolutions, in front of an unpadded one": Case(
        f"{_CONV} V[2,4,2,2] | h = Conv(x, W, b) r = Relu(h) n = BN4(r) y = Conv(n, V)", "Conv Relu Conv"
    ),
    "LeakyRelu, a positive scale, backward": Case(
        f"{_CONV} s[4,1,1]={{0.5,2,1,3}} | h = Conv(x, W, b) r = LeakyRelu<alpha=0.3>(h) y = Mul(r, s)",
        "Conv LeakyRelu",
    ),
    "LeakyRelu, a batch norm becomes an Add": Case(
        f"{_CONV} | h = Conv(x, W, b) r = LeakyRelu<alpha=0.3>(h) y = PBN4(r)", "Conv LeakyRelu Add"
    ),
    "PRelu, a positive scale, backward": Case(
        f"{_CONV} p[4,1,1] s[4,1,1]={{0.5,2,1,3}} | h = Conv(x, W, b) r = PRelu(h, p) y = Mul(r, s)", "Conv PRelu"
    ),
    "PRelu, a positive scale, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] p[1] s[3,1,1]={0.5,2,1} | n = Mul(x, s) r = PRelu(n, p) y = "
        "Conv<pads=[1,1,1,1]>(r, W)",
        "PRelu Conv",
    ),
    "Clip with its bounds, one scale for all, backward": Case(
        f"{_CONV} lo[]=0.0 hi[]=6.0 s[]=2.0 t[]=0.5 | h = Conv(x, W, b) c = Clip(h, lo, hi) m = Mul(c, s) y = "
        f"Add(m, t)",
        "Conv Clip",
    ),
    "Clip, a batch norm, backward": Case(
        f"{_CONV} lo[]=0.0 hi[]=6.0 | h = Conv(x, W, b) c = Clip(h, lo, hi) y = PBN4(c)",
        "Conv Max Min",
    ),
    "Clip, two batch norms behind it, and a pool between them": Case(
        f"{_CONV} lo[]=0.0 hi[]=0.6 | h = Conv(x, W, b) c = Clip(h, lo, hi) n = PBN4(c) "
        f"p = MaxPool<kernel_shape=[2,2]>(n) y = PBN4(p)",
        "Conv Max Min MaxPool",
    ),
    "Clip, some scale zero, backward": Case(
        f"{_CONV} g[4]={{1,0,2,3}} o[4] m[4] var[4] lo[]=0.0 hi[]=0.6 | h = Conv(x, W, b) c = Clip(h, lo, hi) "
        f"y = BatchNormalization(c, g, o, m, var)",
        "Conv Max Min",
    ),
    "Clip, one of its bounds reached by a negative lower one": Case(
        f"{_CONV} lo[1]=-0.4 hi[1]=0.3 | h = Conv(x, W, b) c = Clip(h, lo, hi) y = PBN4(c)",
        "Conv Max Min",
        element="float16",
    ),
    "Clip by attributes, two bounds, a batch norm": Case(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=-0.2, max=0.6>(h) y = PBN4(c)", "Conv Max Min", opset=8, ir_version=3
    ),
    "Clip by attributes, two bounds, a batch norm, where Max does not broadcast": Case(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=-0.2, max=0.6>(h) y = PBN4(c)",
        "Conv Clip BatchNormalization",
        ("no-rule",),
        opset=7,
        ir_version=3,
    ),
    "channels last between a Clip and its batch norm": Case(
        f"{_CONV} lo[]=0.0 hi[]=0.6 | h = Conv(x, W, b) c = Clip(h, lo, hi) i = Transpose<perm=[0,2,3,1]>(c) "
        f"j = Transpose<perm=[0,3,1,2]>(i) y = PBN4(j)",
        "Conv Max Min Transpose Transpose",
    ),
    "Clip with its bounds as attributes, one batch norm for all, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) c = Clip<min=0.0, max=6.0>(h) y = UBN4(c)",
        "Conv Max Min",
        opset=9,
        ir_version=4,
    ),
    "Clip without an upper bound, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] lo[]=0.5 s[]=2.0 t[]=0.5 | m = Mul(x, s) a = Add(m, t) c = Clip(a, lo) y = Conv(c, W)",
        "Clip Conv",
    ),
    "Clip without bounds, scales of both signs": Case(
        f"{_CONV} | h = Conv(x, W, b) c = Clip(h) y = BN4(c)", "Conv Clip"
    ),
    "Clip with an upper bound only, backward": Case(
        f"{_CONV} hi[]=6.0 | h = Conv(x, W, b) c = Clip(h, _, hi) y = PBN4(c)",
        "Conv Min",
    ),
    "Max with a constant, backward": Case(
        f"{_CONV} k[4,1,1] | h = Conv(x, W, b) c = Max(h, k) y = PBN4(c)", "Conv Max"
    ),
    "Min of a value and a constant, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[3,1,1] | n = PBN3(x) c = Min(k, n) y = Conv(c, W)", "Min Conv"
    ),
    "MaxPool, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h) y = PBN4(p)", "Conv MaxPool"
    ),
    "MaxPool with pads, rounding up, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], ceil_mode=1>(h) "
        "y = PBN4(p)",
        "Conv MaxPool",
    ),
    "MaxPool, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = PBN3(x) p = MaxPool<kernel_shape=[2,2], pads=[1,1,1,1]>(n) y = Conv(p, W)",
        "MaxPool Conv",
    ),
    "MaxPool and Relu, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) r = Relu(h) p = MaxPool<kernel_shape=[2,2]>(r) y = PBN4(p)",
        "Conv Max MaxPool | Conv Relu MaxPool Add",
    ),
    "GlobalMaxPool, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = GlobalMaxPool(h) y = PBN4(p)", "Conv GlobalMaxPool"
    ),
    "AveragePool, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = AveragePool<kernel_shape=[2,2]>(h) y = BN4(p)", "Conv AveragePool"
    ),
    "AveragePool, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) p = AveragePool<kernel_shape=[2,2], strides=[2,1]>(n) y = Conv(p, W)",
        "AveragePool Conv",
    ),
    "AveragePool with pads that do not count, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(h) y = BN4(p)",
        "Conv AveragePool",
    ),
    "AveragePool, SAME, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) "
        'p = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(n) y = Conv(p, W)',
        "AveragePool Conv",
    ),
    "AveragePool that rounds up, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(h) y = BN4(p)",
        "Conv AveragePool",
    ),
    "AveragePool with pads that count, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) "
        "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(n) y = Conv(p, W)",
        "Add AveragePool Conv",
    ),
    "AveragePool with pads that count, a scale, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(h) "
        "y = SBN4(p)",
        "Conv AveragePool",
    ),
    "GlobalAveragePool, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = GlobalAveragePool(h) y = BN4(p)", "Conv GlobalAveragePool"
    ),
    "GlobalAveragePool and Flatten, forward": Case(
        "x[2,3,6,6] | B[3,4] | n = BN3(x) p = GlobalAveragePool(n) f = Flatten(p) y = Gemm(f, B)",
        "GlobalAveragePool Flatten Gemm",
    ),
    "ReduceMean of the positions, backward": Case(
        f"{_CONV} a={{2,3}} | h = Conv(x, W, b) p = ReduceMean<keepdims=0>(h, a) y = BN4(p)", "Conv ReduceMean"
    ),
    "ReduceMean by an attribute, forward": Case(
        "x[2,3,6,6] | B[3,4] | n = BN3(x) p = ReduceMean<axes=[-1,-2], keepdims=0>(n) y = Gemm(p, B)",
        "ReduceMean Gemm",
        opset=13,
    ),
    "ReduceSum of the positions, backward": Case(
        f"{_CONV} a={{2,3}} | h = Conv(x, W, b) p = ReduceSum(h, a) y = BN4(p)", "Conv ReduceSum"
    ),
    "ReduceSum of the positions, forward": Case(
        "x[2,3,6,6] | B[3,4] a={2,3} | n = BN3(x) p = ReduceSum<keepdims=0>(n, a) y = Gemm(p, B)", "ReduceSum Gemm"
    ),
    "ReduceMax of the positions, backward": Case(
        f"{_CONV} a={{2,3}} | h = Conv(x, W, b) p = ReduceMax(h, a) y = PBN4(p)", "Conv ReduceMax"
    ),
    "LpPool, a scale of both signs, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] s[3,1,1]={0.5,-2,1} | n = Mul(x, s) p = LpPool<kernel_shape=[2,2]>(n) y = Conv(p, W)",
        "LpPool Conv",
    ),
    "LpPool, a batch norm becomes an Add, backward": Case(
        f"{_CONV} | h = Conv(x, W, b) p = LpPool<kernel_shape=[2,2], p=3>(h) y = PBN4(p)", "Conv LpPool Add"
    ),
    "Resize to the nearest, backward": Case(
        f'{_CONV} float:k[4]={{1,1,2,2}} | h = Conv(x, W, b) z = Resize<mode="nearest">(h, _, k) y = BN4(z)',
        "Conv Resize",
    ),
    "Resize, linear, to sizes, backward": Case(
        f'{_CONV} n={{1,4,7,5}} | h = Conv(x, W, b) z = Resize<mode="linear">(h, _, _, n) y = BN4(z)', "Conv Resize"
    ),
    "Resize, cubic, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] float:k[4]={1,1,2,4} | n = BN3(x) "
        'z = Resize<mode="cubic", coordinate_transformation_mode="asymmetric">(n, _, k) y = Conv(z, W)',
        "Resize Conv",
    ),
    "Resize, cubic without what lies outside, backward": Case(
        f'{_CONV} float:k[4]={{1,1,2,2}} | h = Conv(x, W, b) z = Resize<mode="cubic", exclude_outside=1>(h, _, k) '
        "y = BN4(z)",
        "Conv Resize",
    ),
    "Upsample, forward": Case(
        'x[1,3,6,6] | W[4,3,3,3] float:k[4]={1,1,2,2} | n = BN3(x) z = Upsample<mode="nearest">(n, k) y = Conv(z, W)',
        "Upsample Conv",
        opset=9,
        ir_version=4,
    ),
    "Pad, reflected, backward": Case(
        f'{_CONV} p={{0,0,1,2,0,0,2,1}} | h = Conv(x, W, b) z = Pad<mode="reflect">(h, p) y = BN4(z)', "Conv Pad"
    ),
    "Pad by the edge, forward": Case(
        'x[1,3,6,6] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} | n = BN3(x) z = Pad<mode="edge">(n, p) y = Conv(z, W)', "Pad Conv"
    ),
    "Pad, wrapped, forward": Case(
        'x[1,3,6,6] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} | n = BN3(x) z = Pad<mode="wrap">(n, p) y = Conv(z, W)', "Pad Conv"
    ),
    "Pad with zeros, no shift, backward": Case(
        f"{_CONV} p={{0,0,1,1,0,0,1,1}} | h = Conv(x, W, b) z = Pad(h, p) y = SBN4(z)", "Conv Pad"
    ),
    "Pad with zeros, one batch norm for all, backward": Case(
        f"{_CONV} p={{0,0,1,1,0,0,1,1}} | h = Conv(x, W, b) z = Pad(h, p) y = UBN4(z)", "Conv Pad"
    ),
    "Pad with a number, one batch norm for all, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,0,1,1,0,0,1,1} v[]=0.5 | n = UBN3(x) z = Pad(n, p, v) y = Conv(z, W)", "Pad Conv"
    ),
    "Pad with zeros, a batch norm becomes an Add, backward": Case(
        f"{_CONV} p={{0,0,1,1,0,0,1,1}} | h = Conv(x, W, b) z = Pad(h, p) y = BN4(z)", "Conv Pad Add"
    ),
    "Pad by nothing, backward": Case(
        f"{_CONV} p={{0,0,0,0,0,0,0,0}} | h = Conv(x, W, b) z = Pad(h, p) y = BN4(z)", "Conv Pad"
    ),
    "a chain of pooling, resizing and slicing, backward": Case(
        f"{_CONV} float:k[4]={{1,1,2,2}} s={{1}} e={{3}} a={{2}} | h = Conv(x, W, b) "
        'p = AveragePool<kernel_shape=[2,2]>(h) z = Resize<mode="linear">(p, _, k) c = Slice(z, s, e, a) y = BN4(c)',
        "Conv AveragePool Resize Slice",
    ),
    "a chain of pooling, padding and turning, forward": Case(
        "x[1,3,6,6] | B[3,4] p={0,0,1,1,0,0,1,1} | n = BN3(x) q = AveragePool<kernel_shape=[2,2]>(n) "
        'z = Pad<mode="edge">(q, p) t = Transpose<perm=[0,2,3,1]>(z) y = MatMul(t, B)',
        "AveragePool Pad Transpose MatMul Add",
    ),
}
