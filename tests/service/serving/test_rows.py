"""Requests are run together only where every row is computed by itself, by the graph and to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.problems import TensorError
from service.serving.graph_rows import works_by_row
from service.serving.questions import Signature
from service.serving.rows import rows_together
from service.serving.session import open_session, signature_of
from service.serving.tensors import Array, Spec

HEAD = '<ir_version: 8, opset_import: ["" : {opset}]>\n'

BY_ROW = {
    "elements": "g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Sigmoid(a)  y = Clip(b) }",
    "dense": "g (float[n,3] x) => (float[n,2] y) <float[3,2] w = {1,2,3,4,5,6}, float[2] c = {1,2}> "
    "{ a = MatMul(x, w)  y = Add(a, c) }",
    "gemm": "g (float[n,3] x) => (float[n,2] y) <float[2,3] w = {1,2,3,4,5,6}, float[2] c = {1,2}> "
    "{ y = Gemm <transB = 1> (x, w, c) }",
    "gemm with one row for all": "g (float[n,3] x) => (float[n,2] y) <float[3,2] w = {1,2,3,4,5,6}, "
    "float[1,2] c = {1,2}> { y = Gemm(x, w, c) }",
    "conv": "g (float[n,1,3,3] x) => (float[n,2] y) <float[2,1,2,2] w = {1,2,3,4,5,6,7,8}> "
    "{ a = Conv(x, w)  p = GlobalAveragePool(a)  y = Flatten(p) }",
    "reshape to as many rows": "g (float[n,4] x) => (float[n,2,2] y) <int64[3] s = {0,2,-1}> { y = Reshape(x, s) }",
    "reshape to rows as long": "g (float[n,4] x) => (float[n,2,2] y) <int64[3] s = {-1,2,2}> { y = Reshape(x, s) }",
    "transpose": "g (float[n,2,3] x) => (float[n,3,2] y) { y = Transpose <perm = [0,2,1]> (x) }",
    "softmax": "g (float[n,3] x) => (float[n,3] y) { y = Softmax(x) }",
    "softmax of a positive axis": "g (float[n,3] x) => (float[n,3] y) { y = Softmax <axis = 1> (x) }",
    "two inputs": "g (float[n,3] a, float[n,3] b) => (float[n,3] y) { c = Mul(a, b)  y = Sub(c, a) }",
    "concat": "g (float[n,3] a, float[n,2] b) => (float[n,5] y) { y = Concat <axis = -1> (a, b) }",
    "embedding": "g (int64[n,2] i) => (float[n,2,2] y) <float[2,2] t = {1,2,3,4}> { y = Gather(t, i) }",
    "columns": "g (float[n,3] x) => (float[n,2] y) <int64[2] i = {0,2}> { y = Gather <axis = 1> (x, i) }",
    "reduced": "g (float[n,3] x) => (float[n,1] y) { y = ReduceMean <axes = [1]> (x) }",
    "padded": "g (float[n,2] x) => (float[n,4] y) <int64[4] p = {0,1,0,1}> { y = Pad(x, p) }",
    "sliced": "g (float[n,4] x) => (float[n,2] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}> "
    "{ y = Slice(x, s, e, a) }",
    "squeezed": "g (float[n,1,2] x) => (float[n,2] y) <int64[1] a = {1}> { y = Squeeze(x, a) }",
    "unsqueezed": "g (float[n,2] x) => (float[n,2,1] y) <int64[1] a = {-1}> { y = Unsqueeze(x, a) }",
    "split": "g (float[n,4] x) => (float[n,2] y, float[n,2] z) { y, z = Split <axis = 1> (x) }",
    "constants of their own": "g (float[n,2] x) => (float[n,2] y) <float[2] c = {1,4}> { d = Sqrt(c)  y = Mul(x, d) }",
    "where": "g (float[n,2] x) => (float[n,2] y) <float z = {0}> { c = Greater(x, z)  m = Neg(x)  y = Where(c, x, m) }",
    "batched product": "g (float[n,2,2] a, float[n,2,2] b) => (float[n,2,2] y) { y = MatMul(a, b) }",
    "normed": "g (float[n,4] x) => (float[n,4] y) <float[4] s = {1,2,3,4}> { y = LayerNormalization(x, s) }",
}

NOT_BY_ROW = {
    "sum over rows": "g (float[n,3] x) => (float[1,3] y) { y = ReduceMean <axes = [0]> (x) }",
    "sum over rows, and back": "g (float[n,3] x) => (float[n,3] y) { m = ReduceMean <axes = [0]> (x)  y = Sub(x, m) }",
    "sum over all axes": "g (float[n,3] x) => (float[n,3] y) { m = ReduceMax(x)  y = Div(x, m) }",
    "softmax over rows": "g (float[n,3] x) => (float[n,3] y) { y = Softmax <axis = 0> (x) }",
    "softmax over rows, from behind": "g (float[n,3] x) => (float[n,3] y) { y = Softmax <axis = -2> (x) }",
    "softmax over the only axis": "g (float[n] x) => (float[n] y) { y = Softmax(x) }",
    "a running sum over rows": "g (float[n,3] x) => (float[n,3] y) <int64 a = {0}> { y = CumSum(x, a) }",
    "transposed": "g (float[n,3] x) => (float[3,n] y) { y = Transpose(x) }",
    "rows into columns": "g (float[n,2] x) => (float[m,4] y) <int64[2] s = {-1,4}> { y = Reshape(x, s) }",
    "flattened before the first axis": "g (float[n,2] x) => (float[1,m] y) { y = Flatten <axis = 0> (x) }",
    "a row per place": "g (float[n,3] x) => (float[n,3] y) <float[2,3] c = {1,2,3,4,5,6}> { y = Add(x, c) }",
    "the number of rows": "g (float[n,3] x) => (float[n,3] y) "
    "{ s = Shape(x)  f = Cast <to = 1> (s)  z = ReduceMax(f)  y = Mul(x, z) }",
    "a product of rows with rows": "g (float[n,2] x) => (float[n,n] y) "
    "{ t = Transpose <perm = [1,0]> (x)  y = MatMul(x, t) }",
    "the other side of a product": "g (float[2,n] x) => (float[2,n] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(w, x) }",
    "rows reversed": "g (float[n,2] x) => (float[n,2] y) "
    "<int64[1] s = {-1}, int64[1] e = {-9999}, int64[1] a = {0}, int64[1] d = {-1}> { y = Slice(x, s, e, a, d) }",
    "rows side by side": "g (float[n,2] x) => (float[m,2] y) { y = Concat <axis = 0> (x, x) }",
    "the first row": "g (float[n,2] x) => (float[1,2] y) <int64[1] i = {0}> { y = Gather(x, i) }",
    "rows against columns": "g (float[n] x, float[n,2] z) => (float[n,2] y) { y = Add(z, x) }",
    "the largest row": "g (float[n,2] x) => (int64[1,2] y) { y = ArgMax <axis = 0> (x) }",
    "scaled by all": "g (float[n,2] x) => (uint8[n,2] y) { y, s, z = DynamicQuantizeLinear(x) }",
    "padded rows": "g (float[n,2] x) => (float[m,2] y) <int64[4] p = {1,0,0,0}> { y = Pad(x, p) }",
    "drawn": "g (float[n,2] x) => (float[n,2] y) { r = RandomNormalLike(x)  y = Add(x, r) }",
    "trained": "g (float[n,2] x) => (float[n,2] y) <float[2] s = {1,1}, float[2] b = {0,0}, float[2] m = {0,0}, "
    "float[2] v = {1,1}> { y, p, q = BatchNormalization <training_mode = 1> (x, s, b, m, v) }",
    "a branch": "g (float[n,2] x, bool[n] c) => (float[n,2] y) { k = ReduceMax(x)  b = Cast <to = 9> (k)  "
    "y = If (b) <then_branch = t () => (float[n,2] p) { p = Neg(x) }, "
    "else_branch = e () => (float[n,2] q) { q = Abs(x) }> }",
    "something unknown": "g (float[n,2] x) => (float[n,2] y) { y = Hardmax <axis = 0> (x) }",
    "only a constant": "g (float[n,2] x) => (float[2] y) <float[2] c = {1,2}> { y = Identity(c) }",
    "how many are not 0": "g (float[n,2] x) => (int64[2,m] y) { y = NonZero(x) }",
}


def _model(tmp_path: Path, text: str, opset: int = 17) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(HEAD.format(opset=opset) + text), path)
    return path


@pytest.mark.parametrize("text", BY_ROW.values(), ids=BY_ROW)
def test_graphs_that_work_row_by_row_are_known(tmp_path: Path, text: str) -> None:
    path = _model(tmp_path, text)
    assert works_by_row(path)
    session = open_session(path, 1)
    rng = np.random.default_rng(5)
    feeds = {}
    for one in session.get_inputs():
        shape = [5 if isinstance(size, str) else size for size in one.shape]
        feeds[one.name] = rng.integers(0, 2, shape) if "int64" in one.type else rng.normal(size=shape).astype("f4")
    together = session.run(None, feeds)
    for row in range(5):
        alone = session.run(None, {name: array[row : row + 1] for name, array in feeds.items()})
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[row : row + 1], part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", NOT_BY_ROW.values(), ids=NOT_BY_ROW)
def test_graphs_that_do_not_are_refused(tmp_path: Path, text: str) -> None:
    assert not works_by_row(_model(tmp_path, text))


@pytest.mark.parametrize(("opset", "taken"), [(6, False), (7, True)])
def test_operations_of_old_are_not_judged(tmp_path: Path, opset: int, taken: bool) -> None:  # noqa: FBT001
    assert works_by_row(_model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }", opset)) is taken


def test_an_operation_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\ng (float[n,2] x) => (float[n,2] y) '
    onnx.save(onnx.parser.parse_model(text + "{ y = com.microsoft.Gelu(x) }"), path)
    assert not works_by_row(path)


def _signature(*takes: tuple[int, ...], datatype: str = "FP32") -> Signature:
    inputs = {f"x{number}": Spec(f"x{number}", datatype, shape) for number, shape in enumerate(takes)}
    return Signature(inputs, {"y": Spec("y", "FP32", (-1, 2))})


def _double(feeds: Mapping[str, Array]) -> Sequence[Array]:
    return [feeds["x0"] * 2]


def test_rows_are_tried_at_every_number(tmp_path: Path) -> None:
    path = _model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Add(x, x) }")
    sizes = []

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        sizes.append(len(feeds["x0"]))
        return _double(feeds)

    assert rows_together(path, _signature((-1, 2)), run, 8) == 8
    assert sizes == [1] * 8 + [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("off_from", "expected"), [(2, 1), (5, 4), (8, 7), (9, 8)])
def test_one_bit_among_others_ends_it(tmp_path: Path, off_from: int, expected: int) -> None:
    path = _model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Add(x, x) }")

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        (y,) = _double(feeds)
        if len(y) >= off_from:
            y = y.copy()
            y[-1, -1] = np.nextafter(y[-1, -1], np.float32(9))
        return [y]

    assert rows_together(path, _signature((-1, 2)), run, 8) == expected


@pytest.mark.parametrize(
    "signature",
    [
        Signature({}, {"y": Spec("y", "FP32", (-1, 2))}),
        _signature((2, 2)),
        _signature((-1, -1)),
        _signature((-1, 2), (1, 2)),
        _signature((-1, 2), ()),
        _signature((-1, 2), datatype="BYTES"),
        Signature({"x0": Spec("x0", "FP32", (-1, 2))}, {"y": Spec("y", "FP32", (2,))}),
        Signature({"x0": Spec("x0", "FP32", (-1, 2))}, {"y": Spec("y", "FP32", (-1, -1))}),
    ],
)
def test_what_has_no_free_rows_is_run_by_itself(tmp_path: Path, signature: Signature) -> None:
    path = _model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Add(x, x) }")

    def never(feeds: Mapping[str, Array]) -> Any:
        raise AssertionError(feeds)

    assert rows_together(path, signature, never, 8) == 1


def test_a_model_that_fails_at_some_number_is_run_by_itself(tmp_path: Path) -> None:
    path = _model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Add(x, x) }")

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        if len(feeds["x0"]) == 3:
            raise TensorError("no", hint="")
        return _double(feeds)

    assert rows_together(path, _signature((-1, 2)), run, 8) == 1


def test_a_model_with_another_number_of_rows_is_run_by_itself(tmp_path: Path) -> None:
    path = _model(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Add(x, x) }")
    assert rows_together(path, _signature((-1, 2)), lambda _: [np.zeros((1, 2), "f4")], 8) == 1


def test_real_models_are_tried(tmp_path: Path) -> None:
    path = _model(tmp_path, BY_ROW["conv"])
    session = open_session(path, 1)
    inputs, outputs = signature_of(session)
    signature = Signature({spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})
    assert rows_together(path, signature, lambda feeds: session.run(None, dict(feeds)), 4) == 4
