"""Index maps that a batch norm travels through, backward to a convolution and forward to one."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

CASES: Cases = {
    "Identity, backward": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) i = Identity(h) y = BN4(i)", "Conv Identity"),
    "Identity, forward": Case("x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) i = Identity(n) y = Conv(i, W)", "Conv Identity"),
    "Dropout, backward": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) i = Dropout(h) y = BN4(i)", "Conv Dropout"),
    "Dropout with a mask that nobody reads, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) i, mask = Dropout(n) y = Conv(i, W)", "Conv Dropout"
    ),
    "Transpose, backward": Case(
        "x[1,6,6,3] | B[3,4] | h = MatMul(x, B) t = Transpose<perm=[0,3,1,2]>(h) y = SBN4(t)", "MatMul Transpose"
    ),
    "Transpose, forward": Case(
        "x[1,3,6,6] | B[3,4] c[4] | n = BN3(x) t = Transpose<perm=[0,2,3,1]>(n) h = MatMul(t, B) y = Add(h, c)",
        "Transpose MatMul Add",
    ),
    "Transpose without an order, both sides": Case(
        "x[3,5] | B[5,4] C[4,2] | n = BN5(x) h = MatMul(n, B) t = Transpose(h) u = Transpose(t) m = SBN4(u) "
        "y = Gemm(m, C)",
        "MatMul Transpose Transpose Gemm",
    ),
    "Reshape of the positions, backward": Case(
        "x[2,3,6,6] | W[4,3,3,3] s={0,4,-1} | h = Conv(x, W) r = Reshape(h, s) y = BN4(r)", "Conv Reshape"
    ),
    "Reshape of the positions, forward": Case(
        "x[2,3,36] | W[4,3,3,3] s={2,3,6,6} | n = BN3(x) r = Reshape(n, s) y = Conv(r, W)", "Conv Reshape"
    ),
    "Reshape of the channels to groups, backward": Case(
        "x[2,3,4,4] | W[6,3,1,1] s={2,2,3,16} c[2,3,1] | h = Conv(x, W) r = Reshape(h, s) y = Mul(r, c)", "Conv Reshape"
    ),
    "Reshape of groups to channels, forward": Case(
        "x[2,2,3,16] | c[2,3,1] t[2,3,1] W[4,6,3,3] s={2,6,4,4} | m = Mul(x, c) a = Add(m, t) r = Reshape(a, s) "
        "y = Conv(r, W)",
        "Conv Reshape",
    ),
    "Flatten of one position, backward": Case(
        "x[2,3,3,3] | W[4,3,3,3] | h = Conv(x, W) f = Flatten(h) y = BN4(f)", "Conv Flatten"
    ),
    "Flatten, forward": Case("x[2,3,2,2] | B[12,5] c[5] | n = BN3(x) f = Flatten(n) y = Gemm(f, B, c)", "Flatten Gemm"),
    "tokens flattened for a batch norm, and back": Case(
        "x[2,5,3] | B[3,4] s={10,4} u={2,5,4} | h = MatMul(x, B) f = Reshape(h, s) n = BN4(f) y = Reshape(n, u)",
        "MatMul Reshape Reshape Add",
    ),
    "Squeeze, backward": Case(
        "x[2,3,9,1] | W[4,3,3,1] a={3} | h = Conv(x, W) q = Squeeze(h, a) y = BN4(q)", "Conv Squeeze"
    ),
    "Squeeze, forward": Case(
        "x[2,3,9,1] | W[4,3,3] a={-1} | n = BN3(x) q = Squeeze(n, a) y = Conv(q, W)", "Conv Squeeze"
    ),
    "Unsqueeze, backward": Case(
        "x[2,3,9] | W[4,3,3] a={2} | h = Conv(x, W) q = Unsqueeze(h, a) y = BN4(q)", "Conv Unsqueeze"
    ),
    "Unsqueeze in front of the channel, forward": Case(
        "x[2,3] | W[4,3,1,1] a={-1,2} | n = BN3(x) q = Unsqueeze(n, a) y = Conv(q, W)", "Conv Unsqueeze"
    ),
    "Split of the channels, a batch norm on each part, backward": Case(
        "x[1,3,6,6] -> y z | W[6,3,3,3] s={4,2} | h = Conv(x, W) a, b = Split<axis=1>(h, s) y = BN4(a) z = BN2(b)",
        "Conv Split",
    ),
    "Split of the channels, a batch norm on one part, backward": Case(
        "x[1,3,6,6] -> y z | W[6,3,3,3] s={4,2} | h = Conv(x, W) a, z = Split<axis=1>(h, s) y = BN4(a)", "Conv Split"
    ),
    "Split of the channels, forward": Case(
        "x[1,6,6,6] -> y z | W[4,3,3,3] V[2,3,1,1] | n = BN6(x) a, b = Split<axis=1, num_outputs=2>(n) y = Conv(a, W) "
        "z = Conv(b, V)",
        "Split Conv Conv",
    ),
    "Split of the positions, forward": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] V[2,3,1,1] | n = BN3(x) a, b = Split<axis=2, num_outputs=2>(n) y = Conv(a, W) "
        "z = Conv(b, V)",
        "Split Conv Conv",
    ),
    "Slice of the channels, backward": Case(
        "x[1,3,6,6] | W[6,3,3,3] s={1} e={5} a={1} | h = Conv(x, W) c = Slice(h, s, e, a) y = BN4(c)", "Conv Slice"
    ),
    "Slice of the positions, backwards by two, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] s={-1,3} e={-99,1} a={3,2} t={-2,-1} | h = Conv(x, W) c = Slice(h, s, e, a, "
        "t) y = BN4(c)",
        "Conv Slice",
    ),
    "Slice of the channels, forward": Case(
        "x[1,6,6,6] | W[4,3,3,3] s={5} e={-99} a={1} t={-2} | n = BN6(x) c = Slice(n, s, e, a, t) y = Conv(c, W)",
        "Conv Slice",
    ),
    "Focus: four slices of the positions, forward": Case(
        "x[1,2,4,4] | W[3,8,3,3] o={0,0} p={0,1} q={1,0} r={1,1} e={9,9} a={2,3} t={2,2} | n = BN2(x) "
        "b = Slice(n, o, e, a, t) c = Slice(n, p, e, a, t) d = Slice(n, q, e, a, t) f = Slice(n, r, e, a, t) "
        "g = Concat<axis=1>(b, c, d, f) y = Conv<pads=[1,1,1,1]>(g, W)",
        "Slice Slice Slice Slice Concat Conv Add",
    ),
    "Gather of the channels, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] i={2,0,3,1} | h = Conv(x, W) g = Gather<axis=1>(h, i) y = BN4(g)", "Conv Gather"
    ),
    "Gather of the channels, some twice, forward": Case(
        "x[1,3,6,6] | W[4,5,3,3] i={2,0,-1,1,0} | n = BN3(x) g = Gather<axis=1>(n, i) y = Conv(g, W)", "Conv Gather"
    ),
    "Gather of rows, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] i={2,0,3,1} | n = BN3(x) g = Gather<axis=2>(n, i) y = Conv(g, W)", "Conv Gather"
    ),
    "Gather of one row, which removes an axis, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] int64:i[]=2 | h = Conv(x, W) g = Gather<axis=2>(h, i) y = BN4(g)", "Conv Gather"
    ),
    "Expand of the positions, backward": Case(
        "x[1,3,3,3] | W[4,3,3,3] s={2,4,5,5} | h = Conv(x, W) e = Expand(h, s) y = BN4(e)", "Conv Expand"
    ),
    "Expand of the positions, forward": Case(
        "x[1,3,1,1] | W[4,3,3,3] s={1,1,5,5} | n = BN3(x) e = Expand(n, s) y = Conv(e, W)", "Conv Expand"
    ),
    "Tile of the positions, backward": Case(
        "x[1,3,4,4] | W[4,3,3,3] r={1,1,2,3} | h = Conv(x, W) e = Tile(h, r) y = BN4(e)", "Conv Tile"
    ),
    "Tile of the channels, forward": Case(
        "x[1,3,4,4] | W[4,6,3,3] r={1,2,1,1} | n = BN3(x) e = Tile(n, r) y = Conv(e, W)", "Conv Tile"
    ),
    "DepthToSpace, columns first, one map for each block, backward": Case(
        'x[1,3,4,4] | W[8,3,3,3] s[2,1,1] t[2,1,1] | h = Conv(x, W) d = DepthToSpace<blocksize=2, mode="CRD">(h) '
        "m = Mul(d, s) y = Add(m, t)",
        "Conv DepthToSpace",
    ),
    "DepthToSpace, depth first, backward": Case(
        'x[1,3,4,4] | W[8,3,3,3] | h = Conv(x, W) d = DepthToSpace<blocksize=2, mode="DCR">(h) y = BN2(d)',
        "Conv DepthToSpace",
    ),
    "SpaceToDepth, forward": Case(
        "x[1,3,4,4] | W[2,12,1,1] | n = BN3(x) d = SpaceToDepth<blocksize=2>(n) y = Conv(d, W)", "Conv SpaceToDepth"
    ),
    "SpaceToDepth, columns first, forward": Case(
        'x[1,3,4,4] | W[2,12,1,1] | n = BN3(x) d = SpaceToDepth<blocksize=2, mode="CRD">(n) y = Conv(d, W)',
        "Conv SpaceToDepth",
        opset=28,
    ),
    "SpaceToDepth, columns first, one map for each channel in front, backward": Case(
        "x[1,3,4,4] | W[2,3,1,1] s[8,1,1]={2,2,2,2,3,3,3,3} | h = Conv(x, W) "
        'd = SpaceToDepth<blocksize=2, mode="CRD">(h) y = Mul(d, s)',
        "Conv SpaceToDepth",
        opset=28,
    ),
    "a channel shuffle, backward": Case(
        "x[1,3,4,4] | W[6,3,3,3] s={1,2,3,2,2} u={1,6,2,2} | h = Conv(x, W) r = Reshape(h, s) "
        "t = Transpose<perm=[0,2,1,3,4]>(r) q = Reshape(t, u) y = BN6(q)",
        "Conv Reshape Transpose Reshape",
    ),
    "a channel shuffle, forward": Case(
        "x[1,6,4,4] | W[6,1,3,3] s={1,2,3,4,4} u={1,6,4,4} | n = BN6(x) r = Reshape(n, s) "
        "t = Transpose<perm=[0,2,1,3,4]>(r) q = Reshape(t, u) y = Conv<group=6>(q, W)",
        "Conv Reshape Transpose Reshape",
    ),
    "a chain of three, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={0} s={4,16} u={1,4,4,4} | h = Conv(x, W) q = Squeeze(h, a) r = Reshape(q, s) "
        "v = Reshape(r, u) y = BN4(v)",
        "Conv Squeeze Reshape Reshape",
    ),
    "a chain of three, forward": Case(
        "x[1,6,6,3] | W[4,3,3,3] s[3] t[3] p={0,0,2,2} o={2} e={5} a={1} | m = Mul(x, s) n = Add(m, t) "
        "c = Slice(n, o, e, a) q = Transpose<perm=[0,3,1,2]>(c) d = Identity(q) y = Conv(d, W)",
        "Conv Slice Transpose Identity",
    ),
    "Cast to double and back, backward": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] | h = Conv(x, W, b) d = Cast<to=11>(h) f = Cast<to=1>(d) y = BN4(f)",
        "Conv Cast Cast",
        element="float",
    ),
    "Cast up in front of a batch norm": Case(
        "float:x[1,3,6,6] -> float:y | W[4,3,3,3] b[4] float:g[4] float:o[4] float:m[4] float:var[4] | k = "
        "Cast<to=10>(x) "
        "h = Conv(k, W, b) c = Cast<to=1>(h) y = BatchNormalization(c, g, o, m, var)",
        "Cast Conv Cast",
        element="float16",
    ),
    "the positions are flattened and the classes come last": Case(
        "x[2,3,4,4] | W[6,3,1,1] s={2,16,2,3} c[3] t[3] | h = Conv(x, W) p = Transpose<perm=[0,2,3,1]>(h) "
        "r = Reshape(p, s) m = Mul(r, c) y = Add(m, t)",
        "Conv Transpose Reshape",
    ),
}
