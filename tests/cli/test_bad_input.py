"""Whatever it is given, the program answers in one paragraph, with its exit code, and leaves every file as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.program import CONV_BN, bnfold, files, model, written

MAGIC_FREE = np.random.default_rng(5).integers(128, 256, 4096, dtype=np.uint8).tobytes()


def _empty(folder: Path) -> Path:
    (folder / "empty.onnx").write_bytes(b"")
    return Path("empty.onnx")


def _truncated(folder: Path) -> Path:
    (folder / "cut.onnx").write_bytes(model(CONV_BN).SerializeToString()[:-100])
    return Path("cut.onnx")


def _random(folder: Path) -> Path:
    (folder / "random.bin").write_bytes(MAGIC_FREE)
    return Path("random.bin")


def _text(folder: Path) -> Path:
    (folder / "notes.onnx").write_text("Dear model,\nplease fold yourself.\n")
    return Path("notes.onnx")


def _folder(folder: Path) -> Path:
    (folder / "saved").mkdir()
    (folder / "saved" / "readme.txt").write_text("no model\n")
    return Path("saved")


def _not_there(_folder: Path) -> Path:
    return Path("missing.pb")


def _without_statistics(folder: Path) -> Path:
    built = model(CONV_BN)
    batch_norm = built.graph.node[1]
    batch_norm.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    batch_norm.output.extend(["batch_mean", "batch_var"])
    for tensor in [tensor for tensor in built.graph.initializer if tensor.name in {"mean", "var"}]:
        built.graph.initializer.remove(tensor)
        built.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, [4]))
    onnx.save(built, folder / "training.onnx")
    return Path("training.onnx")


def _nan(folder: Path) -> Path:
    return written(folder / "nan.onnx", mean=[0, np.nan, 0, 0]).relative_to(folder)


def _negative(folder: Path) -> Path:
    return written(folder / "negative.onnx", var=[1, -1, 1, 1]).relative_to(folder)


WHICH = (
    "  hint: Name a file in one of the formats that are read: ONNX, Keras (.keras, .h5), SavedModel, TensorFlow "
    "frozen graphs, meta graphs and checkpoints, and PyTorch exported programs (.pt2).\n"
)
UNREADABLE = [
    pytest.param(
        _empty,
        "error[unknown-format]: empty.onnx is empty\n  hint: Export the model again, or download it again.\n",
        id="empty file",
    ),
    pytest.param(
        _truncated,
        "error[corrupt]: cut.onnx starts like an ONNX model and breaks off or is damaged within its 726 bytes\n"
        "  hint: Export the model again, or download it again if it came from elsewhere.\n",
        id="truncated file",
    ),
    pytest.param(
        _random,
        f"error[unknown-format]: random.bin is in no known format: its 4096 bytes look random\n{WHICH}",
        id="random bytes",
    ),
    pytest.param(
        _text,
        f"error[unknown-format]: notes.onnx is a text file that begins with 'Dear model,'\n{WHICH}",
        id="text named .onnx",
    ),
    pytest.param(
        _folder,
        "error[unknown-format]: saved is a folder without a SavedModel or a checkpoint: it holds readme.txt\n" + WHICH,
        id="folder that is no SavedModel",
    ),
    pytest.param(
        _not_there,
        "error[unknown-format]: no such file: missing.pb\n  hint: Check the path for a typing mistake.\n",
        id="no such file",
    ),
    pytest.param(
        _without_statistics,
        "error[inference-mode]: a batch norm normalises with the statistics of each batch, and the file holds no "
        "running mean and variance for it: 'batchnormalization_1'\n"
        "  hint: Export the model again in evaluation mode, with running statistics.\n",
        id="training mode without running statistics",
    ),
]
NO_NUMBERS = [
    pytest.param(
        _nan,
        "error[corrupt]: nan.onnx: running_mean of batchnormalization_1 holds NaN or infinity\n"
        "  hint: Repair the statistics: training diverged, or the file is damaged.\n",
        id="NaN statistics",
    ),
    pytest.param(
        _negative,
        "error[corrupt]: negative.onnx: running_var + epsilon of batchnormalization_1 is -0.999 in some channel\n"
        "  hint: Repair the statistics: a variance is never negative.\n",
        id="negative variance",
    ),
]


@pytest.mark.parametrize(("make", "shown"), [*UNREADABLE, *NO_NUMBERS])
@pytest.mark.parametrize("command", ["convert", "fold"])
def test_writing_commands_refuse(tmp_path: Path, command: str, make: Callable[[Path], Path], shown: str) -> None:
    source = make(tmp_path)
    (tmp_path / "out.onnx").write_bytes(b"what was there before")
    before = files(tmp_path)
    ended = bnfold(command, source, "-o", "out.onnx", "--report", "report.json", cwd=tmp_path)
    assert (ended.out, ended.err) == ("", shown)
    assert ended.code == 3
    assert files(tmp_path) == before


@pytest.mark.parametrize(("make", "shown"), UNREADABLE)
def test_inspect_refuses(tmp_path: Path, make: Callable[[Path], Path], shown: str) -> None:
    source = make(tmp_path)
    before = files(tmp_path)
    ended = bnfold("inspect", source, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (3, "", shown)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("make", "shown"), UNREADABLE)
@pytest.mark.parametrize("place", [0, 1])
def test_verify_refuses(tmp_path: Path, place: int, make: Callable[[Path], Path], shown: str) -> None:
    pair = [written(tmp_path / "good.onnx"), make(tmp_path)]
    ended = bnfold("verify", pair[1 - place], pair[place], cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (3, "", shown)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_nan, "1 × non-finite: A parameter or a result holds NaN"),
        (_negative, "1 × variance-not-positive: running_var"),
    ],
)
def test_inspect_says_which_statistics_are_no_numbers(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    ended = bnfold("inspect", make(tmp_path), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert said in ended.out


def test_a_model_may_be_read_but_not_by_us(tmp_path: Path) -> None:
    source = written(tmp_path / "secret.onnx")
    source.chmod(0)
    if os.access(source, os.R_OK):
        pytest.skip("this user may read everything")
    ended = bnfold("inspect", "secret.onnx", cwd=tmp_path)
    assert ended.code == 1
    assert ended.err == (
        "error[file]: secret.onnx: permission denied\n  hint: Ask for the permission, or use another folder.\n"
    )
