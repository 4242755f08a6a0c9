"""The call behind every command: what it returns, raises, and leaves alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import bnfold
from bnfold import fold as folding
from bnfold import frontends
from bnfold.frontends.loaded import Array, Loaded, Request, Runner
from bnfold.pipeline import conversion as conversions
from bnfold.pipeline.measure import measure
from bnfold.pipeline.options import LARGE
from tests.cli.program import CONV_BN, TWO_BN, model, written


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A model with one batch norm that folds and one that stays."""
    return written(tmp_path / "two.onnx", TWO_BN)


def _session(content: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_every_public_name_is_there() -> None:
    assert [name for name in bnfold.__all__ if getattr(bnfold, name) is None] == []
    assert set(bnfold.__all__) <= set(dir(bnfold))
    with pytest.raises(AttributeError, match="module 'bnfold' has no attribute 'fuse'"):
        getattr(bnfold, "fuse")  # noqa: B009  # that it is not there is the test


def test_convert_folds_what_it_can_and_accounts_for_the_rest(two: Path) -> None:
    before = two.read_bytes()
    done = bnfold.convert(two)
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)}
    expected, got = (_session(m).run(None, feeds)[0] for m in (onnx.load(two), done.model))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    report = done.report
    assert [(row.name, row.outcome) for row in report.batch_norms] == [
        ("batchnormalization_1", "folded"),
        ("batchnormalization_3", "kept"),
    ]
    assert [step.node for step in report.batch_norms[0].into] == ["conv_0"]
    assert report.source.sha256 == hashlib.sha256(before).hexdigest()
    assert report.holds
    assert report.reason == ""
    assert two.read_bytes() == before


def test_the_steps_are_told_in_order(two: Path) -> None:
    told: list[tuple[str, float | None]] = []
    bnfold.convert(two, progress=lambda step, done: told.append((step, done)))
    steps = [step.partition(":")[0] for step, _done in told]
    assert list(dict.fromkeys(steps)) == ["read", "inference mode", "fold", "verify"]
    assert all(done is None or 0 <= done <= 1 for _step, done in told)


def test_inspect_is_what_convert_does_without_doing_it(two: Path) -> None:
    seen, done = bnfold.inspect(two), bnfold.convert(two).report
    assert seen.batch_norms == done.batch_norms
    assert seen.before == done.before
    assert (seen.after, seen.parity, seen.verdict) == (None, None, "not-verified")


def test_fold_none_converts_and_proves_without_folding(two: Path) -> None:
    done = bnfold.convert(two, bnfold.Options(fold="none"))
    assert [row.kept.reason for row in done.report.batch_norms if row.kept] == ["kept-on-request"] * 2
    assert [node.op_type for node in done.model.graph.node] == [node.op_type for node in onnx.load(two).graph.node]
    assert done.report.verdict == "pass"


@pytest.mark.parametrize(("parameters", "level"), [(LARGE, "full"), (LARGE + 1, "fast")])
def test_large_models_are_verified_with_fewer_probes(
    two: Path, monkeypatch: pytest.MonkeyPatch, parameters: int, level: str
) -> None:
    def large(counted: onnx.ModelProto) -> Any:
        return replace(measure(counted), parameters=parameters)

    monkeypatch.setattr("bnfold.pipeline.reading.measure", large)
    parity = bnfold.convert(two).report.parity
    assert parity is not None
    assert parity.level == level


def test_the_seed_draws_the_probes(two: Path) -> None:
    figures = [bnfold.convert(two, bnfold.Options(seed=seed)).report.parity for seed in (1, 1, 2)]
    compared = [parity.folding if parity else None for parity in figures]
    assert compared[0] == compared[1]
    assert compared[0] != compared[2]


@pytest.mark.parametrize("name", ["opset", "architecture", "builder"])
def test_an_option_without_effect_is_refused(two: Path, name: str) -> None:
    told: dict[str, Any] = {name: {"opset": 13, "architecture": Path("a.json"), "builder": "a.py:f"}[name]}
    with pytest.raises(bnfold.SignatureError) as caught:
        bnfold.convert(two, bnfold.Options(**told))
    assert str(caught.value) == (
        f"{two} is an ONNX file and stays as it was exported, so --{name} {told[name]} has no effect"
    )
    assert caught.value.hint == f"Leave --{name} out."


def test_averaged_weights_of_a_file_without_any_are_refused(two: Path) -> None:
    with pytest.raises(bnfold.SignatureError) as caught:
        bnfold.convert(two, bnfold.Options(ema="yes"))
    assert str(caught.value) == (
        f"{two} keeps no moving averages of its weights beside them, so --ema yes has no effect"
    )
    assert caught.value.hint == "Leave --ema out."


# What follows lies to the pipeline, and nothing of the lie reaches what judges it.


@pytest.fixture
def wrong_bias(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folding that gets one bias wrong, and says where it folded."""
    right = folding.apply

    def wrong(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan)
        for tensor in done.model.graph.initializer if plan.folds else ():
            if list(tensor.dims) == [4] and tensor.name not in {"gamma2", "beta2", "mean2", "var2"}:
                array = np.array(numpy_helper.to_array(tensor))
                array[2] += 0.01
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return done

    monkeypatch.setattr(folding, "apply", wrong)
    return  # type: ignore[return-value]  # pytest's fixtures may


@pytest.mark.usefixtures("wrong_bias")
def test_a_wrong_fold_is_put_back_alone(two: Path) -> None:
    report = bnfold.convert(two).report
    assert report.verdict == "rolled-back"
    (piece,) = report.rolled_back
    assert piece.sources == ("batchnormalization_1",)
    assert piece.eta > piece.limit
    first = report.batch_norms[0]
    assert first.outcome == "rolled-back"
    assert first.kept is not None
    assert (first.kept.reason, first.kept.detail) == ("unverified", piece.detail)
    assert report.before.ops == (report.after and report.after.ops)


def test_a_wrong_whole_is_refused_and_handed_out_only_on_request(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = folding.apply

    def wrong(unfolded: onnx.ModelProto, plan: folding.FoldPlan, **_named: object) -> folding.Folded:
        done = right(unfolded, plan).model
        done.graph.node[1].op_type = "Tanh"
        return folding.Folded(done, ())

    monkeypatch.setattr(folding, "apply", wrong)
    with pytest.raises(bnfold.ParityError, match="output y: error "):
        bnfold.convert(two)
    refuted = bnfold.convert(two, unverified=True)
    assert refuted.report.verdict == "fail"
    assert not refuted.report.holds
    with pytest.raises(bnfold.ParityError):
        refuted.save(tmp_path / "out.onnx")
    assert refuted.save(tmp_path / "out.onnx", force=True) == tmp_path / "out.unverified.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.unverified.onnx", "two.onnx"]


def _pretend(monkeypatch: pytest.MonkeyPatch, run: Runner) -> None:
    """Let a file seem to come from another framework, with its own program."""
    right = frontends.load

    def load(path: Path, request: Request) -> Loaded:
        return replace(right(path, request), run=run, format="keras", framework="Keras 9", description="Keras model")

    monkeypatch.setattr(frontends, "load", load)


def test_a_wrong_translation_is_blamed_on_the_translation(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(onnx.load(two))

    def other(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.asarray(session.run(None, dict(feeds))[0]) * 1.01}

    _pretend(monkeypatch, other)
    with pytest.raises(bnfold.ParityError, match=r"^translation, not folding: output y: error "):
        bnfold.convert(two)


def test_a_candidate_is_held_to_its_own_program_too(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(onnx.load(two))
    right = frontends.load
    told: list[Path] = []

    def other(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.asarray(session.run(None, dict(feeds))[0]) * 1.01}

    def load(path: Path, request: Request) -> Loaded:
        told.append(path)
        return replace(right(path, request), run=other if len(told) == 2 else None)

    monkeypatch.setattr(frontends, "load", load)
    report = bnfold.verify(two, two)
    assert report.verdict == "fail"
    assert report.reason.startswith(f"{two}: translation, not folding: output y: error ")


def test_a_right_translation_passes(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(onnx.load(two))
    _pretend(monkeypatch, lambda feeds: {"y": np.asarray(session.run(None, dict(feeds))[0])})
    done = bnfold.convert(two)
    assert done.report.parity is not None
    assert len(done.report.parity.translation) == 1
    assert done.report.holds
    assert {"tensorflow", "keras"} <= set(done.report.versions)


def test_an_original_that_never_answers_proves_nothing(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeError("out of order")

    _pretend(monkeypatch, silent)
    with pytest.raises(bnfold.InconclusiveError):
        bnfold.convert(two)


def test_the_short_form_in_the_model_says_what_was_found(two: Path) -> None:
    done = bnfold.convert(two)
    short = json.loads({entry.key: entry.value for entry in done.model.metadata_props}[conversions.STAMP])
    assert short == {
        "schema": "bnfold-report/1",
        "verdict": done.report.verdict,
        "source_sha256": done.report.source.sha256,
        "folded": 1,
        "kept": 1,
        "seed": 0,
        "versions": dict(done.report.versions),
    }


def test_verified_anew_a_model_says_so(two: Path, tmp_path: Path) -> None:
    bnfold.convert(two, bnfold.Options(verify="off")).save(tmp_path / "a.onnx")
    again = bnfold.convert(tmp_path / "a.onnx")
    short = json.loads({entry.key: entry.value for entry in again.model.metadata_props}[conversions.STAMP])
    assert short["verdict"] == "pass"
    again.save(tmp_path / "b.onnx")
    assert bnfold.convert(tmp_path / "b.onnx", bnfold.Options(verify="off")).to_bytes() == again.to_bytes()


def test_a_folder_is_hashed_with_the_names_of_its_files(tmp_path: Path) -> None:
    from bnfold.pipeline.measure import source_of

    loaded = Loaded(onnx.ModelProto(), "saved-model", "", "", (), ())
    seen = set()
    for names in (("a", "b"), ("b", "a"), ("a", "c")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for number, name in enumerate(names):
            (folder / name).write_text(str(number))
        source = source_of(folder, loaded)
        assert source.bytes == 2
        seen.add(source.sha256)
    assert len(seen) == 3


def test_a_checkpoint_is_hashed_with_all_its_files_and_no_others(tmp_path: Path) -> None:
    from bnfold.pipeline.measure import source_of

    loaded = Loaded(onnx.ModelProto(), "checkpoint", "", "", (), ())
    for suffix in ("index", "meta", "data-00000-of-00001"):
        (tmp_path / f"model-1.{suffix}").write_text(suffix)
    first = source_of(tmp_path / "model-1", loaded)
    (tmp_path / "model-10.index").write_text("another")
    assert source_of(tmp_path / "model-1", loaded) == first
    (tmp_path / "model-1.meta").write_text("changed")
    assert source_of(tmp_path / "model-1", loaded).sha256 != first.sha256


def test_a_model_is_measured_with_the_bodies_of_its_conditionals() -> None:
    conditional = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> {
            y = If (c) <
                then_branch = a () => (float[2] p) { p = Add (x, w) },
                else_branch = b () => (float[2] q) { q = Add (x, x) }
            >
        }"""
    )
    counted = measure(conditional)
    assert (counted.nodes, counted.inputs, counted.parameters, counted.opset) == (3, 2, 2, 17)
    assert counted.ops == {"Add": 2, "If": 1}
    assert counted.bytes == len(conditional.SerializeToString())


def test_figures_that_a_model_has_in_common_with_its_folded_self_are_finite(two: Path) -> None:
    parity = bnfold.convert(two).report.parity
    assert parity is not None
    assert all(math.isfinite(one.candidate) and one.compared > 0 for one in parity.folding)


def test_nothing_is_changed_that_was_given(two: Path) -> None:
    given = model(CONV_BN)
    before = given.SerializeToString()
    folding.apply(given, folding.plan(given))
    assert given.SerializeToString() == before
    assert bnfold.Options() == bnfold.DEFAULTS
    assert two.exists()
