"""The caller's own inputs, read and checked against the model's signature."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bnfold.errors import BnfoldError, CorruptModelError, SignatureError, SourceError
from bnfold.frontends.loaded import Array, TensorSpec
from bnfold.frontends.own_code import first_line
from bnfold.pipeline.code import is_function, load_function

__all__ = ["Given", "load_feeds", "load_given"]

_MOST = 256
"""Sets of inputs that are taken from one folder or function; the function may go on for ever."""


@dataclass(frozen=True, slots=True)
class Given:
    """One set of inputs, and what was stored beside it.

    Attributes:
        feeds: An array for every input of the model.
        beside: All arrays of the file, labels among them; the user's own metric gets them.
    """

    feeds: Mapping[str, Array] = field(repr=False)
    beside: Mapping[str, Array] = field(repr=False)


def load_given(path: Path, inputs: Sequence[TensorSpec]) -> tuple[Given, ...]:
    """Return the caller's own inputs, one or several sets.

    Args:
        path: An ``.npz`` file or a folder of ``.npy`` files, each array named as its input is; a folder of ``.npz``
            files; or ``file.py:function``, where the function takes nothing and returns or yields mappings of arrays. A
            single array under any name goes to the single input of a model.
        inputs: The model's inputs.

    Raises:
        CorruptModelError: If a file holds no arrays.
        SignatureError: If an input has no array, or one that it cannot take.
        SourceError: If the function does not give any.
        OSError: If a file cannot be read.
    """
    if is_function(str(path)) and not path.exists():
        sets = _called(str(path))
        return tuple(Given(_fed(found, inputs, path), found) for found in sets)
    archives = sorted(path.glob("*.npz")) if path.is_dir() else []
    if not archives:
        found = _read(path)
        return (Given(_fed(found, inputs, path), found),)
    if any(path.glob("*.npy")):
        raise SignatureError(
            f"{path} holds both .npz and .npy files",
            hint="Give a folder of one kind: .npz is one set of inputs a file.",
        )
    return tuple(Given(_fed(found, inputs, file), found) for file in archives[:_MOST] for found in (_read(file),))


def _called(named: str) -> tuple[Mapping[str, Array], ...]:
    """Return what the caller's function yields."""
    function = load_function(named, option="--data")
    try:
        found = function()
        several: Iterable[object] = (found,) if isinstance(found, Mapping) else found
        sets = list(itertools.islice(iter(several), _MOST))
    except BnfoldError:
        raise
    except Exception as error:
        raise SourceError(
            f"--data: {named} raised {type(error).__name__}: {first_line(error)}",
            hint="Make the function work without arguments and return or yield inputs by name.",
        ) from error
    if not sets or not all(isinstance(item, Mapping) for item in sets):
        raise SourceError(
            f"--data: {named} gives {'nothing' if not sets else 'something else than arrays by name'}",
            hint="Return or yield mappings from the names of inputs to arrays.",
        )
    return tuple(
        {str(name): np.asarray(value) for name, value in item.items()} for item in sets if isinstance(item, Mapping)
    )


def load_feeds(path: Path, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return one array for every input of a model.

    Args:
        path: An ``.npz`` file, or a folder of ``.npy`` files; each array is named as its input is. A single array under
            any name goes to the single input of a model.
        inputs: The model's inputs.

    Raises:
        CorruptModelError: If the file holds no arrays.
        SignatureError: If an input has no array, or one that it cannot take.
        OSError: If the file cannot be read.
    """
    return _fed(_read(path), inputs, path)


def _fed(found: Mapping[str, Array], inputs: Sequence[TensorSpec], path: Path) -> dict[str, Array]:
    if len(inputs) == 1 and len(found) == 1:
        found = {inputs[0].name: next(iter(found.values()))}
    by_plain_name = {_plain(name): array for name, array in found.items()}
    feeds = {}
    for spec in inputs:
        array = found.get(spec.name, by_plain_name.get(_plain(spec.name)))
        if array is None:
            raise SignatureError(
                f"{path} has no array for the input {spec.name}; it holds {', '.join(sorted(found)) or 'nothing'}",
                hint=f"Name the arrays as the inputs: {', '.join(spec.name for spec in inputs)}.",
            )
        feeds[spec.name] = _fitted(array, spec, path)
    return feeds


def _read(path: Path) -> dict[str, Array]:
    if path.is_dir():
        return {file.stem: _array(file) for file in sorted(path.glob("*.npy"))}
    if path.suffix == ".npy":
        return {path.stem: _array(path)}
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except MemoryError:
            raise
        except Exception:  # a damaged archive makes numpy and zipfile raise a dozen kinds
            hint = "Write the inputs with numpy.savez, one array per input, or give a folder of .npy files."
            raise CorruptModelError(f"{path} is no archive of NumPy arrays", hint=hint) from None


def _array(path: Path) -> Array:
    with path.open("rb") as file:
        try:
            array: Array = np.load(file, allow_pickle=False)
        except MemoryError:
            raise
        except Exception:  # as above
            raise CorruptModelError(f"{path} is no NumPy array", hint="Write it with numpy.save.") from None
    return array


def _plain(name: str) -> str:
    """Return a name as it can stand in a file name: TensorFlow's have slashes, and end in ``:0``."""
    return name.removesuffix(":0").replace("/", "_").replace(":", "_")


def _fitted(array: Array, spec: TensorSpec, path: Path) -> Array:
    wanted = "(" + ", ".join("?" if size is None else str(size) for size in spec.shape) + ")"
    fits = array.ndim == len(spec.shape) and all(
        size == expected for size, expected in zip(array.shape, spec.shape, strict=True) if isinstance(expected, int)
    )
    if not fits:
        raise SignatureError(
            f"the input {spec.name} takes the shape {wanted}, and {path} has {array.shape}",
            hint="Give it arrays of that shape; a size that is not a number may be anything.",
        )
    if 0 in array.shape:
        raise SignatureError(f"the array for {spec.name} in {path} is empty", hint="Give it at least one sample.")
    kind = np.dtype(spec.dtype) if spec.dtype in np.sctypeDict else array.dtype
    if not np.can_cast(array.dtype, kind, "same_kind"):
        raise SignatureError(
            f"the input {spec.name} takes {spec.dtype}, and {path} has {array.dtype}",
            hint=f"Convert the array with astype('{spec.dtype}').",
        )
    return array.astype(kind, copy=False)
