"""Landlock: the files that a process may still reach, kept by the Linux kernel, without privileges.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["restrict", "version"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_ASK_VERSION = 1
_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_REFER = 1 << 13
_TRUNCATE = 1 << 14

# By the version from which on the kernel knows them: all rights to files, to ports, and to reach other processes.
_FILES = ((5, (1 << 16) - 1), (3, (1 << 15) - 1), (2, (1 << 14) - 1), (1, (1 << 13) - 1))
_PORTS = ((4, 0b11), (0, 0))
_SCOPES = ((6, 0b11), (0, 0))

# No links, devices, pipes or sockets: who reads the results later must find files.
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REFER | _MAKE_REG | _MAKE_DIR | _REMOVE_FILE | _REMOVE_DIR
_OF_A_FILE = _READ_FILE | _WRITE_FILE | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION))


def restrict(reads: Iterable[Path], writes: Iterable[Path]) -> None:
    """Take from this process all files but some, all ports, and whatever reaches other processes, for good.

    Args:
        reads: Files and folders, with all that is in them, that may be read. What does not exist is left out.
        writes: Folders in which files and folders may be made, changed and removed, and files that may be changed.

    Raises:
        OSError: If the kernel refuses; nothing may be run then.
    """
    known = version()
    if not known:
        raise OSError("the kernel has no Landlock")
    files = _newest(_FILES, known)
    told = _Ruleset(files, _newest(_PORTS, known), _newest(_SCOPES, known))
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = _checked(_call(_CREATE_RULESET, ctypes.byref(told), ctypes.c_size_t(size), 0))
    for paths, rights in ((reads, _READ), (writes, _WRITE)):
        for path in paths:
            _allow(ruleset, path, rights & files)
    _checked(_call(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_A_FILE
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_Rule(rights, descriptor)), 0))
    finally:
        os.close(descriptor)


def _newest(by_version: tuple[tuple[int, int], ...], known: int) -> int:
    return next(rights for since, rights in by_version if known >= since)


def _call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
