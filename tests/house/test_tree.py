"""What the repository holds: modules that can be read at once, and nothing of the machine it was written on."""

from __future__ import annotations

import re

import pytest

from tests.house.tree import ROOT, Module, modules, tracked_files

LONGEST = 400

# Spelt so that this file does not find itself.
MACHINE = re.compile(rb"/(?:home|root|work)/[a-z]|/Users/[a-z]|[A-Z]:\\\\Users|/tmp/(?:lab|bash|fresh)")
REGISTRIES = re.compile(rb"pypi\.org|pythonhosted|--(?:extra-)?index-url|conda\.anaconda|registry\.npmjs")


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_module_can_be_read_at_once(module: Module) -> None:
    lines = (ROOT / module.path).read_text("utf-8").count("\n")
    assert lines <= LONGEST


@pytest.mark.parametrize("unwanted", [MACHINE, REGISTRIES], ids=["machine path", "registry host"])
def test_no_file_names(unwanted: re.Pattern[bytes]) -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        match = unwanted.search(content)
        if match is not None and path.name != "test_tree.py":
            found.append(f"{path.relative_to(ROOT)}:{content[: match.start()].count(10) + 1} {match.group()!r}")
    assert found == []


def test_no_tracked_file_is_large() -> None:
    assert [f"{path.name}: {path.stat().st_size}" for path in tracked_files() if path.stat().st_size > 2_000_000] == []
