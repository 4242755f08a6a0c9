"""Spoilt files of the frameworks, loaded in a process of their own: it neither dies of them nor raises theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.spoiling import KINDS

pytestmark = pytest.mark.tensorflow


def test_spoilt_files_of_frameworks_neither_end_the_process_nor_escape_as_errors_of_theirs(
    tmp_path: Path, repository: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.spoiling", str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    note = tmp_path / "note"
    last = note.read_text("utf-8") if note.is_file() else "the start"
    assert done.returncode == 0, f"ended with {done.returncode} at {last}: {done.stderr[-2000:]}"
    answers = json.loads(done.stdout.splitlines()[-1])
    assert {kind: sum(counts.values()) for kind, counts in answers.items()} == {
        kind: rounds for kind, (rounds, _make) in KINDS.items()
    }
    assert sum(counts["refused"] for counts in answers.values()) > sum(counts["model"] for counts in answers.values())
    # Not every mutation of a text or of weights is damage: some files must come through.
    assert sum(counts["model"] for counts in answers.values()) > 5
