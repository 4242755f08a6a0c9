"""Guests stay in the rooms that were given to them, and the heavy ones wait to be called.

Which of our own packages may import which is import-linter's business (``test_tools.py``).
"""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.house.tree import Import, Module, imports, modules

HEAVY = frozenset({"tensorflow", "keras", "tf_keras", "tf2onnx", "h5py", "onnxruntime", "torch", "onnxscript"})

# Where each guest may be imported, as the beginnings of paths.
ROOMS = {
    "tensorflow": ("bnfold/frontends/",),
    "keras": ("bnfold/frontends/",),
    "tf_keras": ("bnfold/frontends/",),
    "tf2onnx": ("bnfold/frontends/",),
    "h5py": ("bnfold/frontends/",),
    "torch": ("bnfold/frontends/torch/",),
    "onnxscript": ("bnfold/frontends/torch/",),
    "onnxruntime": ("bnfold/parity/run.py", "service/"),
    "click": ("bnfold/cli/",),
    "jinja2": ("bnfold/report/render", "service/page/"),
    "rich": ("bnfold/cli/", "bnfold/report/render"),
    "fastapi": ("service/",),
    "httpx": ("bnfold/cli/remote",),
    "jwt": ("service/",),
    "prometheus_client": ("service/",),
    "starlette": ("service/",),
    "pydantic": ("service/",),
    "pydantic_settings": ("service/",),
    "uvicorn": ("service/",),
    "sqlalchemy": ("service/",),
    "alembic": ("service/database/",),
    "celery": ("service/engines/",),
    "kombu": ("service/engines/",),
    "obstore": ("service/storage.py",),
    "grpc": ("service/serving/",),
}

# Rules and what they stand on see numpy arrays and small views, never the graph library.
WITHOUT_ONNX = ("bnfold/errors.py", "bnfold/affine/", "bnfold/rules/", "bnfold/report/", "bnfold/cli/", "service/")
# A runner asks the graph that it runs whether its rows are apart; it is a process that reads a foreign file anyway.
WITH_ONNX = ("service/serving/graph_rows.py",)

SHOW_HELP = """
import sys
from bnfold.cli import main
sys.argv = ["bnfold", "--help"]
try:
    main()
except SystemExit:
    pass
"""

EVERYTHING = [(module, imported) for module in modules() for imported in imports(module)]


def _said(found: list[tuple[Module, Import]]) -> list[str]:
    return [f"{module.path}:{imported.line} imports {imported.name}" for module, imported in found]


def _guest(imported: Import) -> str:
    return imported.name.partition(".")[0]


@pytest.mark.parametrize("guest", sorted(ROOMS))
def test_guest_stays_in_its_rooms(guest: str) -> None:
    strays = [pair for pair in EVERYTHING if _guest(pair[1]) == guest and not pair[0].path.startswith(ROOMS[guest])]
    assert _said(strays) == []


def test_heavy_guests_are_imported_inside_functions() -> None:
    eager = [pair for pair in EVERYTHING if _guest(pair[1]) in HEAVY and pair[1].at_import]
    assert _said(eager) == []


def test_the_graph_library_is_not_seen_where_rules_and_words_are() -> None:
    seen = [pair for pair in EVERYTHING if _guest(pair[1]) == "onnx" and pair[0].path.startswith(WITHOUT_ONNX)]
    assert _said([pair for pair in seen if pair[0].path not in WITH_ONNX]) == []
    assert all(pair[1].at_import is False for pair in seen)


def test_the_service_sees_public_names_only() -> None:
    inside = [
        (module, imported)
        for module, imported in EVERYTHING
        if module.path.startswith("service/") and imported.name.startswith("bnfold.") and _is_module(imported.name)
    ]
    assert _said(inside) == []


def _is_module(name: str) -> bool:
    return any(name == module.name for module in modules())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        pytest.param("import bnfold", HEAVY | {"click", "rich", "fastapi", "jinja2"}, id="import bnfold"),
        pytest.param(SHOW_HELP, HEAVY | {"onnx", "fastapi", "jinja2"}, id="bnfold --help"),
    ],
)
def test_start_is_light(statement: str, unwanted: frozenset[str]) -> None:
    ask = f"{statement}\nimport sys\nprint('loaded:', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert loaded & unwanted == set()


def test_imports_are_found_wherever_they_hide() -> None:
    source = """
import h5py.h5f
if TYPE_CHECKING:
    import keras
else:
    from tf_keras import layers
class Reader:
    import click
def read():
    from tensorflow import compat as tf
    return importlib.import_module("tf2onnx")
"""
    found = list(imports(Module("bnfold/reader.py", ast.parse(source))))
    assert {(imported.name, imported.at_import) for imported in found} == {
        ("h5py.h5f", True),
        ("tf_keras", True),
        ("tf_keras.layers", True),
        ("click", True),
        ("tensorflow", False),
        ("tensorflow.compat", False),
        ("tf2onnx", False),
    }
