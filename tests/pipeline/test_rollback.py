"""A whole model that is wrong although every fold passes its own check: the one fold to blame is taken back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

import bnfold
from bnfold import fold as folding
from bnfold.graph.region import Region
from bnfold.parity import Parity, Verdict
from bnfold.pipeline.rollback import first_wrong

DEPTH = 6


def _net(seed: int = 0) -> onnx.ModelProto:
    """A chain of convolutions with a batch norm and a Relu behind each."""
    generator = np.random.default_rng(seed)
    steps, tensors, value = [], [], "x"
    for number in range(DEPTH):
        arrays = {
            f"W{number}": generator.normal(size=(4, 4, 3, 3)) / 4,
            f"gamma{number}": generator.uniform(0.5, 1.5, size=4),
            f"beta{number}": generator.normal(size=4) / 4 + 0.5,
            f"mean{number}": generator.normal(size=4) / 4,
            f"var{number}": generator.uniform(0.5, 2, size=4),
        }
        tensors += [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
        names = ", ".join(list(arrays)[1:])
        steps.append(f"h{number} = Conv<pads=[1,1,1,1]>({value}, W{number})")
        steps.append(f"b{number} = BatchNormalization(h{number}, {names})")
        steps.append(f"r{number} = Relu(b{number})")
        value = f"r{number}"
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4,9,9] x) => (float[N,4,9,9] {value}) {{ {"  ".join(steps)} }}"""
    model = parser.parse_model(text)
    del model.graph.value_info[:]
    model.graph.initializer.extend(tensors)
    for node in model.graph.node:
        node.name = {"BatchNormalization": "bn", "Conv": "conv", "Relu": "relu"}[node.op_type] + node.output[0][1:]
    return model


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(_net(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


Wrong = dict[str, float]


def _lying(monkeypatch: pytest.MonkeyPatch, wrong: Wrong) -> None:
    """Get the biases of some folds wrong, by so much, and hide from gate A where anything was folded."""
    right = folding.apply

    def apply(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan)
        folded = {fold.subject.name for fold in plan.folds}
        convs = {node.output[0]: node for node in done.model.graph.node if node.op_type == "Conv"}
        for name, by in wrong.items():
            if name in folded:
                bias = convs[f"b{name[2:]}"].input[2]
                for tensor in done.model.graph.initializer:
                    if tensor.name == bias:
                        array = np.array(numpy_helper.to_array(tensor))
                        array[1] += by
                        tensor.CopyFrom(numpy_helper.from_array(array, bias))
        return folding.Folded(done.model, ())

    monkeypatch.setattr(folding, "apply", apply)


def _outcomes(report: bnfold.Report) -> dict[str, str]:
    return {row.name: row.outcome for row in report.batch_norms}


@pytest.mark.parametrize("at", range(DEPTH))
def test_a_fold_that_only_the_whole_shows_is_taken_back_alone(
    net: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    _lying(monkeypatch, {f"bn{at}": 0.01})
    report = bnfold.convert(net).report
    assert report.verdict == "rolled-back"
    expected = {f"bn{number}": "rolled-back" if number == at else "folded" for number in range(DEPTH)}
    assert _outcomes(report) == expected
    (piece,) = report.rolled_back
    assert piece.detail.startswith(
        f"with it and what was folded before it, the whole is wrong: output r{DEPTH - 1}: error "
    )
    assert piece.eta > piece.limit > 0


@pytest.mark.parametrize("pair", [("bn0", "bn5"), ("bn2", "bn3")])
def test_two_folds_are_taken_back_one_after_the_other(
    net: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]
) -> None:
    _lying(monkeypatch, dict.fromkeys(pair, 0.02))
    done = bnfold.convert(net)
    assert done.report.verdict == "rolled-back"
    assert {name for name, outcome in _outcomes(done.report).items() if outcome == "rolled-back"} == set(pair)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 4, 9, 9)).astype(np.float32)}
    before, after = (
        ort.InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
        for content in (onnx.load(net), done.model)
    )
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)


def test_the_suspect_is_taken_back_without_bisecting(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its region is known, and nobody asks gate A."""
    right = folding.apply

    def apply(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan)
        if any(fold.subject.name == "bn3" for fold in plan.folds):
            for node in done.model.graph.node:
                if node.output[0] == "r3":
                    node.op_type = "Elu"
            regions = tuple(
                Region(("bn3",), region.inputs, (*region.outputs, "r3"), region.fan_in)
                if region.sources == ("bn3",)
                else region
                for region in done.regions
            )
            return folding.Folded(done.model, regions)
        return done

    monkeypatch.setattr(folding, "apply", apply)
    monkeypatch.setattr("bnfold.pipeline.rollback.first_wrong", lambda *_: pytest.fail("nothing had to be bisected"))
    monkeypatch.setattr("bnfold.parity.probing.check_region", _passed)
    report = bnfold.convert(net).report
    assert report.verdict == "rolled-back"
    assert [piece.sources for piece in report.rolled_back] == [("bn3",)]
    assert report.rolled_back[0].detail.startswith(
        "it passes its own check, but r3 is the first value of the whole model that is off: error "
    )


def _passed(region: Region, *_models: object, **_how: object) -> object:
    from bnfold.parity import RegionCheck

    return RegionCheck(region.sources, region.outputs, 0.0, 1.0, "zeros", 1, 1, Verdict.PASS)


def test_what_is_wrong_without_any_fold_is_not_blamed_on_one(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = folding.apply

    def apply(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan).model
        next(node for node in done.graph.node if node.op_type == "Relu").op_type = "Tanh"
        return folding.Folded(done, ())

    monkeypatch.setattr(folding, "apply", apply)
    with pytest.raises(bnfold.ParityError, match=r"; the first value that is off is r0 \(Relu relu0\)$"):
        bnfold.convert(net)


def test_bisecting_takes_as_many_looks_as_the_plan_has_digits() -> None:
    model = _net()
    plan = folding.plan(model)
    assert len(plan.folds) == DEPTH
    for at in range(DEPTH):
        asked: list[int] = []

        def judge(part: onnx.ModelProto, at: int = at, asked: list[int] = asked) -> Parity:
            left = [node.name for node in part.graph.node if node.op_type == "BatchNormalization"]
            asked.append(len(left))
            return Parity(Verdict.PASS if f"bn{at}" in left else Verdict.FAIL, "fast")

        found = first_wrong(model, plan, judge)
        assert found is not None
        assert found[0] == f"bn{at}"
        assert len(asked) <= 2 + 3


def test_a_fold_after_which_the_model_does_not_load_is_taken_back(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = folding.apply

    def apply(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan)
        if any(fold.subject.name == "bn4" for fold in plan.folds):
            next(node for node in done.model.graph.node if node.output[0] == "b4").domain = "nobody.knows"
        return done

    monkeypatch.setattr(folding, "apply", apply)
    report = bnfold.convert(net).report
    assert report.verdict == "rolled-back"
    assert [piece.sources for piece in report.rolled_back] == [("bn4",)]
