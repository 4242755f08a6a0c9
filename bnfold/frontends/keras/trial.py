"""The first reading of a foreign HDF5 file, in a process of its own: there it may loop, or take the process with it.

HDF5's library follows what a file says. A damaged one can make it loop for ever, fill the memory or end its process.
So a second process reads the file first, with limits on processor time and memory, and says how that went. Only what it
came through is opened here. It starts once, reads one file after the other, and ends with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

from bnfold import errors
from bnfold.errors import BnfoldError, CorruptModelError
from bnfold.frontends.keras.guests import h5py

__all__ = ["main", "read_elsewhere"]

SECONDS = 15
"""Processor time that reading the smallest file may take; a second more for every 2 MB."""

MEMORY = 1 << 30
"""Address space, in bytes, that reading the smallest file may take beyond what Python takes; ten bytes more a byte."""

_WALL = 20
"""Times its processor time that a reading may take on the clock, on a machine that has other things to do."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from bnfold.frontends.keras.trial import main; main()"
)
_AGAIN = "Copy or download the file again."
_REMEMBERED = 256
_PATIENCE = 10.0
"""Seconds in which a process that has closed its pipe has ended."""


_lock = Lock()
_read: dict[tuple[object, ...], None] = {}


def read_elsewhere(path: Path) -> bool:
    """Let another process read the whole of a file; return False where there can be no such process.

    A file that was read is not read again while it stays as it is.

    Raises:
        BnfoldError: What that process found to be wrong with the file.
        CorruptModelError: If reading it does not end, takes too much memory or ends the process.
        OSError: If the file is not there.
    """
    about = path.stat()
    known = (path.absolute(), about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    with _lock:
        if known in _read:
            return True
        if not _reader.start():
            return False
        _reader.ask(path, about.st_size)
        _read[known] = None
        if len(_read) > _REMEMBERED:
            del _read[next(iter(_read))]
        return True


class _Reader:
    """The other process."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self) -> bool:
        """Return whether the process runs, after starting it where it does not."""
        if self._owner != os.getpid():  # a copy of the process that started it: its pipes are not ours
            self._child = None
        if self._child is not None and self._child.poll() is None:
            return True
        self.stop()
        if sys.platform == "win32" or not sys.executable:
            return False
        paths = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        try:
            # A session of its own: Ctrl-C is for us, and we end it.
            self._child = subprocess.Popen(  # noqa: S603  # this Python, and our own module
                [sys.executable, "-I", "-c", _START, paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
        except OSError:
            return False
        self._owner = os.getpid()
        try:
            h5py()  # which takes as long here as it takes there
        except BaseException:
            self.stop()
            raise
        if self._answer(60 * _WALL) == {"ready": True}:
            return True
        self.stop()
        return False

    def ask(self, path: Path, size: int) -> None:
        """Have a file read, and raise what is wrong with it."""
        assert self._child is not None
        assert self._child.stdin is not None
        seconds, memory = SECONDS + size // 2_000_000, MEMORY + 10 * size
        told = {"path": str(path.absolute()), "name": str(path), "seconds": seconds, "memory": memory}
        try:
            self._child.stdin.write(json.dumps(told).encode() + b"\n")
            self._child.stdin.flush()
            answer = self._answer(seconds * _WALL)
        except BrokenPipeError:
            answer = None
        except BaseException:
            self.stop()
            raise
        if answer is None:
            ended = self.stop(_PATIENCE)
            says = (
                f"reading it keeps the HDF5 library busy for more than {seconds} s"
                if ended in (-24, None)  # SIGXCPU
                else f"reading it ends the process, with signal {-ended}"
                if ended < 0
                else f"reading it ends the process, with status {ended}"
            )
            raise CorruptModelError(f"{path.name} is damaged or made to do harm: {says}", hint=_AGAIN)
        if "error" in answer:
            kind: type[BnfoldError] = getattr(errors, answer["error"])
            raise kind(answer["message"], hint=answer["hint"])

    def _answer(self, seconds: float) -> Any:
        """Return the next line that the process writes; None where it ends first, or does not write one in time."""
        assert self._child is not None
        assert self._child.stdout is not None
        pipe, line, until = self._child.stdout.fileno(), b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            piece = os.read(pipe, 1 << 16)
            if not piece:
                return None
            line += piece
        return json.loads(line)

    def stop(self, patience: float = 0.0) -> int | None:
        """End the process; return how it ended by itself within so many seconds, None where it did not."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return None
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # both are pipes
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(patience)
        child.kill()
        child.wait()
        return None


_reader = _Reader()
atexit.register(_reader.stop)


def main() -> None:
    """Read the files that the standard input names, one a line, and answer each with a line."""
    import resource

    from bnfold.frontends.keras.archive import read_whole

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    h5py()

    def answer(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    answer({"ready": True})
    for line in sys.stdin:
        told = json.loads(line)
        _limit(resource, told["seconds"], told["memory"])
        answer(_tried(Path(told["path"]), told["name"], read_whole))


def _limit(resource: Any, seconds: int, memory: int) -> None:
    """Allow this process some more processor time, and an amount of memory."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CPU: int(spent.ru_utime + spent.ru_stime) + seconds + 1,
        resource.RLIMIT_AS: _taken() + memory,
    }
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _taken() -> int:
    """Return how much address space this process has by now, in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 4 << 30


def _tried(path: Path, name: str, read: Any) -> dict[str, Any]:
    try:
        read(path)
    except BnfoldError as error:
        return {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    except MemoryError:
        says = f"{Path(name).name} is damaged or made to do harm: reading it takes far more memory than it is large"
        return {"error": CorruptModelError.__name__, "message": says, "hint": _AGAIN}
    except Exception as error:  # whatever a damaged file makes a library raise
        says = f"{Path(name).name} cannot be read: {' '.join(str(error).split())[:200] or type(error).__name__}"
        return {"error": CorruptModelError.__name__, "message": says, "hint": _AGAIN}
    return {"read": True}
