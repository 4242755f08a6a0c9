"""Stored weights matched to a model's variables by name and shape; what could be two things is neither."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.errors import SourceError
from bnfold.frontends.keras.archive import attribute_list

__all__ = ["Slot", "Stored", "match_layers", "match_names", "read_named"]

Array = npt.NDArray[np.generic]
Stored = dict[str, dict[str, Array]]

_NUMBERED = re.compile(r"^(.*?)(?:_(\d+))?$")
_HINT = (
    "Give the architecture that these weights were saved from: --architecture model.json or --builder file.py:function"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable of a model, before it has its value.

    Attributes:
        name: Its full name, parts joined by ``/``.
        shape: Its shape.
    """

    name: str
    shape: tuple[int, ...]


def read_named(weights: Any) -> Stored:  # an h5py group
    """Return, for every layer that has any, its stored weights by their full names, in the order of the file."""
    stored: Stored = {}
    names = attribute_list(weights, "layer_names")
    for layer in [*names, *(["top_level_model_weights"] if "top_level_model_weights" in weights else [])]:
        group = weights[layer]
        found = {name.removesuffix(":0"): np.asarray(group[name]) for name in attribute_list(group, "weight_names")}
        if found:
            stored[layer] = found
    return stored


def match_layers(
    stored: Stored, model: Mapping[str, Sequence[Slot]], error: type[SourceError], what: str
) -> dict[str, dict[str, Array]]:
    """Return, for every layer of a model, the value of each of its variables by the variable's name.

    Layers are matched by name. Where the file's names are those of the model up to the numbers that Keras counts
    through (``dense_3`` for ``dense``), layers are matched by their order, if kinds, weights and shapes agree.

    Args:
        stored: The file's weights by layer and name.
        model: The model's variables by layer, in the model's order, layers without variables left out.
        error: Class to raise.
        what: The file's name, for messages.

    Raises:
        SourceError: As ``error``: if a layer or a weight has no counterpart, shapes differ, or names are ambiguous.
    """
    if set(stored) == set(model):
        pairs = {layer: layer for layer in model}
    elif [_base(name) for name in stored] == [_base(name) for name in model] and _in_step(stored, model):
        pairs = dict(zip(model, stored, strict=True))
    else:
        missing, extra = sorted(set(model) - set(stored)), sorted(set(stored) - set(model))
        raise error(
            f"{what} does not fit the model: "
            + "; ".join(
                [f"no weights for {_some(missing)}"] * bool(missing)
                + [f"weights of {_some(extra)}, which the model does not have"] * bool(extra)
            ),
            hint=_HINT,
        )
    return {layer: match_names(stored[source], model[layer], layer, error, what) for layer, source in pairs.items()}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _base(name: str) -> str:
    found = _NUMBERED.match(name)
    assert found is not None
    return found[1]


def _number(name: str) -> int:
    found = _NUMBERED.match(name)
    return int(found[2]) if found is not None and found[2] else 0


def _in_step(stored: Stored, model: Mapping[str, Sequence[Slot]]) -> bool:
    """Whether two lists of layers agree weight by weight, their numbers being in the same order."""
    if _ranks(list(stored)) != _ranks(list(model)):
        return False
    for values, slots in zip(stored.values(), model.values(), strict=True):
        theirs = sorted((weight.rpartition("/")[2], value.shape) for weight, value in values.items())
        if theirs != sorted((slot.name.rpartition("/")[2], slot.shape) for slot in slots):
            return False
    return True


def _ranks(names: Sequence[str]) -> list[int]:
    numbers: dict[str, list[int]] = {}
    for name in names:
        numbers.setdefault(_base(name), []).append(_number(name))
    return [sorted(numbers[_base(name)]).index(_number(name)) for name in names]


def match_names(
    stored: Mapping[str, Array], slots: Sequence[Slot], layer: str, error: type[SourceError], what: str
) -> dict[str, Array]:
    """Return the value of each variable of one layer, by the variable's name.

    Compares as many parts of the names, from the last one, as it takes to tell all of them apart on both sides.

    Raises:
        SourceError: As ``error``: if names do not pair up one to one, or shapes differ.
    """
    theirs = {name: _parts(name, stored) for name in stored}
    ours = {slot.name: _parts(slot.name, [slot.name for slot in slots]) for slot in slots}
    pairs = _pair(theirs, ours) or _pair(_renumbered(theirs), _renumbered(ours))
    if pairs is None:
        raise error(
            f"{what}: the weights of layer {layer!r} cannot be told apart by name: "
            f"stored {_some(sorted(stored))}; expected {_some(sorted(ours))}",
            hint=_HINT,
        )
    values: dict[str, Array] = {}
    for slot in slots:
        value = stored[pairs[slot.name]]
        if value.shape != slot.shape:
            raise error(
                f"{what}: weight {pairs[slot.name]} of layer {layer!r} has shape {list(value.shape)}, "
                f"and the model expects {list(slot.shape)}",
                hint=_HINT,
            )
        values[slot.name] = value
    return values


def _parts(name: str, among: Collection[str]) -> list[str]:
    """Return the parts of a name, spelt alike for both generations."""
    scope, _, weight = name.rpartition("/")
    # The one kernel of a depthwise layer has a name of its own in Keras 2; a separable layer has two in both.
    if weight == "depthwise_kernel" and f"{scope}/pointwise_kernel" not in among:
        weight = "kernel"
    return [*scope.split("/"), weight]


def _pair(theirs: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> dict[str, str] | None:
    if len(theirs) != len(ours):
        return None
    longest = max((len(parts) for parts in [*theirs.values(), *ours.values()]), default=1)
    for length in range(1, longest + 1):
        file_tails = {tuple(parts[-length:]): name for name, parts in theirs.items()}
        tails = {name: tuple(parts[-length:]) for name, parts in ours.items()}
        if len(file_tails) == len(theirs) and set(file_tails) == set(tails.values()):
            return {name: file_tails[tail] for name, tail in tails.items()}
    return None


def _renumbered(names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Count Keras's numbers from zero: parts of the same kind by their rank, the last part (the weight) as it is."""
    numbers: dict[str, set[int]] = {}
    for parts in names.values():
        for part in parts[:-1]:
            numbers.setdefault(_base(part), set()).add(_number(part))
    ranks = {base: {number: rank for rank, number in enumerate(sorted(found))} for base, found in numbers.items()}
    return {
        name: [*(f"{_base(part)}#{ranks[_base(part)][_number(part)]}" for part in parts[:-1]), parts[-1]]
        for name, parts in names.items()
    }
