"""A version of a model as a folder that Triton Inference Server can serve, in a zip archive.

It is written while it is sent. Nothing is compressed: weights hardly shrink, and what is only copied costs nothing.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from service.registry.cards import Card, TensorCard

__all__ = ["triton_config", "triton_zip"]

_CHUNK = 2**20


def triton_config(card: Card) -> str:
    """Return the text of ``config.pbtxt``: the model's name, and what it takes and answers, with every axis in it."""
    lines = [f'name: "{card.name}"', 'backend: "onnxruntime"', "max_batch_size: 0"]
    for what, tensors in (("input", card.inputs), ("output", card.outputs)):
        lines += [f"{what} {{\n{_described(tensor)}\n}}" for tensor in tensors]
    return "\n".join(lines) + "\n"


def _described(tensor: TensorCard) -> str:
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    quoted = tensor.name.replace("\\", "\\\\").replace('"', '\\"')
    if tensor.shape:
        return f'  name: "{quoted}"\n  data_type: TYPE_{kind}\n  dims: [ {", ".join(map(str, tensor.shape))} ]'
    # A scalar has no axis, and a configuration needs one.
    return f'  name: "{quoted}"\n  data_type: TYPE_{kind}\n  dims: [ 1 ]\n  reshape {{ shape: [ ] }}'


def triton_zip(card: Card, model: Path) -> Iterator[bytes]:
    """Yield the archive: ``NAME/config.pbtxt`` and ``NAME/VERSION/model.onnx``.

    Raises:
        OSError: If the model cannot be read.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        config = zipfile.ZipInfo(f"{card.name}/config.pbtxt", (1980, 1, 1, 0, 0, 0))
        config.external_attr = 0o644 << 16
        archive.writestr(config, triton_config(card))
        entry = zipfile.ZipInfo(f"{card.name}/{card.version}/model.onnx", (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        entry.file_size = card.bytes
        with model.open("rb") as source, archive.open(entry, "w", force_zip64=card.bytes >= 2**31) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                yield pipe.taken()
    yield pipe.taken()


class _Pipe(io.RawIOBase):
    """What is written to it can be taken out again; it cannot go back."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes
        self._written += content
        return len(content)

    def taken(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
