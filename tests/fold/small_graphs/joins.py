"""Values with several producers or several readers: sums, concatenations, choices, gates and parallel branches."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

_TWO = "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] b[4]"

CASES: Cases = {
    "a sum of two convolutions": Case(
        f"{_TWO} | h = Conv(x, W) g = Conv(x, V, b) s = Add(h, g) y = BN4(s)", "Conv Conv Add | Conv"
    ),
    "a difference of two convolutions": Case(
        f"{_TWO} | h = Conv(x, W, b) g = Conv(x, V) s = Sub(h, g) y = BN4(s)", "Conv Conv Sub | Conv"
    ),
    "a sum of three": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] V[4,3,3,3] U[4,4,1,1] | h = Conv(x, W) g = Conv<strides=[1,1]>(x, V) "
        "f = Conv(z, U) s = Sum(h, g, f) y = BN4(s)",
        "Conv Conv Conv Sum | Conv Conv Sum | Conv Conv Add",
    ),
    "a branch beside a convolution, and a constant that is left of its sum": Case(
        "x[2,4,5] | U[4,4,1] c[1,4,1] | s = Sum(x, c) g = Conv(x, U) y = Add(s, g)", "Conv"
    ),
    "the same, taken away": Case("x[2,4,5] | U[4,4,1] c[1,4,1] | s = Sum(c, x) g = Conv(x, U) y = Sub(g, s)", "Conv"),
    "a constant that is left of a sum, in front of a batch norm": Case(
        "x[2,4,5] | U[4,4,1] c[1,4,1] | s = Sum(x, c) g = Conv(x, U) h = Add(s, g) r = Relu(h) y = ZBN4(r)",
        "Conv Max",
    ),
    "a sum whose shift can go one way only": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] p={0,0,1,1,0,0,1,1} | h = Conv(x, W) i = Pad(h, p) "
        "g = Conv<pads=[1,1,1,1]>(x, V) s = Add(i, g) y = BN4(s)",
        "Conv Pad Conv Add",
    ),
    "a difference whose shift goes to what is taken away": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,3,3] p={0,0,1,1,0,0,1,1} | h = Conv(x, W) i = Pad(h, p) "
        "g = Conv<pads=[1,1,1,1]>(x, V) s = Sub(i, g) y = BN4(s)",
        "Conv Pad Conv Sub",
    ),
    "a sum that broadcasts over the positions": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,1,1] | h = Conv(x, W) p = GlobalAveragePool(x) g = Conv(p, V) s = Add(h, g) "
        "y = BN4(s)",
        "Conv GlobalAveragePool Conv Add",
    ),
    "a product of two convolutions, a scale": Case(
        f"{_TWO} | h = Conv(x, W) g = Conv(x, V, b) s = Mul(h, g) y = SBN4(s)", "Conv Conv Mul"
    ),
    "a product of two convolutions, a batch norm": Case(
        f"{_TWO} | h = Conv(x, W) g = Conv(x, V, b) s = Mul(h, g) y = BN4(s)", "Conv Conv Mul Add"
    ),
    "a gate on a convolution of its own": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,3,1,1] | h = Conv(x, W) p = GlobalAveragePool(x) g = Conv(p, V) "
        "q = Sigmoid(g) s = Mul(h, q) y = SBN4(s)",
        "Conv GlobalAveragePool Conv Sigmoid Mul",
    ),
    "a choice between two convolutions": Case(
        "x[1,3,6,6] bool:c[1,1,4,4] | W[4,3,3,3] V[4,3,3,3] | h = Conv(x, W) g = Conv(x, V) s = Where(c, h, "
        "g) y = BN4(s)",
        "Conv Conv Where",
    ),
    "a choice between a convolution and a constant": Case(
        "x[1,3,6,6] bool:c[1,1,4,4] | W[4,3,3,3] k[]=-3.0 | h = Conv(x, W) s = Where(c, h, k) y = BN4(s)", "Conv Where"
    ),
    "a choice, forward": Case(
        "x[1,3,6,6] bool:c[1,1,6,6] | W[4,3,3,3] k[1,3,1,1] | n = BN3(x) s = Where(c, n, k) y = Conv(s, W)",
        "Where Conv",
    ),
    "a sum with a constant map, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[1,3,6,6] | n = BN3(x) s = Add(n, k) y = Conv(s, W)", "Add Conv | Conv Add"
    ),
    "Concat of the channels, backward": Case(
        f"{_TWO} | h = Conv(x, W, b) g = Conv(x, V) c = Concat<axis=1>(h, g) y = BN8(c)", "Conv Conv Concat | Conv"
    ),
    "Concat of the positions, backward": Case(
        f"{_TWO} | h = Conv(x, W, b) g = Conv(x, V) c = Concat<axis=2>(h, g) y = BN4(c)", "Conv Conv Concat"
    ),
    "Concat with a constant, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] k[1,2,4,4] | h = Conv(x, W) c = Concat<axis=1>(h, k) y = BN6(c)", "Conv Concat"
    ),
    "Concat, one input normalised, forward": Case(
        "x[1,3,6,6] z[1,2,6,6] | W[4,5,3,3] | n = BN3(x) c = Concat<axis=1>(n, z) y = Conv(c, W)", "Concat Conv"
    ),
    "Concat, both inputs normalised, forward": Case(
        "x[1,3,6,6] z[1,2,6,6] | W[4,5,3,3] | n = BN3(x) m = BN2(z) c = Concat<axis=1>(n, m) y = Conv(c, W)",
        "Concat Conv",
    ),
    "Concat of one value twice, backward": Case(
        "x[1,3,6,6] | W[2,3,3,3] s[4,1,1]={2,3,2,3} t[4,1,1]={1,4,1,4} | h = Conv(x, W) c = Concat<axis=1>(h, h) "
        "m = Mul(c, s) y = Add(m, t)",
        "Conv Concat | Conv Concat Mul Add",
    ),
    "grouped convolutions of different sizes, concatenated": Case(
        "x[1,4,6,6] | W[2,1,3,3] V[2,1,5,5] s={2,2} | a, b = Split<axis=1>(x, s) h = Conv<group=2, "
        "pads=[1,1,1,1]>(a, W) "
        "g = Conv<group=2, pads=[2,2,2,2]>(b, V) c = Concat<axis=1>(h, g) y = BN4(c)",
        "Split Conv Conv Concat",
    ),
    "a concatenation of a concatenation and a pooling": Case(
        f"{_TWO} U[2,3,3,3] | h = Conv(x, W) g = Conv(x, V) c = Concat<axis=1>(h, g) u = Conv(x, U) "
        "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(u) d = Concat<axis=1>(c, p) y = BN10(d)",
        "Conv Conv Concat Conv AveragePool Concat",
    ),
    "two batch norms on one convolution, the same one": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) z = BatchNormalization(h, gamma1, beta1, "
        "mean1, var1)",
        "BatchNormalization BatchNormalization Conv",
        ("used-elsewhere", "used-elsewhere"),
    ),
    "a batch norm that a convolution and a sum read": Case(
        "x[1,3,6,6] | W[3,3,1,1] V[3,3,1,1] | n = BN3(x) h = Conv(n, W) g = Conv(n, V) y = Add(h, g)",
        "Conv Conv Add | Conv",
    ),
    "a residual of convolutions in front of a batch norm and a Relu": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) g = Conv(x, V) s = Add(h, g) n = BN4(s) "
        "y = Relu(n)",
        "Conv Conv Add Relu | Conv Relu",
    ),
    "Max of two convolutions": Case(
        f"{_TWO} | h = Conv(x, W) g = Conv(x, V, b) s = Max(h, g) y = PBN4(s)", "Conv Conv Max"
    ),
    "RepVGG": Case(
        "x[1,4,6,6] | W[4,4,3,3] V[4,4,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) g = Conv(x, V) b = BN4(g) "
        "i = BN4(x) s = Add(a, b) t = Add(s, i) y = Relu(t)",
        "Conv Relu",
    ),
    "RepVGG with biases, grouped, summed at once": Case(
        "x[1,4,6,6] | W[4,2,3,3] V[4,2,1,1] c[4] d[4] | h = Conv<pads=[1,1,1,1], group=2>(x, W, c) a = BN4(h) "
        "g = Conv<group=2>(x, V, d) b = BN4(g) i = BN4(x) s = Sum(i, a, b) y = Relu(s)",
        "Conv Relu",
    ),
    "RepVGG that strides, without identity": Case(
        "x[1,4,6,6] | W[5,4,3,3] V[5,4,1,1] | h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W) a = BN5(h) "
        "g = Conv<strides=[2,2]>(x, V) b = BN5(g) s = Add(a, b) y = Relu(s)",
        "Conv Relu",
    ),
    "MobileOne: several of one size, one small, one identity": Case(
        "x[1,4,6,6] | W[4,1,3,3] V[4,1,3,3] U[4,1,1,1] | h = Conv<pads=[1,1,1,1], group=4>(x, W) a = BN4(h) "
        "g = Conv<pads=[1,1,1,1], group=4>(x, V) b = BN4(g) f = Conv<group=4>(x, U) c = BN4(f) i = BN4(x) "
        "s = Add(a, b) t = Add(s, c) y = Add(t, i)",
        "Conv",
    ),
    "RepGhost: a depthwise convolution and a lone batch norm": Case(
        "x[1,4,6,6] | W[4,1,3,3] | h = Conv<pads=[1,1,1,1], group=4>(x, W) a = BN4(h) i = BN4(x) s = Add(a, "
        "i) y = Relu(s)",
        "Conv Relu",
    ),
    "FastViT: large and small kernels": Case(
        "x[1,3,8,8] | W[3,1,7,7] V[3,1,3,3] | h = Conv<pads=[3,3,3,3], group=3>(x, W) a = BN3(h) "
        "g = Conv<pads=[1,1,1,1], group=3>(x, V) b = BN3(g) y = Add(a, b)",
        "Conv",
    ),
    "a branch of average pooling": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) a = BN4(h) "
        "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x) b = BN4(p) y = Add(a, b)",
        "Conv",
    ),
    "a residual and a lone batch norm": Case(
        "x[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) i = BN4(x) y = Add(h, i)", "Conv"
    ),
    "Gemm of Gemm": Case(
        "x[2,8] | B[8,4] C[4,3] c[4] | h = Gemm(x, B, c) n = BN4(h) y = Gemm(n, C)", "Gemm | Gemm Gemm"
    ),
    "a 1x1 convolution of a 1x1 convolution": Case(
        "x[1,8,4,4] | W[4,8,1,1] V[3,4,1,1] b[3] | h = Conv(x, W) n = BN4(h) y = Conv(n, V, b)", "Conv | Conv Conv"
    ),
    "an inverted residual": Case(
        "x[1,3,6,6] | W[6,3,1,1] D[6,1,3,3] V[3,6,1,1] lo[]=0.0 hi[]=6.0 | h = Conv(x, W) a = BN6(h) c = "
        "Clip(a, lo, hi) "
        "d = Conv<pads=[1,1,1,1], group=6>(c, D) e = BN6(d) f = Clip(e, lo, hi) g = Conv(f, V) i = BN3(g) y = "
        "Add(i, x)",
        "Conv Clip Conv Clip Conv Add",
    ),
    "a residual block": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,4,3,3] D[4,3,1,1] | h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W) a = BN4(h) "
        "r = Relu(a) g = Conv<pads=[1,1,1,1]>(r, V) b = BN4(g) d = Conv<strides=[2,2]>(x, D) e = BN4(d) s = Add(b, e) "
        "y = Relu(s)",
        "Conv Relu Conv Conv Add Relu",
    ),
}
