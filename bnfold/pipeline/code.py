"""Functions of the user's own, named on the command line as ``FILE.py:FUNCTION``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnfold.errors import BnfoldError, SourceError

__all__ = ["first_line", "is_function", "load_function"]


def is_function(named: str) -> bool:
    """Whether something is written as a function of a Python file."""
    file, _, function = named.rpartition(":")
    return file.endswith(".py") and function.isidentifier()


def load_function(named: str, *, option: str) -> Callable[..., Any]:
    """Run a Python file and return one of its functions.

    Args:
        named: ``file.py:function``.
        option: The option that names it, for messages.

    Raises:
        SourceError: If there is no such file or function, or the file raises.
    """
    file, _, function = named.rpartition(":")
    path = Path(file)
    if not is_function(named) or not path.is_file():
        raise SourceError(
            f"{option}: there is no function {named!r}", hint="Write it as file.py:function, with an existing file."
        )
    before = list(sys.path)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec = importlib.util.spec_from_file_location(f"bnfold_own_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BnfoldError:
        raise
    except Exception as error:
        raise SourceError(
            f"{option}: {path.name} raised {type(error).__name__}: {first_line(error)}",
            hint="Make the file work when Python imports it.",
        ) from error
    finally:
        sys.path[:] = before
    found = getattr(module, function, None)
    if not callable(found):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise SourceError(
            f"{option}: {path.name} has no function {function!r}; it has {', '.join(sorted(own)) or 'none'}",
            hint="Name one of its functions.",
        )
    chosen: Callable[..., Any] = found
    return chosen


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0]
