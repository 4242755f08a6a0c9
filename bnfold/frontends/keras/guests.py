"""Both generations of Keras and h5py, imported late and quietly; the settings they read while imported come back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bnfold.errors import MissingExtraError
from bnfold.frontends.tensorflow.guests import quiet, tensorflow

__all__ = ["h5py", "keras_of", "quiet", "tensorflow"]

# The file decides which Keras reads it, and both run on TensorFlow, whatever this process is set to.
_IMPORT_SETTINGS = {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": None}


@contextmanager
def _environment(settings: dict[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings: dict[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _guest(name: str, what: str) -> Any:  # a guest has no types of its own
    try:
        with quiet(), _environment(_IMPORT_SETTINGS):
            return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"reading {what} takes the package {name}, which cannot be imported: {error}",
            hint="Install it: pip install 'bnfold[tensorflow]'.",
        ) from error


def h5py() -> Any:
    """Return the module ``h5py``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return _guest("h5py", "Keras files")


def keras_of(generation: int) -> Any:
    """Return the Keras that reads files of a generation: ``tf_keras`` for 2, ``keras`` for 3.

    Raises:
        MissingExtraError: If it is not installed, or runs on something else than TensorFlow in this process.
    """
    tensorflow()
    keras = _guest("keras" if generation >= 3 else "tf_keras", f"files of Keras {generation}")
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise MissingExtraError(
            f"Keras runs on {backend} in this process, and reading its files takes TensorFlow",
            hint="Run the conversion in a process of its own, or set KERAS_BACKEND=tensorflow.",
        )
    return keras
