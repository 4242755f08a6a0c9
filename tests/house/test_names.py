"""Public names are listed, exist, are explained in one sentence, and use the words of the house."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from types import ModuleType

import pytest

from tests.house.tree import Module, modules

# Words that say nothing, and words that elsewhere mean several things; with what else English makes of them.
UNWANTED = re.compile(
    r"fus(e|ed|es|ing|ion|er)|optimi[sz](e|ed|es|ing|er|ation)|utils?|helpers?|managers?|handlers?|merge[drs]?|merging"
)
OURS = [module for module in modules() if module.path.startswith("bnfold/")]
MODULES = [pytest.param(module, id=module.path) for module in OURS]


def _public_definitions(module: Module) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in module.tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _imported(module: Module) -> ModuleType:
    return importlib.import_module(module.name)


def _listed(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


@pytest.mark.parametrize("module", MODULES)
def test_public_definitions_are_listed_in_all(module: Module) -> None:
    listed = _listed(_imported(module))
    assert [name for name in _public_definitions(module) if name not in listed] == []


@pytest.mark.parametrize("module", MODULES)
def test_listed_names_exist_and_are_explained(module: Module) -> None:
    imported = _imported(module)
    for name in _listed(imported):
        thing = getattr(imported, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            sentence = (inspect.getdoc(thing) or "").partition("\n\n")[0]
            assert re.fullmatch(r"(?s)[A-Z\d`].*[.:]", sentence), f"{module.name}.{name}: {sentence!r} is no sentence"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_public_names_use_the_words_of_the_house(module: Module) -> None:
    names = [module.path.rpartition("/")[2].removesuffix(".py"), *_public_definitions(module)]
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef):
            inner = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            names += [name for name in inner if not name.startswith("_")]
    assert [name for name in names for word in _words(name) if UNWANTED.fullmatch(word)] == []


def test_the_words_of_a_name_are_found_whatever_its_case() -> None:
    assert _words("RequestHandler") == ["request", "handler"]
    assert _words("fuse_conv2d") == ["fuse", "conv", "2", "d"]
    assert _words("ONNXMerger") == ["onnx", "merger"]
    found = {word for word in ("fused", "confused", "merger", "emerges") if UNWANTED.fullmatch(word)}
    assert found == {"fused", "merger"}
