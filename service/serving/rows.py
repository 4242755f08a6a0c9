"""Whether rows of different requests may be run together: only where nobody can ever tell the difference.

Two things must hold. By the graph, every row of every output depends on the same row of the inputs and on nothing else:
each node is of a kind that is known to work row by row, with attributes under which it does. And by trial, the machine
computes the same bits for a row alone and among others, at every number of rows that is used later: a sum in another
order would make an answer depend on who else asks. What is not known to hold is taken not to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from service.problems import ServiceError
from service.serving.graph_rows import works_by_row
from service.serving.questions import Signature
from service.serving.tensors import DATATYPES, Array, Spec

__all__ = ["rows_together"]

_SECONDS = 0.5
_LARGEST_FILE = 2**29
_LARGEST_ROW = 2**24
_SEED = 20_011

Run = Callable[[Mapping[str, Array]], Sequence[Array]]


def rows_together(path: Path, signature: Signature, run: Run, most: int) -> int:
    """Return how many rows may be run together; 1 where rows must not be.

    Args:
        path: The model.
        signature: Its inputs and outputs.
        run: Computes all outputs.
        most: How many are wanted at most.
    """
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    if not signature.inputs or not all(_is_free(spec) for spec in specs) or path.stat().st_size > _LARGEST_FILE:
        return 1
    if any(math.prod(spec.shape[1:]) > _LARGEST_ROW for spec in specs) or not works_by_row(path):
        return 1
    try:
        return _tried(signature, run, most)
    except ServiceError:
        return 1


def _is_free(spec: Spec) -> bool:
    """Say whether the first axis, and only that, may have any size."""
    return len(spec.shape) > 0 and spec.shape[0] == -1 and -1 not in spec.shape[1:] and spec.datatype != "BYTES"


def _tried(signature: Signature, run: Run, most: int) -> int:
    """Return up to how many rows each is computed to the same bits as alone, as far as can be tried in a moment."""
    rng = np.random.default_rng(_SEED)
    feeds = {name: _drawn(spec, most, rng) for name, spec in signature.inputs.items()}
    began = time.monotonic()
    alone: list[Sequence[Array]] = []
    for row in range(most):
        alone.append(run({name: array[row : row + 1] for name, array in feeds.items()}))
        if time.monotonic() - began > _SECONDS:
            return 1  # so slow by itself that nothing is won
    for rows in range(2, most + 1):
        at = int(rng.integers(0, most - rows + 1))
        together = run({name: array[at : at + rows] for name, array in feeds.items()})
        for number, array in enumerate(together):
            if array.shape[0] != rows:
                return 1
            for row in range(rows):
                if array[row : row + 1].tobytes() != alone[at + row][number].tobytes():
                    return rows - 1
        if time.monotonic() - began > 2 * _SECONDS:
            return rows
    return most


def _drawn(spec: Spec, rows: int, rng: np.random.Generator) -> Array:
    shape = (rows, *spec.shape[1:])
    kind = DATATYPES[spec.datatype]
    if spec.datatype == "BF16":  # the upper half of a float32
        return (rng.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if spec.datatype.startswith("FP"):
        return rng.normal(size=shape).astype(kind)
    # Whole numbers may be positions in a table, which may be short.
    return rng.integers(0, 2, size=shape).astype(kind)
