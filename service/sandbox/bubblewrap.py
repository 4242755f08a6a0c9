"""bubblewrap: a program that starts another one in namespaces of its own, from Debian's package of that name.

Inside there are no other processes, no network, no other users' files, and nothing that can be written but the job's.

Source: https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from service.sandbox.reach import FACTS

__all__ = ["around", "installed"]

_APART = ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
# A shell that goes on only while the service lives: between its start and bubblewrap's own tie the service may die.
_STILL_THERE = 'test "$PPID" = "$0" && exec "$@"'


def installed() -> str | None:
    """Return the path of the program; None where it is not installed."""
    return shutil.which("bwrap")


def around(command: list[str], reads: Iterable[Path], writes: Iterable[Path]) -> list[str]:
    """Return a command that runs another one apart from all else.

    Args:
        command: The interpreter with its arguments.
        reads: What it may read, the interpreter and libraries included.
        writes: Folders that it may write to; they may lie in what it may read.
    """
    program = installed()
    assert program is not None
    words = [program, *_APART, "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
    of_the_system = [path for path in FACTS if not path.is_relative_to("/proc")]
    for path in (*of_the_system, *reads):
        words += ["--ro-bind-try", str(path), str(path)]
    for path in writes:
        words += ["--bind", str(path), str(path)]
    # Root outside is root in here to the files that set up the kernel.
    words += ["--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--"]
    return [*_tied(), *words, *command]


def _tied() -> list[str]:
    """Return what stands before bubblewrap, so that it dies with this process from its first moment on."""
    setpriv = shutil.which("setpriv")
    first = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv is not None else []
    return [*first, "/bin/sh", "-c", _STILL_THERE, str(os.getpid())]
