"""How long bnfold takes before it works: ``--help``, and ``inspect`` of every kind of file, beside Python alone.

Run as ``python -m bench.starting``. Whole processes; medians of seven runs that take turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import ROOT, middle, table, take_turns

ROUNDS = 7
FILES = (
    "tf_keras_dense/phase1.h5",
    "keras_dense/tuned.weights.h5",
    "keras_dense/tuned.keras",
    "tf1_cond/frozen_v2.pb",
    "tf1_batch_statistics/my_net.ckpt.meta",
    "tf1_cond/v1",
    "keras_depthwise/saved_model",
    "torch_conv/digits.onnx",
)


def main() -> None:
    """Print the table."""
    ours = str(Path(sys.executable).with_name("bnfold"))
    commands = {"python": [sys.executable, "-c", "pass"], "bnfold --help": [ours, "--help"]}
    commands |= {f"bnfold inspect {name}": [ours, "inspect", str(ROOT / "models" / name)] for name in FILES}
    measured = take_turns(commands, ROUNDS)
    rows = [
        [what, f"{middle(runs, 'seconds'):.2f}", f"{middle(runs, 'processor'):.2f}"] for what, runs in measured.items()
    ]
    print(table(["command", "seconds", "processor s"], rows))


if __name__ == "__main__":
    main()
