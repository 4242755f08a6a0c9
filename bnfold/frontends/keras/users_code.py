"""The user's own code: the file that builds a model, or that defines its layers. It runs because the user named it."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from bnfold.errors import BnfoldError, SourceError
from bnfold.frontends.keras.guests import keras_of, quiet

__all__ = ["Custom", "built_by", "custom_of", "first_line", "in_scope"]

Custom = dict[str, Any]
"""Classes and functions of the user, by the names that files may use for them."""

_FRAMEWORKS = ("keras", "tf_keras", "tensorflow")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """Return what an exception of a guest says, as one short line."""
    text = " ".join(_COLOURS.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


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
        return _function(_module(path), function, path)()


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
        module = _module(path.resolve())
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
    before = (list(sys.path), dict(os.environ))
    sys.path.insert(0, str(path.parent))
    try:
        with quiet():
            yield
    except BnfoldError:
        raise
    except Exception as error:
        raise SourceError(f"{what} raised {type(error).__name__}: {first_line(error)}", hint=hint) from error
    finally:
        sys.path[:] = before[0]
        os.environ.clear()
        os.environ.update(before[1])


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bnfold_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str, path: Path) -> Callable[[], Any]:
    found = getattr(module, name, None)
    if callable(found):
        return cast("Callable[[], Any]", found)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    raise SourceError(
        f"{path.name} has no function {name!r}; it has {', '.join(sorted(own)) or 'none'}",
        hint="Name the function that builds and returns the model.",
    )
