"""Convert files in a process that ends where TensorFlow is imported; say what became of each, as a line of JSON."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

GUESTS = ("tensorflow", "keras", "tf_keras", "tf2onnx")


class Guard:
    """Finds these packages, as those who ask whether they are installed must see, and does not load them."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in GUESTS else None  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError(f"{module.__name__} is imported")


def main() -> None:
    sys.meta_path.insert(0, Guard())
    import bnfold

    told = {}
    for path in map(Path, sys.argv[1:]):
        try:
            bnfold.convert(path)
            told[path.parent.name] = "converted"
        except bnfold.BnfoldError as error:
            told[path.parent.name] = error.code
        except AssertionError as error:
            told[path.parent.name] = str(error)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
