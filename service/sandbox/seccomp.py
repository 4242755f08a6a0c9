"""seccomp: the calls of the system that a process may still make, kept by the Linux kernel, without privileges.

The filter is a program of the classic Berkeley packet filter. It is written here, word by word, so that nothing has to
be installed for it.

Source: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Mapping

from service.sandbox.syscalls import LAST_KNOWN, MACHINES, Calls

__all__ = ["available", "filter_program", "install"]

_PR_GET_SECCOMP = 21
_SET_MODE_FILTER = 1
_ALL_THREADS = 1

# Where the kernel puts what a filter may look at: struct seccomp_data, on machines that store the low bytes first.
_NUMBER, _ARCHITECTURE = 0, 4
_FIRST, _SECOND = 16, 24

_LOAD = 0x20
_IF_EQUAL, _IF_FROM, _IF_ABOVE, _IF_ANY = 0x15, 0x35, 0x25, 0x45
_RETURN = 0x06

_KILL = 0x80000000
_ALLOW = 0x7FFF0000
_ERROR = 0x00050000
_X32 = 0x40000000

_CLONE_THREAD = 0x00010000
# Of one process about itself: names for threads and for memory, and questions.
_PRCTL = (2, 3, 15, 16, 21, 23, 27, 38, 39, 42, 0x53564D41)
# What a file or a terminal is, and flags of the descriptor itself.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# All but those that send signals: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032, 1033, 1034)

Instruction = tuple[int, int, int, int]


def available() -> bool:
    """Say whether this machine and its kernel have it."""
    if sys.platform != "linux" or platform.machine() not in MACHINES or sys.byteorder != "little":
        return False
    return int(ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def install() -> None:
    """Take from this process all calls that it does not need, for good.

    Raises:
        OSError: If the kernel refuses; nothing may be run then.
    """
    calls = MACHINES[platform.machine()]
    content = b"".join(struct.pack("<HBBI", *instruction) for instruction in filter_program(calls, os.getpid()))
    held = ctypes.create_string_buffer(content, len(content))
    program = struct.pack("@HP", len(content) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(calls.weighed["seccomp"])
    if libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(program)) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def filter_program(calls: Calls, process: int) -> list[Instruction]:
    """Return the filter for one machine and one process.

    Calls that no child needs fail with EPERM, as they would for want of a privilege, so that libraries can do without.
    Numbers of another machine's calls end the process: they are only used to get past a filter.
    """
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    program += [(_IF_EQUAL, 1, 0, calls.architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    program += [(_IF_FROM, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for first, last in _ranges(calls.allowed.values()):
        program += [(_IF_FROM, 0, 2, first), (_IF_ABOVE, 1, 0, last), (_RETURN, 0, 0, _ALLOW)]
    program += _weighed(calls.weighed, process)
    for first, last in _ranges(calls.attributes.values()):
        program += [(_IF_FROM, 0, 2, first), (_IF_ABOVE, 1, 0, last), _failing(errno.EOPNOTSUPP)]
    # A thread is started with clone where there is no clone3, and clone says in a register what it starts.
    program += _when(calls.weighed["clone3"], [_failing(errno.ENOSYS)])
    program += [(_IF_ABOVE, 0, 1, LAST_KNOWN), _failing(errno.ENOSYS), _failing(errno.EPERM)]
    return program


def _weighed(calls: Mapping[str, int], process: int) -> Iterable[Instruction]:
    """Yield what decides about calls by their arguments."""
    thread = [(_LOAD, 0, 0, _FIRST), (_IF_ANY, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), _failing(errno.EPERM)]
    yield from _when(calls["clone"], thread)
    for name, where, values, otherwise in (
        ("kill", _FIRST, (process,), errno.EPERM),
        ("tgkill", _FIRST, (process,), errno.EPERM),
        ("prlimit64", _FIRST, (0, process), errno.EPERM),
        ("prctl", _FIRST, _PRCTL, errno.EINVAL),
        ("ioctl", _SECOND, _IOCTL, errno.ENOTTY),
        ("fcntl", _SECOND, _FCNTL, errno.EINVAL),
    ):
        allowed = [step for value in values for step in ((_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]
        yield from _when(calls[name], [(_LOAD, 0, 0, where), *allowed, _failing(otherwise)])


def _when(number: int, steps: list[Instruction]) -> list[Instruction]:
    """Return steps that are taken for one call; they end the filter."""
    return [(_IF_EQUAL, 0, len(steps), number), *steps]


def _failing(code: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | code)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of numbers that follow each other."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
