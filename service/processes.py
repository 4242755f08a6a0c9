"""Children of the service, from outside."""

from __future__ import annotations

import contextlib
import os
import signal

__all__ = ["end_group"]


def end_group(leader: int) -> None:
    """Kill a child and everything that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
