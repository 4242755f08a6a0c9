"""``--fold fewest``: fewer batch norms than speed alone would leave, and a hint where that makes a difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import bnfold
from tests.cli.program import bnfold as program
from tests.cli.program import model

BEHIND_RELU = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,8,8] x) => (float[2,16,8,8] y)
<float[16,3,1,1] W, float[16] gamma, float[16] beta, float[16] mean, float[16] var> {
    h = Conv(x, W)
    r = Relu(h)
    n = BatchNormalization(r, gamma, beta, mean, var)
    y = Sigmoid(n)
}
"""
HINT = "Give --fold fewest: it folds too, and onnxruntime takes longer for what stands in its place."


def test_what_only_costs_speed_is_kept_with_a_hint_and_folded_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    original = model(BEHIND_RELU, gamma=np.linspace(0.5, 2, 16))
    onnx.save(original, path)
    (kept,) = bnfold.inspect(path).batch_norms
    assert kept.kept is not None
    assert "no-gain" in {refusal.reason for refusal in (kept.kept, *kept.also)}
    assert kept.kept.remedy == HINT
    done = bnfold.fold_onnx(path, bnfold.Options(fold="fewest"))
    (row,) = done.report.batch_norms
    assert (row.outcome, row.form) == ("folded", "max-form")
    assert [node.op_type for node in done.model.graph.node] == ["Conv", "Max", "Sigmoid"]
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    answers = []
    for content in (original, done.model):
        session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append(np.asarray(session.run(None, feeds)[0], np.float32))
    np.testing.assert_allclose(answers[1], answers[0], rtol=2e-5, atol=2e-6)


def test_the_screen_shows_the_form_that_a_fold_took(tmp_path: Path) -> None:
    onnx.save(model(BEHIND_RELU, gamma=np.linspace(0.5, 2, 16)), tmp_path / "model.onnx")
    ended = program("inspect", "model.onnx", "--fold", "fewest", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert "1 × max-form: an activation became a Max or a Min with constants\n" in ended.out
    assert "batchnormalization_2 → " in ended.out
    assert ended.out.splitlines()[-1].endswith("   max-form")
