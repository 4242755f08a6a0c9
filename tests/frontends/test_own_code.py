"""Python files of the user's own, run without any framework."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bnfold.errors import SourceError
from bnfold.frontends.own_code import function_of, importing_from, run_file


def test_a_file_of_another_kind_is_no_python_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.toml"
    path.write_text("a = 1", "utf-8")
    with pytest.raises(SourceError) as caught:
        run_file(path)
    assert str(caught.value) == "layers.toml is no Python file"
    assert caught.value.hint == "Name a file that ends in .py."


def test_a_file_finds_its_neighbours_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("VALUE = 7", "utf-8")
    path = tmp_path / "own.py"
    path.write_text("from beside_it import VALUE\ndef seven():\n    return VALUE\n", "utf-8")
    before = list(sys.path)
    with importing_from(tmp_path):
        module = run_file(path)
    del sys.modules["beside_it"]
    assert sys.path == before
    assert function_of(module, "seven", said="own.py", hint="")() == 7
    with pytest.raises(SourceError) as caught:
        function_of(module, "eight", said="own.py", hint="Name another.")
    assert str(caught.value) == "own.py has no function 'eight'; it has seven"
    assert caught.value.hint == "Name another."
