"""A file whose reading ends the child, keeps it busy or fills its memory is to blame for that."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.reading import blame

ROOT = Path(__file__).parents[3]

# A real file with one changed byte, at which HDF5's library loops for ever when it reads an attribute.
_ENDLESS = "models/tf_keras_dense/phase1.h5", 2058, 2

_CHILD = """
import subprocess, sys
from pathlib import Path
from bnfold import BnfoldError
from service import reading

def no_process(*args, **kwargs):
    raise PermissionError(1, "Operation not permitted")

subprocess.Popen = no_process  # as in a child of the service, which may start none
reading._SECONDS = int(sys.argv[4])
path, out, die = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if die:
    import bnfold, os, signal
    bnfold.glance = lambda _: os.kill(os.getpid(), getattr(signal, die)) if die != "MEMORY" else bytearray(1 << 50)
try:
    reading.read_first(path, out)
except BnfoldError as error:
    print(error.code, error)
print("read", [path.name for path in out.iterdir()])
"""


def _read(path: Path, out: Path, die: str = "", seconds: int = 60) -> subprocess.CompletedProcess[str]:
    out.mkdir()
    command = [sys.executable, "-c", _CHILD, str(path), str(out), die, str(seconds)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("name", ["keras_dense/tuned.keras", "keras_dense/tuned.weights.h5", "tf_keras_dense/tuned.h5"])
def test_a_sound_file_is_read_and_no_mark_is_left(name: str, tmp_path: Path) -> None:
    done = _read(ROOT / "models" / name, tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "read []\n"), done.stderr


def test_what_holds_no_hdf5_is_not_read(tmp_path: Path) -> None:
    done = _read(ROOT / "models/torch_conv/digits.onnx", tmp_path / "out", "SIGKILL")
    assert (done.returncode, done.stdout) == (0, "read []\n"), done.stderr


def test_a_file_that_never_ends_is_given_up_and_blamed(tmp_path: Path) -> None:
    name, place, byte = _ENDLESS
    content = bytearray((ROOT / name).read_bytes())
    content[place] = byte
    path = tmp_path / "endless.h5"
    path.write_bytes(content)
    done = _read(path, tmp_path / "out", seconds=2)
    assert done.returncode == -signal.SIGXCPU, done.stderr
    assert blame(path.name, path.stat().st_size, tmp_path / "out", done.returncode) == (
        "endless.h5 is damaged or made to do harm: reading it keeps the HDF5 library busy for more than 15 s",
        "Copy or download the file again.",
    )


def test_a_file_that_ends_the_process_is_blamed(tmp_path: Path) -> None:
    path = ROOT / "models/keras_dense/tuned.h5"
    done = _read(path, tmp_path / "out", "SIGSEGV")
    assert done.returncode == -signal.SIGSEGV
    assert blame("tuned.h5", 1, tmp_path / "out", done.returncode) == (
        "tuned.h5 is damaged or made to do harm: reading it ends the process, with signal 11",
        "Copy or download the file again.",
    )


def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    done = _read(ROOT / "models/keras_dense/tuned.h5", tmp_path / "out", "MEMORY")
    assert done.stdout == (
        "corrupt tuned.h5 is damaged or made to do harm: reading it takes far more memory than it is large\nread []\n"
    ), done.stderr


@pytest.mark.parametrize("status", [0, 1, -signal.SIGKILL, -signal.SIGTERM])
def test_what_ended_for_another_reason_is_not_blamed(status: int, tmp_path: Path) -> None:
    (tmp_path / "reading").touch()
    assert blame("m.h5", 1, tmp_path, status) is None


def test_what_was_read_is_not_blamed_later(tmp_path: Path) -> None:
    assert blame("m.h5", 1, tmp_path, -signal.SIGSEGV) is None
