"""From a trained artifact on disk to an ONNX model in inference mode."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import weakref
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bnfold.errors import BnfoldError, MissingExtraError, UnknownFormatError
from bnfold.frontends.sniff import Format, checkpoint_prefix
from bnfold.frontends.sniff import sniff as format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bnfold.frontends.glance import Glance
    from bnfold.frontends.loaded import Loaded, Request

__all__ = ["load", "look"]

_GUESTS: Mapping[str, tuple[str, ...]] = {
    "tensorflow": ("tensorflow", "keras", "tf_keras", "tf2onnx", "h5py"),
    "torch": ("torch", "onnxscript"),
}
"""What each extra installs."""

_PACKED: Mapping[Format, Format] = {
    Format.SAVED_MODEL_ARCHIVE: Format.SAVED_MODEL,
    Format.ONNX_ARCHIVE: Format.ONNX,
    Format.CHECKPOINT_ARCHIVE: Format.CHECKPOINT,
}
"""Formats of archives, and what is in them."""


def load(path: Path, request: Request) -> Loaded:
    """Turn an artifact of any format that is read into an ONNX model, with its original program beside it.

    Args:
        path: A file, a folder, or the prefix of a checkpoint's files.
        request: What the caller knows about the artifact.

    Raises:
        UnknownFormatError: If there is no such path, or its content is in no known format.
        CorruptModelError: If its format is known, and it is damaged or incomplete.
        MissingExtraError: If TensorFlow or PyTorch is needed and not installed.
        SignatureError: If inputs or outputs are ambiguous or unknown.
        UnsupportedOpError: If a layer or an operation cannot be converted.
        InferenceModeError: If it cannot be put in inference mode.
        OSError: If it exists and cannot be read.
    """
    found = format_of(path)
    match found:
        case Format.ONNX:
            return _reader("onnx")(path, request)
        case Format.KERAS | Format.KERAS_H5 | Format.KERAS_WEIGHTS:
            return _with_guests("keras", path, request, found)
        case Format.SAVED_MODEL:
            folder = path if path.is_dir() else path.parent
            return _with_guests("tensorflow.saved_model", folder, request, found)
        case Format.SAVED_MODEL_ARCHIVE | Format.ONNX_ARCHIVE | Format.CHECKPOINT_ARCHIVE:
            return _from_archive(path, request, found)
        case Format.FROZEN_GRAPH | Format.FROZEN_GRAPH_TEXT:
            return _with_guests("tensorflow.frozen_graph", path, request, found)
        case Format.META_GRAPH | Format.CHECKPOINT:
            if path.name == "checkpoint" and path.is_file():
                path = path.parent
            source = path if path.is_dir() else checkpoint_prefix(path) or path
            return _with_guests("tensorflow.checkpoint", source, request, found)
        case Format.TORCH_EXPORT:
            return _with_guests("torch.loading", path, request, found, extra="torch")


def look(path: Path) -> Glance:
    """Say what an artifact of a framework is from its file alone: nothing is imported that could run it.

    Args:
        path: A file, a folder, or the prefix of a checkpoint's files; of any format but ONNX, in an archive or not,
            which ``load`` reads.

    Raises:
        UnknownFormatError: If there is no such path, or its content is in no known format.
        CorruptModelError: If its format is known, and it is damaged or incomplete.
        MissingExtraError: If it holds HDF5 and h5py is not installed.
        UnsupportedOpError: If it was written by a framework too old to be read.
        OSError: If it exists and cannot be read.
    """
    found = format_of(path)
    assert found not in (Format.ONNX, Format.ONNX_ARCHIVE), "an ONNX file is loaded"
    if found in (Format.KERAS, Format.KERAS_H5, Format.KERAS_WEIGHTS):
        from bnfold.frontends.keras.look import look as look_at_keras

        return look_at_keras(path, found)
    if found is Format.TORCH_EXPORT:
        from bnfold.frontends.torch.look import look as look_at_program

        return look_at_program(path)
    from bnfold.frontends.tensorflow.look import look as look_at_graph

    if found not in _PACKED:
        return look_at_graph(path, found)
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder, _called(Path(folder), path):
        glance = look_at_graph(_unpacked(path, Path(folder), found), _PACKED[found])
    return replace(glance, path=str(path), format=found.value, description=found.described, bytes=path.stat().st_size)


def _reader(module: str) -> Callable[[Path, Request], Loaded]:
    """Return a frontend's function, imported only now: a format costs nothing until it is met."""
    imported = importlib.import_module(f"bnfold.frontends.{module}")
    return cast("Callable[[Path, Request], Loaded]", imported.load)


def _with_guests(module: str, path: Path, request: Request, found: Format, *, extra: str = "tensorflow") -> Loaded:
    guests = _GUESTS[extra]
    missing = [guest for guest in guests if find_spec(guest) is None]
    if missing:
        raise _missing(found, missing[0], extra)
    try:
        return _reader(module)(path, request)
    except BnfoldError:
        raise
    except ModuleNotFoundError as error:
        guest = (error.name or "").partition(".")[0]
        if guest in guests:
            raise _missing(found, guest, extra) from error
        raise


def _missing(found: Format, guest: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"reading a {found.described} takes {guest}, which is not installed",
        hint=f"Install what is missing with: pip install 'bnfold[{extra}]'",
    )


def _unpacked(path: Path, folder: Path, found: Format) -> Path:
    """Unpack an archive, and return the model in it, whose content is what its name says."""
    from bnfold.frontends.archive import unpack

    inside = unpack(path, folder)
    if (held := format_of(inside)) is not _PACKED[found]:
        raise UnknownFormatError(
            f"the model in {path} is not what its name says: {held.described}",
            hint="Unpack it and name the model inside.",
        )
    return inside


@contextmanager
def _called(folder: Path, path: Path) -> Iterator[None]:
    """Have errors name files of an archive, and not where they were unpacked to."""
    try:
        yield
    except BnfoldError as error:
        error.args = tuple(str(told).replace(str(folder), str(path)) for told in error.args)
        error.hint = error.hint.replace(str(folder), str(path))
        raise


def _from_archive(path: Path, request: Request, found: Format) -> Loaded:
    folder = Path(tempfile.mkdtemp(prefix="bnfold-"))
    try:
        with _called(folder, path):
            inside = _unpacked(path, folder, found)
            # Nothing stays in files that are gone once this has returned.
            loaded = load(inside, replace(request, outside=None))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if found is Format.SAVED_MODEL_ARCHIVE:
        loaded = replace(loaded, format=found.value)
    else:
        loaded = replace(loaded, description=f"{loaded.description}, in an archive")
    if loaded.run is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        # The files stay as long as the original program: TensorFlow reads assets when they are first used.
        weakref.finalize(loaded.run, shutil.rmtree, folder, ignore_errors=True)
    return loaded
