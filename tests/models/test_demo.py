"""The demonstration runs from end to end, says when something disagrees, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import zoo

MODEL = "torch-conv"
LISTENING = re.compile(r"listening at http://127\.0\.0\.1:\d+")


@pytest.fixture
def copy(tmp_path: Path, repository: Path) -> Path:
    """The models and the service in a folder of their own, where files may be damaged."""
    for name in ("models", "service"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def environment(temporary: Path) -> dict[str, str]:
    """Return an environment in which everything temporary goes to one folder."""
    return os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def demo(root: Path, temporary: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration to its end."""
    return subprocess.run(
        [sys.executable, root / "models" / "demo.py", *names],
        cwd=root,
        env=environment(temporary),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder where the demonstration puts what it needs for a while."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def running(repository: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """The demonstration, just started."""
    with subprocess.Popen(
        [sys.executable, repository / "models" / "demo.py", MODEL],
        cwd=repository,
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        yield child
        child.kill()


def served_from(store: str) -> list[str]:
    """Return the command lines of the processes that were told to keep models in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = f"BNFOLD_STORE={store}".encode() in (entry / "environ").read_bytes().split(b"\0")
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
        if told:
            found.append(line)
    return found


def test_one_model_is_converted_served_and_compared(repository: Path, temporary: Path) -> None:
    done = demo(repository, temporary, MODEL)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"✓ torch-conv +ONNX +6 of 7 +594, 594 +passed", done.stdout)
    assert "✓ 594 of 599 digits right; the original network gets 594 right" in done.stdout
    assert "All 1 models compute what their originals compute." in done.stdout
    assert "bnfold convert models/keras_depthwise/depthwise.keras -o digits.onnx" in done.stdout
    assert list(temporary.iterdir()) == []


def test_a_model_that_disagrees_with_its_original_is_named_and_fails(copy: Path, temporary: Path) -> None:
    table = copy / "models" / "zoo.toml"
    table.write_text(table.read_text("utf-8").replace("correct = 594", "correct = 595"), "utf-8")
    done = demo(copy, temporary, MODEL)
    assert done.returncode == 1
    assert "These disagree with their originals: torch-conv, the served model" in done.stdout
    assert list(temporary.iterdir()) == []


def test_a_model_that_cannot_be_converted_fails(copy: Path, temporary: Path) -> None:
    (copy / "models" / "torch_conv" / "digits.onnx").write_bytes(b"not a model")
    done = demo(copy, temporary, MODEL)
    assert done.returncode == 1
    assert re.search(r"✗ torch-conv .*594, -  unknown-format: ", done.stdout)
    assert "The service failed. POST /fold was answered with 4" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert list(temporary.iterdir()) == []


def test_an_unknown_name_is_answered_with_the_known_ones(repository: Path, temporary: Path) -> None:
    done = demo(repository, temporary, "resnet")
    known = ", ".join(model.name for model in zoo.read())
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"resnet: name some of {known}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_service_too(
    running: subprocess.Popen[str], temporary: Path, number: signal.Signals
) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if LISTENING.search(line):
            break
    else:
        pytest.fail("it never listened")
    (folder,) = temporary.glob("bnfold-demo-*")
    store = str(folder / "store")
    assert served_from(store)
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130
    assert said.endswith("Stopped; nothing was left behind.\n")
    assert served_from(store) == []
    assert list(temporary.iterdir()) == []
