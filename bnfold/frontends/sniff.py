"""What a file or a folder is: by its content first, and by its suffix only where the content leaves it open."""

from __future__ import annotations

import mmap
import re
import stat
import struct
from enum import StrEnum
from pathlib import Path

from bnfold.errors import CorruptModelError, UnknownFormatError
from bnfold.frontends.archive import archive_names, is_gzip, is_tar, is_zip, model_in
from bnfold.frontends.foreign import DATA, TORCH_EXPORT_HINT, WHICH, refuse_by_magic
from bnfold.frontends.wire import Kind, kind_of

__all__ = ["Format", "checkpoint_prefix", "sniff"]

_HEAD = 4096


class Format(StrEnum):
    """What an artifact is."""

    ONNX = "onnx"
    KERAS = "keras"
    KERAS_H5 = "h5"
    KERAS_WEIGHTS = "h5-weights"
    SAVED_MODEL = "saved-model"
    SAVED_MODEL_ARCHIVE = "saved-model-archive"
    ONNX_ARCHIVE = "onnx-archive"
    CHECKPOINT_ARCHIVE = "checkpoint-archive"
    FROZEN_GRAPH = "frozen-graph"
    FROZEN_GRAPH_TEXT = "frozen-graph-text"
    META_GRAPH = "meta-graph"
    CHECKPOINT = "checkpoint"
    TORCH_EXPORT = "pt2"

    @property
    def described(self) -> str:
        """A short name for people."""
        return _DESCRIBED[self]


_DESCRIBED = {
    Format.ONNX: "ONNX",
    Format.KERAS: "Keras model",
    Format.KERAS_H5: "Keras model in HDF5",
    Format.KERAS_WEIGHTS: "Keras weights",
    Format.SAVED_MODEL: "SavedModel",
    Format.SAVED_MODEL_ARCHIVE: "SavedModel in an archive",
    Format.ONNX_ARCHIVE: "ONNX in an archive",
    Format.CHECKPOINT_ARCHIVE: "TF1 checkpoint in an archive",
    Format.FROZEN_GRAPH: "TF1 frozen graph",
    Format.FROZEN_GRAPH_TEXT: "TF1 frozen graph as text",
    Format.META_GRAPH: "TF1 meta graph",
    Format.CHECKPOINT: "TF1 checkpoint",
    Format.TORCH_EXPORT: "PyTorch exported program",
}

_TABLE = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
"""The last bytes of a table file, which TensorFlow's checkpoint indexes are."""

_SINGLE = (".keras", ".h5", ".hdf5", ".pb", ".meta")
_PART = re.compile(r"\.data-\d+-of-\d+$")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def sniff(path: Path) -> Format:
    """Say what an artifact is, without importing any framework and with bounded effort.

    The content decides. A suffix only breaks ties, and names the parts of a checkpoint.

    Args:
        path: A file, a folder, or the prefix of a checkpoint's files.

    Raises:
        UnknownFormatError: If it is nothing that can be read; the message says what it looks like instead. This is
            also what a path that does not exist raises.
        CorruptModelError: If its format is known, and the file breaks off.
        OSError: If it exists and cannot be read.
    """
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _missing(path)
    if stat.S_ISDIR(about.st_mode):
        return _folder(path)
    if not stat.S_ISREG(about.st_mode):
        raise UnknownFormatError(
            f"{path} is a device or a pipe, not a file", hint="Write the model to a file first, and name that."
        )
    if about.st_size == 0:
        raise UnknownFormatError(f"{path} is empty", hint="Export the model again, or download it again.")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _file(path, head, content)


def checkpoint_prefix(path: Path) -> Path | None:
    """Return the prefix that a checkpoint's files have in common, given it or one of the files.

    ``model-1000``, ``model-1000.index`` and ``model-1000.data-00000-of-00001`` all have the prefix ``model-1000``.
    None where no checkpoint's index stands at that prefix.
    """
    name = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name)
    for prefix in (path, path.with_name(name)):
        if prefix.name and prefix.with_name(f"{prefix.name}.index").is_file():
            return prefix
    return None


def _missing(path: Path) -> Format:
    prefix = checkpoint_prefix(path)
    if prefix is None:
        near = ""
        folder = path.parent
        if folder.is_dir():
            import difflib

            close = difflib.get_close_matches(path.name, [entry.name for entry in _listed(folder)], n=1)
            near = f" Did you mean {folder / close[0]}?" if close else ""
        raise UnknownFormatError(f"no such file: {path}", hint=f"Check the path for a typing mistake.{near}")
    return _checkpoint(prefix)


def _checkpoint(prefix: Path) -> Format:
    if (prefix.parent.parent / "saved_model.pb").is_file() and prefix.parent.name == "variables":
        raise UnknownFormatError(
            f"{prefix} holds the variables of a SavedModel", hint=f"Name the SavedModel: {prefix.parent.parent}"
        )
    if not prefix.with_name(f"{prefix.name}.meta").is_file():
        raise UnknownFormatError(
            f"{prefix} is a checkpoint without its graph: {prefix.name}.meta is not there",
            hint="Put the .meta file of the same run beside it, or save the whole model as .keras or SavedModel.",
        )
    return Format.CHECKPOINT


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, and not more of it than can be said."""
    entries = []
    for entry in folder.iterdir():
        entries.append(entry)
        if len(entries) == 1000:
            break
    return sorted(entries)


def _folder(path: Path) -> Format:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return Format.SAVED_MODEL
    entries = _listed(path)
    names = [entry.name for entry in entries]
    indexes = [name.removesuffix(".index") for name in names if name.endswith(".index")]
    metas = [name.removesuffix(".meta") for name in names if name.endswith(".meta")]
    if set(metas) & set(indexes) or any(_is_table(path / name) for name in metas if name in names):
        return Format.CHECKPOINT
    if indexes:
        return _checkpoint(path / indexes[-1])
    if {"config.json", "metadata.json"} <= set(names):
        raise UnknownFormatError(
            f"{path} is a folder that looks like an unpacked .keras file", hint="Name the .keras file itself."
        )
    models = [name for name in names if name.endswith((".onnx", *_SINGLE))]
    if models:
        hint = f"Name the file inside it, for example: {path / models[0]}"
    else:
        below = [entry for entry in entries if (entry / "saved_model.pb").is_file()]
        hint = f"Name the folder inside it: {below[0]}" if below else WHICH
    holds = f"it holds {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    raise UnknownFormatError(f"{path} is a folder without a SavedModel or a checkpoint: {holds}", hint=hint)


def _is_table(path: Path) -> bool:
    """Say whether a file is a table: the first form of checkpoints keeps everything in one, without an index."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(-min(len(_TABLE), path.stat().st_size), 2)
        return file.read() == _TABLE


def _file(path: Path, head: bytes, content: mmap.mmap) -> Format:
    prefix = checkpoint_prefix(path)
    if prefix is not None and _PART.search(path.name):
        return _checkpoint(prefix)  # bare numbers, which may look like anything
    for at in (0, 512, 1024, 2048):
        if head[at : at + 8] == _HDF5:
            return _hdf5(path, head[at:], content)
    if is_zip(head):
        return _zip(path, head)
    if is_gzip(head) or is_tar(head):
        return _tar(path, head)
    if content[-8:] == _TABLE:
        return _checkpoint(checkpoint_prefix(path) or path)
    refuse_by_magic(path, head, content)
    found = _protobuf(path, content)
    if found is not None:
        return found
    text = _text(head)
    return _undecided(path, head, content) if text is None else _from_text(path, text)


def _undecided(path: Path, head: bytes, content: mmap.mmap) -> Format:
    """Decide by the suffix where the content leaves it open, and refuse where that says nothing either."""
    if head[0] == 0x08 and path.suffix.lower() == ".onnx":
        return Format.ONNX  # begins like one: whoever reads it says where it breaks off
    if kind_of(content) is Kind.OTHER:
        raise UnknownFormatError(f"{path} looks like a protobuf file that holds no known model", hint=WHICH)
    raise UnknownFormatError(f"{path} is in no known format: its {len(content)} bytes look random", hint=WHICH)


def _protobuf(path: Path, content: mmap.mmap) -> Format | None:
    match kind_of(content):
        case Kind.ONNX:
            return Format.ONNX
        case Kind.GRAPH:
            return Format.FROZEN_GRAPH
        case Kind.META_GRAPH:
            return Format.META_GRAPH
        case Kind.SAVED_MODEL:
            if path.name != "saved_model.pb":
                raise UnknownFormatError(
                    f"{path} is the graph of a SavedModel, which is a folder and calls it saved_model.pb",
                    hint="Name the SavedModel's folder.",
                )
            return Format.SAVED_MODEL
        case _:
            return None


def _hdf5(path: Path, superblock: bytes, content: mmap.mmap) -> Format:
    declared = 0
    if len(superblock) >= 56 and superblock[8] in (0, 1) and superblock[13] == 8:
        (declared,) = struct.unpack_from("<Q", superblock, 40 + 4 * superblock[8])
    elif len(superblock) >= 36 and superblock[8] in (2, 3) and superblock[9] == 8:
        (declared,) = struct.unpack_from("<Q", superblock, 28)
    if declared > len(content):
        raise CorruptModelError(
            f"{path} is an HDF5 file of {declared} bytes, of which {len(content)} are there",
            hint="Download or copy it again.",
        )
    # The attribute's name stands in the file as it is, however the attribute itself is stored.
    if content.find(b"model_config") >= 0:
        return Format.KERAS_H5
    if any(content.find(name) >= 0 for name in (b"layer_names", b"weight_names", b"_layer_checkpoint_dependencies")):
        return Format.KERAS_WEIGHTS
    if path.name.endswith(".weights.h5"):
        return Format.KERAS_WEIGHTS
    raise UnknownFormatError(
        f"{path} is an HDF5 file that holds neither a Keras model nor Keras weights",
        hint="Name a file that Keras wrote with model.save or model.save_weights.",
    )


def _zip(path: Path, head: bytes) -> Format:
    names = archive_names(path, head)
    if "config.json" in names and {"metadata.json", "model.weights.h5"} & set(names):
        return Format.KERAS
    if inside := model_in(names, path):
        return Format(f"{inside[0]}-archive")
    if any(re.fullmatch(r"(?:[^/]+/)?models/[^/]+\.json", name) for name in names):
        return Format.TORCH_EXPORT
    _refuse_torch(path, names)
    if names and all(name.endswith(".npy") for name in names):
        raise UnknownFormatError(f"{path} looks like a NumPy archive of arrays", hint=DATA)
    files = [name for name in names if name.endswith(_SINGLE)]
    holds = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "nothing"
    raise UnknownFormatError(
        f"{path} is a zip archive that holds no model that can be read as it is: {holds}",
        hint=f"Unpack it and name the file inside: {files[0]}" if files else WHICH,
    )


def _refuse_torch(path: Path, names: list[str]) -> None:
    """Refuse what else PyTorch saves: weights without a network, pickles, machine code."""
    if any("data/aotinductor/" in name for name in names):
        raise UnknownFormatError(
            f"{path} holds a network that PyTorch compiled to machine code", hint=TORCH_EXPORT_HINT
        )
    if "serialized_exported_program.json" in names:
        raise UnknownFormatError(
            f"{path} is an exported program of PyTorch 2.8 or older, whose weights are pickles: they are not run",
            hint="Load it with torch.export.load and save it again with torch.export.save, in PyTorch 2.9 or newer.",
        )
    if any(name.endswith("/constants.pkl") or "/code/__torch__" in name for name in names):
        raise UnknownFormatError(f"{path} looks like a TorchScript program", hint=TORCH_EXPORT_HINT)
    if any(name.endswith(("/data.pkl", "/archive_format")) or name == "data.pkl" for name in names):
        raise UnknownFormatError(
            f"{path} looks like a PyTorch pickle: weights without a network, or a network whose code is elsewhere",
            hint=TORCH_EXPORT_HINT,
        )


def _tar(path: Path, head: bytes) -> Format:
    if is_gzip(head) and not _unpacks_to_tar(path):
        raise UnknownFormatError(f"{path} is a file compressed with gzip", hint="Unpack it with gunzip first.")
    names = archive_names(path, head)
    if inside := model_in(names, path):
        return Format(f"{inside[0]}-archive")
    if any("variables/variables." in name for name in names):
        return Format.SAVED_MODEL_ARCHIVE
    raise UnknownFormatError(f"{path} is a tar archive without a model", hint="Unpack it and name the model inside.")


def _unpacks_to_tar(path: Path) -> bool:
    import gzip
    import zlib

    try:
        with gzip.open(path) as file:
            return is_tar(file.read(512))
    except (OSError, EOFError, zlib.error):
        return False


def _text(head: bytes) -> str | None:
    """Return the beginning of a text; None where it is none."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    # The head may end in the middle of a character.
    for cut in range(4 if len(head) == _HEAD else 1):
        try:
            text = head[: len(head) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
        plain = all(char.isprintable() or char in "\t\n\r\f" for char in text)
        return text if text and plain else None
    return None


def _from_text(path: Path, text: str) -> Format:
    start = text.lstrip()
    if start.startswith("version https://git-lfs"):
        raise UnknownFormatError(
            f"{path} is a Git LFS pointer, not the file itself", hint="Fetch the file with: git lfs pull"
        )
    if re.match(r"(?i)<(!doctype )?html", start):
        raise UnknownFormatError(f"{path} is a web page, not a model", hint="Download the file itself.")
    if start.startswith("model_checkpoint_path:"):
        return _folder(path.parent)
    if start.startswith(("saved_model_schema_version", "meta_graphs")):
        if path.name == "saved_model.pbtxt":
            return Format.SAVED_MODEL
        raise UnknownFormatError(f"{path} is the graph of a SavedModel as text", hint="Name the SavedModel's folder.")
    if re.match(r"meta_info_def\s*[:{]", start):
        raise UnknownFormatError(
            f"{path} is a TensorFlow meta graph as text", hint="Save it with tf.train.export_meta_graph(as_text=False)."
        )
    if re.match(r"(#[^\n]*\n\s*)*(node|library|versions)\s*:?\s*\{", start):
        return Format.FROZEN_GRAPH_TEXT
    if re.match(r"<\s*ir_version|ir_version\s*:", start) or start.startswith('{"irVersion"'):
        raise UnknownFormatError(
            f"{path} is an ONNX model as text", hint="Convert it to the binary format with onnx.load and onnx.save."
        )
    if start.startswith("{") and '"class_name"' in start:
        raise UnknownFormatError(
            f"{path} is a Keras architecture without weights",
            hint=f"Name the file of weights, and give this one as --architecture {path}",
        )
    line = start.splitlines()[0][:40] if start else ""
    raise UnknownFormatError(f"{path} is a text file that begins with {line!r}", hint=WHICH)
