"""What a Keras file holds, read from its configuration and weights alone: no TensorFlow, no Keras, no code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.frontends.keras.archive import Artifact, attribute_list, open_weights, read_artifact
from bnfold.frontends.keras.config import LayerEntry, layers

__all__ = ["BatchNormFacts", "Description", "LayerFacts", "describe", "described"]

Array = npt.NDArray[np.generic]

_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")
_CLASSES = ("BatchNormalization", "SyncBatchNormalization")


@dataclass(frozen=True, slots=True)
class BatchNormFacts:
    """A batch norm layer as its file has it; None where the file does not say or the layer does not have it.

    Attributes:
        axis: Axes of the channel, as the configuration gives them.
        epsilon: Added to the moving variance, in units of x².
        momentum: Share of the old statistics that each training step kept.
        gamma: Learned multiplier.
        beta: Learned shift.
        moving_mean: Mean over training.
        moving_variance: Variance over training, in units of x².
    """

    axis: tuple[int, ...] | None
    epsilon: float | None
    momentum: float | None
    gamma: Array | None
    beta: Array | None
    moving_mean: Array | None
    moving_variance: Array | None


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer.

    Attributes:
        name: Its path: names of the models and wrappers around it, and its own.
        class_name: Keras's name of its class, empty where a file of weights does not say.
        batch_norm: What is special about a batch norm, None for other layers.
    """

    name: str
    class_name: str
    batch_norm: BatchNormFacts | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A Keras file at a glance.

    Attributes:
        framework: For people, for example ``"Keras 2.0.5"``.
        generation: 2 or 3: which Keras reads it.
        has_model: False for a file that holds only weights.
        layers: Every layer, those of inner models and wrappers included, in the order of the file.
    """

    framework: str
    generation: int
    has_model: bool
    layers: tuple[LayerFacts, ...]


def describe(path: Path) -> Description:
    """Return what a Keras file holds, with the weights of its batch norms.

    Raises:
        CorruptModelError: If it is not whole.
        UnsupportedOpError: If it was written by Keras 1 or on another backend.
        SourceError: If Keras did not write it.
        MissingExtraError: If it holds HDF5 and h5py is not installed.
    """
    artifact = read_artifact(path)
    if artifact.layout is None:
        return _described(artifact, tuple(_facts(entry, {}) for entry in layers(artifact.config or {})))
    with open_weights(artifact) as weights:
        return described(artifact, weights)


def described(artifact: Artifact, weights: Any) -> Description:
    """Return what a Keras file holds, given the group of its weights.

    Args:
        artifact: The file.
        weights: What ``open_weights`` opened.
    """
    if artifact.config is None:
        return _described(artifact, tuple(_unnamed(weights, artifact)))
    entries = list(layers(artifact.config))
    find = _by_name if artifact.layout == "names" else _by_slot
    return _described(artifact, tuple(_facts(entry, find(weights, entry)) for entry in entries))


def _described(artifact: Artifact, found: tuple[LayerFacts, ...]) -> Description:
    return Description(artifact.framework, artifact.generation, artifact.config is not None, found)


def _facts(entry: LayerEntry, weights: Mapping[str, Array]) -> LayerFacts:
    if entry.class_name not in _CLASSES:
        return LayerFacts(entry.path, entry.class_name)
    axis = entry.config.get("axis")
    axes = [axis] if isinstance(axis, int) else axis
    return LayerFacts(
        entry.path,
        entry.class_name,
        BatchNormFacts(
            axis=tuple(axes) if isinstance(axes, list) and all(isinstance(one, int) for one in axes) else None,
            epsilon=_number(entry.config.get("epsilon")),
            momentum=_number(entry.config.get("momentum")),
            **{name: weights.get(name) for name in _WEIGHTS},
        ),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _by_name(weights: Any, entry: LayerEntry) -> dict[str, Array]:
    """Find a batch norm's weights where layers and weights have names; nothing where two could be meant."""
    if entry.class_name not in _CLASSES:
        return {}
    outermost, _, inside = entry.path.partition("/")
    if outermost not in weights:
        return {}
    group = weights[outermost]
    names = attribute_list(group, "weight_names")
    found: dict[str, Array] = {}
    for weight in _WEIGHTS:
        meant = [name for name in names if name.removesuffix(":0").split("/")[-1] == weight]
        if inside:
            exact = [name for name in meant if name.removesuffix(":0").split("/")[-2:] == [entry.name, weight]]
            meant = exact or ([] if len(meant) > 1 else meant)
        if len(meant) == 1:
            found[weight] = np.asarray(group[meant[0]])
    return found


def _by_slot(weights: Any, entry: LayerEntry) -> dict[str, Array]:
    """Find a batch norm's weights where layers are counted by class and weights are numbered."""
    if entry.class_name not in _CLASSES:
        return {}
    group = weights
    for kind, class_name, position in entry.models:
        slot = f"{_snake(class_name)}_{position}" if position else _snake(class_name)
        for container in (kind, "_layer_checkpoint_dependencies") if kind == "layers" else (kind,):
            inner = group.get(f"{container}/{slot}" if kind == "layers" else container)
            if inner is not None:
                break
        if inner is None:
            return {}
        group = inner
    if "vars" not in group or group["vars"].attrs.get("name", entry.name) != entry.name:
        return {}
    present = [
        name
        for name in _WEIGHTS
        if not (name == "gamma" and entry.config.get("scale") is False)
        and not (name == "beta" and entry.config.get("center") is False)
    ]
    slots = group["vars"]
    return {name: np.asarray(slots[str(index)]) for index, name in enumerate(present) if str(index) in slots}


def _snake(class_name: str) -> str:
    """Spell a class as Keras spells it in weight files: ``Conv2DTranspose`` is ``conv2d_transpose``."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _unnamed(weights: Any, artifact: Artifact) -> Iterator[LayerFacts]:
    """Yield the layers of a file that holds only weights; a moving mean is what tells a batch norm."""
    if artifact.layout == "names":
        for layer in attribute_list(weights, "layer_names"):
            group = weights[layer]
            inner: dict[str, dict[str, Array]] = {}
            for name in attribute_list(group, "weight_names"):
                scope, _, weight = name.removesuffix(":0").rpartition("/")
                inner.setdefault(scope.rpartition("/")[2], {})[weight] = np.asarray(group[name])
            if len(inner) <= 1:
                yield _guess(layer, next(iter(inner.values()), {}))
            else:
                for scope, found in inner.items():
                    yield _guess(f"{layer}/{scope}", found)
        return
    names: list[str] = []
    weights.visit(lambda place: names.append(place) if place.endswith("/vars") else None)
    for place in names:
        if place.startswith(("layers/", "_layer_checkpoint_dependencies/")):
            path = re.sub(r"(^|/)(layers|_layer_checkpoint_dependencies)/", r"\1", place.removesuffix("/vars"))
            yield LayerFacts(path, "")


def _guess(name: str, found: Mapping[str, Array]) -> LayerFacts:
    if "moving_mean" not in found:
        return LayerFacts(name, "")
    return LayerFacts(
        name,
        "BatchNormalization",
        BatchNormFacts(axis=None, epsilon=None, momentum=None, **{weight: found.get(weight) for weight in _WEIGHTS}),
    )
