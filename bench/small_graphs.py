"""Small graphs beside other tools: how many of those each folds that algebra allows to fold, and how many it spoils.

Run as ``python -m bench.small_graphs``. The graphs are those of ``tests/fold/small_graphs``, in float32 where they are
in float64, because most files are: first those that have a batch norm and must end without one, then all others, in
which some map must stay. A tool may fail on a graph; *wrong* is a result whose outputs are off by more than rounding
explains, judged in float64 by onnx's reference evaluator.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from bench.measure import MISSING_PEERS, peers_python, table
from bnfold.fold import apply, plan
from tests.fold.small_graphs.judge import TOLERANCE, compute, feeds_of
from tests.fold.small_graphs.notation import Case, built
from tests.fold.test_small_graphs import CASES, COMPLETE, operations

WRONG = 1e-3
"""How far float32 may be off, as a part of the largest output; narrower types may by what the tests allow them."""

HEAD = ("tool", "folded completely", "some left", "failed", "wrong", "others: failed", "others: wrong")

# Read paths, a pair a line, and optimise the first into the second; say so, because a crash takes the process along.
WORKER = """
import sys
import onnx
tool = sys.argv[1]
if tool == "onnxruntime":
    import onnxruntime
    def work(source, target):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = target
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
elif tool == "onnxoptimizer":
    import onnxoptimizer
    def work(source, target):
        onnx.save(onnxoptimizer.optimize(onnx.load(source), onnxoptimizer.get_fuse_and_elimination_passes()), target)
elif tool == "onnxsim":
    import onnxsim
    def work(source, target):
        onnx.save(onnxsim.simplify(onnx.load(source))[0], target)
else:
    import onnxslim
    def work(source, target):
        onnx.save(onnxslim.slim(onnx.load(source)), target)
for line in sys.stdin:
    name, source, target = line.rstrip("\\n").split("\\t")
    try:
        work(source, target)
        print("did", name, flush=True)
    except Exception as error:
        print("not", name, flush=True)
"""
PEERS = ("onnxruntime", "onnxoptimizer", "onnxsim", "onnxslim")


def in_float32(case: Case) -> Case:
    """Return a case of float64 as one of float32."""
    if case.element != "double":
        return case
    return replace(case, element="float", graph=case.graph.replace("double", "float"))


def graphs() -> dict[str, tuple[Case, onnx.ModelProto]]:
    """Return the graphs, by a number that is a file's name."""
    return {f"{number:03}": (case, built(case)) for number, case in enumerate(map(in_float32, CASES.values()))}


def outcome(case: Case, model: onnx.ModelProto, result: onnx.ModelProto) -> str:
    """Say what a tool has made of a graph."""
    feeds = feeds_of(model, seed=1, free=case.free)
    try:
        actual = compute(result, feeds)
    except Exception:  # an operation of the tool's own, or no model at all
        return "failed"
    for found, wanted in zip(actual, compute(model, feeds), strict=True):
        if found.shape != wanted.shape:
            return "wrong"
        if wanted.dtype.kind == "f":
            there = np.isfinite(wanted)
            allowed = max(WRONG, TOLERANCE[case.element]) * np.abs(wanted[there]).max(initial=1.0)
            if not np.array_equal(there, np.isfinite(found)) or not np.all(np.abs(found - wanted)[there] <= allowed):
                return "wrong"
        elif not np.array_equal(found, wanted):
            return "wrong"
    return "left" if "BatchNormalization" in set(operations(result.graph)) else "complete"


def run_peer(python: Path, tool: str, sources: Mapping[str, Path], folder: Path) -> set[str]:
    """Let a tool work on all files, one after another; return those on which it did not fail."""
    waiting, done = dict(sources), set[str]()
    while waiting:
        lines = "".join(f"{name}\t{path}\t{folder / name}.onnx\n" for name, path in waiting.items())
        command = [str(python), "-c", WORKER, tool]
        said = subprocess.run(command, input=lines, check=False, capture_output=True, text=True, timeout=1200).stdout
        told = [line.split() for line in said.splitlines() if line.startswith(("did ", "not "))]
        done |= {name for word, name in told if word == "did"}
        for _word, name in told:
            del waiting[name]
        if waiting:  # it went down with the process
            del waiting[next(iter(waiting))]
    return done


def main() -> None:
    """Print the table; as JSON, with the names of the wrong ones, if a file is named."""
    every = graphs()
    titles = dict(zip(every, CASES, strict=True))
    found: dict[str, dict[str, str]] = {"bnfold": {}}
    for name, (case, model) in every.items():
        found["bnfold"][name] = outcome(case, model, apply(model, plan(model)).model)
    python = peers_python()
    if python is None:
        print(MISSING_PEERS)
    with tempfile.TemporaryDirectory() as place:
        sources = {name: Path(place, f"{name}.onnx") for name in every}
        for name, path in sources.items():
            onnx.save(every[name][1], path)
        for tool in PEERS if python is not None else ():
            folder = Path(place, tool)
            folder.mkdir()
            assert python is not None
            done = run_peer(python, tool, sources, folder)
            found[tool] = {
                name: outcome(*every[name], onnx.load(folder / f"{name}.onnx")) if name in done else "failed"
                for name in every
            }
    rows = []
    for tool, outcomes in found.items():
        counts = Counter((titles[name] in COMPLETE, kind) for name, kind in outcomes.items())
        figures = [counts[True, kind] for kind in ("complete", "left", "failed", "wrong")]
        rows.append([tool, *(str(figure) for figure in (*figures, counts[False, "failed"], counts[False, "wrong"]))])
    print(f"{len(COMPLETE)} graphs, and {len(every) - len(COMPLETE)} others\n\n{table(HEAD, rows)}")
    for target in sys.argv[1:]:
        told = {tool: {titles[name]: kind for name, kind in kinds.items()} for tool, kinds in found.items()}
        Path(target).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
