"""Batch norms inside a model's own functions: taken out of them, folded, proven, and accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

import bnfold
from bnfold.frontends.loaded import Array
from bnfold.pipeline import local_functions
from bnfold.report import Inlined
from tests.cli.program import model

Numbers = npt.NDArray[np.float32]

HEAD = '<ir_version: 9, opset_import: ["" : 17, "my" : 1]>'
FUNCTION = '<domain: "my", opset_import: ["" : 17, "my" : 1]>'
WEIGHTS = """<float[4,3,3,3] W, float[3,4,1,1] V,
    float[4] gamma, float[4] beta, float[4] mean, float[4] var,
    float[3] gamma2, float[3] beta2, float[3] mean2, float[3] var2>"""
ACT = f"{FUNCTION} Act (x) => (y) {{ t = Sigmoid(x)  y = Mul(x, t) }}"

MODELS = {
    "a block called twice, and a function without batch norms beside it": (
        f"""{HEAD} g (float[N,3,8,8] x) => (float[N,3,6,6] y) {WEIGHTS} {{
            a = my.Block<e = 0.5>(x, W, gamma, beta, mean, var)
            b = my.Act(a)
            y = my.Block(b, V, gamma2, beta2, mean2, var2) }}
        {FUNCTION} Block <e: float = 0.001> (x, W, s, b, m, v) => (y) {{
            h = Conv(x, W)
            y = BatchNormalization<epsilon: float = @e>(h, s, b, m, v) }}
        {ACT}""",
        ["Conv", "Act", "Conv"],
        ["Act"],
    ),
    "a batch norm two calls deep, whose layer stands outside": (
        f"""{HEAD} g (float[N,3,8,8] x) => (float[N,4,6,6] y) {WEIGHTS} {{
            h = Conv(x, W)
            y = my.Outer(h, gamma, beta, mean, var) }}
        {FUNCTION} Outer (x, s, b, m, v) => (y) {{ n = my.Inner(x, s, b, m, v)  y = my.Act(n) }}
        {FUNCTION} Inner (x, s, b, m, v) => (y) {{ n = BatchNormalization(x, s, b, m, v)  y = Relu(n) }}
        {ACT}""",
        ["Conv", "Relu", "Act"],
        ["Act"],
    ),
    "a batch norm in the body of an If in a function": (
        f"""{HEAD} g (float[N,3,8,8] x, bool c) => (float[N,4,6,6] y) {WEIGHTS} {{
            y = my.Block(x, c, W, gamma, beta, mean, var) }}
        {FUNCTION} Block (x, c, W, s, b, m, v) => (y) {{
            h = Conv(x, W)
            y = If (c) <then_branch = t () => (float[N,4,6,6] o) {{
                            k = Conv(x, W)
                            o = BatchNormalization(k, s, b, m, v) }},
                        else_branch = e () => (float[N,4,6,6] o) {{ o = Relu(h) }}> }}""",
        ["Conv", "If"],
        [],
    ),
    "a call in the body of an If": (
        f"""{HEAD} g (float[N,3,8,8] x, bool c) => (float[N,4,6,6] y) {WEIGHTS} {{
            y = If (c) <then_branch = t () => (float[N,4,6,6] o) {{ o = my.Block(x, W, gamma, beta, mean, var) }},
                        else_branch = e () => (float[N,4,6,6] p) {{ p = Conv(x, W) }}> }}
        {FUNCTION} Block (x, W, s, b, m, v) => (y) {{ h = Conv(x, W)  y = BatchNormalization(h, s, b, m, v) }}""",
        ["If"],
        [],
    ),
    "each layer in a function of its own, as modules are exported": (
        f"""{HEAD} g (float[N,3,8,8] x) => (float[N,3,6,6] y) {WEIGHTS} {{
            a = my.Conv2d(x, W)
            b = my.BatchNorm2d(a, gamma, beta, mean, var)
            c = my.Act(b)
            d = my.Pointwise(c, V)
            y = my.BatchNorm2d(d, gamma2, beta2, mean2, var2) }}
        {FUNCTION} Conv2d (x, W) => (y) {{ y = Conv(x, W) }}
        {FUNCTION} Pointwise (x, W) => (y) {{ t = Conv(x, W)  y = Identity(t) }}
        {FUNCTION} BatchNorm2d (x, s, b, m, v) => (y) {{ y = BatchNormalization(x, s, b, m, v) }}
        {ACT}""",
        ["Conv", "Act", "Conv", "Identity"],
        ["Act"],
    ),
}


def _run(content: onnx.ModelProto, feeds: Mapping[str, Array]) -> Numbers:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, dict(feeds))
    return np.asarray(value, np.float32)


@pytest.mark.parametrize(("text", "left", "functions"), MODELS.values(), ids=MODELS)
def test_batch_norms_are_taken_out_of_functions_and_folded(
    tmp_path: Path, text: str, left: list[str], functions: list[str]
) -> None:
    path = tmp_path / "model.onnx"
    original = model(text)
    onnx.save(original, path)
    done = bnfold.fold_onnx(path)
    assert [node.op_type for node in done.model.graph.node] == left
    assert [row.outcome for row in done.report.batch_norms] == ["folded"] * len(done.report.batch_norms)
    assert done.report.batch_norms
    assert [function.name for function in done.model.functions] == functions
    kept = {function.name: function.SerializeToString() for function in original.functions}
    assert all(function.SerializeToString() == kept[function.name] for function in done.model.functions)
    feeds: dict[str, Array] = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    for choice in (True, False):
        if len(original.graph.input) > 1:
            feeds["c"] = np.array(choice)
        np.testing.assert_allclose(_run(done.model, feeds), _run(original, feeds), rtol=2e-5, atol=2e-5)
    parity = done.report.parity
    assert parity is not None
    assert [comparison.verdict.passed for comparison in parity.translation] == [True]


def test_the_report_says_which_functions_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(MODELS["each layer in a function of its own, as modules are exported"][0]), path)
    assert bnfold.fold_onnx(path).report.inlined == (
        Inlined("my::Conv2d", 1, holds_batch_norm=False),
        Inlined("my::Pointwise", 1, holds_batch_norm=False),
        Inlined("my::BatchNorm2d", 2, holds_batch_norm=True),
    )
    assert bnfold.inspect(path).inlined == bnfold.fold_onnx(path).report.inlined


def test_a_wrong_replacement_is_refuted_against_the_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(MODELS["a block called twice, and a function without batch norms beside it"][0]), path)
    honest = local_functions.inline_batch_norms

    def swapped(content: onnx.ModelProto, keep: tuple[str, ...], *, fewest: bool) -> onnx.ModelProto:
        result = honest(content, keep, fewest=fewest)
        for node in result.graph.node:
            if node.op_type == "BatchNormalization":
                node.input[1], node.input[2] = node.input[2], node.input[1]
        return result

    monkeypatch.setattr("bnfold.pipeline.run.inline_batch_norms", swapped)
    with pytest.raises(bnfold.ParityError):
        bnfold.fold_onnx(path)


def test_a_function_stays_where_nothing_would_fold_and_where_it_holds_no_batch_norm(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = f"""{HEAD} g (float[N,3,8,8] x) => (float[N,3,8,8] y) {WEIGHTS} {{
            a = my.Act(x)
            b = my.Norm(a, gamma2, beta2, mean2, var2)
            y = my.Act(b) }}
        {FUNCTION} Norm (x, s, b, m, v) => (y) {{ y = BatchNormalization(x, s, b, m, v) }}
        {ACT}"""
    onnx.save(model(text), path)
    done = bnfold.fold_onnx(path)
    assert [node.op_type for node in done.model.graph.node] == ["Act", "BatchNormalization", "Act"]
    assert [(row.name, row.outcome) for row in done.report.batch_norms] == [("b", "kept")]


def test_a_function_in_which_an_operation_means_something_else_stays_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = f"""<ir_version: 9, opset_import: ["" : 17, "my" : 1, "custom" : 2]>
        g (float[N,3,8,8] x) => (float[N,4,6,6] y) {WEIGHTS} {{
            h = Conv(x, W)
            y = my.Norm(h, gamma, beta, mean, var) }}
        <domain: "my", opset_import: ["" : 17, "custom" : 1]> Norm (x, s, b, m, v) => (y) {{
            h = BatchNormalization(x, s, b, m, v)
            y = custom.Blur(h) }}"""
    onnx.save(model(text), path)
    report = bnfold.inspect(path)
    (row,) = report.batch_norms
    assert row.kept is not None
    assert row.kept.reason == "inside-function"
    assert row.kept.detail == (
        "h stands in the function Norm, and cannot be taken out of it: the function Norm is written in opset 1 of "
        "custom, the model in 2, and Blur may mean something else there"
    )
    assert row.kept.remedy == "Export the model and its functions with one opset, or without functions of its own."


def test_without_folding_functions_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(MODELS["a batch norm two calls deep, whose layer stands outside"][0]), path)
    done = bnfold.fold_onnx(path, bnfold.Options(fold="none"))
    assert [node.op_type for node in done.model.graph.node] == ["Conv", "Outer"]
    assert [row.kept.reason for row in done.report.batch_norms if row.kept] == ["kept-on-request"]
