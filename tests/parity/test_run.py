"""What running a model in onnxruntime leaves behind: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from bnfold.errors import SignatureError
from bnfold.parity import lanes
from bnfold.parity.reference import run_float64
from bnfold.parity.run import Session

if TYPE_CHECKING:
    from pathlib import Path


def test_onnxruntime_is_used_without_its_telemetry(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import onnx, sys; from bnfold.parity.run import Session; Session(onnx.load(sys.argv[1]))",
            str(tmp_path / "m.onnx"),
        ],
        env={**environment, "HOME": str(home)},
        check=True,
    )
    assert list(home.rglob("*")) == []


def test_who_asks_for_no_proof_loads_none() -> None:
    loaded = "import sys, bnfold.report.record, bnfold.pipeline.run; print('bnfold.parity.gates' in sys.modules)"
    asked = "import sys; from bnfold.parity import verify; print('bnfold.parity.gates' in sys.modules)"
    for program, expected in ((loaded, "False"), (asked, "True")):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_the_package_has_the_names_that_it_lists_and_no_others() -> None:
    from bnfold import parity

    assert all(
        getattr(parity, name).__module__.startswith("bnfold.parity") for name in parity.__all__ if name != "Progress"
    )
    with pytest.raises(AttributeError, match=r"module 'bnfold\.parity' has no attribute 'prove'"):
        parity.prove  # noqa: B018


def test_a_kernel_that_is_none_for_a_type_only_when_it_runs_is_stood_in_for() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (double[3, 2, 4] x, double[1, 12, 4] w, double[1, 12, 3] r) '
        "=> (double[3, 1, 2, 3] y) { y = LSTM<hidden_size = 3>(x, w, r) }"
    )
    generator = np.random.default_rng(0)
    shapes = {"x": (3, 2, 4), "w": (1, 12, 4), "r": (1, 12, 3)}
    feeds = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    session = Session(model)
    got = session.run(feeds)["y"]
    assert not session.native
    assert session.engine.startswith("float64 kernels, rounded after every node (")
    np.testing.assert_array_equal(got, run_float64(model, feeds)["y"])


WIDE = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul(x, w)",
        "h = MatMul(x, w)  y = MatMul(h, w)",
        "h = MatMul(x, w)  k = Mul(w, w)  y = MatMul(h, k)",
        "h = Gemm(w, w)  y = MatMul(x, h)",
    ],
)
def test_large_weights_are_fed_beside_the_inputs_and_nobody_sees_it(body: str) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 200] x) => (float[N, 200] y) {{ {body} }}'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(WIDE, "w"))
    before = model.SerializeToString()
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 200)).astype(np.float32)}
    session = Session(model)
    assert session.native
    assert list(session.inputs) == ["x"]
    exact = run_float64(model, feeds)["y"]
    assert np.abs(session.run(feeds)["y"] - exact).max() < 1e-5 * np.abs(exact).max()
    assert model.SerializeToString() == before
    with pytest.raises(SignatureError) as caught:
        session.run({**feeds, "w": WIDE})
    assert str(caught.value) == "the model has no input w"


def test_numpy_gets_its_processors_back() -> None:
    library = lanes._openblas()
    if library is None:
        pytest.skip("numpy brings another library along")
    tell, ask = library
    before = int(ask())
    try:
        tell(max(2, lanes.half()))
        with lanes.halved():
            assert ask() <= lanes.half()
        assert ask() == max(2, lanes.half())
    finally:
        tell(before)
