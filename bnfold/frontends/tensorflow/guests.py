"""TensorFlow and tf2onnx, imported late, and kept quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bnfold.errors import MissingExtraError

__all__ = ["quiet", "tensorflow", "tf2onnx"]

_LOGGERS = ("tensorflow", "absl", "tf2onnx", "tf_keras", "keras")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the guests' warnings and log lines away from the user while the block runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def tensorflow(name: str = "tensorflow") -> Any:  # noqa: ANN401  # a guest has no types of its own
    """Return the module ``tensorflow``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return _guest(name)


def tf2onnx(name: str = "tf2onnx") -> Any:  # noqa: ANN401
    """Return the module ``tf2onnx``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    _guest("tensorflow")
    return _guest(name)


def _guest(name: str) -> Any:  # noqa: ANN401
    # TensorFlow's native code reads this now and then, not only while it is imported, so it stays set.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"reading TensorFlow files takes the package {name.partition('.')[0]}, which cannot be imported: {error}",
            hint="Install it: pip install 'bnfold[tensorflow]'",
        ) from error
