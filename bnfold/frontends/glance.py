"""What can be said of an artifact by looking at its file alone: no framework is imported, and nothing in it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Glance", "ModeInput", "Port", "SeenBatchNorm", "Statistics", "Suspicion", "Vectors", "diagnosed"]

Array = npt.NDArray[np.generic]
Statistics = Literal["moving", "batch", "switched", "unknown"]

_DEAD = 1e-10
_MEAN_CLOSE, _VARIANCE_CLOSE = 1e-7, 1e-6


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output as the file declares it.

    Attributes:
        name: Its name in the artifact.
        dtype: numpy's name of its element type; empty where the file leaves that to the framework.
        shape: One entry an axis, None for an open one; None where the file leaves it to the framework.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class SeenBatchNorm:
    """One batch norm as it stands in the file.

    Attributes:
        name: Its layer's, or its scope's.
        kind: The layer's class, or the operation; ``"spelled out"`` where it is written as arithmetic.
        channels: How many channels it has; None where the file does not say.
        epsilon: What is added to the variance; None where the file does not say.
        statistics: ``"moving"`` ones from training, those of each ``"batch"``, ``"switched"`` between the two while it
            runs, or ``"unknown"``.
        behind: The layer or operation whose result it normalises; empty where that was not found.
    """

    name: str
    kind: str
    channels: int | None
    epsilon: float | None
    statistics: Statistics
    behind: str = ""


@dataclass(frozen=True, slots=True)
class ModeInput:
    """An input or a constant that decides between training and inference, or may do so.

    Attributes:
        name: Its name.
        kind: What it is, for example ``"bool placeholder"``.
        default: The value it has by itself; empty where it has to be fed.
        decides: How many switches, branches and selections it decides.
    """

    name: str
    kind: str
    default: str
    decides: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something that is wrong with an artifact, or may be.

    Attributes:
        about: The layers or nodes that it concerns.
        says: What it is, with numbers.
        hint: What its owner could do.
    """

    about: tuple[str, ...]
    says: str
    hint: str


@dataclass(frozen=True, slots=True)
class Glance:
    """An artifact that was looked at.

    Attributes:
        path: As the caller gave it.
        format: What the file is, by its content.
        framework: The framework and version it was written with, as far as the file tells.
        description: A short line for people, for example ``"TF1 frozen graph"``.
        bytes: How large it is on disk.
        parameters: Elements of its floating weights; None where the file does not hold them.
        inputs: What it is fed.
        outputs: What it answers, or is likely to.
        batch_norms: In the order of the file.
        mode_inputs: What decides between training and inference.
        suspicions: What is wrong, or may be.
        open_questions: What only a conversion can tell, one sentence each.
        schema: The name of this form.
    """

    path: str
    format: str
    framework: str
    description: str
    bytes: int
    parameters: int | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch_norms: tuple[SeenBatchNorm, ...]
    mode_inputs: tuple[ModeInput, ...]
    suspicions: tuple[Suspicion, ...]
    open_questions: tuple[str, ...]
    schema: Literal["bnfold-glance/1"] = "bnfold-glance/1"


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """The numbers of one batch norm, as far as the file holds them; each has shape ``(C,)``."""

    name: str
    gamma: Array | None = None
    beta: Array | None = None
    mean: Array | None = None
    variance: Array | None = None


def diagnosed(found: Sequence[Vectors]) -> tuple[Suspicion, ...]:
    """Return what is wrong with statistics that a file holds.

    Looked for are numbers that no training leaves (NaN, infinity, a negative variance), statistics that were never
    updated, and channels that give the same whatever they are given.
    """
    known = [one for one in found if one.mean is not None or one.variance is not None]
    return tuple(
        suspicion for suspicion in (_impossible(known), _never_updated(known), _dead(known)) if suspicion is not None
    )


def _impossible(known: Sequence[Vectors]) -> Suspicion | None:
    names = []
    for one in known:
        vectors = (one.gamma, one.beta, one.mean, one.variance)
        given = [np.asarray(vector, np.float64) for vector in vectors if vector is not None]
        negative = one.variance is not None and bool((np.asarray(one.variance, np.float64) < 0).any())
        if negative or any(not np.isfinite(vector).all() for vector in given):
            names.append(one.name)
    if not names:
        return None
    return Suspicion(
        tuple(names),
        f"{_of(names, known)} hold NaN, infinity or a negative variance: training diverged, or the file is damaged",
        "Take an earlier checkpoint, or recompute the statistics from data.",
    )


def _never_updated(known: Sequence[Vectors]) -> Suspicion | None:
    both = [one for one in known if one.mean is not None and one.variance is not None]
    names = [
        one.name
        for one in both
        if np.all(np.abs(np.asarray(one.mean, np.float64)) <= _MEAN_CLOSE)
        and np.all(np.abs(np.asarray(one.variance, np.float64) - 1) <= _VARIANCE_CLOSE)
    ]
    if not names:
        return None
    return Suspicion(
        tuple(names),
        f"{_of(names, both)} have mean 0 and variance 1 in every channel: their statistics were never updated",
        "Run the update operations while training, or recompute the statistics from data; an untrained model is right.",
    )


def _dead(known: Sequence[Vectors]) -> Suspicion | None:
    names, count = [], 0
    for one in known:
        if one.variance is None:
            continue
        variance = np.asarray(one.variance, np.float64)
        still = int(((variance >= 0) & (variance < _DEAD)).sum())
        count += still
        names += [one.name] if still else []
    if not names:
        return None
    return Suspicion(
        tuple(names),
        f"{count} channel{'s' if count > 1 else ''} in {_of(names, known)} have a variance below {_DEAD:g}: "
        "what reached them in training hardly changed",
        "Look whether the layers in front of them are dead; folding them is exact all the same.",
    )


def _of(names: Sequence[str], known: Sequence[Vectors]) -> str:
    return f"{len(names)} of {len(known)} batch norms"
