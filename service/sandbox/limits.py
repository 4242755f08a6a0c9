"""How much a child may use, and that it does not outlive the service."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass

__all__ = ["Limits", "die_with", "drop_privileges", "gain_nothing", "limit"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 256
_LONGER = 5
"""Seconds of processor time after which a process is killed that goes on when it is told to end."""


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


def die_with(parent: int | None) -> None:
    """Have the system kill this process when its parent ends, and end at once where that happened already.

    Args:
        parent: The process that it was started by; None where it cannot be seen, because somebody stands between.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def limit(limits: Limits) -> None:
    """Let this process run into limits. No core is dumped: it would hold what was uploaded."""
    wanted = {
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if limits.cpu_seconds:
        wanted[resource.RLIMIT_CPU] = limits.cpu_seconds
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # The first limit on processor time ends the process with a signal of its own, which tells what it was.
        last = soft + _LONGER if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else soft
        resource.setrlimit(kind, (soft, last))


def gain_nothing() -> None:
    """Never gain a privilege from here on, whatever is run: what comes after is allowed to nobody else."""
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_privileges() -> None:
    """Give up all that root may do beyond others.

    Raises:
        OSError: If the system does not let go of it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
