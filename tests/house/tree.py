"""The repository as the house tests see it: its files, and its Python modules as syntax trees."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("bnfold", "service")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its path from the root, with slashes, and its syntax tree."""

    path: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name under which it is imported."""
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module: the dotted name, the line, and whether it runs when the importing module does."""

    name: str
    line: int
    at_import: bool


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of bnfold and of the service."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple(Module(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))) for path in paths)


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return what the repository holds; outside of a checkout, everything that is no cache and no environment."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found = [ROOT / name for name in listed.split("\0") if name]
    else:
        hidden = {".venv", "__pycache__", "dist", "store"}
        found = [path for path in ROOT.rglob("*") if not any(p in hidden or p.endswith("_cache") for p in path.parts)]
    return tuple(sorted(path for path in found if path.is_file()))


def imports(module: Module) -> Iterator[Import]:
    """Yield what a module imports, by statement or by ``import_module("name")``; type-checking imports are left out."""
    yield from _imports(module.tree, at_import=True)


def _imports(node: ast.AST, *, at_import: bool) -> Iterator[Import]:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            for statement in node.orelse:
                yield from _imports(statement, at_import=at_import)
            return
        case ast.Import():
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        case ast.ImportFrom(module=str(name), level=0):
            yield Import(name, node.lineno, at_import)
            for alias in node.names:
                yield Import(f"{name}.{alias.name}", node.lineno, at_import)
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]):
            if called in {"import_module", "__import__", "find_spec"}:
                yield Import(name, node.lineno, at_import and called != "find_spec")
    inner = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, at_import=inner)


@cache
def pyproject() -> dict[str, Any]:
    """Return the project's metadata and every tool's settings."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
