"""The archive that ``torch.export.save`` writes, opened with distrust: JSON and raw numbers, and nothing that runs.

PyTorch's own reader unpickles what an archive calls sample inputs, custom objects or pickled weights, and loads
compiled libraries out of it. None of that is needed here: a program is JSON, and its weights are bytes.
"""

from __future__ import annotations

import errno
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bnfold.errors import CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.frontends.archive import archive_names
from bnfold.frontends.loaded import Array
from bnfold.frontends.signature import listed, unknown_name

__all__ = ["DTYPES", "Packed", "Payload", "Tree", "as_written", "read_archive"]

Tree = dict[str, Any]
"""A JSON object."""

_LARGEST_TEXT = 512 << 20
_AGAIN = "Copy or download the file again."
_EXPORT_AGAIN = "Export and save the program again, with torch.export.export and torch.export.save."
_SAVE_AGAIN = "Save it again in PyTorch, with torch.export.save(program, 'model.pt2')."

DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.float16),
    7: np.dtype(np.float32),
    8: np.dtype(np.float64),
    9: np.dtype("V4"),  # two float16, which numpy has no complex number of
    10: np.dtype(np.complex64),
    11: np.dtype(np.complex128),
    12: np.dtype(np.bool_),
    13: np.dtype(ml_dtypes.bfloat16),
    28: np.dtype(np.uint16),
    29: np.dtype(ml_dtypes.float8_e4m3fn),
    30: np.dtype(ml_dtypes.float8_e5m2),
    31: np.dtype(ml_dtypes.float8_e4m3fnuz),
    32: np.dtype(ml_dtypes.float8_e5m2fnuz),
    34: np.dtype(np.uint32),
    35: np.dtype(np.uint64),
}
"""numpy's element types, by the numbers that PyTorch's archives give them."""

_STRIDED = 7


@contextmanager
def as_written(where: str) -> Iterator[None]:
    """Answer for JSON of another form than PyTorch writes, wherever a block runs into it.

    Raises:
        CorruptModelError: In place of what Python says of a key, a type or a number that is not there.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RecursionError) as error:
        words = f"{type(error).__name__}: {error}"[:200]
        raise CorruptModelError(f"{where} is not a program as PyTorch writes it: {words}", hint=_EXPORT_AGAIN) from None


@dataclass(frozen=True, slots=True)
class Payload:
    """Where in an archive a tensor lies, and how.

    Attributes:
        member: The archive's file that holds it.
        dtype: Its element type.
        sizes: Its shape.
        strides: How many elements lie between neighbours, for each axis.
        offset: The place of its first element in the file.
        described: What the archive says of it.
    """

    member: str
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    described: Tree = field(repr=False)

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.sizes)


@dataclass(frozen=True, slots=True)
class Packed:
    """An exported program as it lies in its archive.

    Attributes:
        path: The archive.
        root: What the names of its files begin with.
        name: The program's name in it.
        program: The program, as JSON says it.
        weights: Parameters and buffers, by their paths in the network.
        constants: Tensors that are neither, by the names of attributes.
    """

    path: Path
    root: str
    name: str
    program: Tree = field(repr=False)
    weights: Mapping[str, Payload] = field(repr=False)
    constants: Mapping[str, Payload] = field(repr=False)

    @property
    def version(self) -> str:
        """The PyTorch that wrote it."""
        return str(self.program.get("torch_version", ""))

    def contents(self, members: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield files of the archive and what is in them, one after the other."""
        with _opened(self.path) as archive:
            for member in members:
                yield member, archive.read(member)

    def value(self, payload: Payload) -> Array:
        """Return a tensor's numbers."""
        ((_, content),) = self.contents([payload.member])
        flat = np.frombuffer(content, payload.dtype)
        if not payload.elements:
            return np.zeros(payload.sizes, payload.dtype)
        steps = [stride * payload.dtype.itemsize for stride in payload.strides]
        return np.lib.stride_tricks.as_strided(flat[payload.offset :], payload.sizes, steps, writeable=False)


def read_archive(path: Path, signature: str | None = None) -> Packed:
    """Return the program in an archive, after looking at everything that belongs to it.

    Args:
        path: The ``.pt2`` file.
        signature: Which program, where it holds several.

    Raises:
        CorruptModelError: If it breaks off, or its parts do not fit together.
        SignatureError: If it holds several programs and none was chosen, or not the one that was asked for.
        UnsupportedOpError: If it holds something that only running code from the file could bring back.
    """
    names = archive_names(path, b"PK\x03\x04")
    programs = {
        name.rpartition("/")[2].removesuffix(".json"): name
        for name in names
        if name.endswith(".json") and name.split("/")[-2:-1] == ["models"]
    }
    if not programs:
        raise CorruptModelError(f"{path.name} holds no exported program", hint=_SAVE_AGAIN)
    chosen = _chosen(path, sorted(programs), signature)
    root = programs[chosen].removesuffix(f"models/{chosen}.json")
    with _opened(path) as archive:
        _check_members(archive, path)
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        if order != b"little":
            raise UnsupportedOpError(
                f"{path.name} holds its weights in the byte order {order[:20].decode('ascii', 'replace')}",
                hint="Save it again on a machine of the usual byte order, which is little.",
            )
        program = _text(archive, programs[chosen], path)
        with as_written(path.name):
            weights = _table(archive, f"{root}data/weights/", f"{chosen}_weights_config.json", path, required=True)
            constants = _table(archive, f"{root}data/constants/", f"{chosen}_constants_config.json", path)
    return Packed(path, root, chosen, program, weights, constants)


def _chosen(path: Path, names: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in names:
            raise unknown_name("signature", wanted, names, option="--signature")
        return wanted
    for name in ("model", *(names if len(names) == 1 else [])):
        if name in names:
            return name
    raise SignatureError(
        f"{path.name} holds {len(names)} programs, and none is called model: {listed(names)}",
        hint=f"Choose one, for example: --signature {names[0]}",
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError, ValueError,
            struct.error, OSError) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        reason = " ".join(str(error).split())[:200]
        raise CorruptModelError(
            f"{path.name} is an archive that breaks off or is damaged: {reason}", hint=_AGAIN
        ) from None


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what PyTorch does not write: files that are compressed, and so may be far larger than the archive."""
    total = 0
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CorruptModelError(
                f"{path.name}: {member.filename} is compressed, and PyTorch does not compress what it saves",
                hint=_SAVE_AGAIN,
            )
        total += member.file_size
    if total > path.stat().st_size:
        raise CorruptModelError(
            f"{path.name} has {path.stat().st_size} bytes and says that it holds {total}", hint=_AGAIN
        )


def _text(archive: zipfile.ZipFile, name: str, path: Path) -> Tree:
    size = archive.getinfo(name).file_size
    if size > _LARGEST_TEXT:
        raise CorruptModelError(f"{path.name}: {name} has {size} bytes, too many for a program", hint=_SAVE_AGAIN)
    try:
        found = json.loads(archive.read(name))
    except (ValueError, RecursionError):
        raise CorruptModelError(f"{path.name}/{name} is not valid JSON", hint=_AGAIN) from None
    if not isinstance(found, dict):
        raise CorruptModelError(f"{path.name}/{name} is not what PyTorch writes there", hint=_SAVE_AGAIN)
    return found


def _table(
    archive: zipfile.ZipFile, folder: str, config: str, path: Path, *, required: bool = False
) -> dict[str, Payload]:
    names = set(archive.namelist())
    if f"{folder}{config}" not in names:
        old = f"{folder}{config.partition('_')[0]}.pt"
        if old in names:
            raise UnsupportedOpError(
                f"{path.name} holds its numbers as a Python pickle, {old}, which is a program and is not run",
                hint="Load it in the PyTorch that wrote it, and save it with PyTorch 2.9 or newer.",
            )
        if required:
            raise CorruptModelError(f"{path.name}: {folder}{config} is missing", hint=_SAVE_AGAIN)
        return {}
    told = _text(archive, f"{folder}{config}", path).get("config")
    if not isinstance(told, dict):
        raise CorruptModelError(f"{path.name}/{folder}{config} is not what PyTorch writes there", hint=_SAVE_AGAIN)
    found = {}
    for name, entry in told.items():
        place = f"{path.name}: the tensor {name}"
        if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
            raise CorruptModelError(f"{place} is not described as PyTorch does it", hint=_SAVE_AGAIN)
        if entry.get("use_pickle") or not isinstance(entry.get("tensor_meta"), dict):
            raise UnsupportedOpError(
                f"{place} is stored as a Python pickle, which is a program and is not run",
                hint="Make plain tensors of parameters of a class of their own, and export the network again.",
            )
        member = f"{folder}{entry['path_name']}"
        if member not in names:
            raise CorruptModelError(f"{place} lies in {member}, which is missing", hint=_SAVE_AGAIN)
        found[str(name)] = _payload(member, entry["tensor_meta"], archive.getinfo(member).file_size, place)
    return found


def _payload(member: str, told: Tree, size: int, place: str) -> Payload:
    """Return where a tensor lies, once all of it is known to lie inside its file."""
    dtype = DTYPES.get(told.get("dtype", 0))
    if dtype is None or told.get("layout") != _STRIDED:
        raise UnsupportedOpError(
            f"{place} has the element type {told.get('dtype')} in the layout {told.get('layout')}, which is not read",
            hint="Make it a dense tensor of numbers, and export the network again.",
        )
    numbers = [_number(told, key, place) for key in ("sizes", "strides")]
    (offset,) = _number({"offset": [told.get("storage_offset")]}, "offset", place)
    sizes, strides = numbers
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=False))
    if len(sizes) != len(strides) or (all(sizes) and (last + 1) * dtype.itemsize > size) or size % dtype.itemsize:
        raise CorruptModelError(
            f"{place} has the shape {list(sizes)} of {dtype}, and its file has {size} bytes", hint=_AGAIN
        )
    return Payload(member, dtype, sizes, strides, offset, told)


def _number(told: Tree, key: str, place: str) -> tuple[int, ...]:
    found = []
    for entry in told.get(key) or ():
        value = entry.get("as_int") if isinstance(entry, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
            raise CorruptModelError(f"{place} has the {key} {told.get(key)}, which are no whole numbers", hint=_AGAIN)
        found.append(value)
    return tuple(found)
