"""How a child is started, at whatever level, and how it ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.sandbox import bubblewrap
from service.sandbox.levels import Level
from service.sandbox.limits import Limits
from service.sandbox.reach import CODE, libraries

__all__ = ["child_command", "child_environment", "ended"]

# All that a child is told of its surroundings: where programs and libraries are, and how text is encoded.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")


def child_command(
    module: str,
    limits: Limits,
    arguments: Sequence[str],
    *,
    level: Level,
    reads: Sequence[Path] = (),
    writes: Sequence[Path] = (),
) -> list[str]:
    """Return the command line that starts a module of the service as a child; its first act must be ``confine``.

    ``-P`` keeps the working directory, where a foreign file lies, out of the module search. The thread that starts the
    child must live as long as the child may: the system ties the two together.

    Args:
        module: Run as with ``python -m``.
        limits: What it may use.
        arguments: What the module is told; ``confine`` hands them over.
        level: How strictly it is confined.
        reads: Files and folders that it may read beyond the interpreter and libraries.
        writes: Folders that it may write to.
    """
    reads, writes = [*_everybodys(level), *(path.resolve() for path in reads)], [path.resolve() for path in writes]
    orders = {
        "level": level.value,
        "parent": None if level is Level.BUBBLEWRAP else os.getpid(),
        "memory": limits.memory,
        "file_size": limits.file_size,
        "cpu_seconds": limits.cpu_seconds,
        "reads": list(map(str, reads)),
        "writes": list(map(str, writes)),
    }
    command = [sys.executable, "-P", "-s", "-m", module, json.dumps(orders), *arguments]
    return bubblewrap.around(command, reads, writes) if level is Level.BUBBLEWRAP else command


def _everybodys(level: Level) -> Sequence[Path]:
    return libraries() if level.isolates else ()


def child_environment(temporary: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: nothing of the service's own but what it takes to start Python.

    Args:
        temporary: The only folder that the child should write to besides its results.
        extra: What else the child should know.
    """
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **passed_on,
        "PYTHONPATH": str(CODE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Each thread of TensorFlow would reserve 64 MiB of address space for its own allocations.
        "MALLOC_ARENA_MAX": "4",
        **(extra or {}),
    }


def ended(status: int) -> int:
    """Return how a child ended, in the way of ``subprocess``: less than 0 where a signal ended it.

    bubblewrap and shells tell a signal as a status above 128. No child ends with such a status by itself.
    """
    return 128 - status if 128 < status < 128 + 65 else status
