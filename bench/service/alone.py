"""How often a second one process runs a model with onnxruntime as it comes, when it does nothing else.

    python -m bench.service.alone MODEL SECONDS

The model has one input, with one free axis, which is 1.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime

__all__ = ["main"]


def main() -> None:
    """Run the model as the command line says, and print the rate."""
    path, seconds = sys.argv[1:]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = session.get_inputs()[0]
    shape = [one if isinstance(one, int) else 1 for one in asked.shape]
    feeds = {asked.name: np.random.default_rng(0).random(shape, np.float32)}
    for length in (float(seconds) / 4, float(seconds)):  # the first warms up
        runs, end = 0, time.perf_counter() + length
        while time.perf_counter() < end:
            session.run(None, feeds)
            runs += 1
    print(runs / float(seconds))


if __name__ == "__main__":
    main()
