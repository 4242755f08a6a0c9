"""``bnfold inspect`` on files of frameworks: told from the file alone, at once, and without the framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.cli.program import bnfold, environment

FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "tf2onnx", "onnxruntime"}
FILES = {
    "h5": "models/tf_keras_dense/phase1.h5",
    "weights": "models/keras_dense/tuned.weights.h5",
    "keras": "models/keras_dense/tuned.keras",
    "frozen graph": "models/tf1_layers/frozen.pb",
    "frozen graph, control flow 2": "models/tf1_cond/frozen_v2.pb",
    "meta graph": "models/tf1_batch_statistics/my_net.ckpt.meta",
    "checkpoint": "models/tf1_cond/v1",
    "SavedModel": "models/keras_depthwise/saved_model",
    "onnx": "models/torch_conv/digits.onnx",
}


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_no_framework_is_imported(repository: Path, name: str) -> None:
    imported, _text = inspected(repository / name, repository)
    assert imported & FRAMEWORKS == set()
    assert "onnx" not in imported or name.endswith(".onnx")


@pytest.mark.parametrize("name", ["MSD_vgg.meta", "gender_mini_XCEPTION.21-0.95.hdf5", "fc-layers.pb"])
def test_no_framework_is_imported_for_real_files(real_files: Path, tmp_path: Path, name: str) -> None:
    imported, text = inspected(real_files / name, tmp_path)
    assert imported & (FRAMEWORKS | {"onnx"}) == set()
    assert name in text


def inspected(path: Path, folder: Path) -> tuple[set[str], str]:
    """Return the packages that the command imports for a file, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bnfold", "inspect", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, done.stdout


def test_the_screen_of_a_keras_file(repository: Path) -> None:
    ended = bnfold("inspect", "models/tf_keras_dense/phase1.h5", cwd=repository)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "  phase1.h5    Keras model in HDF5 · Keras 2.20.1 · 12.0 k parameters · 164 kB\n"
        "  inputs       pixels   float32 (?, 64)\n"
        "  outputs      digit\n"
        "  batch norms  3 with the statistics of training\n"
        "               base/base_bn1   64 channels · ε 0.001   behind Dense base/base_fc1 with relu\n"
        "               base/base_bn2   64 channels · ε 0.001   behind Dense base/base_fc2\n"
        "               head_bn         40 channels · ε 0.001   behind Dense head_fc\n"
        "  look at      1 layer is called with training=True: in Keras 2, predict() uses the statistics of\n"
        "               its batch there\n"
        "               head_bn\n"
        "               hint: Convert it: the result uses the moving statistics. Or build the model without\n"
        "               training=True.\n"
        "  not known    The shapes of the outputs follow from the layers, which are not built here.\n"
        "               What folds into what is seen with: bnfold inspect --convert, which takes TensorFlow.\n"
    )


def test_the_screen_of_a_frozen_graph(repository: Path) -> None:
    ended = bnfold("inspect", "models/tf1_layers/frozen.pb", cwd=repository)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "  frozen.pb    TF1 frozen graph · TensorFlow (graph version 2288) · 9.72 k parameters · 54.2 kB\n"
        "  inputs       X:0   float32 (?, 64)\n"
        "               keep_prob:0   float32\n"
        "  outputs      probabilities:0   float32\n"
        "  mode         is_training:0   bool placeholder, has to be fed   decides 12 branches\n"
        "  batch norms  3 switched between training and inference\n"
        "               fc1/batch_norm   64 channels · ε 0.001   behind MatMul fc1/dense/MatMul\n"
        "               fc2/batch_norm   48 channels · ε 0.001   behind MatMul fc2/dense/MatMul\n"
        "               fc3/batch_norm   32 channels · ε 0.001   behind MatMul fc3/dense/MatMul\n"
        "  not known    No signature names the outputs: those shown are the likely ones (--outputs names\n"
        "               others).\n"
        "               What folds into what is seen with: bnfold inspect --convert, which takes TensorFlow.\n"
    )


@pytest.mark.parametrize("name", [name for kind, name in FILES.items() if kind != "onnx"])
def test_json_follows_the_published_schema(repository: Path, name: str) -> None:
    ended = bnfold("inspect", name, "--format", "json", cwd=repository)
    assert (ended.code, ended.err) == (0, "")
    schema = json.loads((repository / "docs" / "glance.schema.json").read_text("utf-8"))
    found = json.loads(ended.out)
    jsonschema.validate(found, schema)
    assert (found["schema"], found["path"]) == ("bnfold-glance/1", name)


def test_an_option_that_only_a_conversion_follows_is_refused(repository: Path) -> None:
    ended = bnfold("inspect", "models/tf1_layers/frozen.pb", "--outputs", "probabilities", cwd=repository)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error[usage]: --outputs has no effect where models/tf1_layers/frozen.pb is only looked at\n"
        "  hint: Leave it out, or convert the file first with --convert.\n"
    )


def test_quiet_prints_nothing(repository: Path) -> None:
    ended = bnfold("inspect", "models/keras_dense/tuned.keras", "--quiet", cwd=repository)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_file_that_breaks_off_says_so(repository: Path, tmp_path: Path) -> None:
    whole = (repository / "models/tf1_layers/frozen.pb").read_bytes()
    (tmp_path / "half.pb").write_bytes(whole[: len(whole) // 2])
    ended = bnfold("inspect", "half.pb", cwd=tmp_path)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"error[corrupt]: half.pb ({len(whole) // 2} bytes) is not a whole TensorFlow graph: ")
    assert ended.err.endswith("hint: Get the file again: it is empty, incomplete or damaged.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["half.pb"]
