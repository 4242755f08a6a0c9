"""How the service's own process takes memory from the system, and gives it back."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["take_little"]

_ARENA_MAX = -8  # M_ARENA_MAX of glibc
_ARENAS = 2


def take_little() -> None:
    """Let all threads take memory from few places, so that what one of them frees another one uses.

    By itself the C library of Linux gives each thread that allocates a place of its own, up to eight for each
    processor. The service's threads are short of breath: each looks something up, and its place stays as large as it
    ever was. Without effect on other systems.
    """
    if sys.platform != "linux":
        return
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    tell(_ARENA_MAX, _ARENAS)
