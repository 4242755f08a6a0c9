"""A bound on what a configuration may ask for: a model's weights are in its file, so they cannot be larger than it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bnfold.errors import CorruptModelError
from bnfold.frontends.keras.guests import keras_of

__all__ = ["most_numbers", "too_many", "weights_bounded_by"]

_SMALL = 1 << 20
_MOST_COMPRESSED = 10
"""Numbers that a byte of a file may stand for: weights of many zeros compress that well."""


def most_numbers(size: int) -> int:
    """Return how many numbers a file of some bytes may stand for."""
    return max(_SMALL, _MOST_COMPRESSED * size)


def too_many(name: str, size: int, most: int, one: tuple[str, Sequence[int]] | None) -> CorruptModelError:
    """Return the refusal of a configuration that asks for more than the file can hold.

    Args:
        name: Of the file.
        size: Its bytes.
        most: How many numbers it may stand for.
        one: The layer and the shape of a weight that is too large by itself; None where all are so together.
    """
    told = "the layers have weights" if one is None else f"layer {one[0]!r} has a weight of shape {list(one[1])}"
    return CorruptModelError(
        f"{name} has {size} bytes, and in its configuration {told} of more than {most} numbers",
        hint="Save the model again with Keras itself.",
    )


@contextmanager
def weights_bounded_by(path: Path, generation: int) -> Iterator[None]:
    """Refuse weights that cannot be in a file, before Keras makes room for them.

    Args:
        path: The file that holds the weights.
        generation: Which Keras builds the model, 2 or 3.

    Raises:
        CorruptModelError: If a layer, or all of them together, ask for more numbers than the file can hold.
    """
    size = path.stat().st_size
    most = most_numbers(size)
    refused: list[CorruptModelError] = []
    asked = [0]

    def check(layer: Any, shape: Any) -> None:
        sizes = [int(size) for size in (shape if isinstance(shape, list | tuple) else ()) if size is not None]
        count = math.prod(sizes)
        asked[0] += count
        if asked[0] > most:
            refused.append(too_many(path.name, size, most, (layer.name, sizes) if count > most else None))
            raise refused[0]

    owner = _layer_class(generation)
    before = owner.__dict__["add_weight"]
    owner.add_weight = _checked(before, check)  # type: ignore[attr-defined]
    try:
        yield
    except Exception:
        if refused:  # Keras rewrites whatever passes through it
            raise refused[0] from None
        raise
    finally:
        owner.add_weight = before  # type: ignore[attr-defined]


def _layer_class(generation: int) -> type:
    lineage: tuple[type, ...] = keras_of(generation).layers.Layer.__mro__
    return next(cls for cls in lineage if "add_weight" in cls.__dict__)


def _checked(original: Callable[..., Any], check: Callable[[Any, Any], None]) -> Callable[..., Any]:
    def add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Either comes first: the shape in Keras 3, the name in Keras 2. All others are named.
        shapes = [kwargs["shape"]] if "shape" in kwargs else [given for given in args if not isinstance(given, str)]
        check(self, shapes[0] if shapes else None)
        return original(self, *args, **kwargs)

    return add_weight
