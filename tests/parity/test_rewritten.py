"""What onnxruntime's own graph optimization makes of a folded model is found out, and does not judge the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

import bnfold
from bnfold.parity import Verdict, verify
from bnfold.parity.run import Session
from tests.parity.nets import build

SCRAMBLED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[6,4] x) => (float[2,3,3] y) <int64[3] s={2,3,3}> {
    h = MatMul(x, w)
    r = Reshape(h, s)
    y = BatchNormalization(r, scale, shift, mean, var)
}"""


def scrambled() -> ModelProto:
    """Return a model whose batch norm is on another axis than the columns of the MatMul, though as many."""
    model = onnx.parser.parse_model(SCRAMBLED)
    rng = np.random.default_rng(5)
    arrays = {name: rng.normal(size=3) for name in ("scale", "shift", "mean")}
    arrays |= {"w": rng.normal(size=(4, 3)), "var": rng.random(3) + 0.5}
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items())
    return model


def _run(model: ModelProto, level: Any, feeds: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_a_graph_that_onnxruntime_rewrites_wrongly_is_right_and_said_to_be_rewritten_wrongly(tmp_path: Path) -> None:
    model = scrambled()
    feeds = {"x": np.random.default_rng(6).normal(size=(6, 4)).astype(np.float32)}
    levels = onnxruntime.GraphOptimizationLevel
    plain = _run(model, levels.ORT_DISABLE_ALL, feeds)
    wrong = not np.allclose(_run(model, levels.ORT_ENABLE_ALL, feeds), plain, rtol=1e-3)
    onnx.save(model, tmp_path / "scrambled.onnx")
    folded = bnfold.convert(tmp_path / "scrambled.onnx")
    assert folded.report.verdict == "pass"
    assert folded.report.parity is not None
    found = folded.report.parity.at_default_level
    assert found is (Verdict.FAIL if wrong else Verdict.PASS)  # it is a fault of some versions, 1.31 among them


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "Depthwise", "ConvTranspose"])
def test_a_graph_that_it_rewrites_rightly_may_be_rewritten(kind: Any) -> None:
    net = build([kind] * 4, seed=8)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=3)
    assert parity.verdict.passed
    assert parity.at_default_level is not None
    assert parity.at_default_level.passed
    assert [item.output for item in parity.rewritten] == [item.output for item in parity.folding]


def test_sums_in_another_order_are_no_difference() -> None:
    # One number after the other: the mean of so many is further off at the default level than without it.
    nodes, weights, channels = [], [], 3
    for number in range(5):
        read = "x" if number == 0 else f"r{number - 1}"
        nodes.append(f"h{number} = Conv<pads=[1, 1, 1, 1]>({read}, w{number})  r{number} = Relu(h{number})")
        rng = np.random.default_rng(number)
        array = rng.normal(size=(32, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{number}"))
        channels = 32
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,3,112,112] x) => (float[n,32,1,1] y) {'
        + " ".join(nodes)
        + " y = GlobalAveragePool(r4) }"
    )
    model.graph.initializer.extend(weights)
    parity = verify(unfolded=model, folded=model)
    assert parity.verdict.passed
    assert parity.at_default_level is not None
    assert parity.at_default_level.passed, parity.rewritten[0].detail


def test_a_wrong_fold_is_wrong_when_it_is_rewritten_too() -> None:
    net = build(["Conv"] * 3, seed=9, bug="missing bias on one channel", at=1)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=3)
    assert parity.at_default_level is Verdict.FAIL


def test_the_fast_level_leaves_it_out() -> None:
    net = build(["Conv"] * 2, seed=8)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=3, level="fast")
    assert parity.verdict.passed
    assert parity.at_default_level is None


def test_nothing_is_said_where_two_files_are_compared() -> None:
    net = build(["Conv"] * 2, seed=10)
    parity = verify(unfolded=net.unfolded, folded=net.folded, seed=3, apart=True)
    assert parity.verdict.passed
    assert parity.rewritten == ()
    assert parity.at_default_level is None


def test_nothing_is_known_where_a_kernel_of_ours_stands_in() -> None:
    net = build(["Conv"] * 2, seed=11, dtype="float64")
    assert not Session(net.folded, rewritten=True).native
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=3)
    assert parity.verdict.passed
    assert parity.at_default_level is Verdict.INCONCLUSIVE
    assert parity.rewritten[0].detail == "onnxruntime has no kernels for it"
