"""A command that is stopped, or that cannot write, leaves everything as it found it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.program import COMMAND, CONV_BN, bnfold, environment, files, model, written

STOPPED = (
    "error[stopped]: {}; nothing half-written is left behind\n"
    "  hint: Run the command again; an output that was there before is as it was.\n"
)
NO_SPACE = "no space left on device\n  hint: Free some space there, or write to another disk.\n"
TOO_LARGE = "file too large\n  hint: Raise the limit on the size of files, or write to another disk.\n"

WAITS = """
import pathlib, time
from bnfold import parity
from bnfold.cli import main

def wait(**_):
    pathlib.Path("started").touch()
    time.sleep(60)

parity.verify = wait
main()
"""
SWALLOWS = WAITS.replace(
    "time.sleep(60)", "try: time.sleep(60)\n    except BaseException: raise RuntimeError('cut short')"
)
WRITES_SLOWLY = """
import os, pathlib, time
from bnfold.cli import main
real = os.fsync

def wait(number):
    real(number)
    pathlib.Path("started").touch()
    time.sleep(60)

os.fsync = wait
main()
"""


def _stop(code: str, folder: Path, number: int, *, times: int = 1) -> tuple[int, str, str]:
    arguments = [sys.executable, "-c", code, "fold", "in.onnx", "-o", "out.onnx", "--report", "report.json"]
    with subprocess.Popen(
        arguments, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        while not (folder / "started").exists():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(times):
            running.send_signal(number)
        out, err = running.communicate(timeout=60)
    (folder / "started").unlink()
    return running.returncode, out, err.lstrip("\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, and with an output of an earlier run."""
    written(tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_bytes(b"what was there before")
    return tmp_path


@pytest.mark.parametrize("code", [WAITS, SWALLOWS, WRITES_SLOWLY], ids=["verifying", "in a library", "writing"])
@pytest.mark.parametrize(
    ("number", "said", "exit_code"),
    [(signal.SIGINT, "stopped by Ctrl-C", 130), (signal.SIGTERM, "stopped by SIGTERM", 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_stopped_command_leaves_nothing_behind(
    folder: Path, code: str, number: int, said: str, exit_code: int
) -> None:
    before = files(folder)
    ended = _stop(code, folder, number)
    assert ended == (
        exit_code,
        "",
        STOPPED.format(said),
    )
    assert files(folder) == before


def test_a_signal_that_comes_twice_does_not_interrupt_the_cleaning_up(folder: Path) -> None:
    before = files(folder)
    assert _stop(WRITES_SLOWLY, folder, signal.SIGINT, times=5)[0] == 130
    assert files(folder) == before


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.4, 0.8])
def test_stopped_at_any_moment_the_output_is_the_old_one_or_the_new_one(folder: Path, delay: float) -> None:
    fresh = folder / "fresh"
    fresh.mkdir()
    assert bnfold("fold", "../in.onnx", "-o", "out.onnx", cwd=fresh).code == 0
    before, after = files(folder), files(fresh)["out.onnx"]
    arguments = [*COMMAND, "fold", "in.onnx", "-o", "out.onnx"]
    with subprocess.Popen(
        arguments, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        time.sleep(delay)
        running.send_signal(signal.SIGINT)
        _out, err = running.communicate(timeout=60)
    if "Traceback" in err:  # the interpreter itself was not yet there, which may take long on a busy machine
        frames = re.findall(r'File "[^"]*/(bnfold/[^"]+)"', err)
        assert set(frames) <= {"bnfold/__init__.py", "bnfold/cli/__init__.py"}, err
        assert running.returncode in {1, -signal.SIGINT}
    else:
        assert running.returncode in {0, 130, -signal.SIGINT}, err
    now = files(folder)
    assert now.pop("out.onnx") in (before.pop("out.onnx"), after)
    assert now == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with no room for a model."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _large(path: Path) -> Path:
    large = model(CONV_BN)
    large.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(100_000, np.float32), "unused"))
    onnx.save(large, path)
    return path


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path, full_disk: Path, command: str) -> None:
    _large(tmp_path / "in.onnx")
    (full_disk / "out.onnx").write_bytes(b"what was there before")
    ended = bnfold(command, "in.onnx", "-o", "disk/out.onnx", "--report", "report.json", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (
        1,
        "",
        f"error[file]: disk/out.onnx: {NO_SPACE}",
    )
    assert files(full_disk) == {"out.onnx": b"what was there before"}
    assert not (tmp_path / "report.json").exists()


def _smallest_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_a_limit_on_the_size_of_files_is_said(tmp_path: Path, command: str) -> None:
    _large(tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_bytes(b"what was there before")
    before = files(tmp_path)
    ended = bnfold(command, "in.onnx", "-o", "out.onnx", cwd=tmp_path, before=_smallest_files)
    assert (ended.code, ended.out, ended.err) == (
        1,
        "",
        f"error[file]: out.onnx: {TOO_LARGE}",
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize("more", [["-o", "-", "--quiet"], ["-o", "out.onnx"], ["-o", "out.onnx", "--format", "json"]])
def test_a_full_stdout_is_said(tmp_path: Path, more: list[str]) -> None:
    written(tmp_path / "in.onnx")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "fold", "in.onnx", *more],
            cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"error[file]: standard output: {NO_SPACE}")


@pytest.mark.parametrize(
    ("output", "prepare", "shown"),
    [
        pytest.param(
            "gone/out.onnx",
            None,
            "error[file]: gone/out.onnx: the folder gone does not exist\n"
            "  hint: Create the folder first, or check the path for a typing mistake.\n",
            id="no folder",
        ),
        pytest.param(
            "out.onnx",
            lambda path: path.mkdir(),
            "error[file]: out.onnx: a folder stands where the file should be written\n"
            "  hint: Name a file inside the folder.\n",
            id="a folder",
        ),
        pytest.param(
            "in.onnx/out.onnx",
            None,
            "error[file]: in.onnx/out.onnx: in.onnx is a file, not a folder\n"
            "  hint: Check the path for a typing mistake.\n",
            id="a file instead of a folder",
        ),
    ],
)
@pytest.mark.parametrize("command", ["convert", "fold"])
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, command: str, output: str, prepare: Callable[[Path], None] | None, shown: str
) -> None:
    # The source is no model at all: nobody has looked at it when the message comes.
    (tmp_path / "in.onnx").write_bytes(b"")
    if prepare is not None:
        prepare(tmp_path / output)
    ended = bnfold(command, "in.onnx", "-o", output, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (1, "", shown)


@pytest.mark.parametrize("output", ["in.onnx", "./in.onnx", "link.onnx", "hard.onnx"])
def test_the_source_is_never_overwritten(tmp_path: Path, output: str) -> None:
    written(tmp_path / "in.onnx")
    (tmp_path / "link.onnx").symlink_to("in.onnx")
    (tmp_path / "hard.onnx").hardlink_to(tmp_path / "in.onnx")
    before = files(tmp_path)
    ended = bnfold("fold", "in.onnx", "-o", output, cwd=tmp_path)
    assert (ended.code, ended.err) == (
        2,
        f"error[usage]: --output: {Path(output)} is the file that is read\n  hint: Write the result to another path.\n",
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize("output", ["saved/variables.index", "model-1.index", "model-1.meta"])
def test_a_part_of_the_source_is_never_overwritten(tmp_path: Path, output: str) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / output).write_bytes(b"weights")
    source = "saved" if output.startswith("saved") else "model-1"
    ended = bnfold("convert", source, "-o", output, cwd=tmp_path)
    assert ended.code == 2
    assert ended.err == (
        f"error[usage]: --output: {output} is one of the files that are read\n"
        "  hint: Write the result to another folder.\n"
    )
    assert (tmp_path / output).read_bytes() == b"weights"
