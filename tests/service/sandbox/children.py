"""Children of the tests' own, started as the service starts its children."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.sandbox import Level, Limits, child_command, child_environment
from service.sandbox.levels import tried

__all__ = ["ISOLATING", "Room", "answers_of", "at_level", "run_child", "start_child"]

TESTS = Path(__file__).parents[2]
ISOLATING = [level for level in Level if level.isolates]
MODULE = "tests.service.sandbox.hostile"
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Room:
    """A child's folder, and beside it what it must not touch."""

    folder: Path
    outside: Path

    @classmethod
    def made(cls, base: Path) -> Room:
        folder, outside = base / "job", base / "outside"
        for path in (folder / "upload", folder / "out", folder / "tmp", outside):
            path.mkdir(parents=True)
        (folder / "job.json").write_text("{}", "ascii")
        (folder / "upload" / "model").write_text("model", "ascii")
        (outside / "secret").write_text("the sibling's secret", "ascii")
        return cls(folder, outside)

    def untouched(self) -> bool:
        """Say whether all is as it was made, but for the folders that the child may write to."""
        return (
            [path.name for path in self.outside.iterdir()] == ["secret"]
            and (self.outside / "secret").read_text("ascii") == "the sibling's secret"
            and (self.outside / "secret").stat().st_mode & 0o777 in {0o644, 0o600, 0o664}
            and (self.folder / "job.json").read_text("ascii") == "{}"
            and [path.name for path in (self.folder / "upload").iterdir()] == ["model"]
            and sorted(path.name for path in self.folder.iterdir()) == ["job.json", "out", "tmp", "upload"]
        )


@functools.cache
def _failure(level: Level) -> str:
    return tried(level) if level.isolates else ""


def at_level(level: Level) -> Level:
    """Return a level, or skip the test where this machine cannot keep it."""
    if failure := _failure(level):
        pytest.skip(f"the level {level} cannot be had here: {failure}")
    return level


def _command(level: Level, room: Room, arguments: Sequence[str], module: str, limits: Limits | None) -> list[str]:
    return child_command(
        module,
        limits or Limits(memory=2**33, file_size=2**20, cpu_seconds=60),
        arguments,
        level=level,
        reads=[room.folder, TESTS],
        writes=[room.folder / "out", room.folder / "tmp"],
    )


def run_child(
    level: Level,
    room: Room,
    arguments: Sequence[str],
    *,
    module: str = MODULE,
    limits: Limits | None = None,
    seconds: float = _SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a module as a child of the service is run, and return how it ended."""
    return subprocess.run(
        _command(level, room, arguments, module, limits),
        env=child_environment(room.folder / "tmp"),
        cwd=room.folder / "upload",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        start_new_session=True,
        check=False,
    )


def start_child(level: Level, room: Room, attempts: str) -> subprocess.Popen[bytes]:
    """Start the hostile child, and do not wait for it."""
    return subprocess.Popen(
        _command(level, room, [attempts, json.dumps({"folder": str(room.folder)})], MODULE, None),
        env=child_environment(room.folder / "tmp"),
        cwd=room.folder / "upload",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def answers_of(level: Level, room: Room, attempts: str, **told: Any) -> dict[str, str]:
    """Run attempts of the hostile child, and return what became of each: "done", or the name of an error."""
    told = {"outside": str(room.outside), "folder": str(room.folder), "service": os.getpid(), **told}
    ended = run_child(level, room, [attempts, json.dumps(told)])
    assert ended.returncode == 0, ended.stderr
    answers: dict[str, str] = json.loads(ended.stdout)
    return answers
