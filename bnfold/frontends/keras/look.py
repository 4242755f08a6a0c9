"""Keras files looked at: their inputs and outputs, their batch norms and the statistics in them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.frontends.glance import Glance, Port, SeenBatchNorm, Suspicion, Vectors, diagnosed
from bnfold.frontends.keras.archive import Artifact, open_weights, read_artifact
from bnfold.frontends.keras.config import Config, layers, refuse_code
from bnfold.frontends.keras.describe import Description, LayerFacts, described
from bnfold.frontends.keras.known import MODELS
from bnfold.frontends.keras.operations import with_operations
from bnfold.frontends.sniff import Format

__all__ = ["look"]

_WEIGHTS_ONLY = "It holds weights only: --architecture or --builder says at the conversion what they belong to."
_UNTOLD = "Its weights are numbered, not named: which of them belong to batch norms is in the architecture."
_SHAPES = "The shapes of the outputs follow from the layers, which are not built here."


def look(path: Path, found: Format) -> Glance:
    """Return what a Keras file tells, without TensorFlow and without Keras.

    Args:
        path: A ``.keras`` archive, or HDF5 with a model or only weights.
        found: Which of them it is.

    Raises:
        CorruptModelError: If it is not whole.
        UnsupportedOpError: If it was written by Keras 1 or on another backend.
        SourceError: If Keras did not write it.
        MissingExtraError: If it holds HDF5 and h5py is not installed.
        OSError: If it cannot be read.
    """
    artifact = read_artifact(path)
    with contextlib.ExitStack() as stack:
        weights = stack.enter_context(open_weights(artifact)) if artifact.layout else {}
        description = described(artifact, weights)
        parameters = _parameters(weights)
    config = artifact.config
    inputs, outputs = ((), ()) if config is None else _ends(config)
    behind = {} if config is None else dict(_behind(config, ""))
    batch_norms = tuple(_seen(layer, behind) for layer in description.layers if layer.batch_norm is not None)
    return Glance(
        path=str(path),
        format=found.value,
        framework=artifact.framework,
        description=found.described,
        bytes=path.stat().st_size,
        parameters=parameters,
        inputs=inputs,
        outputs=outputs,
        batch_norms=batch_norms,
        mode_inputs=(),
        suspicions=(*_suspicions(artifact), *diagnosed(list(_vectors(description)))),
        open_questions=_questions(artifact),
    )


def _questions(artifact: Artifact) -> tuple[str, ...]:
    if artifact.config is not None:
        return (_SHAPES,)
    return (_WEIGHTS_ONLY, *((_UNTOLD,) if artifact.layout == "slots" else ()))


def _seen(layer: LayerFacts, behind: Mapping[str, str]) -> SeenBatchNorm:
    facts = layer.batch_norm
    assert facts is not None
    vectors = (facts.moving_variance, facts.moving_mean, facts.gamma, facts.beta)
    channels = next((vector.size for vector in vectors if vector is not None), None)
    return SeenBatchNorm(layer.name, layer.class_name, channels, facts.epsilon, "moving", behind.get(layer.name, ""))


def _vectors(description: Description) -> Iterator[Vectors]:
    for layer in description.layers:
        facts = layer.batch_norm
        if facts is not None:
            yield Vectors(layer.name, facts.gamma, facts.beta, facts.moving_mean, facts.moving_variance)


def _parameters(weights: Any) -> int | None:
    """Return how many numbers the layers' weights hold; what the optimizer keeps does not count."""
    if not hasattr(weights, "visititems"):
        return None
    sizes: list[int] = []

    def count(name: str, item: Any) -> None:
        shape = getattr(item, "shape", None)  # a group has none, and neither has a type with a name
        if shape is not None and not name.startswith("optimizer") and item.dtype.kind == "f":
            sizes.append(math.prod(shape))

    weights.visititems(count)
    return sum(sizes)


def _suspicions(artifact: Artifact) -> Iterator[Suspicion]:
    if artifact.config is None:
        return
    told = tuple(
        entry.path
        for entry in layers(artifact.config)
        if any(call.get("training") in (True, 1) for call in entry.calls)
    )
    if told:
        layers_are = "1 layer is" if len(told) == 1 else f"{len(told)} layers are"
        yield Suspicion(
            told,
            f"{layers_are} called with training=True: in Keras 2, predict() uses the statistics of its batch there",
            "Convert it: the result uses the moving statistics. Or build the model without training=True.",
        )
    try:
        refuse_code(with_operations(artifact.config), trust=False)
    except BnfoldError as error:
        yield Suspicion((), f"the conversion will refuse it: {error}", error.hint)


def _ends(config: Config) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    siblings = _siblings(config)
    settings = config.get("config")
    shapes = {name: (_shape(layer), _dtype(layer)) for name, layer in siblings.items()}
    if config["class_name"] == "Sequential" or not isinstance(settings, dict):
        first, last = next(iter(siblings), ""), next(reversed(siblings), "")
        shape, dtype = shapes.get(first, (None, ""))
        return (Port(first, dtype or "float32", shape),) if first else (), (Port(last),) if last else ()
    inputs, outputs = (_named(settings.get(key)) for key in ("input_layers", "output_layers"))
    ports = tuple(
        Port(name, shapes.get(name, (None, ""))[1] or "float32", shapes.get(name, (None, ""))[0]) for name in inputs
    )
    return ports, tuple(Port(name) for name in outputs)


def _named(layers_at: Any) -> list[str]:
    """Return the layers that ``[name, node, tensor]``, or any nesting of such lists and dicts, names."""
    if isinstance(layers_at, dict):
        return [name for inner in layers_at.values() for name in _named(inner)]
    if isinstance(layers_at, list):
        if layers_at and isinstance(layers_at[0], str):
            return [layers_at[0]]
        return [name for inner in layers_at for name in _named(inner)]
    return []


def _siblings(model: Config) -> dict[str, Config]:
    settings = model.get("config")
    listed = settings.get("layers") if isinstance(settings, dict) else settings
    found = {}
    for layer in listed if isinstance(listed, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("class_name"), str):
            own = layer.get("config")
            name = layer.get("name") or (own.get("name") if isinstance(own, dict) else None) or layer["class_name"]
            found[str(name)] = layer
    return found


def _shape(layer: Config) -> tuple[int | None, ...] | None:
    own = layer.get("config")
    if not isinstance(own, dict):
        return None
    shape = own.get("batch_shape", own.get("batch_input_shape"))
    if not isinstance(shape, list):
        return None
    return tuple(size if isinstance(size, int) else None for size in shape)


def _dtype(layer: Config) -> str:
    own = layer.get("config")
    dtype = own.get("dtype") if isinstance(own, dict) else None
    return dtype if isinstance(dtype, str) else ""


def _behind(model: Config, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield for every layer the one whose result it takes, by their paths."""
    siblings = _siblings(model)
    previous = ""
    for name, layer in siblings.items():
        if model["class_name"] == "Sequential":
            source, previous = previous, name
        else:
            sources = list(dict.fromkeys(_sources(layer.get("inbound_nodes"))))
            source = sources[0] if len(sources) == 1 else ""
        if source in siblings:
            yield f"{prefix}{name}", _shown(siblings[source], f"{prefix}{source}")
        if layer["class_name"] in MODELS:
            yield from _behind(layer, f"{prefix}{name}/")


def _sources(nodes: Any) -> Iterator[str]:
    """Yield the layers that a layer's calls name: as ``keras_history`` in Keras 3, as ``[name, node, tensor]`` in 2."""
    if isinstance(nodes, dict):
        history = nodes.get("keras_history")
        if isinstance(history, list) and history and isinstance(history[0], str):
            yield history[0]
            return
        for inner in nodes.values():
            yield from _sources(inner)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
            return
        for inner in nodes:
            yield from _sources(inner)


def _shown(layer: Config, path: str) -> str:
    own = layer.get("config")
    activation = own.get("activation") if isinstance(own, dict) else None
    after = f" with {activation}" if isinstance(activation, str) and activation != "linear" else ""
    return f"{layer['class_name']} {path}{after}"
