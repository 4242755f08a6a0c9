"""The generated pages are those of the code that stands here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bnfold import errors
from bnfold.cli.exits import CODES
from bnfold.cli.reference import pages
from bnfold.cli.root import root


@pytest.mark.parametrize("name", ["cli.md", "errors.md", "report.schema.json"])
def test_page_is_current(repository: Path, name: str) -> None:
    current = (repository / "docs" / name).read_text("utf-8") == pages()[name]
    assert current, "write the pages again with: python -m bnfold.cli.reference docs"


def test_the_pages_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bnfold.cli.reference", str(tmp_path)], check=True)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == pages()


def test_every_command_and_option_has_its_help() -> None:
    page = pages()["cli.md"]
    for name, command in root.commands.items():
        assert f"## bnfold {name}\n" in page
        section = page.partition(f"## bnfold {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert re.search(rf"{re.escape(option)}\b.*\S", section), option


def test_every_error_has_its_row() -> None:
    codes = {getattr(errors, name).code for name in errors.__all__ if name != "BnfoldError"} | set(CODES)
    assert {code for code in codes if f"| `{code}` |" not in pages()["errors.md"]} == set()
