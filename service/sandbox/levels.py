"""How strictly children are confined, strongest first, and which of the levels this machine can keep."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Choice", "Level", "choose", "level_for", "tried"]

_LOG = logging.getLogger("service.sandbox")
_SECONDS = 60
_SAID = 300


class Level(StrEnum):
    """How strictly a child is confined; the later ones lack what the earlier ones have."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    LIMITS = "limits"
    OFF = "off"

    @property
    def isolates(self) -> bool:
        """Whether code that runs in the child can reach nothing but the child's own files."""
        return self in (Level.BUBBLEWRAP, Level.LANDLOCK)


@dataclass(frozen=True, slots=True)
class Choice:
    """The level that children are confined at.

    Attributes:
        level: None where no child may be started.
        why: What is wrong with each level that was tried and cannot be kept.
    """

    level: Level | None
    why: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ``/readyz`` and the accounts of jobs say."""
        return "none" if self.level is None else self.level.value


@functools.cache
def choose(setting: str) -> Choice:
    """Return the level that a setting stands for: itself, or for ``auto`` the strongest that this machine can keep.

    Each level that isolates is put to the proof before it is used: a child is started that tries what it must not be
    able to do. The first call takes some tenths of a second.
    """
    levels = [level for level in Level if level.isolates] if setting == "auto" else [Level(setting)]
    why: list[str] = []
    for level in levels:
        failure = tried(level) if level.isolates else ""
        if not failure:
            if not level.isolates:
                _LOG.warning("children are not isolated: BNFOLD_SANDBOX is %s", level)
            return Choice(level, tuple(why))
        why.append(f"{level}: {failure}")
        _LOG.warning("the sandbox cannot be had at the level %s: %s", level, failure)
    return Choice(None, tuple(why))


def level_for(setting: str) -> Level:
    """Return the level that a setting stands for.

    Raises:
        SandboxError: If this machine cannot keep it.
    """
    from service.problems import SandboxError

    level = choose(setting).level
    if level is None:
        raise SandboxError(
            "this machine cannot keep foreign files apart from all else, so none are taken",
            hint="Look at docs/sandbox.md, or set BNFOLD_SANDBOX=off if every file that is sent is trusted.",
        )
    return level


def tried(level: Level) -> str:
    """Start a child at a level that tries what it must not be able to do; return what is wrong, "" where nothing is."""
    import os
    import socket
    import subprocess
    import tempfile

    from service.sandbox import bubblewrap, landlock, seccomp
    from service.sandbox.limits import Limits
    from service.sandbox.starting import child_command, child_environment

    if not seccomp.available():
        return "seccomp is missing in the kernel, or not known for this machine"
    if level is Level.LANDLOCK and not landlock.version():
        return "Landlock is missing in the kernel, or switched off"
    if level is Level.BUBBLEWRAP and bubblewrap.installed() is None:
        return "the program bwrap is not installed"
    with tempfile.TemporaryDirectory(prefix="bnfold-") as told, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        folder = Path(told).resolve()
        for name in ("own", "others"):
            (folder / name).mkdir()
        (folder / "own" / "tmp").mkdir()
        (folder / "others" / "secret").write_text("secret", "ascii")
        command = child_command(
            "service.sandbox.probe",
            Limits(memory=2**32, file_size=2**20, cpu_seconds=_SECONDS),
            [str(folder), str(listener.getsockname()[1]), str(os.getpid())],
            level=level,
            reads=[folder / "own"],
            writes=[folder / "own" / "tmp"],
        )
        try:
            done = subprocess.run(  # noqa: S603  (our own interpreter and our own module)
                command,
                env=child_environment(folder / "own" / "tmp"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=folder / "own",
                timeout=_SECONDS,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the child that tries it did not end within {_SECONDS} s"
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-_SAID:]
        if done.returncode != 0:
            return said or f"the child that tries it ended with status {done.returncode}"
        if (folder / "others" / "written").exists():
            return "a file outside of the child's folder was written"
    try:
        succeeded = json.loads(done.stdout)
    except ValueError:  # the program that it must not be able to run stands in its place
        return "the child could run a program"
    return f"the child could {', '.join(succeeded)}" if succeeded else ""
