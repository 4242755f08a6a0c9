"""Graphs in which the channel is not where it seems to be: what varies along another axis stays, or is right."""

from __future__ import annotations

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"
_CONV = "x[1,3,6,6] | W[4,3,3,3]"

CASES: Cases = {
    "a constant along the width, as wide as there are channels": Case(
        f"{_CONV} c[4] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"
    ),
    "a shift along the width, as wide as there are channels": Case(
        f"{_CONV} c[4] | h = Conv(x, W) y = Add(h, c)", "Conv Add"
    ),
    "a constant along the height, as high as there are channels": Case(
        f"{_CONV} c[4,1] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"
    ),
    "a constant along the batch, as large as there are channels": Case(
        "x[4,3,6,6] | W[4,3,3,3] c[4,1,1,1] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"
    ),
    "two axes against four": Case(f"{_CONV} c[1,4] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"),
    "a constant of height and width": Case(f"{_CONV} c[4,4] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"),
    "a constant of channel and height": Case(f"{_CONV} c[4,4,1] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"),
    "a scalar of five axes makes five axes": Case(f"{_CONV} c[1,1,1,1,1] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"),
    "a constant that makes four channels of one": Case(
        "x[1,3,6,6] | W[1,3,3,3] c[4,1,1] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"
    ),
    "a constant that makes a batch of one": Case("x[1,3] | B[3,4] c[5,1] | m = Add(x, c) y = Gemm(m, B)", "Add Gemm"),
    "a constant that makes one position many": Case(
        "x[1,3,1,1] | W[4,3,1,1] c[4,5,5] | h = Conv(x, W) y = Add(h, c)", "Conv Add"
    ),
    "a dimension that may be one": Case("x[2,C] | B[4,3] c[4] | m = Mul(x, c) y = Gemm(m, B)", "Mul Gemm", free=1),
    "a Gemm whose rows are as many as the channels": Case(
        "x[4,3] | B[3,4] c[4,1] | h = Gemm(x, B) y = Mul(h, c)", "Gemm Mul"
    ),
    "a MatMul of tokens, as many tokens as channels, a batch norm over the tokens": Case(
        "x[2,4,3] | B[3,4] | h = MatMul(x, B) y = BN4(h)", f"MatMul {BN}", ("wrong-axis",)
    ),
    "a MatMul of tokens, a batch norm over the tokens in front": Case(
        "x[2,3,3] | B[3,4] | n = BN3(x) y = MatMul(n, B)", f"{BN} MatMul", ("wrong-axis",)
    ),
    "a constant on the left, a batch norm over what it does not contract": Case(
        "x[2,4] | A[3,2] | h = MatMul(A, x) y = BN4(h)", f"MatMul {BN}", ("wrong-axis",)
    ),
    "a reshape that mixes tokens and channels": Case(
        "x[6,5] | B[5,2] s={3,4} | h = MatMul(x, B) r = Reshape(h, s) y = BN4(r)",
        f"MatMul Reshape {BN}",
        ("scrambled-channel",),
    ),
    "a reshape that reads the channels in another order": Case(
        "x[1,3,4,4] | W[4,3,1,1] s={1,16,2,2} | h = Conv(x, W) r = Reshape(h, s) y = BN16(r)",
        f"Conv Reshape {BN}",
        ("wrong-axis",),
    ),
    "a reshape that puts rows where channels were, with equal sizes": Case(
        "x[4,3,4,4] | W[4,3,1,1] s={1,4,64,1} | h = Conv(x, W) r = Reshape(h, s) y = BN4(r)",
        f"Conv Reshape {BN}",
        ("wrong-axis",),
    ),
    "a transposition that puts rows where channels were": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) t = Transpose<perm=[0,2,1,3]>(h) y = BN4(t)",
        f"Conv Transpose {BN}",
        ("wrong-axis",),
    ),
    "a channel shuffle that was left half way": Case(
        "x[1,3,4,4] | W[6,3,1,1] s={1,2,3,16} | h = Conv(x, W) r = Reshape(h, s) y = BN2(r)", "Conv Reshape"
    ),
    "DepthToSpace, depth first, a map for each channel behind": Case(
        'x[1,3,4,4] | W[8,3,3,3] | h = Conv(x, W) d = DepthToSpace<blocksize=2, mode="DCR">(h) y = BN2(d)',
        "Conv DepthToSpace",
    ),
    "DepthToSpace, columns first, a map for each channel behind": Case(
        'x[1,3,4,4] | W[8,3,3,3] | h = Conv(x, W) d = DepthToSpace<blocksize=2, mode="CRD">(h) y = BN2(d)',
        "Conv DepthToSpace",
    ),
    "SpaceToDepth in front of a batch norm that tells the blocks apart": Case(
        "x[1,3,4,4] | W[2,3,1,1] | h = Conv(x, W) d = SpaceToDepth<blocksize=2>(h) y = BN8(d)",
        f"Conv SpaceToDepth {BN}",
        ("wrong-axis",),
    ),
    "DepthToSpace behind a batch norm that tells the blocks apart": Case(
        "x[1,8,4,4] | W[3,2,1,1] | n = BN8(x) d = DepthToSpace<blocksize=2>(n) y = Conv(d, W)",
        f"{BN} DepthToSpace Conv",
        ("wrong-axis",),
    ),
    "a Gather that takes one channel twice, with two maps": Case(
        "x[1,3,6,6] | W[3,3,3,3] i={2,0,2} | h = Conv(x, W) g = Gather<axis=1>(h, i) y = BN3(g)",
        f"Conv Gather {BN}",
        ("scrambled-channel",),
    ),
    "a Tile that takes each channel twice, with two maps": Case(
        "x[1,3,6,6] | W[2,3,3,3] r={1,2,1,1} | h = Conv(x, W) g = Tile(h, r) y = BN4(g)",
        f"Conv Tile {BN}",
        ("scrambled-channel",),
    ),
    "an Expand that makes many channels of one": Case(
        "x[1,3,6,6] | W[1,3,3,3] s={1,4,4,4} | h = Conv(x, W) g = Expand(h, s) y = BN4(g)",
        f"Conv Expand {BN}",
        ("scrambled-channel",),
    ),
    "a mean over the channels": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={1} | n = BN3(x) m = ReduceMean(n, a) y = Concat<axis=1>(m, m)",
        f"{BN} ReduceMean Concat",
        ("model-output",),
    ),
    "a sum over the channels, behind a convolution": Case(
        "x[1,3,6,6] | W[4,3,3,3] a={1} | h = Conv(x, W) m = ReduceSum(h, a) y = BN1(m)", "Conv ReduceSum"
    ),
    "a grouped transposed convolution, whose channels are in another order": Case(
        "x[1,4,3,3] | W[4,2,2,2] b[4] | h = ConvTranspose<group=2>(x, W, b) y = BN4(h)", "ConvTranspose"
    ),
    "a grouped transposed convolution, forward": Case(
        "x[1,4,3,3] | W[4,2,1,1] b[4] | n = BN4(x) y = ConvTranspose<group=2>(n, W, b)", "ConvTranspose"
    ),
    "a square Gemm, transposed": Case("x[4,4] | B[4,4] | h = Gemm<transB=1>(x, B) y = BN4(h)", "Gemm"),
    "a square Gemm, transposed input": Case("x[4,4] | B[4,4] | h = Gemm<transA=1>(x, B) y = BN4(h)", "Gemm"),
    "an Einsum that lets the label of the channels go": Case(
        'x[1,3,4,4] | W[4,3] | h = Einsum<equation="bchw,oc->bohw">(x, W) t = Transpose<perm=[0,3,2,1]>(h) y = BN4(t)',
        f"Einsum Transpose {BN}",
        ("wrong-axis",),
    ),
    "a GroupNormalization with parameters for each group, a map for each channel": Case(
        "x[2,4,3,3] -> y[2,4,3,3] | g[2] b[2] | h = GroupNormalization<num_groups=2>(x, g, b) y = BN4(h)",
        f"GroupNormalization {BN}",
        ("wrong-axis",),
        opset=18,
        checked=False,
    ),
    "a LayerNormalization over the positions, a batch norm over the channels": Case(
        "x[2,4,4] | g[4] b[4] | h = LayerNormalization(x, g, b) y = BN4(h)", f"LayerNormalization {BN}", ("wrong-axis",)
    ),
    "a pooling whose channel count is its width": Case(
        "x[1,3,7,7] | W[4,3,3,3] c[4] | h = Conv(x, W) p = AveragePool<kernel_shape=[2,2]>(h) y = Mul(p, c)",
        "Conv AveragePool Mul",
    ),
    "an LSTM whose sequence is as long as its input is wide": Case(
        "x[3,3,3] | W[1,16,3] R[1,16,4] | n = BN3(x) y = LSTM<hidden_size=4>(n, W, R)", f"{BN} LSTM", ("wrong-axis",)
    ),
}
