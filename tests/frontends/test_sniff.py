"""What a file is, told from its content: files as frameworks write them, and everything that is mistaken for them."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import pickle
import re
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

from bnfold.errors import CorruptModelError, MissingExtraError, UnknownFormatError
from bnfold.frontends import load
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.sniff import Format, checkpoint_prefix, sniff

ONNX = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17], producer_name: "exporter">
    g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }""").SerializeToString()


def message(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    assert len(content) < 1 << 14
    length = bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])
    return bytes([number << 3 | 2]) + length + content


NODE = message(1, message(1, b"scope/x") + message(2, b"Placeholder"))
GRAPH = NODE + message(1, message(1, b"y") + message(2, b"Relu") + message(3, b"scope/x")) + message(4, b"\x08\x1b")
META_GRAPH = message(1, message(2, message(1, b"\x0a\x04Relu")) + message(5, b"1.12.0")) + message(2, GRAPH)
SAVED_MODEL = b"\x08\x01" + message(2, META_GRAPH)
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refusal(path: Path) -> tuple[str, str]:
    with pytest.raises(UnknownFormatError) as caught:
        sniff(path)
    assert caught.value.exit_code == 3
    return str(caught.value).replace(str(path), "IT"), caught.value.hint


def zipped(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


# What is read. Names say nothing, or lie.


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.h5", "m.pb", "m.txt"])
@pytest.mark.parametrize(
    ("content", "format_"),
    [
        pytest.param(ONNX, Format.ONNX, id="onnx"),
        pytest.param(ONNX[: len(ONNX) // 2], Format.ONNX, id="half of an onnx"),
        pytest.param(GRAPH, Format.FROZEN_GRAPH, id="frozen graph"),
        pytest.param(GRAPH * 1000, Format.FROZEN_GRAPH, id="frozen graph of many nodes"),
        pytest.param(GRAPH[:-5], Format.FROZEN_GRAPH, id="most of a frozen graph"),
        pytest.param(META_GRAPH, Format.META_GRAPH, id="meta graph"),
        pytest.param(b'node {\n  name: "x"\n}\n', Format.FROZEN_GRAPH_TEXT, id="pbtxt"),
        pytest.param(b'# comment\nnode: {\n  name: "x"\n}\n', Format.FROZEN_GRAPH_TEXT, id="pbtxt with a comment"),
        pytest.param(zipped({"config.json": b"{}", "metadata.json": b"{}"}), Format.KERAS, id="keras"),
        pytest.param(zipped({"a/saved_model.pb": b"", "a/variables/x": b""}), Format.SAVED_MODEL_ARCHIVE, id="zip"),
        pytest.param(tarred({"saved_model.pb": b""}), Format.SAVED_MODEL_ARCHIVE, id="tar"),
        pytest.param(gzip.compress(tarred({"saved_model.pb": b""})), Format.SAVED_MODEL_ARCHIVE, id="tar.gz"),
        pytest.param(
            gzip.compress(tarred({"m/variables/variables.index": b"", "m/saved_model.pb": b""})),
            Format.SAVED_MODEL_ARCHIVE,
            id="tar.gz, variables first",
        ),
    ],
)
def test_the_content_decides(tmp_path: Path, name: str, content: bytes, format_: Format) -> None:
    assert sniff(put(tmp_path / name, content)) is format_


def test_real_files_are_what_their_makers_say(real_files: Path) -> None:
    assert {path.name: sniff(path) for path in real_files.iterdir() if path.suffix != ".md"} == {
        "MSD_vgg.meta": Format.META_GRAPH,
        "fc-layers.pb": Format.FROZEN_GRAPH,
        "gender_mini_XCEPTION.21-0.95.hdf5": Format.KERAS_H5,
    }


def test_hdf5_files_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    contents: dict[str, tuple[Format, Callable[[Any], object]]] = {
        "model": (Format.KERAS_H5, lambda file: file.attrs.__setitem__("model_config", b"{}")),
        "legacy weights": (Format.KERAS_WEIGHTS, lambda file: file.attrs.__setitem__("layer_names", [b"dense"])),
        "weights": (Format.KERAS_WEIGHTS, lambda file: file.create_group("_layer_checkpoint_dependencies/dense/vars")),
    }
    for name, (format_, fill) in contents.items():
        for version in ("earliest", "latest"):
            path = tmp_path / f"{name} {version}"
            with h5py.File(path, "w", libver=version) as file:
                fill(file)
                file["numbers"] = np.zeros(100)
            assert sniff(path) is format_
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.zeros(100)
    assert refusal(tmp_path / "other.h5") == (
        "IT is an HDF5 file that holds neither a Keras model nor Keras weights",
        "Name a file that Keras wrote with model.save or model.save_weights.",
    )


def test_folders_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    put(tmp_path / "saved" / "saved_model.pb", SAVED_MODEL)
    put(tmp_path / "text" / "saved_model.pbtxt", b"saved_model_schema_version: 1")
    for name in ("checkpoint", "model-9.index", "model-9.meta", "model-9.data-00000-of-00001"):
        put(tmp_path / "train" / name, b"x")
    assert sniff(tmp_path / "saved") is sniff(tmp_path / "text") is Format.SAVED_MODEL
    assert sniff(tmp_path / "saved" / "saved_model.pb") is Format.SAVED_MODEL
    assert sniff(tmp_path / "train") is Format.CHECKPOINT


@pytest.mark.parametrize("name", ["model-9", "model-9.index", "model-9.data-00000-of-00001", "checkpoint", "."])
def test_a_checkpoint_is_found_by_its_prefix_or_by_any_of_its_files(tmp_path: Path, name: str) -> None:
    put(tmp_path / "checkpoint", b'model_checkpoint_path: "model-9"\n')
    put(tmp_path / "model-9.index", b"\x00entries" + TABLE_END)
    put(tmp_path / "model-9.meta", META_GRAPH)
    put(tmp_path / "model-9.data-00000-of-00001", np.random.default_rng(0).bytes(300))
    assert sniff(tmp_path / name) is Format.CHECKPOINT
    assert sniff(tmp_path / "model-9.meta") is Format.META_GRAPH
    if name.startswith("model"):
        assert checkpoint_prefix(tmp_path / name) == tmp_path / "model-9"


def test_the_first_form_of_checkpoints_is_one_file_beside_its_graph(tmp_path: Path) -> None:
    put(tmp_path / "checkpoint", b'model_checkpoint_path: "model-9"\n')
    put(tmp_path / "model-9", b"\x00entries" + TABLE_END)
    put(tmp_path / "model-9.meta", META_GRAPH)
    for name in (".", "model-9", "checkpoint"):
        assert sniff(tmp_path / name) is Format.CHECKPOINT
    put(tmp_path / "other" / "model-9", b"")
    put(tmp_path / "other" / "model-9.meta", META_GRAPH)
    with pytest.raises(UnknownFormatError, match="is a folder without a SavedModel or a checkpoint"):
        sniff(tmp_path / "other")


# What is not read: the message says what it looks like, the hint what to do.

READS = (
    "Name a file in one of the formats that are read: ONNX, Keras (.keras, .h5), SavedModel, TensorFlow frozen graphs, "
    "meta graphs and checkpoints, and PyTorch exported programs (.pt2)."
)
TO_ONNX = "Export the model to ONNX where it was made, in evaluation mode and without folding, and name the .onnx file."
TORCH = (
    "Export the network with torch.export.export(model.eval(), example), save that with torch.export.save as a .pt2, "
    "or export it to ONNX with torch.onnx.export."
)
SAFETENSORS = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()


@pytest.mark.parametrize(
    ("name", "content", "says", "hint"),
    [
        ("m.onnx", b"", "IT is empty", "Export the model again, or download it again."),
        ("m.onnx", b"Hello, I am no model.\n", "IT is a text file that begins with 'Hello, I am no model.'", READS),
        ("m.onnx", "Grüße".encode("utf-16"), "IT is a text file that begins with 'Grüße'", READS),
        ("m.onnx", b"\n\n", "IT is a text file that begins with ''", READS),
        ("m.pb", "é".encode() * 4000, f"IT is a text file that begins with {'é' * 40!r}", READS),
        (
            "m.onnx",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
            "IT is a Git LFS pointer, not the file itself",
            "Fetch the file with: git lfs pull",
        ),
        (
            "m.h5",
            b"\n<!DOCTYPE html>\n<html>404</html>",
            "IT is a web page, not a model",
            "Download the file itself.",
        ),
        (
            "m.onnx",
            b'ir_version: 8\ngraph {\n  name: "g"\n}\n',
            "IT is an ONNX model as text",
            "Convert it to the binary format with onnx.load and onnx.save.",
        ),
        (
            "m.json",
            b'{"class_name": "Functional", "config": {}}',
            "IT is a Keras architecture without weights",
            "Name the file of weights, and give this one as --architecture IT",
        ),
        ("m.onnx", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100), "IT looks like a JPEG image", READS),
        ("m.onnx", b"\x89PNG\r\n\x1a\n" + bytes(100), "IT looks like a PNG image", READS),
        (
            "m.pb",
            b"\x1c\x00\x00\x00TFL3" + bytes(100),
            "IT looks like a TensorFlow Lite model",
            "Name the TensorFlow model that it was converted from.",
        ),
        (
            "m.onnx",
            b"\x10\x00\x00\x00ORTM" + bytes(100),
            "IT looks like an onnxruntime model (.ort)",
            "Name the .onnx file that it was converted from.",
        ),
        (
            "model.safetensors",
            struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + bytes(8),
            "IT looks like a safetensors file: weights without a network",
            TO_ONNX,
        ),
        (
            "m.onnx",
            pickle.dumps({"w": [1.0]}),
            "IT looks like a Python pickle, which is a program and is not run",
            TO_ONNX,
        ),
        (
            "old.pt",
            pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2),
            "IT looks like an old PyTorch pickle",
            TORCH,
        ),
        (
            "m.pt",
            zipped({"m/data.pkl": b"\x80\x02.", "m/data/0": bytes(8)}),
            "IT looks like a PyTorch pickle: weights without a network, or a network whose code is elsewhere",
            TORCH,
        ),
        (
            "x.npz",
            zipped({"x.npy": b"\x93NUMPY"}),
            "IT looks like a NumPy archive of arrays",
            "Name the model; arrays to check it with go to --data.",
        ),
        (
            "m.zip",
            zipped({"readme.txt": b"", "nets/m.h5": b""}),
            "IT is a zip archive that holds no model that can be read as it is: readme.txt, nets/m.h5",
            "Unpack it and name the file inside: nets/m.h5",
        ),
        (
            "m.zip",
            zipped({"nets/m.onnx": ONNX, "n.onnx": ONNX, "ckpt/m-1.index": b"", "ckpt/m-1.meta": b""}),
            "IT is an archive of several models: nets/m.onnx, n.onnx, ckpt/m-1.meta",
            "Pack the one that is meant alone.",
        ),
        ("m.zip", zipped({}), "IT is a zip archive that holds no model that can be read as it is: nothing", READS),
        ("m.gz", gzip.compress(ONNX), "IT is a file compressed with gzip", "Unpack it with gunzip first."),
        ("m.gz", b"\x1f\x8b\x08\x00", "IT is a file compressed with gzip", "Unpack it with gunzip first."),
        (
            "m.tar",
            tarred({"a.txt": b"x"}),
            "IT is a tar archive without a model",
            "Unpack it and name the model inside.",
        ),
        ("m.bin", b"\x0a\x03abc\x12\x03def", "IT looks like a protobuf file that holds no known model", READS),
        (
            "graph.bin",
            SAVED_MODEL,
            "IT is the graph of a SavedModel, which is a folder and calls it saved_model.pb",
            "Name the SavedModel's folder.",
        ),
        (
            "m.onnx",
            np.random.default_rng(5).bytes(5000),
            "IT is in no known format: its 5000 bytes look random",
            READS,
        ),
    ],
)
def test_what_is_not_read_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, says: str, hint: str
) -> None:
    path = put(tmp_path / name, content)
    assert refusal(path) == (says, hint.replace("IT", str(path)))


def test_a_path_that_does_not_exist_is_answered_with_the_nearest(tmp_path: Path) -> None:
    put(tmp_path / "model.onnx", ONNX)
    assert refusal(tmp_path / "modle.onnx") == (
        "no such file: IT",
        f"Check the path for a typing mistake. Did you mean {tmp_path / 'model.onnx'}?",
    )
    assert refusal(tmp_path / "no" / "m.onnx") == ("no such file: IT", "Check the path for a typing mistake.")
    assert refusal(tmp_path / "model.onnx" / "m") == ("no such file: IT", "Check the path for a typing mistake.")


def test_folders_without_a_model_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == ("IT is a folder without a SavedModel or a checkpoint: it is empty", READS)
    for name in ("a", "b", "c", "d", "e", "model.onnx"):
        put(tmp_path / "many" / name, b"x")
    assert refusal(tmp_path / "many") == (
        "IT is a folder without a SavedModel or a checkpoint: it holds a, b, c, d, e, …",
        f"Name the file inside it, for example: {tmp_path / 'many' / 'model.onnx'}",
    )
    put(tmp_path / "versions" / "7" / "saved_model.pb", SAVED_MODEL)
    assert refusal(tmp_path / "versions") == (
        "IT is a folder without a SavedModel or a checkpoint: it holds 7",
        f"Name the folder inside it: {tmp_path / 'versions' / '7'}",
    )
    for name in ("config.json", "metadata.json", "model.weights.h5"):
        put(tmp_path / "unpacked" / name, b"x")
    assert refusal(tmp_path / "unpacked") == (
        "IT is a folder that looks like an unpacked .keras file",
        "Name the .keras file itself.",
    )


def test_a_checkpoint_without_its_graph_says_which_file_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "model-9.index", b"\x00entries" + TABLE_END)
    for path in (tmp_path / "model-9", tmp_path / "model-9.index", tmp_path):
        with pytest.raises(UnknownFormatError) as caught:
            sniff(path)
        assert str(caught.value) == (
            f"{tmp_path / 'model-9'} is a checkpoint without its graph: model-9.meta is not there"
        )
        assert caught.value.hint == (
            "Put the .meta file of the same run beside it, or save the whole model as .keras or SavedModel."
        )


def test_the_variables_of_a_saved_model_lead_to_the_saved_model(tmp_path: Path) -> None:
    put(tmp_path / "saved_model.pb", SAVED_MODEL)
    put(tmp_path / "variables" / "variables.index", b"\x00entries" + TABLE_END)
    put(tmp_path / "variables" / "variables.data-00000-of-00001", b"x")
    for path in (tmp_path / "variables", *(tmp_path / "variables").iterdir()):
        with pytest.raises(UnknownFormatError) as caught:
            sniff(path)
        assert str(caught.value) == f"{tmp_path / 'variables' / 'variables'} holds the variables of a SavedModel"
        assert caught.value.hint == f"Name the SavedModel: {tmp_path}"


EXPECTED = {
    ".keras": {Format.KERAS},
    ".h5": {Format.KERAS_H5, Format.KERAS_WEIGHTS},
    ".pb": {Format.FROZEN_GRAPH, Format.SAVED_MODEL},
    ".meta": {Format.META_GRAPH},
    ".onnx": {Format.ONNX},
    ".index": {Format.CHECKPOINT},
}


def test_trained_models_are_what_their_scripts_saved(repository: Path) -> None:
    found: dict[str, set[Format]] = {}
    for path in (repository / "models").rglob("*"):
        if path.suffix in EXPECTED and path.name != "fingerprint.pb" and path.parent.name != "variables":
            found.setdefault(path.suffix, set()).add(sniff(path))
            weights_only = "weights" in path.name
            assert (sniff(path) is Format.KERAS_WEIGHTS) == weights_only
    assert found == EXPECTED


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == (
        "IT is a device or a pipe, not a file",
        "Write the model to a file first, and name that.",
    )


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_an_hdf5_file_that_breaks_off_says_how_much_is_there(tmp_path: Path, version: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["model_config"] = b"{}"
        file["weights"] = np.zeros(1000)
    size = path.stat().st_size
    os.truncate(path, size - 100)
    with pytest.raises(CorruptModelError) as caught:
        sniff(path)
    assert str(caught.value) == f"{path} is an HDF5 file of {size} bytes, of which {size - 100} are there"
    assert caught.value.hint == "Download or copy it again."


def test_archives_that_break_off_or_lie_are_damaged(tmp_path: Path) -> None:
    whole = zipped({"config.json": b"{}", "metadata.json": b"{}"})
    for name, content in (
        ("half.keras", whole[: len(whole) // 2]),
        ("bomb.keras", whole[:-10] + struct.pack("<I", 1 << 30) + whole[-6:]),
        (
            "half.tar.gz",
            gzip.compress(tarred({"a": np.random.default_rng(1).bytes(100_000), "saved_model.pb": b""}))[:5000],
        ),
    ):
        with pytest.raises(CorruptModelError, match=re.escape(str(tmp_path / name))) as caught:
            sniff(put(tmp_path / name, content))
        assert caught.value.hint


# Dispatch.


def test_sniffing_needs_no_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for guest in ("tensorflow", "keras", "tf_keras", "tf2onnx", "h5py"):
        monkeypatch.setitem(sys.modules, guest, None)
    assert sniff(put(tmp_path / "m.h5", b"\x89HDF\r\n\x1a\n" + bytes(50) + b"model_config")) is Format.KERAS_H5
    assert sniff(put(tmp_path / "m.pb", GRAPH)) is Format.FROZEN_GRAPH


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (GRAPH, "a TF1 frozen graph"),
        (META_GRAPH, "a TF1 meta graph"),
        (zipped({"config.json": b"{}", "metadata.json": b"{}"}), "a Keras model"),
        (zipped({"saved_model.pb": b""}), "a SavedModel"),
    ],
)
def test_without_the_extra_the_answer_is_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str
) -> None:
    monkeypatch.setattr("bnfold.frontends.find_spec", lambda name: None if name == "tf2onnx" else object())
    with pytest.raises(MissingExtraError) as caught:
        load(put(tmp_path / "m", content), Request())
    assert str(caught.value).startswith(f"reading {what}")
    assert str(caught.value).endswith(" takes tf2onnx, which is not installed")
    assert caught.value.hint == "Install what is missing with: pip install 'bnfold[tensorflow]'"


def test_an_onnx_file_is_read_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnfold.frontends.find_spec", lambda _name: None)
    assert load(put(tmp_path / "m.onnx", ONNX), Request()).framework == "exporter"


def test_an_archive_stays_unpacked_as_long_as_its_program_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = put(tmp_path / "m.zip", zipped({"net/saved_model.pb": SAVED_MODEL, "net/assets/words": b"a b"}))

    def read(_module: str, folder: Path, _request: Request, _found: Format) -> Loaded:
        assert (folder / "saved_model.pb").read_bytes() == SAVED_MODEL
        words = folder / "assets" / "words"
        return Loaded(
            model=parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g () => () {}'),
            format="saved-model",
            framework="",
            description="",
            inputs=(),
            outputs=(),
            run=lambda _feeds: {"words": np.frombuffer(words.read_bytes(), np.uint8)},
        )

    monkeypatch.setattr("bnfold.frontends._with_guests", read)
    result = load(path, Request())
    assert result.format == "saved-model-archive"
    assert result.run is not None
    assert result.run({})["words"].tobytes() == b"a b"
    del result
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, CorruptModelError])
def test_an_archive_that_cannot_be_read_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = put(tmp_path / "m.zip", zipped({"saved_model.pb": SAVED_MODEL}))

    def refuse(*_arguments: object) -> Loaded:
        raise error("no")

    monkeypatch.setattr("bnfold.frontends._with_guests", refuse)
    with pytest.raises(error):
        load(path, Request())
    assert list((tmp_path / "temporary").iterdir()) == []
