"""Models of a class of their own: they do not say what they take, but what they were built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnfold.frontends.keras.guests import keras_of, quiet

__all__ = ["with_inputs"]


def with_inputs(model: Any, generation: int) -> Any:
    """Return a model that says what its inputs are: the model itself, or one that calls it on what it was built for.

    Where a model does not say either, it is returned as it is.
    """
    if getattr(model, "inputs", None):
        return model
    shape = _shape_of(model)
    if shape is None:
        return model
    keras = keras_of(generation)
    with quiet():
        try:
            inputs = [
                keras.Input(one[1:], name="input" if len(shape) == 1 else f"input_{at}") for at, one in enumerate(shape)
            ]
            return keras.Model(inputs, model(inputs if len(shape) > 1 else inputs[0], training=False))
        except Exception:  # whatever a model of somebody's own does with what it is not made for
            return model


def _shape_of(model: Any) -> list[tuple[int | None, ...]] | None:
    """Return the shapes that a model was built for, as far as they are those of one tensor or of a list of them."""
    told: Any = getattr(model, "_build_shapes_dict", None) or getattr(model, "_build_input_shape", None)
    if isinstance(told, Mapping):
        if len(told) != 1:
            return None
        (told,) = told.values()
    if hasattr(told, "as_list"):
        told = told.as_list()
    if not isinstance(told, list | tuple) or not told:
        return None
    plain = [one.as_list() if hasattr(one, "as_list") else one for one in told]
    shapes = plain if isinstance(plain[0], list | tuple) else [plain]
    if not all(
        isinstance(one, list | tuple) and all(size is None or isinstance(size, int) for size in one) for one in shapes
    ):
        return None
    return [tuple(one) for one in shapes]
