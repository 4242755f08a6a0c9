"""Models that are several files, in an archive: they become what they become from a folder, and read nothing else."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

import bnfold
from bnfold.errors import BnfoldError, CorruptModelError, UnknownFormatError
from bnfold.frontends import load
from bnfold.frontends.archive import model_in
from bnfold.frontends.loaded import Request

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,4,6,6] y)
    <float[4] gamma = {1, 2, 3, 4}, float[4] beta = {1, 1, 2, 2}, float[4] mean = {0, 1, 0, 1},
     float[4] var = {1, 2, 1, 2}> {
    h = Conv(x, w)
    y = BatchNormalization(h, gamma, beta, mean, var)
}"""
VALUES = np.random.default_rng(5).normal(size=(4, 3, 3, 3)).astype(np.float32).tobytes()


def net(location: str = "weights/w.bin") -> bytes:
    """Return a model whose only weight lies in another file."""
    model = parser.parse_model(NET)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


def packed(path: Path, files: Mapping[str, bytes | Path]) -> Path:
    """Write an archive, of the kind that the name says."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, file)
            else:
                file.write_bytes(content)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name in files:
                    archive.write(Path(folder, name), name)
        else:
            with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
                for name in files:
                    tar.add(Path(folder, name), name)
    return path


def refusal(path: Path) -> tuple[type[BnfoldError], str]:
    with pytest.raises(BnfoldError) as raised:
        load(path, Request())
    assert "bnfold-" not in f"{raised.value} {raised.value.hint}", "where it was unpacked to is nobody's business"
    return type(raised.value), str(raised.value).replace(str(path), "IT")


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz"])
@pytest.mark.parametrize("folder", ["", "net/", "a/b/"])
def test_an_onnx_model_with_its_weights_becomes_one_file(tmp_path: Path, name: str, folder: str) -> None:
    path = packed(
        tmp_path / name,
        # The weights may come first, and what nobody names does no harm.
        {f"{folder}weights/w.bin": VALUES, f"{folder}net.onnx": net(), f"{folder}README.txt": b"about"},
    )
    beside = tmp_path / "beside"
    (beside / "weights").mkdir(parents=True)
    (beside / "net.onnx").write_bytes(net())
    (beside / "weights" / "w.bin").write_bytes(VALUES)
    from_archive, from_folder = bnfold.convert(path), bnfold.convert(beside / "net.onnx")
    assert from_archive.report.verdict == "pass"
    assert from_archive.model.graph == from_folder.model.graph
    assert from_archive.report.source.description == f"{from_folder.report.source.description}, in an archive"
    assert (from_archive.report.source.format, from_archive.report.source.path) == ("onnx", str(path))
    assert from_archive.report.source.bytes == path.stat().st_size
    (tmp_path / "out").mkdir()
    onnx.checker.check_model(str(from_archive.save(tmp_path / "out" / "folded.onnx")))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["folded.onnx"]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret", "which is not a file below the model's folder"),
        ("weights/../../secret", "which is not a file below the model's folder"),
        ("/etc/passwd", "which is not a file below the model's folder"),
        ("weights/gone.bin", "and that file is not beside the model"),
        ("weights", "which is a link or no file"),
    ],
)
def test_weights_that_are_not_in_the_archive_are_not_looked_for(tmp_path: Path, location: str, said: str) -> None:
    (tmp_path / "secret").write_bytes(VALUES)
    path = packed(tmp_path / "m.zip", {"net.onnx": net(location), "weights/w.bin": VALUES})
    assert refusal(path) == (
        CorruptModelError,
        f"IT/net.onnx is damaged: tensor 'w' is kept in '{location}', {said}",
    )


def test_weights_that_are_cut_off_are_told(tmp_path: Path) -> None:
    path = packed(tmp_path / "m.zip", {"n/net.onnx": net(), "n/weights/w.bin": VALUES[:-1]})
    assert refusal(path) == (
        CorruptModelError,
        "IT/n/net.onnx is damaged: tensor 'w' is bytes 0 to 432 of 'weights/w.bin', which has 431",
    )


def test_a_name_is_not_believed(tmp_path: Path, repository: Path) -> None:
    path = packed(tmp_path / "m.zip", {"net.onnx": repository / "models/keras_dense/tuned.keras"})
    assert refusal(path) == (
        UnknownFormatError,
        "the model in IT is not what its name says: Keras model",
    )
    inner = packed(tmp_path / "inner.zip", {"net.onnx": net(), "weights/w.bin": VALUES})
    path = packed(tmp_path / "outer.zip", {"net.onnx": inner})
    assert refusal(path) == (
        UnknownFormatError,
        "the model in IT is not what its name says: ONNX in an archive",
    )
    assert refusal(packed(tmp_path / "text.zip", {"net.onnx": b"hello"})) == (
        UnknownFormatError,
        "IT/net.onnx is a text file that begins with 'hello'",
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a/m.onnx", "a/m.onnx.data"], ("onnx", "a/m.onnx")),
        (["M.ONNX"], ("onnx", "M.ONNX")),
        (["run/m-1.meta", "run/m-1.index", "run/m-1.data-00000-of-00001"], ("checkpoint", "run")),
        (["m-1.meta", "m-1.index", "m-2.meta", "m-2.index", "checkpoint"], ("checkpoint", "")),
        (["m-1.meta", "m-2.index"], None),
        (["a/saved_model.pb", "a/assets/x.onnx"], ("saved-model", "a")),
        (["m.onnx/"], None),
        ([], None),
    ],
)
def test_what_an_archive_holds_is_told_by_its_names(names: list[str], found: tuple[str, str] | None) -> None:
    assert model_in(names, Path("IT")) == found


@pytest.mark.parametrize(
    "names",
    [["a.onnx", "b.onnx"], ["a.onnx", "m.meta", "m.index"], ["a/m.meta", "a/m.index", "b/m.meta", "b/m.index"]],
    ids=["two", "two kinds", "two runs"],
)
def test_several_models_are_not_chosen_from(names: list[str]) -> None:
    with pytest.raises(UnknownFormatError, match=r"^IT is an archive of several models: "):
        model_in(names, Path("IT"))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_checkpoint_becomes_what_it_becomes_in_its_folder(tmp_path: Path, repository: Path, name: str) -> None:
    folder = repository / "models/tf1_batch_statistics"
    files = {f"run/{path.name}": path for path in folder.iterdir() if "ckpt" in path.name or path.name == "checkpoint"}
    found, expected = load(packed(tmp_path / name, files), Request()), load(folder, Request())
    assert found.model.graph == expected.model.graph
    assert (found.format, found.framework) == (expected.format, expected.framework)
    assert found.description == f"{expected.description}, in an archive"
    feeds = {one.name: np.zeros([size if isinstance(size, int) else 2 for size in one.shape], one.dtype)
        for one in expected.inputs}  # fmt: skip
    assert found.run is not None
    assert expected.run is not None
    for output, values in expected.run(feeds).items():
        np.testing.assert_array_equal(found.run(feeds)[output], values)


@pytest.mark.tensorflow
def test_an_archive_of_a_checkpoint_can_be_looked_at(tmp_path: Path, repository: Path) -> None:
    folder = repository / "models/tf1_batch_statistics"
    path = packed(tmp_path / "m.zip", {file.name: file for file in folder.glob("my_net.ckpt.*")})
    found, expected = bnfold.glance(path), bnfold.glance(folder)
    assert (found.format, found.path, found.batch_norms) == ("checkpoint-archive", str(path), expected.batch_norms)
