"""Reads spoilt files of the frameworks one after the other, in a process that may die of it.

It runs as ``python -m tests.fuzz.spoiling FOLDER``. What it prints last is how often the answer was a model and how
often a refusal, by kind of file. Before every file it notes down which one comes, so that whoever started it knows what
it died of.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bnfold.errors import BnfoldError
from bnfold.frontends import load
from bnfold.frontends.loaded import Request
from tests.fuzz.mutations import mutate

MODELS = Path(__file__).parents[2] / "models"

Spoilt = tuple[Path, Path, Request]
"""The file that is spoilt, the path that is loaded, and what else is said."""


def _alone(source: str) -> Callable[[Path], Spoilt]:
    def make(folder: Path) -> Spoilt:
        path = folder / Path(source).name
        shutil.copy(MODELS / source, path)
        return path, path, Request()

    return make


def _checkpoint(part: str) -> Callable[[Path], Spoilt]:
    def make(folder: Path) -> Spoilt:
        shutil.copytree(MODELS / "tf1_layers", folder, dirs_exist_ok=True)
        (path,) = folder.glob(f"*{part}*")
        return path, folder / "model.ckpt-902.meta", Request(outputs=("probabilities:0",))

    return make


def _saved(part: str) -> Callable[[Path], Spoilt]:
    def make(folder: Path) -> Spoilt:
        shutil.copytree(MODELS / "keras_depthwise" / "saved_model", folder / "saved")
        return folder / "saved" / part, folder / "saved", Request()

    return make


def _archive(name: str) -> Callable[[Path], Spoilt]:
    def make(folder: Path) -> Spoilt:
        path, source = folder / name, MODELS / "keras_depthwise" / "saved_model"
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for file in source.rglob("*"):
                    packed.write(file, Path("saved") / file.relative_to(source))
        else:
            with tarfile.open(path, "w:gz") as tape:
                tape.add(source, "saved")
        return path, path, Request()

    return make


def _as_text(folder: Path) -> Spoilt:
    from google.protobuf import text_format
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString((MODELS / "tf1_cond" / "frozen_v1.pb").read_bytes())
    path = folder / "frozen.pbtxt"
    path.write_text(text_format.MessageToString(graph), "utf-8")
    return path, path, Request()


def _weights(folder: Path) -> Spoilt:
    path = folder / "tuned.weights.h5"
    shutil.copy(MODELS / "keras_dense" / "tuned.weights.h5", path)
    return path, path, Request(architecture=MODELS / "keras_dense" / "architecture.json")


KINDS: dict[str, tuple[int, Callable[[Path], Spoilt]]] = {
    "frozen graph": (15, _alone("tf1_layers/frozen.pb")),
    "frozen graph with functions": (10, _alone("tf1_cond/frozen_v2.pb")),
    "frozen graph as text": (6, _as_text),
    "meta graph": (8, _checkpoint(".meta")),
    "checkpoint's index": (30, _checkpoint(".index")),
    "checkpoint's numbers": (4, _checkpoint(".data-")),
    "SavedModel's graph": (6, _saved("saved_model.pb")),
    "SavedModel's index": (15, _saved("variables/variables.index")),
    "SavedModel in a zip": (10, _archive("saved.zip")),
    "SavedModel in a tar.gz": (10, _archive("saved.tar.gz")),
    "keras": (25, _alone("keras_dense/tuned.keras")),
    "h5": (6, _alone("tf_keras_dense/tuned.h5")),
    "weights": (10, _weights),
}
"""How many spoilt files of each kind, and what they are made of."""


def _answers(kind: str, folder: Path, note: Path) -> Iterator[str]:
    rounds, make = KINDS[kind]
    spoilt, path, request = make(folder)
    content = spoilt.read_bytes()
    random = np.random.default_rng([ord(letter) for letter in kind])
    for number in range(rounds):
        spoilt.write_bytes(mutate(content, content[:2000], random))
        note.write_text(f"round {number} of '{kind}'", "utf-8")
        refused: BnfoldError | None = None
        try:
            load(path, request)
        except BnfoldError as error:
            refused = error
        assert refused is None or refused.hint
        yield "refused" if refused else "model"


def main() -> None:
    """Read everything; the first argument is an empty folder."""
    work = Path(sys.argv[1])
    said: dict[str, dict[str, int]] = {}
    for kind in sys.argv[2:] or KINDS:
        folder = work / kind
        folder.mkdir()
        counts = said.setdefault(kind, {"model": 0, "refused": 0})
        for answer in _answers(kind, folder, work / "note"):
            counts[answer] += 1
    print(json.dumps(said))  # noqa: T201  # the answer for whoever started it


if __name__ == "__main__":
    main()
