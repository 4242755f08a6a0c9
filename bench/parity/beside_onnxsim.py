"""What does a whole fold with its proof cost, beside onnxsim with its own check on? A net of ResNet-50's shape.

python bench/parity/beside_onnxsim.py path/to/onnxsim [rounds]

Whole processes, one after the other in every round; medians of wall time and of processor time. A machine that does
other work at the same time bends wall times, and processor times much less.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.parity.reference import Net


def _taken(command: list[str]) -> tuple[float, float]:
    """Run a process; return its wall time and its processor time, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    onnxsim, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "resnet.onnx"), str(Path(folder) / "folded.onnx")
        onnx.save(Net(folded=False).model(224), source)
        fold = [sys.executable, "-m", "bnfold", "fold", source, "-o", target, "--verify"]
        commands = {
            "onnxsim, no check": [onnxsim, source, target],
            "onnxsim, 1 check": [onnxsim, source, target, "1"],
            "onnxsim, 3 checks": [onnxsim, source, target, "3"],
            **{f"bnfold, {level}": [*fold, level] for level in ("off", "fast", "full")},
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                found[name].append(_taken(command))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print("                         wall      processor   wall, processor time beside 1 check    beside 3 checks")
    for name, (wall, processor) in medians.items():
        ratios = [medians[f"onnxsim, {count}"] for count in ("1 check", "3 checks")]
        shown = "".join(f"{wall / other[0]:18.2f} ×{processor / other[1]:7.2f} ×" for other in ratios)
        print(f"{name:20}{wall:8.2f} s{processor:12.2f} s {shown}")


if __name__ == "__main__":
    main()
