"""What a process that reads foreign files may use. Applied first, before anything heavy or foreign is touched."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "child_command", "child_environment", "confine"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 256

# All that a child is told of its surroundings: where programs and libraries are, and how text is encoded.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use.

    Attributes:
        memory: Address space, in bytes.
        file_size: The largest file that it may write, in bytes.
        cpu_seconds: CPU time over all threads; 0 means unlimited.
    """

    memory: int
    file_size: int
    cpu_seconds: int


def child_command(module: str, limits: Limits, arguments: Sequence[str]) -> list[str]:
    """Return the command line that starts a module of the service as a child.

    ``-P`` keeps the working directory, where a foreign file lies, out of the module search.
    """
    told = [str(os.getpid()), str(limits.memory), str(limits.file_size), str(limits.cpu_seconds)]
    return [sys.executable, "-P", "-s", "-m", module, *told, *arguments]


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
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Each thread of TensorFlow would reserve 64 MiB of address space for its own allocations.
        "MALLOC_ARENA_MAX": "4",
        **(extra or {}),
    }


def confine(arguments: Sequence[str]) -> list[str]:
    """Limit this process as ``child_command`` told it to, and return the arguments that are left.

    From here on the process dies with the service, gains no privileges, dumps no core, and runs into its limits.
    """
    parent, memory, file_size, cpu_seconds = (int(value) for value in arguments[:4])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # the service died before it could be tied to
        os._exit(1)
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if cpu_seconds:
        limits[resource.RLIMIT_CPU] = cpu_seconds
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (least, least))
    return list(arguments[4:])
