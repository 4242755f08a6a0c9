"""How long a plan takes, and carrying it out, for chains of ten to a hundred thousand nodes: it must grow as they do.

Run as ``python -m bench.planning``. Processor time, medians of three plans; the ratio is that of time to nodes, with
the shortest chain as 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import onnx

from bench.measure import table
from bnfold.fold import apply, plan

LENGTHS = (3_333, 10_000, 33_333)
CHANNELS = 4
ROUNDS = 3
HEAD = ["nodes", "folds", "plan, s", "apply, s", "plan per node"]


def main() -> None:
    """Print the table."""
    rows: list[list[str]] = []
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            path = Path(folder, f"{length}.onnx")
            subprocess.run([sys.executable, "-m", "bench.chains", str(path), str(length), str(CHANNELS)], check=True)
            model = onnx.load(path)
            seconds = []
            for _round in range(ROUNDS):
                start = time.process_time()
                fold_plan = plan(model)
                seconds.append(time.process_time() - start)
            start = time.process_time()
            apply(model, fold_plan)
            applied = time.process_time() - start
            each = median(seconds) / len(model.graph.node)
            first = first or each
            figures = [f"{median(seconds):.2f}", f"{applied:.2f}", f"{each / first:.2f}"]
            rows.append([str(len(model.graph.node)), str(len(fold_plan.folds)), *figures])
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
