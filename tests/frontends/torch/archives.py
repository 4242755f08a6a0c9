"""Archives of exported programs for tests: files that PyTorch wrote, and the same with something changed in them.

``python -m tests.frontends.torch.archives`` writes the files again, with the PyTorch that is installed.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["EVALUATION", "TRAINING", "changed", "members", "nodes", "packed", "program"]

FILES = Path(__file__).parent / "files"
EVALUATION = FILES / "evaluation.pt2"
TRAINING = FILES / "training.pt2"

Tree = dict[str, Any]


def members(path: Path) -> dict[str, bytes]:
    """Return the files of an archive by their names, without the folder that all of them are in."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"m/{name}"), text, compression)
    return content.getvalue()


def program(path: Path) -> Tree:
    """Return the program in an archive."""
    found: Tree = json.loads(members(path)["models/model.json"])
    return found


def nodes(found: Tree) -> list[Tree]:
    """Return a program's operations."""
    listed: list[Tree] = found["graph_module"]["graph"]["nodes"]
    return listed


def changed(path: Path, source: Path, change: Callable[[Tree], object], table: str = "models/model.json") -> Path:
    """Write an archive with something changed in one of its JSON files; return where it is."""
    files = members(source)
    told = json.loads(files[table])
    change(told)
    path.write_bytes(packed({**files, table: json.dumps(told).encode()}))
    return path


def main() -> None:
    """Write the two files, which differ in the mode that the network was in."""
    import torch

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.norm = torch.nn.BatchNorm2d(4)
            self.block = torch.nn.Sequential(
                torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4, eps=1e-3), torch.nn.ReLU(), torch.nn.Dropout(0.25)
            )
            self.head = torch.nn.Linear(4, 3)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            inner = self.block(torch.relu(self.norm(self.first(image))))
            return {"logits": self.head(inner.mean((2, 3)))}

    torch.manual_seed(5)
    network = Network()
    for _step in range(20):
        network(torch.randn(8, 3, 8, 8) * 2 + 1)
    for path, module in ((EVALUATION, network.eval()), (TRAINING, copy.deepcopy(network).train())):
        batch = torch.export.Dim("batch")
        exported = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
        torch.export.save(exported, path)
        files = members(path)
        told = json.loads(files["models/model.json"])
        for node in nodes(told):
            node["metadata"].pop("stack_trace", None)  # says where on this machine the network was written
        path.write_bytes(packed({**files, "models/model.json": json.dumps(told).encode()}))


if __name__ == "__main__":
    main()
