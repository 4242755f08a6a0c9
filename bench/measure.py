"""Measure commands as whole processes, side by side, and say what came out as a table.

Every tool runs in a process of its own, and the tools take turns, so that a drifting machine is unfair to all alike.
Figures are medians. Processor time (user and system, of the process and its children) stands next to the clock, because
it is what a busy machine disturbs least.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
MISSING_PEERS = (
    "Other tools are left out: they are not installed. To compare with them:\n"
    "    python3.11 -m venv .venv-peers && .venv-peers/bin/python -m pip install -r bench/peers.txt"
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command: clock and processor seconds, peak memory in MB, what it printed, how it ended."""

    seconds: float
    processor: float
    peak: float
    said: str
    status: int


def peers_python() -> Path | None:
    """Return the Python that has the other tools, which BENCH_PEERS may name, or None where there is none."""
    python = Path(os.environ.get("BENCH_PEERS", PEERS))
    return python if python.exists() else None


def run(command: Sequence[str]) -> Run:
    """Run a command to its end and measure it."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit, text, child.returncode)


def take_turns(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[Run]]:
    """Run every command once, then every one again, and so on; a first round warms the caches and is not counted."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            result = run(command)
            if turn:
                runs[name].append(result)
    return runs


def middle(runs: Sequence[Run], figure: Literal["seconds", "processor", "peak"]) -> float:
    """Return the median of one figure of several runs."""
    return median(float(getattr(one, figure)) for one in runs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are figures."""
    line = "|" + "---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", line, *("| " + " | ".join(row) + " |" for row in rows)])
