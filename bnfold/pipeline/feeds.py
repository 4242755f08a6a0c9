"""The caller's own inputs, read and checked against the model's signature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnfold.errors import CorruptModelError, SignatureError
from bnfold.frontends.loaded import Array, TensorSpec

__all__ = ["load_feeds"]


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
    found = _read(path)
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
