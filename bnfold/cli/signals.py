"""Being asked to stop: Ctrl-C, a termination, a terminal that is closed."""

from __future__ import annotations

import contextlib
import signal
import time
import types
from collections.abc import Iterator

from bnfold.cli.exits import Stopped

__all__ = ["came", "raise_if_stopped", "stopping"]

_CAME: list[int] = []
_ONE_KEYSTROKE = 0.5
"""Seconds in which a second signal is the first one, passed on by a parent: it must not interrupt the cleaning up."""


_LAST: list[float] = []


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Take a termination for a Ctrl-C, so that what is written aside is removed before the program ends."""
    _CAME.clear()
    _LAST.clear()
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What the parent ignores stays ignored: nohup, and a shell's background jobs, count on it.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def came() -> int:
    """Return the number of the first signal that asked the program to stop; 0 if none did."""
    return _CAME[0] if _CAME else 0


def raise_if_stopped() -> None:
    """Stop now if a signal came: libraries swallow an interrupt at times, or answer it with an error of their own.

    Raises:
        Stopped: If a signal came.
    """
    if _CAME:
        raise Stopped(_CAME[0])


def _stop(number: int, _frame: types.FrameType | None) -> None:
    now = time.monotonic()
    if _LAST and now - _LAST[-1] < _ONE_KEYSTROKE:
        return
    _CAME.append(number)
    _LAST.append(now)
    raise Stopped(number)
