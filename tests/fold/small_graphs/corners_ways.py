"""Corners of padding, resizing, picking, reducing, and of layers: what is rare, and easily folded wrongly."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"

CASES: Cases = {
    "Pad of two axes by name": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={1,1,0,2} v[]=0.0 a={2,-1} | h = Conv(x, W) z = Pad(h, p, v, a) y = UBN4(z)",
        "Conv Pad",
    ),
    "Pad that crops": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,0,-1,0,0,0,0,-1} | h = Conv(x, W) z = Pad(h, p) y = BN4(z)", "Conv Pad"
    ),
    "Pad that crops and pads": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,0,-1,1,0,0,0,-1} | h = Conv(x, W) z = Pad(h, p) y = BN4(z)", "Conv Pad Add"
    ),
    "Pad that crops the channels": Case(
        "x[1,3,6,6] | W[6,3,3,3] p={0,-1,0,0,0,-1,0,0} | h = Conv(x, W) z = Pad(h, p) y = BN4(z)", "Conv Pad"
    ),
    "Pad of the channels, reflected": Case(
        'x[1,3,6,6] | W[4,3,3,3] p={0,1,0,0,0,1,0,0} | h = Conv(x, W) z = Pad<mode="reflect">(h, p) y = BN6(z)',
        f"Conv Pad {BN}",
        ("scrambled-channel",),
    ),
    "Pad of the channels, by the edge, forward": Case(
        'x[1,3,6,6] | W[4,5,3,3] p={0,1,0,0,0,1,0,0} | n = BN3(x) z = Pad<mode="edge">(n, p) y = Conv(z, W)', "Pad Conv"
    ),
    "Pad of the channels with zeros, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={0,1,0,0,0,1,0,0} | h = Conv(x, W) z = Pad(h, p) y = BN6(z)", "Conv Pad Add"
    ),
    "Pad of the batch with zeros, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] p={1,0,0,0,0,0,0,0} | h = Conv(x, W) z = Pad(h, p) y = BN4(z)", "Conv Pad Add"
    ),
    "Resize of two axes by name": Case(
        'x[1,3,6,6] | W[4,3,3,3] float:k[2]={2,2} | h = Conv(x, W) z = Resize<mode="linear", axes=[2,3]>(h, '
        "_, k) y = BN4(z)",
        "Conv Resize",
    ),
    "Resize with less detail": Case(
        'x[1,3,8,8] | W[4,3,1,1] float:k[4]={1,1,0.5,0.5} | h = Conv(x, W) z = Resize<mode="linear", '
        "antialias=1>(h, _, k) y = BN4(z)",
        "Conv Resize",
    ),
    "Resize of the batch": Case(
        'x[1,3,6,6] | W[4,3,3,3] float:k[4]={2,1,1,1} | h = Conv(x, W) z = Resize<mode="nearest">(h, _, k) y = BN4(z)',
        "Conv Resize",
    ),
    "Resize by nothing": Case(
        'x[1,3,6,6] | W[4,3,3,3] float:k[4]={1,1,1,1} | h = Conv(x, W) z = Resize<mode="linear">(h, _, k) y = BN4(z)',
        "Conv Resize",
    ),
    "Gather along a negative axis": Case(
        "x[1,3,6,6] | W[4,3,3,3] i={3,1} | h = Conv(x, W) g = Gather<axis=-3>(h, i) y = BN2(g)", "Conv Gather"
    ),
    "Gather by a matrix": Case(
        "x[2,3] | B[3,4] int64:i[2,3]={0,1,2,3,0,1} | h = Gemm(x, B) g = Gather<axis=1>(h, i) y = BN2(g)",
        f"Gemm Gather {BN}",
        ("scrambled-channel",),
    ),
    "Gather by a matrix that takes each once": Case(
        "x[2,3] | B[3,4] int64:i[2,2]={0,3,2,1} s[2,2] t[2,2] | h = Gemm(x, B) g = Gather<axis=1>(h, i) m = "
        "Mul(g, s) y = Add(m, t)",
        "Gemm Gather",
    ),
    "Gather by what the model is given": Case(
        "x[1,3,6,6] int64:i[3] | W[4,3,3,3] | h = Conv(x, W) g = Gather<axis=1>(h, i) y = BN3(g)",
        f"Conv Gather {BN}",
        ("unknown-shape",),
    ),
    "Gather of rows by what the model is given": Case(
        "x[1,3,6,6] int64:i[3] | W[4,3,3,3] | h = Conv(x, W) g = Gather<axis=2>(h, i) y = BN4(g)", "Conv Gather"
    ),
    "a table that two read": Case(
        "int64:i[2] int64:j[2] -> y z | T[10,4] | h = Gather(T, i) y = BN4(h) z = Gather(T, j)", "Gather Gather"
    ),
    "a table that is also a weight": Case(
        "int64:i[2] -> y z | T[4,4] | h = Gather(T, i) y = BN4(h) z = MatMul(y, T)", "Gather MatMul"
    ),
    "a table, axis 1": Case(
        "int64:i[2] | T[4,10] | h = Gather<axis=1>(T, i) y = BN2(h)", f"Gather {BN}", ("wrong-axis",)
    ),
    "a table, and then a product": Case(
        "int64:i[2] | T[10,4] B[4,3] c[3] | h = Gather(T, i) n = BN4(h) y = Gemm(n, B, c)", "Gather Gemm"
    ),
    "Slice with bounds far outside": Case(
        "x[1,3,6,6] | W[4,3,3,3] s={-9223372036854775807} e={9223372036854775807} a={1} | h = Conv(x, W) c = "
        "Slice(h, s, e, a) y = BN4(c)",
        "Conv Slice",
    ),
    "Slice, axes out of order": Case(
        "x[1,3,6,6] | W[4,3,3,3] s={1,0} e={3,2} a={3,1} | h = Conv(x, W) c = Slice(h, s, e, a) y = BN2(c)",
        "Conv Slice",
    ),
    "Slice without axes": Case(
        "x[1,3,6,6] | W[4,3,3,3] s={0,1} e={1,4} | h = Conv(x, W) c = Slice(h, s, e) y = BN3(c)", "Conv Slice"
    ),
    "Slice by bounds in int32": Case(
        "x[1,3,6,6] | W[4,3,3,3] int32:s[1]=1 int32:e[1]=3 int32:a[1]=1 | h = Conv(x, W) c = Slice(h, s, e, "
        "a) y = BN2(c)",
        "Conv Slice",
    ),
    "two slices of one convolution": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] s={0} e={2} f={4} a={1} | h = Conv(x, W) c = Slice(h, s, e, a) y = "
        "BN2(c) d = Slice(h, e, f, a) z = BN2(d)",
        "Conv Slice Slice",
    ),
    "two slices that overlap": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] s={0} t={1} e={2} f={4} a={1} | h = Conv(x, W) c = Slice(h, s, e, a) "
        "y = BN2(c) d = Slice(h, t, f, a) z = BN3(d)",
        f"Conv Slice {BN} Slice {BN}",
        (
            "used-elsewhere",
            "used-elsewhere",
        ),
    ),
    "a slice and a batch norm on the whole": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] s={0} e={2} a={1} | h = Conv(x, W) c = Slice(h, s, e, a) y = BN2(c) z = BN4(h)",
        f"Conv Slice {BN} {BN}",
        (
            "used-elsewhere",
            "used-elsewhere",
        ),
    ),
    "Split in three, one part unread": Case(
        "x[1,3,6,6] -> y z | W[6,3,3,3] s={2,3,1} | h = Conv(x, W) a, _, c = Split<axis=1>(h, s) y = BN2(a) z "
        "= Relu(c)",
        "Conv Split Relu",
    ),
    "Split of the rows, a batch norm on each half": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) a, b = Split<axis=2, num_outputs=2>(h) y = BN4(a) z "
        "= BatchNormalization(b, gamma1, beta1, mean1, var1)",
        f"Conv Split {BN} {BN}",
        (
            "wrong-axis",
            "wrong-axis",
        ),
    ),
    "Split of the rows, and joined again": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[2,4,2,2] | n = BN3(x) h = Conv(n, W) a, b = Split<axis=2, "
        "num_outputs=2>(h) m = BN4(a) k = BatchNormalization(b, gamma2, beta2, mean2, var2) c = "
        "Concat<axis=2>(m, k) y = Conv(c, V)",
        f"Conv Split {BN} {BN} Concat Conv",
        (
            "wrong-axis",
            "wrong-axis",
        ),
    ),
    "Split, one half normalised, and joined again": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[2,4,2,2] | h = Conv(x, W) a, b = Split<axis=1, num_outputs=2>(h) m = "
        "BN2(a) c = Concat<axis=1>(b, m) y = Conv(c, V)",
        "Conv Split Concat Conv",
    ),
    "ReduceMean of everything": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) n = BN4(h) y = ReduceMean(n)", "Conv ReduceMean"
    ),
    "ReduceMean of nothing": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={} | h = Conv(x, W) m = ReduceMean<noop_with_empty_axes=1>(h, a) y = BN4(m)",
        "Conv ReduceMean",
    ),
    "ReduceSum of the batch": Case(
        "x[3,3,6,6] | W[4,3,3,3] a={0} | h = Conv(x, W) m = ReduceSum(h, a) y = BN4(m)", "Conv ReduceSum"
    ),
    "ReduceSum of the batch, which goes": Case(
        "x[3,3,6] | W[4,3,3] a={0} s[4,1] t[4,1] | h = Conv(x, W) m = ReduceSum<keepdims=0>(h, a) k = Mul(m, "
        "s) y = Add(k, t)",
        "Conv ReduceSum",
    ),
    "ReduceSum over free sizes, a shift": Case(
        "x[1,3,H,V] | W[4,3,1,1] a={2,3} | h = Conv(x, W) m = ReduceSum(h, a) y = BN4(m)", "Conv ReduceSum Add"
    ),
    "ReduceL2 of the positions": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={2,3} | h = Conv(x, W) m = ReduceL2(h, a) y = PBN4(m)", "Conv ReduceL2 Add"
    ),
    "ReduceMean of the channels, forward": Case(
        "x[1,3,6,6] | W[4,1,3,3] a={1} | n = BN3(x) m = ReduceMean(n, a) y = Conv(m, W)",
        f"{BN} ReduceMean Conv",
        ("wrong-axis",),
    ),
    "ReduceMin, scales of both signs": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={2,3} | h = Conv(x, W) m = ReduceMin(h, a) y = BN4(m)",
        f"Conv ReduceMin {BN}",
        ("sign",),
    ),
    "Einsum, implicit output": Case('x[2,3] | B[3,4] | h = Einsum<equation="ij,jk">(x, B) y = BN4(h)', "Einsum Add"),
    "Einsum, implicit output in another order": Case(
        'x[2,3] | B[3,4] | h = Einsum<equation="bz,za">(x, B) y = BN2(h)', f"Einsum {BN}", ("wrong-axis",)
    ),
    "Einsum with an ellipsis": Case(
        'x[2,5,3] | B[3,4] s[4] t[4] | h = Einsum<equation="...j,jk->...k">(x, B) m = Mul(h, s) y = Add(m, t)',
        "Einsum Add",
    ),
    "Einsum, a label summed in the constant alone": Case(
        'x[2,3] | B[3,4,2] | h = Einsum<equation="ij,jkl->ik">(x, B) y = BN4(h)', "Einsum Add"
    ),
    "Einsum, a diagonal of the constant": Case(
        'x[2,3] | B[3,3] | h = Einsum<equation="ij,jj->ij">(x, B) y = BN3(h)', f"Einsum {BN}", ("no-rule",)
    ),
    "Einsum of three": Case(
        'x[2,3] z[2,4] | B[3,4] | h = Einsum<equation="ij,jk,ik->ik">(x, B, z) y = BN4(h)', f"Einsum {BN}", ("no-rule",)
    ),
    "Einsum of two values": Case(
        'x[2,3] z[3,4] |  | h = Einsum<equation="ij,jk->ik">(x, z) y = BN4(h)', f"Einsum {BN}", ("dynamic-weight",)
    ),
    "Einsum, the channel is not contracted, forward": Case(
        'x[2,3] | B[3,4] | n = BN3(x) y = Einsum<equation="ij,jk->ijk">(n, B)', "Einsum Add"
    ),
    "Einsum, the channel is summed in the value alone, forward": Case(
        'x[2,3] | B[4,1] | n = BN3(x) y = Einsum<equation="ij,kl->ik">(n, B)', f"{BN} Einsum", ("wrong-axis",)
    ),
    "InstanceNormalization behind a batch norm": Case(
        "x[1,4,5,5] | g[4] b[4] | n = BN4(x) y = InstanceNormalization(n, g, b)",
        f"{BN} InstanceNormalization",
        ("no-rule",),
    ),
    "LSTM with everything": Case(
        "x[2,3,5] -> y | W[1,16,3] R[1,16,4] B[1,32] int32:l[2]={5,5} h0[1,2,4] c0[1,2,4] P[1,12] | n = "
        "BN3(x) t = Transpose<perm=[2,0,1]>(n) y = LSTM<hidden_size=4>(t, W, R, B, _, h0, c0, P)",
        "Transpose LSTM",
    ),
    "LSTM whose first state is normalised": Case(
        "x[2,4] t[5,2,3] -> y | W[1,16,3] R[1,16,4] a={0} | n = BN4(x) h0 = Unsqueeze(n, a) y = "
        "LSTM<hidden_size=4>(t, W, R, _, _, h0)",
        f"{BN} Unsqueeze LSTM",
        ("dynamic-weight",),
    ),
    "GRU, linear before reset, with bias": Case(
        "x[2,3,5] | W[1,12,3] R[1,12,4] B[1,24] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) y = "
        "GRU<hidden_size=4, linear_before_reset=1>(t, W, R, B)",
        "Transpose GRU",
    ),
    "GRU behind a Concat": Case(
        "x[2,3,5] z[5,2,2] | W[1,12,5] R[1,12,4] | n = BN3(x) t = Transpose<perm=[2,0,1]>(n) c = "
        "Concat<axis=2>(z, t) y = GRU<hidden_size=4>(c, W, R)",
        "Transpose Concat GRU",
    ),
    "a 1x1 convolution that pads": Case(
        "x[1,3,4,4] | W[4,3,1,1] b[4] | n = BN3(x) y = Conv<pads=[1,1,1,1]>(n, W, b)", "Add Conv"
    ),
    "a 1x1 convolution that pads, behind": Case(
        "x[1,3,4,4] | W[4,3,1,1] b[4] | h = Conv<pads=[1,1,1,1]>(x, W, b) y = BN4(h)", "Conv"
    ),
    "SAME with dilations": Case(
        'x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv<auto_pad="SAME_LOWER", dilations=[2,1]>(n, W)', "Add Conv"
    ),
    "pads that only some windows see, strided": Case(
        "x[1,3,7,7] | W[4,3,3,3] | n = BN3(x) y = Conv<pads=[0,0,1,1], strides=[2,2]>(n, W)", "Add Conv"
    ),
    "a batch norm on the right of a product of values": Case(
        "x[1,4,5] z[1,5,4] |  | n = BN5(z) y = MatMul(x, n)", f"{BN} MatMul", ("dynamic-weight",)
    ),
    "the input of a Gemm's C": Case(
        "x[2,3] z[2,4] | B[3,4] | n = BN4(z) y = Gemm(x, B, n)", f"{BN} Gemm", ("dynamic-weight",)
    ),
    "a Gemm's C in front of a batch norm": Case(
        "x[2,3] z[2,4] | B[3,4] | h = Gemm(x, B, z) y = BN4(h)", f"Gemm {BN}", ("dynamic-weight",)
    ),
    "both operands of a Gemm are computed": Case(
        "x[2,3] z[3,4] |  | h = Gemm(x, z) y = BN4(h)", f"Gemm {BN}", ("dynamic-weight",)
    ),
}
