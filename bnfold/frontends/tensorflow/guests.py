"""TensorFlow and tf2onnx, imported late, and kept quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from bnfold.errors import MissingExtraError

__all__ = ["native_quiet", "quiet", "tensorflow", "tf2onnx"]


_one_at_a_time = Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the guests' warnings and log lines away from the user while the block runs."""
    root = logging.getLogger()
    # tf2onnx writes to the root logger, which gives itself an output when it has none.
    handlers, level = list(root.handlers), root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers


def tensorflow(name: str = "tensorflow") -> Any:  # a guest has no types of its own
    """Return the module ``tensorflow``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    tf = _guest("tensorflow")
    _hush(tf)
    return tf if name == "tensorflow" else _guest(name)


def tf2onnx(name: str = "tf2onnx") -> Any:
    """Return the module ``tf2onnx``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    tensorflow()
    return _guest(name)


@cache
def _guest(name: str) -> Any:
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


@cache
def _hush(tf: Any) -> None:
    """Run a first session where nobody hears it: it writes a line on MLIR, past every log level."""
    with native_quiet(), quiet(), tf.Graph().as_default() as graph:
        one = tf.constant(1.0)
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(one)


@contextmanager
def native_quiet() -> Iterator[None]:
    """Keep away what native code writes to the standard error output past Python, for the milliseconds of a block."""
    with _one_at_a_time:
        try:
            spare = os.dup(2)
        except OSError:  # there is no standard error output to keep clean
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(spare, 2)
            os.close(spare)
