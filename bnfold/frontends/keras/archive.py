"""Keras files opened with distrust: the zip of a ``.keras`` and HDF5, bounded, whole, and without ways out."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from bnfold.errors import CorruptModelError, SourceError, UnsupportedOpError
from bnfold.frontends.keras.config import Config, generation, parse
from bnfold.frontends.keras.guests import h5py
from bnfold.frontends.keras.trial import read_elsewhere
from bnfold.frontends.keras.window import Window

__all__ = ["Artifact", "Layout", "attribute_list", "open_weights", "read_artifact", "read_text", "read_whole"]

Layout = Literal["names", "slots"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_MEMBERS = 10_000
_MOST_OBJECTS = 1_000_000
_LARGEST_CONFIG = 64 * 2**20
# Weights barely compress; what expands far beyond its stored size is made to fill memory.
_MOST_EXPANSION = 100
_EXPANSION_COUNTS_FROM = 16 * 2**20
_WEIGHTS = "model.weights.h5"
_PIECE = 16 * 2**20
_AGAIN = "Copy or download the file again."
_SAVE_AGAIN = "Save the model again with Keras itself."


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a Keras file says about itself before anything of it is built.

    Attributes:
        path: The file.
        container: ``"zip"`` for ``.keras``, ``"hdf5"`` otherwise.
        layout: How its weights are found: by layer and weight ``"names"`` (Keras 2, legacy), by numbered ``"slots"`` of
            the layers' positions (version 3), None where it holds none that can be looked up.
        version: The Keras version it was written with, empty where the file does not say.
        config: The model's configuration, None for a file of weights only.
    """

    path: Path
    container: Literal["zip", "hdf5"]
    layout: Layout | None
    version: str
    config: Config | None

    @property
    def generation(self) -> int:
        """2 or 3: which Keras reads it."""
        if self.config is not None:
            return generation(self.config, self.version)
        return 2 if self.layout == "names" and not self.version.startswith("3") else 3

    @property
    def framework(self) -> str:
        """For people, for example ``"Keras 2.0.5"``."""
        return f"Keras {self.version or self.generation}"


def read_artifact(path: Path) -> Artifact:
    """Return what a file says about itself.

    Raises:
        CorruptModelError: If it is cut off, not whole, or lacks a part that its kind has.
        UnsupportedOpError: If it was written by Keras 1 or holds the weights of another backend.
        SourceError: If it is neither a ``.keras`` archive nor HDF5.
        MissingExtraError: If it is HDF5 and h5py is not installed.
    """
    # What does not end, or ends its process, does so elsewhere; what could be read there can be read here.
    return _read(path, check=False) if read_elsewhere(path) else read_whole(path)


def read_whole(path: Path) -> Artifact:
    """Return what a file says about itself, after reading all of it and looking for ways out of it.

    Raises:
        BnfoldError: What ``read_artifact`` raises.
    """
    artifact = _read(path, check=True)
    if artifact.layout is not None:
        with _root(artifact) as root:
            _read_through(root)
    return artifact


def _read(path: Path, *, check: bool) -> Artifact:
    with path.open("rb") as file:
        head = file.read(2048 + len(_HDF5_MAGIC))
    if head[:2] == b"PK":
        return _read_zip(path, check=check)
    if any(head.startswith(_HDF5_MAGIC, at) for at in (0, 512, 1024, 2048)):
        return _read_hdf5(path, check=check)
    raise SourceError(
        f"{path.name} is neither a .keras archive nor an HDF5 file",
        hint="Give the file that model.save() wrote.",
    )


def read_text(path: Path, what: str) -> bytes:
    """Return a small text file, such as an architecture in JSON.

    Raises:
        CorruptModelError: If it is larger than any such text.
    """
    if path.stat().st_size > _LARGEST_CONFIG:
        raise CorruptModelError(f"{path.name} has {path.stat().st_size} bytes, too many for {what}", hint=_SAVE_AGAIN)
    return path.read_bytes()


def _read_zip(path: Path, *, check: bool) -> Artifact:
    with _zip(path) as archive:
        names = set(archive.namelist())
        if "config.json" not in names:
            raise CorruptModelError(
                f"{path.name} is a zip archive without the config.json of a Keras model", hint=_AGAIN
            )
        config = parse(_member(archive, "config.json", path, _LARGEST_CONFIG), f"{path.name}/config.json")
        version = ""
        if "metadata.json" in names:
            version = _version(_member(archive, "metadata.json", path, _LARGEST_CONFIG), path)
        if _WEIGHTS not in names and "model.weights.npz" not in names:
            raise CorruptModelError(
                f"{path.name} holds a configuration and no weights ({_WEIGHTS} is missing)", hint=_SAVE_AGAIN
            )
    layout: Layout | None = None
    if _WEIGHTS in names:
        layout = "slots"
        if check:
            with _zip(path) as archive:
                _check_sum(archive)
            with _root(Artifact(path, "zip", layout, version, config), check=True):
                pass
    return Artifact(path, "zip", layout, version, config)


def _version(text: bytes, path: Path) -> str:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        raise CorruptModelError(f"{path.name}/metadata.json is not valid JSON", hint=_AGAIN) from None
    return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise CorruptModelError(
                    f"{path.name} has {len(members)} members; a Keras model has a few", hint=_SAVE_AGAIN
                )
            for member in members:
                _check_member(member, path)
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise CorruptModelError(
            f"{path.name} begins like a .keras archive and is not a whole one: {error}",
            hint=_AGAIN,
        ) from error


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise CorruptModelError(
            f"{path.name} has a member that points out of the archive: {member.filename}", hint=_SAVE_AGAIN
        )
    if member.file_size > max(_EXPANSION_COUNTS_FROM, _MOST_EXPANSION * member.compress_size):
        raise CorruptModelError(
            f"{path.name}: {member.filename} expands from {member.compress_size} to {member.file_size} bytes, "
            f"more than {_MOST_EXPANSION} times",
            hint=_SAVE_AGAIN,
        )


def _check_sum(archive: zipfile.ZipFile) -> None:
    """Read the weights to their end, which is where their checksum is compared."""
    with archive.open(_WEIGHTS) as weights:
        while weights.read(_PIECE):
            pass


def _member(archive: zipfile.ZipFile, name: str, path: Path, largest: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > largest:
        raise CorruptModelError(
            f"{path.name}: {name} has {size} bytes, more than the {largest} that are read", hint=_SAVE_AGAIN
        )
    return archive.read(name)


def _read_hdf5(path: Path, *, check: bool) -> Artifact:
    with _hdf5(path, path.name, check=check) as root:
        text = root.attrs.get("model_config")
        weights = root.get("model_weights", root)
        layout: Layout | None = "slots" if _has_slots(weights) else None
        if attribute_list(weights, "layer_names"):
            layout = "names"
        version = _text(root.attrs.get("keras_version", weights.attrs.get("keras_version", "")))
        backend = _text(root.attrs.get("backend", weights.attrs.get("backend", "tensorflow")))
        if text is None and layout is None:
            raise SourceError(
                f"{path.name} is an HDF5 file that Keras did not write: it holds neither a model nor layers' weights",
                hint="Give the file that model.save() or model.save_weights() wrote.",
            )
        config = None if text is None else parse(_text(text), f"{path.name} (attribute model_config)")
        if config is not None and layout is None:
            raise CorruptModelError(f"{path.name} holds a model's configuration and no weights", hint=_SAVE_AGAIN)
    if version.startswith("1."):
        raise UnsupportedOpError(
            f"{path.name} was written by Keras {version}, which stores weights in another way",
            hint="Load and save it with Keras 2 first.",
        )
    if layout == "names" and not version.startswith("3") and backend in ("theano", "cntk"):
        raise UnsupportedOpError(
            f"{path.name} was written by Keras {version} on {backend}, which stores kernels in another way",
            hint="Load and save it with Keras 2 on TensorFlow first.",
        )
    return Artifact(path, "hdf5", layout, version, config)


def _has_slots(weights: Any) -> bool:
    if "layers" in weights or "_layer_checkpoint_dependencies" in weights:
        return True
    # A model of a class of its own keeps its layers under the names of its attributes.
    return any("vars" in group for group in weights.values() if hasattr(group, "keys"))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def open_weights(artifact: Artifact) -> Iterator[Any]:
    """Open the group that holds the layers' weights, in a file that ``read_artifact`` has read.

    Raises:
        CorruptModelError: If the file is broken.
    """
    with _root(artifact) as root:
        yield root.get("model_weights", root) if artifact.container == "hdf5" else root


@contextmanager
def _root(artifact: Artifact, *, check: bool = False) -> Iterator[Any]:
    if artifact.container == "hdf5":
        with _hdf5(artifact.path, artifact.path.name, check=check) as root:
            yield root
        return
    with _zip(artifact.path) as archive:
        weights = _stored(archive, artifact.path) or io.BytesIO(archive.read(_WEIGHTS))
    with weights, _hdf5(weights, f"{artifact.path.name}/{_WEIGHTS}", check=check) as root:
        yield root


def _stored(archive: zipfile.ZipFile, path: Path) -> io.IOBase | None:
    """Return the weights as a window of the archive; None where they are compressed, which Keras does not do."""
    member = archive.getinfo(_WEIGHTS)
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return Window(path, member.header_offset + 30 + name + extra, member.file_size)


@contextmanager
def _hdf5(file: Path | io.IOBase, where: str, *, check: bool) -> Iterator[Any]:
    library = h5py()
    try:
        with library.File(file, "r") as root:
            if check:
                _check_tree(library, root, where)
            yield root
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
        raise CorruptModelError(
            f"{where} begins like an HDF5 file and cannot be read: {_first_line(error)}",
            hint=_AGAIN,
        ) from error


def _read_through(root: Any) -> None:
    """Read everything that whoever builds the model might read: it is damage that makes the library loop or crash.

    What cannot be read may not be needed: whoever needs it says so.
    """

    def visit(_name: str, item: Any) -> None:
        _read_attributes(item)
        if getattr(item, "chunks", None):  # what lies in one piece takes no library to be found
            _read_values(item)

    _read_attributes(root)
    root.visititems(visit)


def _read_attributes(item: Any) -> None:
    for name in item.attrs:
        with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):
            item.attrs[name]


def _read_values(dataset: Any) -> None:
    rows = max(1, _PIECE // max(1, dataset.nbytes // max(1, dataset.shape[0])))
    for start in range(0, dataset.shape[0], rows):
        with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):
            dataset[start : start + rows]


def _check_tree(library: Any, root: Any, where: str) -> None:
    seen: set[int] = set()
    stack = [root]
    count = 0
    while stack:
        group = stack.pop()
        address = library.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            count += 1
            if count > _MOST_OBJECTS:
                raise CorruptModelError(
                    f"{where} has more than {_MOST_OBJECTS} objects; a Keras model has a few", hint=_SAVE_AGAIN
                )
            link = group.get(name, getlink=True)
            place = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, library.ExternalLink):
                raise CorruptModelError(
                    f"{where}: {place} is a link to another file, {link.filename}", hint=_SAVE_AGAIN
                )
            if isinstance(link, library.SoftLink):
                raise CorruptModelError(
                    f"{where}: {place} is a link to {link.path}, and weights are not linked", hint=_SAVE_AGAIN
                )
            item = group[name]
            if isinstance(item, library.Dataset):
                _check_dataset(item, f"{where}: {place}")
            elif isinstance(item, library.Group):
                stack.append(item)


def _check_dataset(dataset: Any, place: str) -> None:
    if dataset.is_virtual:
        raise CorruptModelError(f"{place} is a virtual dataset, which reads from other files", hint=_SAVE_AGAIN)
    if dataset.external:
        raise CorruptModelError(f"{place} keeps its values in another file, {dataset.external[0][0]}", hint=_SAVE_AGAIN)
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > max(_EXPANSION_COUNTS_FROM, _MOST_EXPANSION * stored):
        raise CorruptModelError(
            f"{place} expands from {stored} to {dataset.nbytes} bytes, more than {_MOST_EXPANSION} times",
            hint=_SAVE_AGAIN,
        )


def attribute_list(group: Any, name: str) -> list[str]:
    """Return a list of names that Keras keeps in an attribute, or in several where one would be too large."""
    if name in group.attrs:
        return [_text(item) for item in group.attrs[name]]
    found: list[str] = []
    part = 0
    while f"{name}{part}" in group.attrs:
        found += [_text(item) for item in group.attrs[f"{name}{part}"]]
        part += 1
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
