"""Files that are nothing bnfold reads, told by how they begin: what they look like, and what to do instead."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from bnfold.errors import UnknownFormatError

__all__ = ["DATA", "TORCH_EXPORT_HINT", "TO_ONNX", "WHICH", "refuse_by_magic"]

_READS = (
    "ONNX, Keras (.keras, .h5), SavedModel, TensorFlow frozen graphs, meta graphs and checkpoints, "
    "and PyTorch exported programs (.pt2)"
)
WHICH = f"Name a file in one of the formats that are read: {_READS}."
DATA = "Name the model; arrays to check it with go to --data."
TO_ONNX = "Export the model to ONNX where it was made, in evaluation mode and without folding, and name the .onnx file."

TORCH_EXPORT_HINT = (
    "Export the network with torch.export.export(model.eval(), example), save that with torch.export.save as a .pt2, "
    "or export it to ONNX with torch.onnx.export."
)

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG image", WHICH),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", WHICH),
    (0, b"GIF8", "a GIF image", WHICH),
    (0, b"%PDF-", "a PDF document", WHICH),
    (0, b"\x7fELF", "a program", WHICH),
    (0, b"\x93NUMPY", "a NumPy array", DATA),
    (0, b"GGUF", "a GGUF language model", WHICH),
    (0, b"CDF", "a NetCDF data set", WHICH),
    (0, b"ftrt", "a TensorRT engine", "Name the model that the engine was built from."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it and name the model inside."),
    (0, b"Rar!", "a RAR archive", "Unpack it and name the model inside."),
    (0, b"BZh", "compressed with bzip2", "Unpack it with bunzip2 first."),
    (0, b"\xfd7zXZ\x00", "compressed with xz", "Unpack it with unxz first."),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it with unzstd first."),
    (4, b"TFL3", "a TensorFlow Lite model", "Name the TensorFlow model that it was converted from."),
    (4, b"ORTM", "an onnxruntime model (.ort)", "Name the .onnx file that it was converted from."),
)
_TORCH_TAR = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


def refuse_by_magic(path: Path, head: bytes, content: mmap.mmap) -> None:
    """Refuse a file that begins as something else does.

    Args:
        path: The file, for messages.
        head: Its beginning.
        content: All of it.

    Raises:
        UnknownFormatError: Saying what it looks like.
    """
    for at, magic, looks, hint in _MAGIC:
        if head[at : at + len(magic)] == magic:
            raise UnknownFormatError(f"{path} looks like {looks}", hint=hint)
    if len(head) > 9 and head[8:9] == b"{":
        (length,) = struct.unpack_from("<Q", head)
        if 2 <= length <= len(content) - 8 and content[8 + length - 1 : 8 + length] in (b"}", b" "):
            raise UnknownFormatError(f"{path} looks like a safetensors file: weights without a network", hint=TO_ONNX)
    if head.startswith(_TORCH_TAR):
        raise UnknownFormatError(f"{path} looks like an old PyTorch pickle", hint=TORCH_EXPORT_HINT)
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5 and content[-1:] == b".":
        raise UnknownFormatError(f"{path} looks like a Python pickle, which is a program and is not run", hint=TO_ONNX)
