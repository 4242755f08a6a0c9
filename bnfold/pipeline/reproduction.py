"""Writing down the smallest piece that shows a fault, so that somebody else can look at it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.loaded import Array
from bnfold.graph.atomic import write_atomically
from bnfold.graph.io import save_model

if TYPE_CHECKING:
    from bnfold.parity.reproduce import Case, Reproduction

__all__ = ["write_reproduction"]

_SHOW = '''"""{says}

Needs numpy and onnxruntime: python show.py
{command}"""

from pathlib import Path

import numpy as np
import onnxruntime as ort

here = Path(__file__).parent
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
feeds, expected = (dict(np.load(here / name)) for name in ("feeds.npz", "expected.npz"))
for file in {files}:
    session = ort.InferenceSession(str(here / file), options, providers=["CPUExecutionProvider"])
    names = {{value.name for value in session.get_inputs()}}
    found = session.run(list(expected), {{name: value for name, value in feeds.items() if name in names}})
    for name, value in zip(expected, found):
        gap = np.abs(value.astype(np.float64) - expected[name].astype(np.float64)).max()
        size = np.abs(expected[name].astype(np.float64)).max()
        print(f"{{file}}: {{name}} is off by {{gap:.3g}}; its largest value is {{size:.3g}}  ({against})")
'''


def write_reproduction(case: Case, folder: Path) -> Reproduction | None:
    """Write the smallest piece that shows what a failed verification found, with its inputs and a script.

    Args:
        case: What was verified, and what was found.
        folder: Where to; it is made if it is not there. Files of an earlier run are replaced.

    Returns:
        What was written; None where no piece shows the fault.

    Raises:
        OSError: If a file cannot be written.
    """
    from bnfold.parity.reproduce import reproduce

    found = reproduce(case)
    if found is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    files = {"before.onnx": found.before} | ({"after.onnx": found.after} if found.after is not None else {})
    for name, model in files.items():
        save_model(model, folder / name)
    write_atomically(folder / "feeds.npz", _archive(found.feeds))
    write_atomically(folder / "expected.npz", _archive(found.expected))
    command = "" if found.after is None else "Or: bnfold verify before.onnx after.onnx --data feeds.npz\n"
    against = "against the original program" if found.after is None else "against float64"
    says = found.says.replace("\\", "\\\\").replace('"""', "'''")
    script = _SHOW.format(says=f"{says[:1].upper()}{says[1:]}.", command=command, files=tuple(files), against=against)
    write_atomically(folder / "show.py", script.encode("utf-8"))
    return found


def _archive(arrays: Mapping[str, Array]) -> bytes:
    held = {name: np.asarray(value) for name, value in arrays.items()}
    if any(value.dtype == object for value in held.values()):
        raise CorruptModelError(
            "the inputs are text, which no .npz file without code holds", hint="Leave --repro out for this model."
        )
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **held)
    return buffer.getvalue()
