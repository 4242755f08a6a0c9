"""What a file alone gives away is told before TensorFlow is imported: refusing it costs no more than reading it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.attacks.files import ATTACKS, Outside

ROOT = Path(__file__).parents[3]
# Only TensorFlow knows which operations there are. Neither file is larger for it than it looks.
TAKES_TENSORFLOW = {"a SavedModel that saves", "a frozen graph that loads a library"}


def converted(folder: Path, names: set[str]) -> dict[str, str]:
    """Return what became of attacks where nobody can import TensorFlow, by their names."""
    outside = Outside(folder / "marker", folder / "secret", "http://127.0.0.1:9/vocabulary.txt")
    paths = {}
    for name in sorted(names):
        (folder / name).mkdir()
        paths[name] = folder / name / ATTACKS[name].filename
        paths[name].write_bytes(ATTACKS[name].content(outside))
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.attacks.without_tensorflow", *map(str, paths.values())],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, str] = json.loads(done.stdout)
    return told


def test_attacks_are_refused_without_tensorflow(tmp_path: Path) -> None:
    names = {name for name, attack in ATTACKS.items() if attack.status == 422} - TAKES_TENSORFLOW
    assert len(names) > 30
    assert converted(tmp_path, names) == {name: ATTACKS[name].code for name in names}


@pytest.mark.parametrize("name", sorted(TAKES_TENSORFLOW))
def test_this_would_be_noticed(tmp_path: Path, name: str) -> None:
    assert converted(tmp_path, {name}) == {name: "tensorflow is imported"}
