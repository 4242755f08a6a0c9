"""What a child does first: it gives up all that it does not need."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.sandbox import landlock, limits, seccomp
from service.sandbox.levels import Level
from service.sandbox.reach import DEVICES, FACTS

__all__ = ["NOT_CONFINED", "confine"]

NOT_CONFINED = 121
"""The status of a child that could not be confined as it was told, and therefore did nothing."""

_NOWHERE = Path("/dev/null")


def confine(arguments: Sequence[str]) -> list[str]:
    """Confine this process as ``child_command`` told it to, and return the arguments that are left.

    From here on the process dies with the service, gains no privileges, dumps no core, and runs into its limits; and at
    the levels that isolate, it reaches nothing but its own files. Where one of that cannot be had, the process ends.
    """
    orders = json.loads(arguments[0])
    try:
        _confine(orders)
    except OSError as error:
        os.write(2, f"sandbox: this process cannot be confined: {error}\n".encode())
        os._exit(NOT_CONFINED)
    return list(arguments[1:])


def _confine(orders: dict[str, Any]) -> None:
    level = Level(orders["level"])
    limits.die_with(orders["parent"])
    if level is Level.OFF:
        return
    limits.limit(limits.Limits(orders["memory"], orders["file_size"], orders["cpu_seconds"]))
    limits.gain_nothing()
    if not level.isolates:
        return
    if threads := len(os.listdir("/proc/self/task")) - 1:  # noqa: PTH208  (only their number counts)
        # Landlock confines the thread that asks for it, and those that it starts later.
        raise OSError(f"{threads} threads run already")
    # The folder that it lies in cannot be searched any more after this: a store may lie there, too.
    import bnfold

    assert bnfold.__all__
    limits.drop_privileges()
    # At the level of namespaces, they keep files apart, and Landlock is a second wall where the kernel has it.
    if level is Level.LANDLOCK or landlock.version():
        reads = [*FACTS, *DEVICES, *map(Path, orders["reads"])]
        landlock.restrict(reads, [_NOWHERE, *map(Path, orders["writes"])])
    seccomp.install()
