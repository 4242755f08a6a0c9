"""The tools that read code instead of running it find nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-m", "ruff", "check", "."], id="ruff check"),
        pytest.param([sys.executable, "-m", "ruff", "format", "--check", "."], id="ruff format"),
        pytest.param([sys.executable, "-m", "mypy"], id="mypy"),
        pytest.param([str(LINT_IMPORTS)], id="lint-imports"),
    ],
)
def test_tool_finds_nothing(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        said = f"{done.stdout}{done.stderr}"
        pytest.fail(f"{' '.join(command[-3:])} exited with {done.returncode}:\n{said}", pytrace=False)
