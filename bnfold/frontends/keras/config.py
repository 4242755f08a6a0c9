"""A Keras configuration read as plain JSON: what it would run, and what it bakes in, before any of it is built."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.keras.known import (
    ACTIVATIONS,
    CODE,
    LAYERS,
    MODELS,
    PIECES,
    TENSORFLOW_FUNCTIONS,
    WORDS,
)

__all__ = [
    "Config",
    "LayerEntry",
    "generation",
    "in_inference_mode",
    "layers",
    "parse",
    "refuse_code",
    "with_plain_names",
]

Config = dict[str, Any]

# A network of thousands of layers stays far below both.
_DEEPEST = 400
_MOST_PIECES = 1_000_000
_OWN_MODULES = ("keras", "tf_keras")
# Packages whose classes compute and do nothing else. "keras.utils" and "keras.saving" are not among them.
_PURE = frozenset(["activations", "constraints", "dtype_policies", "initializers", "mixed_precision", "ops",
    "quantizers", "random", "regularizers"])  # fmt: skip
_AGAIN = "Save the model again with Keras itself."
_CUSTOM_HINT = "Give the Python file that defines it: --custom file.py"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer of a configuration.

    Attributes:
        path: Names of the models and wrappers around it and its own, joined by ``/``.
        name: Its own name.
        class_name: Keras's name of its class.
        config: Its own settings.
        calls: Keyword arguments of every call of it in the network.
        models: Positions of it among its siblings and of the models around it, outermost first, as
            ``(kind, class name, position among siblings of that class)``; what version 3 weight files are ordered by.
        sources: Names of the layers beside it that it reads when it is first called, as far as the file tells.
        built_for: What Keras 3 says it was built for; empty where the file does not say.
    """

    path: str
    name: str
    class_name: str
    config: Config
    calls: tuple[Config, ...]
    models: tuple[tuple[str, str, int], ...] = ()
    sources: tuple[str, ...] = ()
    built_for: Config = field(default_factory=dict)


def parse(text: str | bytes, where: str) -> Config:
    """Return a configuration from its JSON.

    Raises:
        CorruptModelError: If it is not JSON, is nested too deeply, or is not an object that names a class.
    """
    if _pieces(text) > _MOST_PIECES:
        raise CorruptModelError(
            f"the model's configuration in {where} has more than {_MOST_PIECES} values, too many for a network",
            hint=_AGAIN,
        )
    try:
        config = json.loads(text)
    except RecursionError:
        raise CorruptModelError(
            f"the model's configuration in {where} is nested too deeply to be a network", hint=_AGAIN
        ) from None
    except ValueError as error:
        raise CorruptModelError(
            f"the model's configuration in {where} is not valid JSON: {error}", hint=_AGAIN
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise CorruptModelError(f"the model's configuration in {where} does not name the class of a model", hint=_AGAIN)
    _bound(config, where)
    return config


def _pieces(text: str | bytes) -> int:
    """Return how many values a text has at most, before any of them takes memory: there are marks between them."""
    if isinstance(text, str):
        return sum(map(text.count, ",[{"))
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


def _bound(config: Config, where: str) -> None:
    stack: list[tuple[Any, int]] = [(config, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > _DEEPEST:
            raise CorruptModelError(
                f"the model's configuration in {where} is nested too deeply to be a network", hint=_AGAIN
            )
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack.extend((child, depth + 1) for child in children if isinstance(child, dict | list))


def generation(config: Config, version: str) -> int:
    """Return 2 or 3: which Keras wrote this, by its version, or by how it spells things where no version is given."""
    major = version.split(".", 1)[0]
    if major.isdigit():
        return 3 if int(major) >= 3 else 2
    for node in _objects(config):
        module = node.get("module")
        if isinstance(module, str) and (module.startswith("tf_keras") or ".engine." in module):
            return 2
        settings = node.get("config")
        if isinstance(settings, dict) and node.get("class_name") == "InputLayer":
            return 2 if "batch_input_shape" in settings else 3
    return 3 if "module" in config else 2


def _objects(config: Config) -> Iterator[Config]:
    """Yield every JSON object that names a class, outermost first, in the order of the file."""
    stack: list[Any] = [config]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class_name"), str):
                yield node
            stack.extend(reversed([child for child in node.values() if isinstance(child, dict | list)]))
        elif isinstance(node, list):
            stack.extend(reversed([child for child in node if isinstance(child, dict | list)]))


def layers(config: Config) -> Iterator[LayerEntry]:
    """Yield every layer of a model, of the models inside it and of its wrappers, in the order of the file."""
    yield from _layers_of(config, "", ())


def _layers_of(model: Config, prefix: str, models: tuple[tuple[str, str, int], ...]) -> Iterator[LayerEntry]:
    settings = model.get("config")
    # Keras before 2.2.3 wrote a Sequential model as the bare list of its layers.
    siblings = settings.get("layers") if isinstance(settings, dict) else settings
    counts: dict[str, int] = {}
    for layer in siblings if isinstance(siblings, list) else []:
        if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
            continue
        class_name = layer["class_name"]
        if model["class_name"] == "Sequential" and class_name == "InputLayer":
            continue  # a Sequential model does not list its own input among its layers
        position = counts.get(class_name, 0)
        counts[class_name] = position + 1
        yield from _layer(layer, prefix, (*models, ("layers", class_name, position)))


def _layer(layer: Config, prefix: str, models: tuple[tuple[str, str, int], ...]) -> Iterator[LayerEntry]:
    settings = layer.get("config")
    settings = settings if isinstance(settings, dict) else {"layers": settings}
    name = layer.get("name") or settings.get("name") or layer["class_name"]
    path = f"{prefix}{name}"
    built_for = layer.get("build_config")
    yield LayerEntry(
        path,
        str(name),
        layer["class_name"],
        settings,
        tuple(_calls(layer)),
        models,
        tuple(_sources(layer)),
        built_for if isinstance(built_for, dict) else {},
    )
    if layer["class_name"] in MODELS:
        yield from _layers_of(layer, f"{path}/", models)
    for key in ("layer", "forward_layer", "backward_layer"):
        inner = settings.get(key)
        if isinstance(inner, dict) and isinstance(inner.get("class_name"), str):
            yield from _layer(inner, f"{path}/", (*models, (key, inner["class_name"], 0)))


def _calls(layer: Config) -> Iterator[Config]:
    nodes = layer.get("inbound_nodes")
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict):  # Keras 3
            if isinstance(node.get("kwargs"), dict):
                yield node["kwargs"]
            continue
        for tensor in node if isinstance(node, list) else []:  # Keras 2: [name, node, tensor, keyword arguments]
            if isinstance(tensor, list) and len(tensor) == 4 and isinstance(tensor[3], dict):
                yield tensor[3]
            elif isinstance(tensor, dict):
                yield tensor


def _sources(layer: Config) -> Iterator[str]:
    nodes = layer.get("inbound_nodes")
    stack = list(nodes[:1]) if isinstance(nodes, list) else []
    while stack:
        node = stack.pop()
        if isinstance(node, dict):  # Keras 3
            history = node.get("keras_history")
            if isinstance(history, list) and history and isinstance(history[0], str):
                yield history[0]
            stack.extend(child for child in node.values() if isinstance(child, dict | list))
        elif isinstance(node, list):  # Keras 2: [name, node, tensor, keyword arguments]
            if len(node) > 2 and isinstance(node[0], str) and isinstance(node[1], int):
                yield node[0]
            else:
                stack.extend(child for child in node if isinstance(child, dict | list))


def in_inference_mode(config: Config) -> tuple[Config, tuple[LayerEntry, ...]]:
    """Return a configuration in which no call says ``training=True``, and the layers whose calls said so.

    Raises:
        UnsupportedOpError: If a recurrent layer is stateful, so that its output depends on the batches before.
    """
    config = copy.deepcopy(config)
    changed = []
    for layer in layers(config):
        told = [call for call in layer.calls if call.get("training") in (True, 1)]
        for call in told:
            call["training"] = False
        if told:
            changed.append(layer)
        if layer.config.get("stateful") is True:
            raise UnsupportedOpError(
                f"layer {layer.path!r} ({layer.class_name}) is stateful: its output depends on the batches before",
                hint="Rebuild the model with stateful=False, load its weights and save it again.",
            )
    return config, tuple(changed)


def refuse_code(config: Config, *, trust: bool, custom: Collection[str] = ()) -> None:
    """Check that a configuration names nothing but Keras's own layers and what they are made of.

    Args:
        config: The whole configuration; what concerns compiling is never built and not looked at.
        trust: Whether classes and code that are not Keras's own may run.
        custom: Names of classes and functions that the caller has brought along.

    Raises:
        UnsupportedOpError: Naming the layer and the class.
    """
    if trust:
        return
    stack: list[tuple[Any, str, str]] = [(config, "", "")]
    while stack:
        node, owner, key = stack.pop()
        if isinstance(node, list):
            stack.extend((child, owner, key) for child in reversed(node))
            continue
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("class_name"), str):
            owner = _refuse_object(node, owner, key, custom)
        stack.extend(
            (child, owner, name)
            for name, child in reversed(node.items())
            if name not in ("compile_config", "training_config") and isinstance(child, dict | list)
        )


def with_plain_names(config: Config, custom: Collection[str]) -> Config:
    """Return a configuration that calls what is the caller's own by its plain name.

    What it says of packages and modules is left out, so that none is imported because a file says so.

    Args:
        config: The whole configuration.
        custom: Names of the classes and functions that the caller has brought along.
    """
    if not custom:
        return config
    config = copy.deepcopy(config)
    for node in _objects(config):
        is_function = node["class_name"] == "function"
        key = "config" if is_function else "class_name"
        plain = str(node.get(key)).rpartition(">")[2]
        if plain in custom and not _is_own(node["class_name"], node.get("module")):
            node[key] = plain
            if "registered_name" in node:  # as Keras 3 writes it
                node.update(registered_name=plain, module="builtins" if is_function else None)
    return config


def _refuse_object(node: Config, owner: str, key: str, custom: Collection[str]) -> str:
    """Check one object that names a class; return what to call the layer that it belongs to."""
    class_name, module = node["class_name"], node.get("module")
    settings = node.get("config")
    name = node.get("name") or (settings.get("name") if isinstance(settings, dict) else None)
    is_layer = class_name in LAYERS | MODELS | CODE or key in ("layers", "layer", "forward_layer", "backward_layer")
    where = f"layer {name!r}" if is_layer and isinstance(name, str) else owner or "the model"
    if class_name in CODE:
        raise UnsupportedOpError(
            f"{where} is of class {class_name}, which runs code that is stored in or named by the file"
            if is_layer and class_name != "__lambda__"
            else f"{where} holds a lambda: code that is stored in the file",
            hint="Look at where the file comes from, and run its code with --trust",
        )
    if class_name in ("function", "builtin_function_or_method"):
        if settings not in ACTIVATIONS and settings not in custom:
            raise UnsupportedOpError(
                f"{where} uses the function {settings!r}, which is not one of Keras's own", hint=_CUSTOM_HINT
            )
        return where
    if class_name == "TFOpLambda":
        _refuse_function(settings.get("function") if isinstance(settings, dict) else None, where)
    if isinstance(settings, dict) and isinstance(settings.get("vocabulary"), str):
        raise UnsupportedOpError(
            f"{where} ({class_name}) reads its vocabulary from another file, {settings['vocabulary']}",
            hint="Save the model with Keras's native format, which keeps the vocabulary inside.",
        )
    if not _is_own(class_name, module) and class_name not in custom:
        package = module or str(node.get("registered_name") or "").rpartition(">")[0]
        origin = f" (of {package})" if package else ""
        raise UnsupportedOpError(
            f"{where} is of class {class_name!r}{origin}, which is not one of Keras's own layers"
            if is_layer
            else f"{where} uses {class_name!r}{origin}, which is not one of Keras's own classes",
            hint=_CUSTOM_HINT,
        )
    return where if is_layer else owner


def _is_own(class_name: str, module: object) -> bool:
    if class_name in WORDS:
        return True
    if not isinstance(module, str):
        return class_name in LAYERS | MODELS | PIECES
    packages = module.split(".")
    if packages[0] not in _OWN_MODULES:
        return False
    packages = [package for package in packages[1:] if package != "src"]
    if packages and packages[0] in _PURE:
        return class_name.isidentifier() and class_name[0].isupper()
    return class_name in LAYERS | MODELS | PIECES and (
        not packages or packages[0] in ("engine", "layers", "models") or class_name in PIECES
    )


def _refuse_function(function: object, where: str) -> None:
    for known in TENSORFLOW_FUNCTIONS:
        if isinstance(function, str) and (function == known or (known[-1] in "._" and function.startswith(known))):
            return
    raise UnsupportedOpError(
        f"{where} calls TensorFlow's function {function!r}, which is not known to only compute",
        hint="Look at where the file comes from, and run its code with --trust",
    )
