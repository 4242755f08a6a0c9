"""The child that puts a level to the proof: it tries what it must not be able to do, and says what it could."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from service.sandbox.confining import confine

__all__ = ["main"]


def main() -> None:
    """Try everything, and write the list of what could be done to the standard output."""
    told, port, parent = confine(sys.argv[1:])
    folder = Path(told)
    attempts: dict[str, Callable[[], object]] = {
        "read a file of another job": (folder / "others" / "secret").read_text,
        "write outside of its folder": lambda: (folder / "others" / "written").write_text("x", "ascii"),
        "write to its input": lambda: (folder / "own" / "written").write_text("x", "ascii"),
        "read the list of accounts": Path("/etc/passwd").read_text,
        "open a connection": lambda: socket.create_connection(("127.0.0.1", int(port)), 5),
        "start a process": _fork,
        "run a program": lambda: os.execv("/bin/true", ["/bin/true"]),  # noqa: S606
        "send the service a signal": lambda: os.kill(int(parent), signal.SIGCONT),
        "make namespaces of its own": lambda: _unshare(0x10000000),
    }
    could = [what for what, attempt in attempts.items() if _could(attempt)]
    # What a child needs must still be there.
    (folder / "own" / "tmp" / "written").write_text("x", "ascii")
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    json.dump(could, sys.stdout)


def _could(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _fork() -> None:
    if not os.fork():
        os._exit(0)


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


if __name__ == "__main__":
    main()
