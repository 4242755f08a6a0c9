"""The digits that every model here was trained on, always split in the same way.

scikit-learn ships 1797 handwritten digits of 8 × 8 pixels with 17 grey levels (UCI "Optical Recognition of
Handwritten Digits", CC BY 4.0). Every third of them is for testing: 599 digits of all classes and all writers. The
other 1198 are for training. No random generator decides that, so the split is the same in every version of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Digits", "Split", "batches", "correct", "load", "record"]


@dataclass(frozen=True, slots=True)
class Split:
    """Some of the digits.

    Attributes:
        pixels: Shape ``(n, 64)``, row by row, divided by 16: 0 is paper and 1 is full ink.
        labels: Shape ``(n,)``, int64, 0 to 9.
    """

    pixels: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int64]

    def images(self, *, channels_last: bool) -> npt.NDArray[np.floating]:
        """Return the pixels as ``(n, 8, 8, 1)``, or as ``(n, 1, 8, 8)``."""
        return self.pixels.reshape((-1, 8, 8, 1) if channels_last else (-1, 1, 8, 8))


@dataclass(frozen=True, slots=True)
class Digits:
    """The digits to train on, and those that no training has seen."""

    train: Split
    test: Split


def load(dtype: npt.DTypeLike = np.float32) -> Digits:
    """Return the digits in the given floating type."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, labels = (found.data / 16).astype(dtype), found.target.astype(np.int64)
    testing = np.arange(len(labels)) % 3 == 2
    return Digits(Split(pixels[~testing], labels[~testing]), Split(pixels[testing], labels[testing]))


def batches(split: Split, size: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Return one epoch as shuffled indices, each of exactly ``size`` digits; the odd rest waits for another epoch."""
    order = rng.permutation(len(split.labels))
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def correct(scores: npt.NDArray[np.generic], split: Split) -> int:
    """Return how many digits get their highest score, shape ``(n, 10)``, at their own label."""
    return int((np.asarray(scores).argmax(axis=1) == split.labels).sum())


def record(path: Path, scores: npt.NDArray[np.generic], split: Split) -> str:
    """Write what a trained program itself answers, shape ``(n, 10)``, and return its accuracy in words."""
    np.save(path, np.asarray(scores))
    return f"{correct(scores, split)} of {len(split.labels)}"
