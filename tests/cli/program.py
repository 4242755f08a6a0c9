"""The program as its users start it, and small models to give it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

COMMAND = (sys.executable, "-m", "bnfold")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which nothing of the caller's terminal shows."""
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}}
    return {**kept, "LC_ALL": "C.UTF-8", **(more or {})}


def bnfold(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: Callable[[], object] | None = None,
    code: Sequence[str] = COMMAND,
) -> Ended:
    """Run the program in a folder and wait for its end."""
    done = subprocess.run(
        [*code, *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        preexec_fn=before,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, hidden ones included."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CONV_BN = """
<ir_version: 8, opset_import: ["" : 17]>
digits (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[4,3,3,3] W, float[4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
{
    h = Conv(x, W, b)
    n = BatchNormalization<epsilon = 0.001>(h, gamma, beta, mean, var)
    y = Relu(n)
}
"""
"""One batch norm that folds."""

TWO_BN = """
<ir_version: 8, opset_import: ["" : 17]>
digits (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[4,3,3,3] W, float[4] gamma, float[4] beta, float[4] mean, float[4] var,
 float[4] gamma2, float[4] beta2, float[4] mean2, float[4] var2>
{
    h = Conv(x, W)
    n = BatchNormalization(h, gamma, beta, mean, var)
    s = Sigmoid(n)
    y = BatchNormalization(s, gamma2, beta2, mean2, var2)
}
"""
"""Two batch norms: one folds, and one stays between a sigmoid and the end."""


def model(text: str, seed: int = 3, **values: ArrayLike) -> onnx.ModelProto:
    """Return a model in ONNX text with random weights; variances are positive, and some values may be given."""
    built = onnx.parser.parse_model(text)
    draw = np.random.default_rng(seed)
    for number, node in enumerate(built.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    declared = {value.name: value for value in (*built.graph.value_info, *built.graph.input)}
    for tensor in built.graph.initializer:
        declared.pop(tensor.name, None)
    for name, value in declared.items():
        if name in {given.name for given in built.graph.input}:
            continue
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        array = draw.uniform(0.5, 2.0, shape) if name.startswith("var") else draw.normal(size=shape)
        built.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for tensor in built.graph.initializer:
        if tensor.name in values:
            array = np.broadcast_to(np.asarray(values[tensor.name], np.float32), tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    del built.graph.value_info[:]
    return built


def written(path: Path, text: str = CONV_BN, seed: int = 3, **values: ArrayLike) -> Path:
    """Write a model to a path, and return the path."""
    onnx.save(model(text, seed, **values), path)
    return path


def op_types(path: Path) -> list[str]:
    """Return the operations of a model file, in order."""
    return [node.op_type for node in onnx.load(path).graph.node]
