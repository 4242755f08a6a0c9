"""What each level of the sandbox costs: by the clock and in processor time, a child that confines itself and ends.

``python -m bench.sandbox`` prints a table; runs take turns, and each figure is the median of them.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service.sandbox import Level, Limits, child_command, child_environment
from service.sandbox.levels import tried

_ROUNDS = 30


def main() -> int:
    """Measure every level that this machine can keep."""
    levels = [level for level in Level if not level.isolates or not tried(level)]
    times: dict[Level, list[tuple[float, float]]] = {level: [] for level in levels}
    with tempfile.TemporaryDirectory(prefix="bnfold-") as told:
        for _round in range(_ROUNDS):
            for level in levels:
                times[level].append(_run(level, Path(told).resolve()))
    print("| level | by the clock, ms | processor time, ms |\n|---|---:|---:|")
    for level in levels:
        clock, processor = (1000 * statistics.median(column) for column in zip(*times[level], strict=True))
        print(f"| `{level}` | {clock:.0f} | {processor:.0f} |")
    return 0


def _run(level: Level, folder: Path) -> tuple[float, float]:
    limits = Limits(memory=2**34, file_size=2**31, cpu_seconds=60)
    command = child_command("bench.sandbox_child", limits, [], level=level, reads=[Path(__file__).parent])
    clock, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=child_environment(folder), stdin=subprocess.DEVNULL, check=True, cwd="/")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - clock, spent


if __name__ == "__main__":
    sys.exit(main())
