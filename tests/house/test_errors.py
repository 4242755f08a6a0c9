"""The error tree is whole: every class is listed, has a code of its own and a page, and tells what to do next."""

from __future__ import annotations

import ast
import importlib

import pytest

from bnfold import errors
from tests.house.tree import ROOT, modules

EXIT_CODES = {1, 3, 4}


def _tree(root: type[errors.BnfoldError]) -> list[type[errors.BnfoldError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


@pytest.fixture(scope="module")
def tree() -> list[type[errors.BnfoldError]]:
    """Every error class that any module of bnfold or the service defines."""
    for module in modules():
        # Alembic runs the first, and Python the second.
        if not module.path.endswith(("migrations/env.py", "__main__.py")):
            importlib.import_module(module.name)
    return _tree(errors.BnfoldError)


def test_bnfold_defines_errors_in_one_place(tree: list[type[errors.BnfoldError]]) -> None:
    ours = {error.__name__ for error in tree if error.__module__.startswith("bnfold.")}
    assert ours == set(errors.__all__)


def test_codes_are_unique_and_spelt_as_in_a_url(tree: list[type[errors.BnfoldError]]) -> None:
    codes = [error.code for error in tree]
    assert sorted(codes) == sorted(set(codes))
    assert [code for code in codes if not code.replace("-", "").isalpha() or code != code.lower()] == []


def test_exit_codes_are_those_of_the_command_line(tree: list[type[errors.BnfoldError]]) -> None:
    assert {error.exit_code for error in tree} <= EXIT_CODES


def test_every_error_says_what_it_means_and_has_its_place_in_the_docs(tree: list[type[errors.BnfoldError]]) -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    ours = [error for error in tree if error.__module__.startswith("bnfold.") and error is not errors.BnfoldError]
    assert [error.code for error in ours if f"`{error.code}`" not in page] == []
    assert [error.__name__ for error in ours if not (error.__doc__ or "").strip()] == []


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def test_every_error_that_is_raised_says_what_to_do_next() -> None:
    names = set(errors.__all__)
    without = [
        f"{module.path}:{node.lineno} {_called(node)}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _called(node) in names
        if not any(keyword.arg in {"hint", None} for keyword in node.keywords)
    ]
    assert without == []
