"""Compare the two graph libraries that bnfold could stand on: onnx's own protobuf classes, and onnx-ir.

Start, load and save of three files: an ordinary one, a large one, and one of very many small nodes. Run it as
``.venv/bin/python -m bench.graph_library``; its figures stand in ``docs/decisions/0001-graph-library.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.measure import MISSING_PEERS, middle, peers_python, run, table, take_turns

ROUNDS = 5

# Each program prints the processor seconds of its three parts; argv is the file to read and the file to write.
PROGRAMS = {
    "onnx": """
import json, sys, time
start = time.process_time()
import onnx
imported = time.process_time()
model = onnx.load(sys.argv[1])
loaded = time.process_time()
onnx.save(model, sys.argv[2])
saved = time.process_time()
print(json.dumps([imported - start, loaded - imported, saved - loaded, onnx.__version__]))
""",
    "onnx-ir": """
import json, sys, time
start = time.process_time()
import onnx_ir
imported = time.process_time()
model = onnx_ir.load(sys.argv[1])
loaded = time.process_time()
onnx_ir.save(model, sys.argv[2])
saved = time.process_time()
print(json.dumps([imported - start, loaded - imported, saved - loaded, onnx_ir.__version__]))
""",
}
HEAD = ("library", "import s", "load s", "save s", "whole s", "peak MB", "bytes kept")


def main() -> None:
    """Measure and print one table a file."""
    python = peers_python()
    if python is None or run([str(python), "-c", "import onnx_ir"]).status != 0:
        sys.exit(MISSING_PEERS)
    with tempfile.TemporaryDirectory() as folder:
        for length, channels in ((267, 28), (267, 128), (33_000, 1)):
            source = Path(folder, "source.onnx")
            subprocess.run([sys.executable, "-m", "bench.chains", str(source), str(length), str(channels)], check=True)
            targets = {name: Path(folder, f"{name}.onnx") for name in PROGRAMS}
            commands = {
                name: [str(python), "-c", program, str(source), str(targets[name])]
                for name, program in PROGRAMS.items()
            }
            runs = take_turns(commands, ROUNDS)
            size = f"{3 * length:,} nodes, {source.stat().st_size / 1e6:.1f} MB"
            print(f"\n{size}; processor seconds, medians of {ROUNDS}\n")
            rows = []
            for name, measured in runs.items():
                parts = [json.loads(one.said.splitlines()[-1]) for one in measured]
                kept = targets[name].read_bytes() == source.read_bytes()
                rows.append(
                    [
                        f"{name} {parts[0][3]}",
                        *(f"{median(part[i] for part in parts):.3f}" for i in range(3)),
                        f"{middle(measured, 'processor'):.2f}",
                        f"{middle(measured, 'peak'):.0f}",
                        "yes" if kept else "no",
                    ]
                )
            print(table(HEAD, rows))


if __name__ == "__main__":
    main()
