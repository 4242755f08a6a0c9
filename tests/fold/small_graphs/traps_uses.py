"""Graphs in which somebody else sees the value between: what would change for him stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

BN = "BatchNormalization"
_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"


def overridable(*names: str) -> Callable[[onnx.ModelProto], None]:
    """Let a caller pass other values for initializers."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in model.graph.initializer
            if tensor.name in names
        )

    return edit


CASES: Cases = {
    "the convolution's output is an output": Case(
        "x[1,3,6,6] -> h y | W[4,3,3,3] | h = Conv(x, W) y = BN4(h)", f"Conv {BN}", ("model-output",)
    ),
    "the convolution's output is used by another": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) z = Abs(h)", f"Conv {BN} Abs", ("used-elsewhere",)
    ),
    "what stands between is an output": Case(
        "x[1,3,6,6] -> t y | W[4,3,3,3] | h = Conv(x, W) t = Transpose<perm=[0,1,3,2]>(h) y = BN4(t)",
        f"Conv Transpose {BN}",
        ("model-output",),
    ),
    "the batch norm's output is an output, in front of a convolution": Case(
        "x[1,3,6,6] -> n y | W[4,3,3,3] | n = BN3(x) y = Conv(n, W)", f"{BN} Conv", ("model-output",)
    ),
    "the batch norm's output is also added": Case(
        "x[1,3,6,6] | W[3,3,3,3] | r = Sigmoid(x) n = BN3(r) h = Conv<pads=[1,1,1,1]>(n, W) y = Add(h, n)",
        "Sigmoid Conv Add",
    ),
    "the batch norm's output is also pooled, for nothing that could take it in": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | n = BN3(x) y = Conv(n, W) z = GlobalAveragePool(n)",
        f"{BN} Conv GlobalAveragePool",
        ("model-output",),
    ),
    "one of two convolutions has weights that are computed": Case(
        "x[1,3,6,6] V[4,3,3,3] -> y z | W[4,3,3,3] | n = BN3(x) y = Conv(n, W) z = Conv(n, V)",
        f"{BN} Conv Conv",
        ("dynamic-weight",),
    ),
    "the value between is read by a body": Case(
        "x[1,3,6,6] bool:c -> y z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) z = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { t = Relu(h) }, "
        "else_branch = two () => (double[1,4,4,4] e) { e = Abs(h) } > y = BN4(h)",
        f"Conv If Relu Abs {BN}",
        ("used-in-subgraph",),
    ),
    "the batch norm is in a body, the convolution outside": Case(
        "x[1,3,6,6] bool:c -> z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) z = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { t = BN4(h) }, "
        "else_branch = two () => (double[1,4,4,4] e) { e = Abs(h) } >",
        f"Conv If Abs {BN}",
        ("edge-of-graph",),
    ),
    "a body's output is normalised outside": Case(
        "x[1,3,6,6] bool:c -> y | W[4,3,3,3] V[4,3,3,3] | z = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { t = Conv(x, W) }, "
        "else_branch = two () => (double[1,4,4,4] e) { e = Conv(x, V) } > y = BN4(z)",
        f"If Conv Conv {BN}",
        ("no-rule",),
    ),
    "the state of a Loop": Case(
        "x[1,3,6,6] -> y[1,3,6,6] | int64:n[]=3 bool:k[]=1 | y = Loop (n, k, x) < "
        "body = b (int64 i, bool c, double[1,3,6,6] s) => (bool d, double[1,3,6,6] t) { d = Identity(c) t = BN3(s) } >",
        f"Loop Identity {BN}",
        ("edge-of-graph",),
    ),
    "a Loop whose body gives out what lies between": Case(
        "x[1,3,6,6] -> y[1,3,6,6] z[3,1,3,6,6] | W[3,3,1,1] int64:n[]=3 bool:k[]=1 | y, z = Loop (n, k, x) < "
        "body = b (int64 i, bool c, double[1,3,6,6] s) => (bool d, double[1,3,6,6] t, double[1,3,6,6] h) "
        "{ d = Identity(c) h = Conv(s, W) t = BN3(h) } >",
        f"Loop Identity Conv {BN}",
        ("model-output",),
    ),
    "two batch norms on one product": Case(
        "x[2,3] -> y z | B[3,4] | h = MatMul(x, B) y = BN4(h) z = BN4(h)",
        f"MatMul {BN} {BN}",
        ("used-elsewhere", "used-elsewhere"),
    ),
    "a residual that also takes the convolution's output": Case(
        f"{_CONV} | h = Conv(x, W, b) n = BN4(h) y = Add(h, n)", f"Conv {BN} Add | Conv", ("used-elsewhere",)
    ),
    "a residual of the input and a convolution, normalised": Case(
        "x[1,4,6,6] | W[4,4,3,3] | r = Sigmoid(x) h = Conv<pads=[1,1,1,1]>(r, W) s = Add(h, r) y = BN4(s)",
        "Sigmoid Conv",
    ),
    "a residual of the model's input and a convolution, normalised": Case(
        "x[1,4,6,6] z[1,4,6,6] | W[4,4,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) s = Add(h, z) y = BN4(s)",
        f"Conv Add {BN}",
        ("edge-of-graph",),
    ),
    "a sum with a value of one channel": Case(
        "x[1,3,6,6] z[1,1,4,4] | W[4,3,3,3] V[1,1,1,1] | h = Conv(x, W) g = Conv(z, V) s = Add(h, g) y = BN4(s)",
        f"Conv Conv Add {BN}",
        ("wrong-axis",),
    ),
    "a value added to itself": Case("x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Add(h, h) y = BN4(s)", "Conv Add"),
    "a value added to itself, and read by another": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] | h = Conv(x, W) s = Add(h, h) z = Relu(h) y = BN4(s)",
        f"Conv Add Relu {BN}",
        ("used-elsewhere",),
    ),
    "a value added to itself twice over": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Add(h, h) t = Add(s, s) y = BN4(t)", "Conv Add Add"
    ),
    "a value added to itself and to another": Case(
        "x[1,3,6,6] z[1,4,4,4] | W[4,3,3,3] V[4,4,1,1] | h = Conv(x, W) g = Conv(z, V) s = Sum(h, g, h) y = BN4(s)",
        "Conv Conv Sum",
    ),
    "the mean of a value and itself": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Mean(h, h, h) y = BN4(s)", "Conv Mean"
    ),
    "the larger of a value and itself": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Max(h, h) y = PBN4(s)", "Conv Max"
    ),
    "a value taken from itself": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Sub(h, h) y = BN4(s)", "Conv Sub Add"
    ),
    "a value multiplied by itself": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv(x, W) s = Mul(h, h) y = BN4(s)", f"Conv Mul {BN}", ("used-elsewhere",)
    ),
    "the value squared by a Gemm": Case(
        "x[2,4] | | n = BN4(x) t = Transpose(n) y = Gemm(n, t)", f"{BN} Transpose Gemm", ("dynamic-weight",)
    ),
    "a gate that reads the value that it gates": Case(
        "x[1,3,6,6] | W[4,3,3,3] V[4,4,1,1] | h = Conv(x, W) p = GlobalAveragePool(h) g = Conv(p, V) q = Sigmoid(g) "
        "m = Mul(h, q) y = BN4(m)",
        f"Conv GlobalAveragePool Conv Sigmoid Mul {BN}",
        ("used-elsewhere",),
    ),
    "a gate of one channel, a shift": Case(
        "x[1,3,6,6] z[1,1,4,4] | W[4,3,3,3] | h = Conv(x, W) q = Sigmoid(z) m = Mul(h, q) y = BN4(m)",
        "Conv Sigmoid Mul Add",
    ),
    "a gate of a normalised value and its sigmoid": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) s = Sigmoid(n) m = Mul(n, s) y = Conv(m, W)",
        f"{BN} Sigmoid Mul Conv",
        ("no-rule",),
    ),
    "a concatenation with the model's input": Case(
        "x[1,3,6,6] | W[4,3,3,3] | h = Conv<pads=[1,1,1,1]>(x, W) c = Concat<axis=1>(h, x) y = BN7(c)",
        f"Conv Concat {BN}",
        ("edge-of-graph",),
    ),
    "a dense block: a batch norm on a concatenation that others read": Case(
        "x[1,3,6,6] -> y | W[2,3,3,3] V[2,5,1,1] | h = Conv<pads=[1,1,1,1]>(x, W) c = Concat<axis=1>(x, h) n = BN5(c) "
        "r = Relu(n) g = Conv(r, V) y = Concat<axis=1>(c, g)",
        f"Conv Concat {BN} Relu Conv Concat",
        ("sign",),
    ),
    "Concat of one value twice, with two maps": Case(
        "x[1,3,6,6] | W[2,3,3,3] | h = Conv(x, W) c = Concat<axis=1>(h, h) y = BN4(c)",
        f"Conv Concat {BN}",
        ("used-elsewhere",),
    ),
    "Concat of one value twice, with one map": Case(
        "x[1,3,6,6] | W[2,3,3,3] | h = Conv(x, W) c = Concat<axis=1>(h, h) y = UBN4(c)", "Conv Concat"
    ),
    "Concat of one value twice, along the rows": Case(
        "x[1,3,6,6] | W[2,3,3,3] | h = Conv(x, W) c = Concat<axis=2>(h, h) y = BN2(c)", "Conv Concat"
    ),
    "two batch norms that are added, in front of a convolution": Case(
        "x[1,3,6,6] z[1,3,6,6] | W[4,3,3,3] | n = BN3(x) m = BN3(z) s = Add(n, m) y = Conv(s, W)",
        f"{BN} {BN} Add Conv",
        ("no-rule", "no-rule"),
    ),
    "a batch norm alone": Case("x[1,3,6,6] | | y = BN3(x)", BN, ("edge-of-graph",)),
    "two batch norms alone": Case("x[1,3,6,6] | | n = BN3(x) y = BN3(n)", BN, ("edge-of-graph",)),
    "a batch norm and what follows it, between two sigmoids": Case(
        "x[1,3,6,6] | s[3,1,1] | i = Sigmoid(x) n = BN3(i) m = Mul(n, s) y = Sigmoid(m)",
        f"Sigmoid {BN} Sigmoid",
        ("no-rule",),
    ),
    "weights that a caller passes in": Case(
        "x[1,3,6,6] W[4,3,3,3] -> y | b[4] | h = Conv(x, W, b) y = BN4(h)", f"Conv {BN}", ("dynamic-weight",)
    ),
    "a bias that a caller passes in": Case(
        "x[1,3,6,6] b[4] -> y | W[4,3,3,3] | h = Conv(x, W, b) y = BN4(h)", f"Conv {BN}", ("dynamic-weight",)
    ),
    "statistics that a caller passes in": Case(
        "x[1,3,6,6] m[4] | W[4,3,3,3] g[4] o[4] var[4] | h = Conv(x, W) y = BatchNormalization(h, g, o, m, var)",
        f"Conv {BN}",
        ("dynamic-parameters",),
    ),
    "a scale that a caller passes in": Case(
        "x[1,3,6,6] c[4,1,1] | W[4,3,3,3] | h = Conv(x, W) y = Mul(h, c)", "Conv Mul"
    ),
    "a weight that may be overridden": Case(
        f"{_CONV} | h = Conv(x, W, b) y = BN4(h)", f"Conv {BN}", ("dynamic-weight",), edit=overridable("W")
    ),
    "a mean that may be overridden": Case(
        f"{_CONV} | h = Conv(x, W, b) y = BN4(h)", f"Conv {BN}", ("dynamic-parameters",), edit=overridable("mean1")
    ),
    "a constant that may be overridden": Case(
        f"{_CONV} s[4,1,1] | h = Conv(x, W, b) y = Mul(h, s)", "Conv Mul", edit=overridable("s")
    ),
    "statistics for every position": Case(
        "x[1,3,6,6] | W[2,3,5,5] g[2,2,2] o[2,2,2] m[2,2,2] var[2,2,2] | h = Conv(x, W) "
        "y = BatchNormalization<spatial=0>(h, g, o, m, var)",
        f"Conv {BN}",
        ("per-activation",),
        opset=7,
        ir_version=4,
    ),
    "more statistics than channels": Case("x[1,C,6,6] | W[4,2,3,3] | n = BN2(x) y = Conv(n, W)", "Conv"),
    "a batch norm of another domain": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) y = com.example.Known(h)", "Conv Known"
    ),
    "a layer of another domain": Case(
        "x[1,3,6,6] -> y[1,3,6,6] | | h = com.example.Known(x) y = BN3(h)", f"Known {BN}", ("unknown-shape",)
    ),
    "operations of another domain on both sides": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] | k = com.example.Known(x) h = Conv(k, W) n = BN4(h) y = "
        "com.example.Known(n)",
        "Known Conv Known",
    ),
    "a rank that nobody knows, in front of a convolution": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] | k = com.example.Known(x) n = BN3(k) y = Conv(n, W)", "Known Conv"
    ),
    "a rank that nobody knows, and a product": Case(
        "x[2,3] -> y[2,4] | B[3,4] | k = com.example.Known(x) n = BN3(k) y = MatMul(n, B)",
        f"Known {BN} MatMul",
        ("unknown-shape",),
    ),
    "a rank that a convolution tells, two nodes on": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] | k = com.example.Known(x) n = BN3(k) d = Dropout(n) y = Conv(d, W)",
        "Known Dropout Conv",
    ),
    "a rank that nobody knows, and a constant": Case(
        "x[2,3] -> y[2,4] | B[3,4] c[3] | k = com.example.Known(x) n = Mul(k, c) y = MatMul(n, B)",
        "Known Mul MatMul | Known MatMul",
    ),
}
