"""Large weights are folded slab by slab in their own place: the same bits as in one go, and one tensor is held."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.fold import apply, plan, slabs
from bnfold.graph.io import load_model, save_model
from bnfold.graph.outside import Outside, is_outside
from tests.fold.small_graphs.notation import Case, built
from tests.fold.test_small_graphs import CASES

THEMES = (
    "behind a layer",
    "in front of a layer",
    "situations",
    "spelt otherwise",
    "spelt long ago",
    "stored otherwise",
    "through functions",
)
EACH = {title: case for title, case in CASES.items() if title.split(":")[0] in THEMES}
SIDE = 1200
TENSOR = SIDE * SIDE * 4

CHAINS = {
    "behind a Conv": "x[N,1200,6,6] | V[1200,1200,1,1] W[1200,1200,1,1] | h = Conv(x, V) i = BN1200(h) j = Relu(i) "
    "k = Conv(j, W) y = BN1200(k)",
    "in front of a Conv": "x[N,1200,6,6] | V[1200,1200,1,1] W[1200,1200,1,1] | h = BN1200(x) i = Conv(h, V) "
    "j = Relu(i) k = BN1200(j) y = Conv(k, W)",
    "behind a ConvTranspose": "x[N,1200,6,6] | V[1200,1200,1,1] W[1200,1200,1,1] | h = ConvTranspose(x, V) "
    "i = BN1200(h) j = Relu(i) k = ConvTranspose(j, W) y = BN1200(k)",
    "behind a Gemm": "x[N,1200] | V[1200,1200] W[1200,1200] | h = Gemm(x, V) i = BN1200(h) j = Relu(i) "
    "k = Gemm<transB=1>(j, W) y = BN1200(k)",
    "in front of a Gemm": "x[N,1200] | V[1200,1200] W[1200,1200] | h = BN1200(x) i = Gemm(h, V) j = Relu(i) "
    "k = BN1200(j) y = Gemm<transB=1>(k, W)",
    "behind a MatMul": "x[N,1200] | V[1200,1200] W[1200,1200] | h = MatMul(x, V) i = BN1200(h) j = Relu(i) "
    "k = MatMul(j, W) y = BN1200(k)",
    "in front of a MatMul": "x[N,1200] | V[1200,1200] W[1200,1200] | h = BN1200(x) i = MatMul(h, V) j = Relu(i) "
    "k = BN1200(j) y = MatMul(k, W)",
    "behind tables": "int64:i[N] int64:j[N] -> y z | V[1200,1200] W[1200,1200] | h = Gather(V, i) y = BN1200(h) "
    "k = Gather(W, j) z = BN1200(k)",
}


@pytest.mark.parametrize("case", EACH.values(), ids=EACH.keys())
def test_slabs_of_any_size_hold_the_same_bits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(case)
    made = plan(model)
    monkeypatch.setattr(slabs, "_SMALLEST", 1 << 40)
    whole = apply(model, made).model
    monkeypatch.setattr(slabs, "_SMALLEST", 0)
    for elements, least in ((1, 1), (24, 2), (1 << 16, 16)):
        monkeypatch.setattr(slabs, "_ELEMENTS", elements)
        monkeypatch.setattr(slabs, "_LEAST", least)
        assert apply(model, made).model.SerializeToString() == whole.SerializeToString()


def large(graph: str) -> onnx.ModelProto:
    """Return a graph in float32 as it is read from a file: its weights are raw bytes."""
    read: onnx.ModelProto = onnx.ModelProto.FromString(built(Case(graph, "", element="float")).SerializeToString())
    return read


@pytest.mark.parametrize("graph", CHAINS.values(), ids=CHAINS.keys())
def test_applying_holds_one_tensor_beside_the_result(graph: str) -> None:
    model = large(graph)
    made = plan(model)
    assert not made.kept
    tracemalloc.start()
    try:
        result = apply(model, made).model  # what protobuf holds is not counted: that is the result itself
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < TENSOR // 16
    assert peak < TENSOR * 1.6, "one tensor, and some slabs in float64"
    largest = max(tensor.ByteSize() for tensor in result.graph.initializer)
    assert TENSOR <= largest < TENSOR * 1.01


def test_weights_that_stay_in_files_are_folded_in_slabs_too(tmp_path: Path) -> None:
    model = large(CHAINS["behind a Conv"])
    wanted = apply(model, plan(model)).model.graph.initializer
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in wanted}
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin")
    with Outside(tmp_path) as outside:
        loaded = load_model(tmp_path / "model.onnx", outside=outside)
        folded = apply(loaded, plan(loaded), outside=outside).model
        assert sum(is_outside(tensor) for tensor in folded.graph.initializer) == 2
        save_model(folded, tmp_path / "folded.onnx")
    found = onnx.load(tmp_path / "folded.onnx").graph.initializer
    actual = {tensor.name: numpy_helper.to_array(tensor) for tensor in found}
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        np.testing.assert_array_equal(array, expected[name])
