"""The process that converts one upload and nothing else: the only place where the service parses a foreign file.

It is given a folder: ``job.json`` says what to do, ``upload/`` holds the file and is the working directory, and
``out/`` takes the results. ``out/outcome.json`` is written last, and counts only where this process ends with status 0.
On its standard output it tells the step that runs, as lines of JSON; whatever libraries print goes where messages go.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from service.reading import read_first
from service.sandbox import confine

__all__ = ["main"]

# How numpy, onnxruntime, TensorFlow and the loader of libraries say it.
_OUT_OF_MEMORY = re.compile(
    r"(?i)bad_alloc|(failed|unable) to allocate|cannot allocate memory|failed to map segment|OOM when"
)


def main() -> None:
    """Convert what the folder holds that the command line names."""
    (folder,) = map(Path, confine(sys.argv[1:]))
    steps = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    with steps:
        outcome = _outcome(folder, _teller(steps))
    (folder / "out" / "outcome.json").write_text(json.dumps(outcome), "utf-8")


def _teller(steps: BinaryIO) -> Callable[[str, float | None], None]:
    """Return what tells the step that runs, and how much of it is done; nobody may be there to hear it."""
    last: tuple[str, int] | None = None

    def tell(step: str, done: float | None) -> None:
        nonlocal last
        told = (step, int(20 * done) if done is not None else -1)
        if told != last:
            last = told
            with contextlib.suppress(OSError):
                steps.write(json.dumps({"step": step, "done": done}).encode("ascii") + b"\n")

    return tell


def _outcome(folder: Path, tell: Callable[[str, float | None], None]) -> dict[str, Any]:
    import bnfold

    job = json.loads((folder / "job.json").read_text("utf-8"))
    try:
        return _convert(folder, job, tell)
    except bnfold.BnfoldError as error:
        return {"kind": "refused", "code": error.code, "message": str(error), "hint": error.hint}
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return {"kind": "storage", "message": error.strerror or str(error)}
        if error.errno == errno.EFBIG:
            return {"kind": "file-size"}
        if error.errno == errno.ENOMEM:
            return {"kind": "memory"}
        return _defect(error)
    except Exception as error:  # whatever it is, the service must tell it
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) or _is_short_of_memory():
            return {"kind": "memory"}
        return _defect(error)


def _is_short_of_memory() -> bool:
    """Say whether so much of the address space was in use that whatever failed most likely failed for want of it.

    Libraries tell a failed allocation in many ways, some as an error of quite another kind.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/status")
    if limit == resource.RLIM_INFINITY or not status.exists():
        return False
    peak = re.search(r"^VmPeak:\s+(\d+) kB$", status.read_text("ascii"), re.MULTILINE)
    return peak is not None and int(peak[1]) * 1024 > limit / 2


def _defect(error: Exception) -> dict[str, Any]:
    traceback.print_exc()
    return {"kind": "defect", "message": type(error).__name__}


def _convert(folder: Path, job: dict[str, Any], tell: Callable[[str, float | None], None]) -> dict[str, Any]:
    import bnfold

    told = dict(job["options"])
    architecture = folder / "architecture" / "architecture.json"
    options = bnfold.Options(
        inputs=tuple(told.get("inputs", ())),
        outputs=tuple(told.get("outputs", ())),
        set_values=told.get("set", {}),
        signature=told.get("signature"),
        architecture=architecture if architecture.exists() else None,
        opset=told.get("opset"),
        fold=told.get("fold", "all"),
        keep=tuple(told.get("keep", ())),
        verify=told.get("verify"),
        seed=told.get("seed", 0),
        ema=told.get("ema", "auto"),
        freeze_initializers=told.get("freeze_initializers") == "yes",
        layerwise=told.get("layerwise") == "yes",
    )
    tell("read", None)
    read_first(Path(job["upload"]), folder / "out")
    conversion = bnfold.convert(Path(job["upload"]), options, progress=tell)
    tell("write", None)
    written = conversion.save(folder / "out" / "model.onnx")
    (folder / "out" / "report.json").write_text(conversion.report.to_json(), "utf-8")
    (folder / "out" / "report.html").write_text(conversion.report.to_html(), "utf-8")
    # Only now: a file that is refused shall not wait for what runs models.
    from service.serving.session import UnrunnableError, open_session, signature_of

    wanted = {"model.onnx", "report.json", "report.html"}
    strays = sorted(path.name for path in (folder / "out").iterdir() if path.name not in wanted)
    if strays or written.name != "model.onnx":
        return {"kind": "file-size"}  # a model beyond 2 GiB is several files
    try:
        inputs, outputs = signature_of(open_session(written, 1))
    except UnrunnableError as error:
        return {"kind": "done", "unrunnable": str(error), "inputs": [], "outputs": []}
    return {
        "kind": "done",
        "unrunnable": "",
        "inputs": [{"name": s.name, "datatype": s.datatype, "shape": s.shape} for s in inputs],
        "outputs": [{"name": s.name, "datatype": s.datatype, "shape": s.shape} for s in outputs],
    }


if __name__ == "__main__":
    main()
