"""Two lanes side by side: the reference computes in one, onnxruntime in the other, each with half of the processors.

Shared by both, every processor would be waited for: a matrix product whose threads wait by spinning takes from
onnxruntime what it does not use itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LANES", "half", "halved"]

LANES = 2


def half() -> int:
    """Return how many processors one lane has."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, every // LANES)


@contextmanager
def halved() -> Iterator[None]:
    """Let numpy's matrix products use one lane's processors; without effect where its library cannot be told."""
    found = _openblas()
    if found is None:
        yield
        return
    tell, ask = found
    before = int(ask())
    tell(min(before, half()))
    try:
        yield
    finally:
        tell(before)


@cache
def _openblas() -> tuple[Any, Any] | None:
    """Return how the number of threads is set and read in the library that numpy brings along."""
    package = Path(np.__file__).parent
    for path in sorted([*package.parent.glob("numpy.libs/*openblas*"), *package.glob(".dylibs/*openblas*")]):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"):
            tell, ask = (getattr(library, name.format(verb), None) for verb in ("set", "get"))
            if tell is not None and ask is not None:
                return tell, ask
    return None
