"""The user's own code: the file that builds a model, or that defines its layers. It runs because the user named it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bnfold.errors import BnfoldError, SourceError
from bnfold.frontends.keras.guests import keras_of, quiet
from bnfold.frontends.own_code import first_line, function_of, importing_from, run_file

__all__ = ["Custom", "built_by", "custom_of", "in_scope"]

Custom = dict[str, Any]
"""Classes and functions of the user, by the names that files may use for them."""

_FRAMEWORKS = ("keras", "tf_keras", "tensorflow")


def built_by(builder: str) -> Any:
    """Return the model that a user's function builds.

    Args:
        builder: ``file.py:function``.

    Raises:
        SourceError: If there is no such function, or it fails.
    """
    file, _, function = builder.rpartition(":")
    path = Path(file).resolve()
    if not file or not function.isidentifier() or not path.is_file():
        raise SourceError(
            f"there is no builder {builder!r}", hint="Write it as file.py:function, with an existing file."
        )
    with _running(f"{path.name}:{function}", path, "Make the function work without arguments and return the model."):
        hint = "Name the function that builds and returns the model."
        return function_of(run_file(path), function, said=path.name, hint=hint)()


def custom_of(path: Path | None) -> Custom:
    """Return the classes and functions that a user's file defines, or imports from other files of the user by name.

    Nothing where there is no file.

    Raises:
        SourceError: If there is no such file, it fails, or it defines nothing.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise SourceError(f"there is no file {path}", hint="Name the Python file that defines the layers.")
    with _running(path.name, path.resolve(), "Make the file work when it is imported, with nothing but definitions."):
        module = run_file(path.resolve())
    found = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and str(getattr(value, "__module__", "")).partition(".")[0] not in _FRAMEWORKS
    }
    if not any(getattr(value, "__module__", None) == module.__name__ for value in found.values()):
        raise SourceError(f"{path.name} defines no class and no function", hint="Define the layers in that file.")
    return found


@contextmanager
def in_scope(custom: Custom, generation: int) -> Iterator[None]:
    """Let a Keras find a user's classes and functions while the block runs.

    They are registered for all: a scope of Keras's own is forgotten inside the next one, and Keras opens such itself.
    """
    registered = keras_of(generation).utils.get_custom_objects()
    before = dict(registered)
    registered.update(custom)
    try:
        yield
    finally:
        registered.clear()
        registered.update(before)


@contextmanager
def _running(what: str, path: Path, hint: str) -> Iterator[None]:
    """Run a user's code where its own folder can be imported from, and put back what it changes of the process."""
    keras_of(3)
    before = dict(os.environ)
    try:
        with importing_from(path.parent), quiet():
            yield
    except BnfoldError:
        raise
    except Exception as error:
        raise SourceError(f"{what} raised {type(error).__name__}: {first_line(error)}", hint=hint) from error
    finally:
        os.environ.clear()
        os.environ.update(before)
