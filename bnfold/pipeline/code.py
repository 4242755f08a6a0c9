"""Functions of the user's own, named on the command line as ``FILE.py:FUNCTION``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnfold.errors import BnfoldError, SourceError
from bnfold.frontends.own_code import first_line, function_of, importing_from, run_file

__all__ = ["is_function", "load_function"]


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
    try:
        with importing_from(path.resolve().parent):
            module = run_file(path)
    except BnfoldError:
        raise
    except Exception as error:
        raise SourceError(
            f"{option}: {path.name} raised {type(error).__name__}: {first_line(error)}",
            hint="Make the file work when Python imports it.",
        ) from error
    return function_of(module, function, said=f"{option}: {path.name}", hint="Name one of its functions.")
