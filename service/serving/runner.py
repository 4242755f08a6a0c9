"""The process that runs one model: it reads frames from its standard input, and answers each on its standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from service.sandbox import confine

__all__ = ["main"]


def main() -> None:
    """Load the model that the command line names, say so, and answer until the input ends."""
    path, threads = confine(sys.argv[1:])
    # Whatever native code prints must not stand between two frames: it goes where messages go.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    with answers, os.fdopen(0, "rb", closefd=False) as questions:
        _serve(Path(path), int(threads), questions, answers)


def _serve(path: Path, threads: int, questions: BinaryIO, answers: BinaryIO) -> None:
    from service.serving.frames import pack, read_from
    from service.serving.session import UnrunnableError, open_session, signature_of

    try:
        session = open_session(path, threads)
        datatypes = {spec.name: spec.datatype for spec in signature_of(session)[1]}
    except UnrunnableError as error:
        _write(answers, pack({"unrunnable": str(error)}))
        return
    _write(answers, pack({"ready": True}))
    while (frame := read_from(questions)) is not None:
        header, tensors = frame
        _write(answers, _answer(session, datatypes, header, tensors))


def _answer(session: Any, datatypes: dict[str, str], header: dict[str, Any], tensors: list[Any]) -> list[bytes]:
    from service.serving.frames import pack
    from service.serving.tensors import array_of, of_array

    names = header["outputs"]
    try:
        arrays = session.run(names, {tensor.name: array_of(tensor) for tensor in tensors})
        return pack({}, [of_array(name, datatypes[name], array) for name, array in zip(names, arrays, strict=True)])
    except Exception as error:  # onnxruntime's have no common class, and the next question may be fine
        return pack({"error": " ".join(str(error).split())[:500] or type(error).__name__})


def _write(stream: BinaryIO, pieces: list[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[stream.write(view) :]


if __name__ == "__main__":
    main()
