"""What is in ``zoo.toml``: every trained model with its origin, its files and what should become of its batch norms.

Run ``python models/zoo.py`` to check the files against it, and ``python models/zoo.py --refresh`` after retraining to
write their new sums into it. Accuracies are printed by the scripts and are written into ``zoo.toml`` by hand.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["HERE", "Model", "check", "read"]

HERE = Path(__file__).parent
_TABLE = HERE / "zoo.toml"
_LAYOUTS = ("flat", "channels-last", "channels-first")


@dataclass(frozen=True, slots=True)
class Model:
    """One artifact that ``bnfold convert`` takes; paths are relative to this folder.

    Attributes:
        name: What it is called here.
        path: The file or folder to convert.
        kind: What it is, for people.
        script: The program that trained it and wrote it.
        origin: Who wrote it, and from what it learned.
        licence: SPDX name of the licence of the artifact.
        hints: What ``bnfold convert`` has to be told, by the name of the option; most need nothing.
        input: The tensor or layer that takes the digits.
        output: The tensor or layer that answers.
        layout: How it takes them: ``"flat"``, ``"channels-last"`` or ``"channels-first"``.
        dtype: In which type it takes them.
        correct: How many of the test digits the original program gets right in inference mode.
        total: How many test digits there are.
        scores: What the original program answered to them: a ``.npy`` file, shape ``(total, 10)``.
        folded: Batch norms that must fold: a part of the name that each has in the model.
        kept: Batch norms that must stay: a part of the name, and the id of the reason.
        why: Why those must stay, in words; empty where all fold.
        leaves: How many nodes of each arithmetic operation the folded model has left; all others must be gone.
        sha256: Of every file that the artifact consists of.
    """

    name: str
    path: str
    kind: str
    script: str
    origin: str
    licence: str
    hints: Mapping[str, str]
    input: str
    output: str
    layout: str
    dtype: str
    correct: int
    total: int
    scores: str
    folded: tuple[str, ...]
    kept: Mapping[str, str]
    why: str
    leaves: Mapping[str, int]
    sha256: Mapping[str, str]


def read() -> tuple[Model, ...]:
    """Return every model of the zoo, in the order of the file.

    Raises:
        ValueError: If an entry lacks something, has something else, or contradicts itself.
    """
    table = tomllib.loads(_TABLE.read_text("utf-8"))
    return tuple(_model(table["defaults"] | row) for row in table["model"])


def _model(row: Mapping[str, Any]) -> Model:
    fields = set(Model.__dataclass_fields__)
    if set(row) != fields:
        raise ValueError(f"{row.get('name')}: missing {sorted(fields - set(row))}, unknown {sorted(set(row) - fields)}")
    if row["layout"] not in _LAYOUTS or bool(row["kept"]) != bool(row["why"]) or row["scores"] not in row["sha256"]:
        raise ValueError(f"{row['name']}: contradicts itself in layout, kept and why, or scores")
    return Model(**{**row, "folded": tuple(row["folded"])})


def check(model: Model) -> list[str]:
    """Return what is wrong with the files of a model, one line each."""
    found = []
    for name, expected in model.sha256.items():
        path = HERE / name
        if not path.is_file():
            found.append(f"{name} is not there")
        elif _sha256(path) != expected:
            found.append(f"{name} is not the file that was recorded")
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refreshed(text: str) -> str:
    line = re.compile(r'^"(?P<name>[^"]+)" = "[0-9a-f]*"$', re.MULTILINE)
    return line.sub(lambda found: f'"{found["name"]}" = "{_sha256(HERE / found["name"])}"', text)


def main() -> int:
    """Check every file, or write the new sums; return the exit code."""
    if sys.argv[1:] == ["--refresh"]:
        _TABLE.write_text(_refreshed(_TABLE.read_text("utf-8")), "utf-8")
    wrong = 0
    for model in read():
        found = check(model)
        wrong += len(found)
        print(f"{model.name:24} {model.correct} of {model.total}  {'; '.join(found) or 'files as recorded'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
