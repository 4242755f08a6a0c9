"""Situations in which a graph may come: versions of operators and of the format, bodies, names, free sizes."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from tests.fold.small_graphs.notation import Case, Cases

__all__ = ["CASES"]

_CONV = "x[1,3,6,6] | W[4,3,3,3] b[4]"
_PLAIN = f"{_CONV} | h = Conv(x, W, b) y = BN4(h)"
_STATS = "gamma1, beta1, mean1, var1"
NEWEST = onnx.defs.onnx_opset_version()


def _no_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = ""


def _equal_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = "W_folded"


def _metadata(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {"classes": "cat,dog"})
    model.producer_name, model.domain, model.model_version = "somebody", "org.example", 3
    model.graph.initializer[0].doc_string = "weights"


def _typed_fields(model: onnx.ModelProto) -> None:
    """Store every initializer in its type's own field in the place of raw bytes."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, array.shape, array.reshape(-1).tolist()))


def _wrong_claims(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("h", onnx.TensorProto.DOUBLE, None))


CASES: Cases = {
    **{
        f"opset {opset}": Case(_PLAIN, "Conv", opset=opset, ir_version=4 if opset < 19 else 9)
        for opset in (7, 8, 9, 11, 13, 14, 15, 17, 18, 19, 20)
    },
    **{f"opset {opset}": Case(_PLAIN, "Conv", opset=opset, ir_version=10) for opset in (21, 22)},
    f"the newest opset, {NEWEST}": Case(_PLAIN, "Conv", opset=NEWEST, ir_version=10),
    "opset 6": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] b[4] g[4] o[4] m[4] var[4] | h = Conv(x, W, b) "
        "y = BatchNormalization<is_test=1>(h, g, o, m, var)",
        "Conv",
        opset=6,
        ir_version=3,
    ),
    "opset 6, Mul and Add along an axis": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] b[4] s[4] t[4] | h = Conv(x, W, b) m = Mul<broadcast=1, axis=1>(h, s) "
        "y = Add<broadcast=1, axis=1>(m, t)",
        "Conv",
        opset=6,
        ir_version=3,
    ),
    "opset 6, in front of a Gemm": Case(
        "x[2,3] -> y[2,4] | B[3,4] c[4] g[3] o[3] m[3] var[3] | n = BatchNormalization<is_test=1>(x, g, o, m, var) "
        "y = Gemm<broadcast=1>(n, B, c)",
        "Gemm",
        opset=6,
        ir_version=3,
    ),
    "opset 1, with consumed inputs": Case(
        "x[1,3,6,6] -> y[1,4,4,4] | W[4,3,3,3] b[4] g[4] o[4] m[4] var[4] | h = Conv(x, W, b) "
        "y = BatchNormalization<is_test=1, consumed_inputs=[0,0,0,1,1], spatial=1>(h, g, o, m, var)",
        "Conv",
        opset=1,
        ir_version=3,
    ),
    "initializers of IR 3 are inputs": Case(_PLAIN, "Conv", opset=8, ir_version=3),
    "initializers of IR 3, forward": Case(
        "x[1,3,6,6] | W[4,3,3,3] | n = BN3(x) y = Conv(n, W)", "Conv", opset=8, ir_version=3
    ),
    "without names": Case(_PLAIN, "Conv", edit=_no_names),
    "with one name for every node": Case(_PLAIN, "Conv", edit=_equal_names),
    "with metadata": Case(_PLAIN, "Conv", edit=_metadata),
    "with numbers in typed fields": Case(_PLAIN, "Conv", edit=_typed_fields),
    "with a value that has no shape": Case(_PLAIN, "Conv", edit=_wrong_claims),
    "names that new ones would have": Case(
        "x[1,3,6,6] W_folded[1] -> y b_folded | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h) b_folded = "
        "Relu(W_folded)",
        "Conv Relu",
    ),
    "weights in Constant nodes": Case(
        "x[1,2] | c[2] | W = Constant<value = double[2,2] {1.0, 2.0, 3.0, 4.0}>() h = Gemm(x, W, c) y = BN2(h)", "Gemm"
    ),
    "weights behind Identity and Transpose": Case(
        "x[2,3] | V[4,3] d[4] | W = Transpose<perm=[1,0]>(V) c = Identity(d) h = Gemm(x, W, c) y = BN4(h)", "Gemm"
    ),
    "weights behind Reshape and Cast": Case(
        "x[1,3,6,6] | float:V[4,27] s={4,3,3,3} | U = Cast<to=11>(V) W = Reshape(U, s) h = Conv(x, W) y = BN4(h)",
        "Conv",
    ),
    "weights that are normalised in the graph": Case(
        "x[1,3,6,6] | V[4,3,3,3] g[4,1,1,1] var[4,1,1,1] | U = Div(V, var) W = Mul(U, g) h = Conv(x, W) y = BN4(h)",
        "Conv",
    ),
    "one weight, two convolutions": Case(
        "x[1,3,6,6] -> y z w | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) g = Conv(x, W) z = BN4(g) w = Conv(x, W)",
        "Conv Conv Conv",
    ),
    "one set of statistics, two convolutions": Case(
        f"x[1,3,6,6] -> y z | W[4,3,3,3] V[4,3,1,1] | h = Conv(x, W) y = BN4(h) g = Conv(x, V) "
        f"z = BatchNormalization(g, {_STATS})",
        "Conv Conv",
    ),
    "one vector that is weight and bias at once": Case(
        "x[1,3,6,6] | W[4,3,3,3] b[4] m[4] var[4] | h = Conv(x, W, b) y = BatchNormalization(h, b, b, m, var)", "Conv"
    ),
    "a bias that is also the output of the model's other branch": Case(
        "x[1,3,6,6] -> y z | W[4,3,3,3] b[4] | h = Conv(x, W, b) y = BN4(h) z = Relu(b)", "Conv Relu"
    ),
    "a free batch": Case("x[N,3,6,6] | W[4,3,3,3] | h = Conv(x, W) y = BN4(h)", "Conv"),
    "everything free": Case(
        "x[N,C,H,V] | W[4,3,3,3] | h = Conv(x, W) p = MaxPool<kernel_shape=[2,2]>(h) y = PBN4(p)",
        "Conv MaxPool",
        free=6,
        edit=lambda model: model.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3),
    ),
    "a free batch that is flattened away and comes back": Case(
        "x[N,5,3] | B[3,4] s={-1,4} u={-1,5,4} | h = MatMul(x, B) f = Reshape(h, s) n = SBN4(f) y = Reshape(n, u)",
        "MatMul Reshape Reshape",
    ),
    "both branches of an If": Case(
        "x[1,3,6,6] bool:c -> y[1,4,4,4] | W[4,3,3,3] k[4,1,1] | y = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { h = Conv(x, W) t = BN4(h) }, "
        "else_branch = two () => (double[1,4,4,4] e) { g = Conv(x, W) f = Mul(g, k) e = BN4(f) } >",
        "If Conv Conv",
    ),
    "a Loop whose body normalises": Case(
        "x[1,3,6,6] -> y[1,3,6,6] | W[3,3,1,1] int64:n[]=3 bool:k[]=1 | y = Loop (n, k, x) < "
        "body = b (int64 i, bool c, double[1,3,6,6] s) => (bool d, double[1,3,6,6] t) "
        "{ d = Identity(c) h = Conv(s, W) t = BN3(h) } >",
        "Loop Identity Conv",
    ),
    "a Scan whose body normalises": Case(
        "x[5,2,3] -> y[5,2,4] | B[3,4] c[4] | y = Scan<num_scan_inputs=1, "
        "body = b (double[2,3] s) => (double[2,4] t) { h = Gemm(s, B, c) t = BN4(h) } >(x)",
        "Scan Gemm",
    ),
    "a body that reads its axes from outside": Case(
        "x[2,3,4,4] bool:c -> z | W[4,3,3,3] a={2,3} B[4,5] | z = If (c) < "
        "then_branch = one () => (double[2,5] t) "
        "{ h = Conv(x, W) r = ReduceMean<keepdims=0>(h, a) k = Relu(r) n = BN4(k) t = MatMul(n, B) }, "
        "else_branch = two () => (double[2,5] e) "
        "{ g = Conv(x, W) o = ReduceMean<keepdims=0>(g, a) e = MatMul(o, B) } >",
        "If Conv ReduceMean Relu MatMul Add Conv ReduceMean MatMul",
    ),
    "a body that reads its axes from a node outside": Case(
        "x[2,3,4,4] bool:c -> z | W[4,3,3,3] B[4,5] | a = Constant<value = int64[2] {2,3}>() z = If (c) < "
        "then_branch = one () => (double[2,5] t) "
        "{ h = Conv(x, W) r = ReduceMean<keepdims=0>(h, a) k = Relu(r) n = BN4(k) t = MatMul(n, B) }, "
        "else_branch = two () => (double[2,5] e) "
        "{ g = Conv(x, W) o = ReduceMean<keepdims=0>(g, a) e = MatMul(o, B) } >",
        "If Conv ReduceMean Relu MatMul Add Conv ReduceMean MatMul",
    ),
    "a Loop whose body adds a large constant from outside": Case(
        "x[1,3,20,20] -> y[1,3,20,20] | V[1,3,20,20] W[3,3,1,1] int64:n[]=2 bool:k[]=1 | y = Loop (n, k, x) < "
        "body = b (int64 i, bool c, double[1,3,20,20] s) => (bool d, double[1,3,20,20] t) "
        "{ d = Identity(c) a = Add(s, V) m = Max(a, s) h = BN3(m) t = Conv(h, W) } >",
        "Loop Identity Add Max Conv",
    ),
    "a batch norm in front of a body that does not read it": Case(
        "x[1,3,6,6] bool:c -> y[1,4,4,4] z[1,4,4,4] | W[4,3,3,3] | h = Conv(x, W) y = BN4(h) z = If (c) < "
        "then_branch = one () => (double[1,4,4,4] t) { t = Relu(y) }, "
        "else_branch = two () => (double[1,4,4,4] e) { e = Abs(y) } >",
        "Conv If Relu Abs",
    ),
}
