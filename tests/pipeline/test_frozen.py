"""Initializers that are also graph inputs: a caller may override them, unless whoever folds says that none will."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper

import bnfold
from bnfold.graph.overridable import freeze, overridable
from tests.cli.program import CONV_BN, model
from tests.cli.program import bnfold as program

Numbers = npt.NDArray[np.float32]


def _listing(ir_version: int, *names: str) -> onnx.ModelProto:
    """Return a model that lists initializers among its inputs; all of them where none are named."""
    # No gamma is negative: Relu does not stand in the way of anything.
    content = model(CONV_BN.replace('"" : 17', '"" : 9' if ir_version < 4 else '"" : 17'), gamma=[1, 2, 0.5, 3])
    content.ir_version = ir_version
    for tensor in content.graph.initializer:
        if not names or tensor.name in names:
            content.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return content


def _run(content: onnx.ModelProto) -> Numbers:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)})
    return np.asarray(value, np.float32)


@pytest.mark.parametrize(
    ("names", "reason", "left"),
    [
        ((), "dynamic-parameters", 7),
        (("mean",), "dynamic-parameters", 2),
        (("W",), "dynamic-weight", 2),
        (("b",), "dynamic-weight", 2),
    ],
)
def test_what_may_be_overridden_stays_unless_it_is_frozen(
    tmp_path: Path, names: tuple[str, ...], reason: str, left: int
) -> None:
    path, original = tmp_path / "model.onnx", _listing(8, *names)
    onnx.save(original, path)
    kept = bnfold.fold_onnx(path)
    (row,) = kept.report.batch_norms
    assert row.kept is not None
    assert (row.kept.reason, row.kept.remedy) == (
        reason,
        "Give --freeze-initializers: weights that are also inputs of the graph are taken as constants then.",
    )
    assert len(kept.model.graph.input) == left
    done = bnfold.fold_onnx(path, bnfold.Options(freeze_initializers=True))
    assert [row.outcome for row in done.report.batch_norms] == ["folded"]
    assert [value.name for value in done.model.graph.input] == ["x"]
    assert [(change.kind, change.name) for change in done.report.mode] == [
        ("initializer", name) for name in overridable(original)
    ]
    np.testing.assert_allclose(_run(done.model), _run(original), rtol=2e-5, atol=2e-5)
    folded = done.save(tmp_path / "folded.onnx")
    assert bnfold.verify(path, folded).verdict in {"pass", "pass-more-accurate"}
    assert bnfold.verify(folded, path).verdict in {"pass", "pass-more-accurate"}


def test_before_version_4_of_the_format_initializers_have_to_be_inputs_and_are_constants(tmp_path: Path) -> None:
    path, original = tmp_path / "model.onnx", _listing(3)
    onnx.save(original, path)
    done = bnfold.fold_onnx(path)
    assert [row.outcome for row in done.report.batch_norms] == ["folded"]
    assert done.report.mode == ()
    constants = {tensor.name for tensor in done.model.graph.initializer}
    assert [value.name for value in done.model.graph.input if value.name not in constants] == ["x"]
    assert constants <= {value.name for value in done.model.graph.input}
    onnx.checker.check_model(done.model, full_check=True)
    np.testing.assert_allclose(_run(done.model), _run(original), rtol=2e-5, atol=2e-5)
    assert bnfold.verify(path, done.save(tmp_path / "folded.onnx")).holds


def test_freezing_leaves_alone_what_has_nothing_to_freeze() -> None:
    content, old = model(CONV_BN), _listing(3)
    assert (overridable(content), freeze(content) is content) == ((), True)
    assert (overridable(old), freeze(old) is old) == ((), True)
    listed = _listing(8, "W")
    before = listed.SerializeToString(deterministic=True)
    assert [value.name for value in freeze(listed).graph.input] == ["x"]
    assert listed.SerializeToString(deterministic=True) == before


def test_the_program_freezes_on_request(tmp_path: Path) -> None:
    onnx.save(_listing(8), tmp_path / "model.onnx")
    seen = program("inspect", "model.onnx", cwd=tmp_path)
    assert seen.code == 0
    assert "kept         1 × dynamic-parameters:" in seen.out
    assert "hint: Give --freeze-initializers:" in seen.out
    done = program("fold", "model.onnx", "-o", "out.onnx", "--freeze-initializers", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "mode         6 × initializer: input with a default → constant   asked for with\n" in done.out
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Conv", "Relu"]
    converted = program("convert", "model.onnx", "-o", "two.onnx", "--freeze-initializers", cwd=tmp_path)
    assert converted.code == 0
    assert "can be folded" in program("inspect", "model.onnx", "--freeze-initializers", cwd=tmp_path).out
