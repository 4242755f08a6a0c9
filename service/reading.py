"""The first reading of a file that holds HDF5, whose library follows whatever a file says.

A damaged one can make it loop for ever, fill the memory or end its process. So the child reads the whole file once
before it does anything else, with limits of its own, and leaves a mark meanwhile: when it ends there, the file is to
blame, and neither the service nor the libraries that convert.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["blame", "read_first"]

_MARK = "reading"
_SECONDS = 15
_MEMORY = 1 << 30
_TAIL = 1 << 20
_AGAIN = "Copy or download the file again."
# What a library dies of by itself, and the end of its processor time.
_OWN_DEATHS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGXCPU}
)


def read_first(path: Path, out: Path) -> None:
    """Read a whole file, where it holds HDF5; what else it is refused for, the conversion says.

    Args:
        path: The file.
        out: Where the mark is left while it is read.

    Raises:
        CorruptModelError: If it is damaged, or if reading it takes far more memory than it is large.
    """
    import bnfold

    if not _holds_hdf5(path):
        return
    mark = out / _MARK
    mark.touch()
    try:
        with _limited(path.stat().st_size):
            bnfold.glance(path)
    except bnfold.CorruptModelError:
        raise
    except bnfold.BnfoldError:
        return
    except MemoryError:
        raise bnfold.CorruptModelError(
            f"{path.name} is damaged or made to do harm: reading it takes far more memory than it is large",
            hint=_AGAIN,
        ) from None
    finally:
        mark.unlink()


def blame(name: str, size: int, out: Path, status: int) -> tuple[str, str] | None:
    """Return the message and the hint for a file whose reading ended the child; None where something else ended it.

    Args:
        name: Of the file.
        size: Of the file, in bytes.
        out: Where the mark may have been left.
        status: How the child ended, less than 0 for a signal.
    """
    if -status not in _OWN_DEATHS or not os.path.lexists(out / _MARK):
        return None
    says = (
        f"reading it keeps the HDF5 library busy for more than {_seconds(size)} s"
        if -status == signal.SIGXCPU
        else f"reading it ends the process, with signal {-status}"
    )
    return f"{name} is damaged or made to do harm: {says}", _AGAIN


def _holds_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
        if head[:2] != b"PK":
            return any(head.startswith(b"\x89HDF\r\n\x1a\n", at) for at in (0, 512, 1024, 2048))
        # The names in a zip archive stand at its end, too.
        file.seek(max(0, path.stat().st_size - _TAIL))
        return b".h5" in file.read()


@contextmanager
def _limited(size: int) -> Iterator[None]:
    """Allow this process only so much more processor time and memory as reading a file of some size may take."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0]) if Path("/proc/self/statm").exists() else 0
    wanted = {
        resource.RLIMIT_CPU: int(spent.ru_utime + spent.ru_stime) + _seconds(size) + 1,
        resource.RLIMIT_AS: pages * resource.getpagesize() + _MEMORY + 10 * size,
    }
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, most in wanted.items():
        soft, hard = before[kind]
        resource.setrlimit(kind, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    try:
        yield
    finally:
        for kind, both in before.items():
            resource.setrlimit(kind, both)


def _seconds(size: int) -> int:
    return _SECONDS + size // 2_000_000
