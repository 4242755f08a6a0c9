"""Python files of the user's own: they run because the user named them, and nothing of them stays behind."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from bnfold.errors import SourceError

__all__ = ["first_line", "function_of", "importing_from", "run_file"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """Return what an exception of foreign code says, as one short line."""
    text = " ".join(_COLOURS.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let Python import from a folder while the block runs."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def run_file(path: Path) -> ModuleType:
    """Run a Python file, and return what it defines. Whatever the file raises comes out.

    Raises:
        SourceError: If its name is not that of a Python file.
    """
    spec = importlib.util.spec_from_file_location(f"bnfold_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path.name} is no Python file", hint="Name a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def function_of(module: ModuleType, name: str, *, said: str, hint: str) -> Callable[..., Any]:
    """Return a function of a user's file.

    Args:
        module: The file, run.
        name: The function.
        said: What to call the file in errors.
        hint: What to do where it has no such function.

    Raises:
        SourceError: If it has none.
    """
    found = getattr(module, name, None)
    if callable(found):
        return cast("Callable[..., Any]", found)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    raise SourceError(f"{said} has no function {name!r}; it has {', '.join(sorted(own)) or 'none'}", hint=hint)
