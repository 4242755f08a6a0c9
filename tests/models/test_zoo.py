"""The table of trained models and the files beside it say the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import digits, zoo

LARGEST = 2_000_000
MODELS = zoo.read()
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


@pytest.fixture(scope="module")
def testing() -> digits.Split:
    """The digits that no model has learned from."""
    return digits.load().test


def test_names_are_unique() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)


@EACH
def test_files_are_those_that_were_recorded(model: zoo.Model) -> None:
    assert zoo.check(model) == []


def test_a_file_that_was_changed_or_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(model for model in MODELS if model.name == "torch-conv")
    monkeypatch.setattr(zoo, "HERE", tmp_path)
    (tmp_path / "torch_conv").mkdir()
    (tmp_path / model.path).write_bytes(b"another")
    assert zoo.check(model) == [
        "torch_conv/digits.onnx is not the file that was recorded",
        "torch_conv/scores.npy is not there",
    ]


@EACH
def test_artifact_is_listed_whole_and_small(model: zoo.Model) -> None:
    path = zoo.HERE / model.path
    if model.kind == "TF1 checkpoint":
        # A checkpoint lies in its folder beside other things: the script, a frozen graph.
        files = {file for file in path.iterdir() if file.name == "checkpoint" or ".ckpt" in file.name}
    else:
        files = {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    assert files
    assert {file.relative_to(zoo.HERE).as_posix() for file in files} <= set(model.sha256)
    assert sum(file.stat().st_size for file in files) < LARGEST


@EACH
def test_hints_name_options_and_files_that_exist(model: zoo.Model) -> None:
    assert set(model.hints) <= {"outputs", "architecture", "builder"}
    for name in {"architecture", "builder"} & set(model.hints):
        assert model.hints[name].partition(":")[0] in model.sha256


@EACH
def test_script_explains_itself_and_lies_beside_what_it_writes(model: zoo.Model) -> None:
    script = zoo.HERE / model.script
    assert ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert {Path(name).parts[0] for name in model.sha256} == {script.parent.name}


@EACH
def test_accuracy_is_what_the_original_program_answered(model: zoo.Model, testing: digits.Split) -> None:
    scores = np.load(zoo.HERE / model.scores)
    assert scores.shape == (model.total, 10) == (len(testing.labels), 10)
    assert scores.dtype == np.dtype(model.dtype)
    assert digits.correct(scores, testing) == model.correct
    assert model.correct / model.total > 0.95


def test_every_trained_file_is_in_the_table() -> None:
    named = {name for model in MODELS for name in model.sha256}
    kinds = {".pb", ".keras", ".h5", ".onnx", ".meta", ".index", ".npy", ".json"}
    found = {path.relative_to(zoo.HERE).as_posix() for path in zoo.HERE.rglob("*") if path.suffix in kinds}
    assert found - named == set()


def test_split_is_complete_disjoint_and_has_every_digit() -> None:
    data = digits.load()
    assert (len(data.train.labels), len(data.test.labels)) == (1198, 599)
    assert np.bincount(data.test.labels).min() > 50
    together = np.concatenate([data.train.pixels, data.test.pixels])
    assert len(np.unique(together, axis=0)) == len(np.unique(data.train.pixels, axis=0)) + len(
        np.unique(data.test.pixels, axis=0)
    )
    assert (together.min(), together.max()) == (0, 1)


def test_the_zoo_checks_itself_from_the_command_line() -> None:
    done = subprocess.run([sys.executable, zoo.HERE / "zoo.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("files as recorded") == len(MODELS)
