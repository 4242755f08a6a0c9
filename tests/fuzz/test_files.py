"""Spoilt files: whatever is in them, the answer is a model or one of our errors, in bounded time and memory."""

from __future__ import annotations

import functools
import gzip
import io
import json
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from bnfold.errors import BnfoldError
from bnfold.frontends import load
from bnfold.frontends.archive import unpack
from bnfold.frontends.loaded import Request
from bnfold.frontends.sniff import Format, sniff
from bnfold.frontends.wire import kind_of
from bnfold.graph.io import load_model, save_model
from bnfold.inference import to_inference_mode
from tests.fuzz.mutations import mutate

T = TypeVar("T")

ROUNDS = 400
SLOWEST = 20.0
"""Seconds that one file may take, far more than any takes."""

MOST_MEMORY = 400 << 20
"""Bytes that the process may grow by while it looks at all spoilt forms of one file."""


def _onnx() -> bytes:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "my" : 1], producer_name: "exporter">
        g (float[N,3,8] x, bool phase) => (float[N,4,8] y, float[N,4,8] z)
        <float[4] g = {1, 2, 3, 4}, float[4] b = {0, 0, 0, 0}, float[4] m = {0, 0, 0, 0}, float[4] v = {1, 1, 1, 1}> {
            h = Conv<pads=[1, 1]>(x, w)
            f = my.Twice(h)
            y = If(phase) <
                then_branch = t () => (float[N,4,8] o) { o, p, q = BatchNormalization<training_mode=1>(f, g, b, m, v) },
                else_branch = e () => (float[N,4,8] o) { o = BatchNormalization(f, g, b, m, v) }>
            d = Dropout(y)
            z = Relu(d)
        }
        <domain: "my", opset_import: ["" : 17]> Twice (x) => (y) { y = Add(x, x) }""")
    weight = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return bytes(model.SerializeToString())


def _message(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


_NODE = _message(1, b"scope/x") + _message(2, b"Placeholder") + _message(5, _message(1, b"dtype") + b"\x12\x02\x30\x01")
_GRAPH = _message(1, _NODE) + _message(1, _message(1, b"y") + _message(2, b"Relu") + _message(3, b"scope/x"))
_META = _message(1, _message(5, b"1.12.0")) + bytes([0x12, len(_GRAPH)]) + _GRAPH


def _zip(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _tar(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


_TENSORS = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()

SEEDS: dict[str, bytes] = {
    "onnx": _onnx(),
    "graph": _GRAPH * 20,
    "meta graph": _META,
    "saved model": b"\x08\x01" + _message(2, _META),
    "keras": _zip({"config.json": b"{}" * 100, "metadata.json": b"{}", "model.weights.h5": bytes(1000)}),
    "zip": _zip({"m/saved_model.pb": _META, "m/variables/variables.index": bytes(100)}),
    "tar": _tar({"m/saved_model.pb": _META, "m/variables/variables.index": bytes(100)}),
    "tar.gz": gzip.compress(_tar({"m/saved_model.pb": _META, "m/variables/variables.index": bytes(100)}), mtime=0),
    "hdf5": b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08"
    + bytes(25)
    + struct.pack("<Q", 250)
    + bytes(100)
    + b"model_config" * 10,
    "pbtxt": b'node {\n  name: "x"\n  op: "Placeholder"\n}\n' * 5,
    "safetensors": struct.pack("<Q", len(_TENSORS)) + _TENSORS + bytes(8),
}


def spoilt(seed: str, rounds: int) -> list[bytes]:
    random = np.random.default_rng([ord(letter) for letter in seed])
    others = list(SEEDS.values())
    return [mutate(SEEDS[seed], others[random.integers(len(others))], random) for _round in range(rounds)]


def attempt(action: Callable[[], T]) -> T | None:
    """Do something with a file; None where it is refused, which always comes with the next step."""
    refused: BnfoldError | None = None
    try:
        return action()
    except BnfoldError as error:
        refused = error
    assert refused.hint
    return None


def answer(path: Path) -> str:
    """Do with a file all that can be done without TensorFlow; anything but a model or one of our errors gets out."""
    attempt(lambda: load_model(path))
    found = attempt(lambda: sniff(path))
    if found is not Format.ONNX:
        return found.value if found else "refused"
    model = attempt(lambda: to_inference_mode(load(path, Request()).model)[0])
    if model is None:
        return "refused"
    save_model(model, path.with_suffix(".out"))
    assert load_model(path.with_suffix(".out")) == model
    return "model"


@pytest.mark.parametrize("seed", SEEDS)
def test_spoilt_files_end_in_a_model_or_an_error_of_ours(tmp_path: Path, seed: str) -> None:
    path = tmp_path / "m.onnx"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers: dict[str, int] = {}
    for number, content in enumerate(spoilt(seed, ROUNDS)):
        path.write_bytes(content)
        start = time.process_time()
        try:
            said = answer(path)
        except Exception as error:
            error.add_note(f"round {number} of '{seed}': {content!r}")
            raise
        assert time.process_time() - start < SLOWEST, f"round {number} of '{seed}' took too long"
        answers[said] = answers.get(said, 0) + 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) << 10 < MOST_MEMORY
    assert answers["refused"] > ROUNDS / 50, answers  # the mutations do bite …
    if seed == "onnx":
        assert answers["model"] > ROUNDS / 50, answers  # … and not always in the same place


def test_unspoilt_files_are_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    expected = {"onnx": "model", "graph": "frozen-graph", "meta graph": "meta-graph", "keras": "keras"}
    expected |= dict.fromkeys(("zip", "tar", "tar.gz"), "saved-model-archive")
    expected |= {"hdf5": "h5", "pbtxt": "frozen-graph-text", "saved model": "refused", "safetensors": "refused"}
    found = {}
    for seed, content in SEEDS.items():
        path.write_bytes(content)
        found[seed] = answer(path)
    assert found == expected


@pytest.mark.parametrize("seed", ["zip", "tar", "tar.gz"])
def test_spoilt_archives_never_write_outside_of_their_folder(tmp_path: Path, seed: str) -> None:
    path = tmp_path / "archive"
    for number, content in enumerate(spoilt(seed, 150)):
        path.write_bytes(content)
        folder = tmp_path / f"{number}"
        folder.mkdir()
        inside = attempt(functools.partial(unpack, path, folder))
        assert inside is None or inside == folder or folder in inside.parents
    assert {entry.name for entry in tmp_path.iterdir()} == {"archive", *(str(number) for number in range(150))}


def test_real_files_that_are_cut_or_flipped_are_refused_or_known(tmp_path: Path, real_files: Path) -> None:
    random = np.random.default_rng(5)
    path = tmp_path / "m.onnx"
    for real in real_files.iterdir():
        content = real.read_bytes()
        for _round in range(15):
            path.write_bytes(mutate(content, content[:1000], random))
            start = time.process_time()
            answer(path)
            assert time.process_time() - start < SLOWEST


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_answered(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    assert answer(path) in {"refused", *Format}


_FIELD: st.SearchStrategy[bytes] = st.deferred(
    lambda: st.one_of(
        st.builds(lambda number, value: bytes([number << 3, value]), st.integers(1, 15), st.integers(0, 127)),
        st.builds(lambda number, content: _message(number, content[:127]), st.integers(1, 15), st.binary(max_size=30)),
        st.builds(
            lambda number, inner: _message(number, b"".join(inner)[:127]),
            st.integers(1, 15),
            st.lists(_FIELD, max_size=4),
        ),
    )
)


@settings(max_examples=500)
@given(st.lists(_FIELD, max_size=8).map(b"".join), st.sampled_from([b"", b"\x08\x08", b"\x08\x01"]))
def test_any_protobuf_is_answered(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(start + content)
    kind_of(start + content)
    assert answer(path) in {"refused", "model", *Format}
