"""The command on files of other frameworks, as their users have them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bnfold.cli.explain import explanations
from tests.cli.program import Ended, bnfold, files, op_types

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to convert into."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module")
def keras(folder: Path) -> Ended:
    """A conversion of a real Keras 2 file with 14 batch norms; what is tested here is read from it."""
    real = Path(__file__).parents[3] / "shared" / "data" / "gender_mini_XCEPTION.21-0.95.hdf5"
    if not real.exists():
        pytest.skip("the folder of real files is not here")
    return bnfold("convert", real, "-o", "out.onnx", "--report", "r.json", cwd=folder)


def test_a_real_keras_file_is_converted_and_nothing_of_tensorflow_is_on_the_screen(keras: Ended, folder: Path) -> None:
    assert (keras.code, keras.err) == (0, "")
    lines = keras.out.splitlines()
    assert lines[0] == "  file         gender_mini_XCEPTION.21-0.95.hdf5"
    assert lines[-1] == "  wrote out.onnx"
    assert all(line.startswith("  ") for line in lines)
    assert "BatchNormalization" not in op_types(folder / "out.onnx")
    assert sorted(files(folder)) == ["out.onnx", "r.json"]


def test_its_report_says_what_it_was_compared_with(keras: Ended, folder: Path) -> None:
    assert keras.code == 0
    report = json.loads((folder / "r.json").read_text("utf-8"))
    assert (report["source"]["format"], report["verdict"]) == ("h5", "pass-more-accurate")
    assert len(report["batch_norms"]) == 14
    assert {row["outcome"] for row in report["batch_norms"]} == {"folded"}
    assert [one["verdict"] for one in report["parity"]["translation"]] in (["pass"], ["pass-more-accurate"])
    assert {"tensorflow", "tf-keras", "tf2onnx", "onnxruntime"} <= set(report["versions"])


def test_every_rule_that_a_report_names_is_explained(keras: Ended, folder: Path) -> None:
    assert keras.code == 0
    report = json.loads((folder / "r.json").read_text("utf-8"))
    named = {step["rule"] for row in [*report["batch_norms"], *report["affines"]] for step in row["into"]}
    assert named - {explanation.id for explanation in explanations()} == set()


def test_a_frozen_graph_is_inspected_with_the_proof_of_its_mode(folder: Path, repository: Path) -> None:
    source = repository / "models" / "tf1_cond" / "frozen_v1.pb"
    if not source.exists():
        pytest.skip("the trained models are not here")
    ended = bnfold("inspect", "--convert", os.path.relpath(source, folder), cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert "  mode         phase_train (bool placeholder) → False   True leaves 4 batch-statistics nodes" in ended.out
