"""More of the algebra clause by clause: carriers, parallel branches, situations."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES", "CLAUSES"]

BN = "BatchNormalization"
_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"

CLAUSES: dict[str, tuple[Case, Case]] = {
    # Carriers
    "index maps apply the same operation to the field": (
        Case(
            "x[1,3,4,4] | W[8,3,1,1] B[8,2] z={1,16,8} | h = Conv(x, W) n = BN8(h) t = Transpose<perm=[0,2,3,1]>(n) "
            "r = Reshape(t, z) y = MatMul(r, B)",
            "Conv Transpose Reshape MatMul",
        ),
        Case(
            "x[1,3,4,4] | W[4,3,1,1] z={1,2,8,4} s[2,1,1] | h = Conv(x, W) r = Reshape(h, z) y = Mul(r, s)",
            "Conv Reshape",
        ),
    ),
    "a Reshape must keep the axis of the field": (
        Case("x[6,3] | B[3,8] z={2,3,8} s[8] | h = MatMul(x, B) r = Reshape(h, z) y = Mul(r, s)", "MatMul Reshape"),
        Case(
            "x[6,3] | B[3,8] z={2,8,3} | h = MatMul(x, B) r = Reshape(h, z) y = BN8(r)",
            f"MatMul Reshape {BN}",
            ("scrambled-channel",),
        ),
    ),
    "Concat along the channels gives each its slice": (
        Case(
            "x[1,3,6,6] | W[2,3,3,3] V[4,3,3,3] | h = Conv(x, W) g = Conv(x, V) c = Concat<axis=1>(h, g) y = BN6(c)",
            "Conv Conv Concat",
        ),
        Case(
            "x[1,3,6,6] z[1,4,4,4] | W[2,3,3,3] | h = Conv(x, W) c = Concat<axis=1>(h, z) y = BN6(c)",
            f"Conv Concat {BN}",
            ("edge-of-graph",),
        ),
    ),
    "a sum: the scale to every branch, the shift to one": (
        Case(
            "x[1,3,6,6] z[1,2,4,4] | W[4,3,3,3] V[4,2,1,1] | h = Conv(x, W) g = Conv(z, V) s = Sub(h, g) y = BN4(s)",
            "Conv Conv Sub",
        ),
        Case(
            "x[1,3,6,6] z[1,1,4,4] | W[4,3,3,3] V[1,1,1,1] | h = Conv(x, W) g = Conv(z, V) s = Add(h, g) y = BN4(s)",
            f"Conv Conv Add {BN}",
            ("wrong-axis",),
        ),
    ),
    "a product takes the scale once, and no shift": (
        Case("x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) p = Mul(h, z) y = SBN4(p)", "Conv Mul"),
        Case(
            "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] c[4,1,1] | h = Conv(x, W) p = Mul(h, z) y = Add(p, c)", "Conv Mul Add"
        ),
    ),
    "Where takes it on both sides": (
        Case(
            "bool:k[1,4,4,4] x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] | h = Conv(x, W) g = Conv(x, V) w = Where(k, h, g) "
            "y = BN4(w)",
            "Conv Conv Where",
        ),
        Case(
            "bool:k[1,4,4,4] x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) w = Where(k, h, z) y = BN4(w)",
            f"Conv Where {BN}",
            ("edge-of-graph",),
        ),
    ),
    "Relu, LeakyRelu, PRelu: positive scales": (
        Case(
            f"{_CONV} p[4,1,1] s[4,1,1]={{0.5,2,1,3}} | h = Conv(x, W, b) r = PRelu(h, p) y = Mul(r, s)", "Conv PRelu"
        ),
        Case(
            f"{_CONV} p[4,1,1] s[4,1,1]={{0.5,-2,1,3}} | h = Conv(x, W, b) r = PRelu(h, p) y = Mul(r, s)",
            "Conv PRelu Mul",
        ),
    ),
    "a batch norm behind a Relu is a Max": (
        Case(f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = PBN4(r)", "Conv Max"),
        Case(f"{_CONV} | h = Conv(x, W, b) r = Relu(h) y = BN4(r)", f"Conv Relu {BN}", ("sign",)),
    ),
    "Clip with its bounds mapped": (
        Case(f"{_CONV} lo[]=0.0 hi[]=6.0 | h = Conv(x, W, b) c = Clip(h, lo, hi) y = UBN4(c)", "Conv Clip"),
        Case(
            f"{_CONV} lo[]=0.0 hi[]=6.0 | h = Conv(x, W, b) c = Clip(h, lo, hi) y = BN4(c)",
            f"Conv Clip {BN}",
            ("sign",),
        ),
    ),
    **{
        f"{name} stops it": (
            Case(f"{_CONV} V[2,4,1,1] | h = Conv(x, W, b) n = BN4(h) r = {call} y = Conv(r, V)", f"Conv {name} Conv"),
            Case(
                f"{_CONV} | h = Conv(x, W, b) r = {call.replace('(n)', '(h)')} y = BN4(r)",
                f"Conv {name} {BN}",
                ("no-rule",),
            ),
        )
        for name, call in {
            "Sigmoid": "Sigmoid(n)",
            "Tanh": "Tanh(n)",
            "Gelu": "Gelu(n)",
            "Softmax": "Softmax<axis=1>(n)",
            "HardSwish": "HardSwish(n)",
        }.items()
    },
    "MaxPool: positive scales, whatever its pads": (
        Case(
            f"{_CONV} | h = Conv(x, W, b) "
            "p = MaxPool<kernel_shape=[3,3], pads=[1,0,1,1], ceil_mode=1, strides=[2,2]>(h) "
            "y = PBN4(p)",
            "Conv MaxPool",
        ),
        Case(
            f"{_CONV} | h = Conv(x, W, b) p = MaxPool<kernel_shape=[2,2]>(h) y = BN4(p)",
            f"Conv MaxPool {BN}",
            ("sign",),
        ),
    ),
    "AveragePool: the shift only where pads do not count": (
        Case(
            f"{_CONV} c[4,1,1] | h = Conv(x, W, b) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(h) "
            "y = Add(p, c)",
            "Conv AveragePool",
        ),
        Case(
            "x[1,3,6,6] | W[4,3,3,3] c[3,1,1] | n = Add(x, c) "
            "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(n) y = Conv(p, W)",
            "Add AveragePool Conv",
        ),
    ),
    "means of other axes, not of the field's": (
        Case(f"{_CONV} a={{2,3}} | h = Conv(x, W, b) p = ReduceMean(h, a) y = BN4(p)", "Conv ReduceMean"),
        Case("x[2,3] | B[1,4] a={1} s[3] | n = Mul(x, s) p = ReduceMean(n, a) y = Gemm(p, B)", "Mul ReduceMean Gemm"),
    ),
    "ReduceSum multiplies the shift by its count": (
        Case(
            "x[2,3,5,4] | B[3,4] a={2,3} | n = BN3(x) p = ReduceSum<keepdims=0>(n, a) y = Gemm(p, B)", "ReduceSum Gemm"
        ),
        Case(
            "x[2,3,H,V] | B[3,4] a={2,3} t[3,1,1] | n = Add(x, t) p = ReduceSum<keepdims=0>(n, a) y = Gemm(p, B)",
            "Add ReduceSum Gemm",
        ),
    ),
    "LpPool: the magnitude of the scale, no shift": (
        Case("x[1,3,6,6] | W[4,3,3,3] | n = SBN3(x) p = LpPool<kernel_shape=[2,2]>(n) y = Conv(p, W)", "LpPool Conv"),
        Case(
            "x[1,3,6,6] | W[4,3,3,3] t[3,1,1] | n = Add(x, t) p = LpPool<kernel_shape=[2,2]>(n) y = Conv(p, W)",
            "Add LpPool Conv",
        ),
    ),
    "Resize, not where it crops": (
        Case(
            f'{_CONV} float:k[4]={{1,1,2,2}} | h = Conv(x, W, b) z = Resize<mode="cubic">(h, _, k) y = BN4(z)',
            "Conv Resize",
        ),
        Case(
            f"{_CONV} float:k[4]={{1,1,2,2}} double:r[8]={{0,0,0.1,0.1,1,1,0.8,0.8}} | h = Conv(x, W, b) "
            'z = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(h, r, k) y = BN4(z)',
            f"Conv Resize {BN}",
            ("padded-shift",),
        ),
    ),
    "Pad with a number: only where all channels give the same": (
        Case(f"{_CONV} p={{0,0,1,1,0,0,1,1}} v[]=0.5 | h = Conv(x, W, b) z = Pad(h, p, v) y = UBN4(z)", "Conv Pad"),
        Case(
            f"{_CONV} p={{0,0,1,1,0,0,1,1}} v[]=0.5 | h = Conv(x, W, b) z = Pad(h, p, v) y = BN4(z)",
            f"Conv Pad {BN}",
            ("padded-shift",),
        ),
    ),
    "Cast: folded in float64, rounded to the narrow type": (
        Case(
            "float:x[1,3,6,6] -> double:y[1,4,4,4] | float:W[4,3,3,3] "
            "double:g[4] double:o[4] double:m[4] double:var[4] | "
            "h = Conv(x, W) c = Cast<to=11>(h) "
            "y = BatchNormalization(c, g, o, m, var)",
            "Conv Cast",
            element="float",
        ),
        Case(
            "x[1,3,6,6] -> int64:y[1,4,4,4] | W[4,3,3,3] s[4,1,1] | h = Conv(x, W) m = Mul(h, s) y = Cast<to=7>(m)",
            "Conv Cast",
        ),
    ),
    "a gate is linear only along its own edge": (
        Case(
            "x[1,3,6,6] | W[4,3,3,3] V[4,4,1,1] U[2,4,1,1] | h = Conv(x, W) g = GlobalAveragePool(h) k = Conv(g, V) "
            "e = Sigmoid(k) p = Mul(h, e) n = BN4(p) y = Conv(n, U)",
            "Conv GlobalAveragePool Conv Sigmoid Mul Conv",
        ),
        Case(
            "x[1,3,6,6] | W[4,3,3,3] V[4,4,1,1] | h = Conv(x, W) g = GlobalAveragePool(h) k = Conv(g, V) "
            "e = Sigmoid(k) p = Mul(h, e) y = BN4(p)",
            f"Conv GlobalAveragePool Conv Sigmoid Mul {BN}",
            ("used-elsewhere",),
        ),
    ),
    # Parallel branches, and layers right behind one another
    "parallel convolutions of one stride and one grid": (
        Case(
            "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W) a = BN4(h) "
            "g = Conv<strides=[2,2]>(x, V) b = BN4(g) y = Add(a, b)",
            "Conv",
        ),
        Case(
            "x[1,4,6,6] | W[4,4,3,3] V[4,4,2,2] | h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W) "
            "g = Conv<strides=[2,2]>(x, V) y = Add(h, g)",
            "Conv Conv Add | Conv",
        ),
    ),
    "an identity is a Dirac kernel, a lone batch norm a diagonal one": (
        Case(
            "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) i = BN4(x) s = Add(a, i) "
            "y = Add(s, x)",
            "Conv",
        ),
        Case(
            "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) r = Relu(h) i = BN4(x) y = Add(r, i)",
            f"Conv Relu {BN} Add",
            ("model-output",),
        ),
    ),
    "average pooling is a uniform kernel": (
        Case(
            "x[1,4,6,6] | W[4,4,3,3] | h = Conv(x, W) p = AveragePool<kernel_shape=[3,3]>(x) i = BN4(p) y = Add(h, i)",
            "Conv",
        ),
        Case(
            "x[1,4,6,6] | W[4,4,3,3] | h = Conv(x, W) p = MaxPool<kernel_shape=[3,3]>(x) y = Add(h, p)",
            "Conv MaxPool Add",
        ),
    ),
    "layers right behind one another, where that is no more weights": (
        Case("x[2,8] | W[8,8] V[8,4] c[8] d[4] | h = Gemm(x, W, c) n = BN8(h) y = Gemm(n, V, d)", "Gemm"),
        Case("x[1,8,6,6] | W[2,8,1,1] V[4,2,1,1] | h = Conv(x, W) n = BN2(h) y = Conv(n, V)", "Conv Conv"),
    ),
    # Situations
    "weights behind Identity, Transpose, Reshape and Cast": (
        Case(
            "x[1,3,6,6] | W[3,3,3,4] z={4,3,3,3} | i = Identity(W) t = Transpose<perm=[3,2,0,1]>(i) r = Reshape(t, z) "
            "c = Cast<to=11>(r) h = Conv(x, c) y = BN4(h)",
            "Conv",
        ),
        Case(
            "x[1,3,6,6] e[1] | W[4,3,3,3] | i = Identity(W) w = Mul(i, e) h = Conv(x, w) y = BN4(h)",
            f"Identity Mul Conv {BN}",
            ("dynamic-weight",),
            checked=False,
        ),
    ),
    "shared weights are copied": (
        Case(
            "x[1,3,6,6] z[1,3,6,6] -> y w | W[4,3,3,3] g[4] o[4] m[4] var[4] | h = Conv(x, W) "
            "y = BatchNormalization(h, g, o, m, var) k = Conv(z, W) w = BatchNormalization(k, m, o, g, var)",
            "Conv Conv",
        ),
        Case(
            "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) z = BN4(h)",
            f"Conv {BN} {BN}",
            ("used-elsewhere", "used-elsewhere"),
        ),
    ),
    "initializers that are inputs: before IR 4 they must be": (
        Case(f"{_CONV} | h = Conv(x, W, b) y = BN4(h)", "Conv", opset=8, ir_version=3),
        Case(
            "x[1,3,6,6] W[4,3,3,3] | | h = Conv(x, W) y = BN4(h)",
            f"Conv {BN}",
            ("dynamic-weight",),
            opset=8,
            ir_version=3,
        ),
    ),
    "a custom domain is left alone": (
        Case(
            "x[1,3,6,6] | W[4,3,3,3] | k = com.example.Known(x) h = Conv(k, W) n = BN4(h) y = com.example.Known(n)",
            "Known Conv Known",
            checked=False,
        ),
        Case(
            "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) k = com.example.Known(h) y = BN4(k)",
            f"Conv Known {BN}",
            ("unknown-shape",),
            checked=False,
        ),
    ),
    "dynamic shapes, without anything known of values": (
        Case(
            "x[N,3,H,V] | W[4,3,3,3] V2[2,4,1,1] | h = Conv(x, W) r = Relu(h) n = BN4(r) y = Conv(n, V2)",
            "Conv Relu Conv",
            free=6,
        ),
        Case(
            "x[N,M,H,V] | c[6] | h = Sigmoid(x) y = Mul(h, c)",
            "Sigmoid Mul",
            free=6,
        ),
    ),
}

CASES: Cases = {
    f"{clause}: {what}": case
    for clause, pair in CLAUSES.items()
    for what, case in zip(("folds", "stays"), pair, strict=True)
}
