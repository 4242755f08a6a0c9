"""Fold beside other tools: seconds, memory, and what is left of the batch norms.

``make bench`` runs it. Every tool reads a model from a file and writes one, as a whole process, as its users start it;
verification is off, because the others have none of the kind. Whether the results still compute the same is asked
afterwards, with onnxruntime and its own optimisation off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import MISSING_PEERS, middle, peers_python, table, take_turns

ROUNDS = 5
NETWORKS = ("residual", "separable", "dense")

ONNXRUNTIME = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = sys.argv[2]
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
PEERS = {
    "onnxruntime": ["-c", ONNXRUNTIME],
    "onnxoptimizer": ["-m", "onnxoptimizer"],
    "onnxsim": ["-m", "onnxsim"],
    "onnxslim": ["-m", "onnxslim"],
}

# For each file after the first: batch norms, nodes, and the distance of its output from that of the first.
JUDGE = """
import json, sys
import numpy, onnx, onnxruntime
def outputs(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else 4 for size in session.get_inputs()[0].shape]
    feed = numpy.random.default_rng(4).normal(size=shape).astype(numpy.float32)
    return session.run(None, {session.get_inputs()[0].name: feed})[0].astype(numpy.float64)
expected = outputs(sys.argv[1])
found = []
for path in sys.argv[2:]:
    nodes = onnx.load(path).graph.node
    error = numpy.linalg.norm(outputs(path) - expected) / numpy.linalg.norm(expected)
    found.append([sum(node.op_type == "BatchNormalization" for node in nodes), len(nodes), error])
print(json.dumps(found))
"""
HEAD = ("tool", "batch norms left", "nodes", "seconds", "of bnfold's", "processor s", "peak MB", "error")


def main() -> None:
    """Measure and print one table a network."""
    ours = str(Path(sys.executable).with_name("bnfold"))
    python = peers_python()
    if python is None:
        print(MISSING_PEERS)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "bench.networks", folder], check=True)
        for network in NETWORKS:
            source = str(Path(folder, f"{network}.onnx"))
            targets = {tool: str(Path(folder, f"{network}.{tool}.onnx")) for tool in ("bnfold", *PEERS)}
            commands = {"bnfold": [ours, "fold", source, "-o", targets["bnfold"], "--verify", "off", "--quiet"]}
            if python is not None:
                commands |= {tool: [str(python), *start, source, targets[tool]] for tool, start in PEERS.items()}
            measured = take_turns(commands, ROUNDS)
            done = {tool: runs for tool, runs in measured.items() if all(run.status == 0 for run in runs)}
            judged = subprocess.run(
                [sys.executable, "-c", JUDGE, source, *(targets[tool] for tool in done)],
                check=True,
                capture_output=True,
                text=True,
            )
            rows = []
            for (tool, runs), (left, nodes, error) in zip(done.items(), json.loads(judged.stdout), strict=True):
                seconds = middle(runs, "seconds")
                ratio = seconds / middle(measured["bnfold"], "seconds")
                figures = [f"{seconds:.2f}", f"{ratio:.2f}", f"{middle(runs, 'processor'):.2f}"]
                rows.append([tool, str(left), str(nodes), *figures, f"{middle(runs, 'peak'):.0f}", f"{error:.1e}"])
            print(f"\n{network}, {Path(source).stat().st_size / 1e6:.1f} MB; medians of {ROUNDS}\n")
            print(table(HEAD, rows))
            for tool in measured.keys() - done.keys():
                print(f"\n{tool} failed: {measured[tool][0].said.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    main()
