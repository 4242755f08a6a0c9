"""Files that are made, or damaged, to do harm end in a refusal: they do not hang, crash, or fill the memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bnfold.errors import BnfoldError, CorruptModelError
from bnfold.frontends import load
from bnfold.frontends.keras import trial
from bnfold.frontends.keras.archive import read_artifact
from bnfold.frontends.keras.guests import h5py
from bnfold.frontends.loaded import Request
from tests.frontends.keras.networks import Saved


def refusal(read: Callable[[Path], object], path: Path) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        read(path)
    return refused.value


def endless(repository: Path, folder: Path) -> Path:
    """Write a real file with one changed byte, at which HDF5's library loops for ever when it reads an attribute."""
    content = bytearray((repository / "models/tf_keras_dense/phase1.h5").read_bytes())
    assert content[2058] == 0
    content[2058] = 2
    path = folder / "endless.h5"
    path.write_bytes(content)
    return path


def in_a_ring(repository: Path, folder: Path) -> Path:
    """Write a real file in which the list of free pieces of a heap ends where it begins."""
    content = bytearray((repository / "models/tf_keras_dense/tuned.h5").read_bytes())
    heap = content.index(b"HEAP\0")
    first, start = struct.unpack_from("<QQ", content, heap + 16)
    struct.pack_into("<Q", content, start + first, first)
    path = folder / "ring.h5"
    path.write_bytes(content)
    return path


def test_a_file_that_keeps_the_library_busy_for_ever_is_given_up(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = endless(repository, tmp_path)
    monkeypatch.setattr(trial, "SECONDS", 1)
    error = refusal(read_artifact, path)
    assert isinstance(error, CorruptModelError)
    assert str(error) == (
        "endless.h5 is damaged or made to do harm: reading it keeps the HDF5 library busy for more than 1 s"
    )
    assert error.hint == "Copy or download the file again."
    # Whoever read it is gone, and the next file is read by another.
    assert read_artifact(repository / "models/tf_keras_dense/phase1.h5").layout == "names"


def test_a_file_that_fills_the_memory_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MEMORY", 64 << 20)
    error = refusal(read_artifact, in_a_ring(repository, tmp_path))
    assert isinstance(error, CorruptModelError)
    assert str(error).startswith("ring.h5 ")
    assert error.hint == "Copy or download the file again."


def test_a_reader_that_is_killed_is_a_refusal_and_no_end_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    shutil.copy(repository / "models/tf_keras_dense/phase1.h5", path)
    start = "import os, sys; print('{\"ready\": true}', flush=True); sys.stdin.readline(); os.kill(os.getpid(), %d)"
    for number, says in ((11, "with signal 11"), (6, "with signal 6")):
        trial._reader.stop()
        monkeypatch.setattr(trial, "_START", start % number)
        error = refusal(read_artifact, path)
        assert isinstance(error, CorruptModelError)
        assert str(error) == f"m.h5 is damaged or made to do harm: reading it ends the process, {says}"
    monkeypatch.undo()
    assert read_artifact(path).layout == "names"


@pytest.mark.parametrize("python", ["", "/no/such/python", "/bin/false"])
def test_without_another_process_the_file_is_checked_here(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    trial._reader.stop()
    monkeypatch.setattr(sys, "executable", python)
    path = tmp_path / "m.h5"
    shutil.copy(repository / "models/tf_keras_dense/phase1.h5", path)
    assert read_artifact(path).layout == "names"
    with h5py().File(path, "r+") as file:
        file["model_weights/out"] = h5py().ExternalLink("/elsewhere.h5", "/x")
    assert str(refusal(read_artifact, path)) == ("m.h5: /model_weights/out is a link to another file, /elsewhere.h5")


def test_a_file_is_read_elsewhere_once_as_long_as_it_stays_the_same(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    shutil.copy(repository / "models/tf_keras_dense/phase1.h5", path)
    asked: list[str] = []
    monkeypatch.setattr(trial._Reader, "ask", lambda _self, path, _size: asked.append(path.name))
    assert [trial.read_elsewhere(path) for _ in range(3)] == [True] * 3
    assert asked == ["m.h5"]
    with path.open("ab") as file:
        file.write(b"more")
    assert trial.read_elsewhere(path)
    assert asked == ["m.h5", "m.h5"]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from bnfold.frontends.keras import trial
from bnfold.frontends.keras.archive import read_artifact
read_artifact(Path(sys.argv[1]))
print(trial._reader._child.pid, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_the_reader_ends_with_whoever_started_it_and_says_nothing(repository: Path, how: str) -> None:
    path = repository / "models/tf_keras_dense/phase1.h5"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(path), how],
        capture_output=True, text=True, check=False, cwd=repository,
    )  # fmt: skip
    assert done.stderr == ""
    # Its pipe is the only thing that keeps it: both streams ended, so whoever held them is gone or has let go.
    assert int(done.stdout) > 0


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["2.keras", "2.h5", "3.keras", "3.h5"])
def test_a_layer_that_asks_for_more_than_the_file_holds_is_refused_before_there_is_room_for_it(
    files: dict[str, Saved], folder: Path, name: str
) -> None:
    path = folder / f"m{Path(name).suffix}"
    if path.suffix == ".keras":
        with zipfile.ZipFile(files[name].path) as archive, zipfile.ZipFile(path, "w") as copy:
            for member in archive.namelist():
                content = archive.read(member)
                copy.writestr(member, content.replace(b'"filters": 4', b'"filters": 2000000000'))
    else:
        shutil.copy(files[name].path, path)
        with h5py().File(path, "r+") as file:
            told = file.attrs["model_config"]
            file.attrs["model_config"] = told.replace('"filters": 4', '"filters": 2000000000')
    error = refusal(lambda path: load(path, Request()), path)
    assert isinstance(error, CorruptModelError)
    assert str(error) == (
        f"{path.name} has {path.stat().st_size} bytes, and in its configuration layer 'sep' has a weight of shape "
        "[1, 1, 3, 2000000000] of more than 1048576 numbers"
    )
    assert error.hint == "Save the model again with Keras itself."
