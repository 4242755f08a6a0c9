"""The user's own metric: a function of outputs and inputs that says how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.errors import BnfoldError, SourceError
from bnfold.frontends.loaded import Array
from bnfold.frontends.own_code import first_line
from bnfold.pipeline.code import load_function
from bnfold.pipeline.feeds import Given

__all__ = ["OwnMetric"]


class OwnMetric:
    """A function ``(outputs, inputs) -> figure``; what it raises is kept until somebody asks."""

    def __init__(self, named: str, given: Sequence[Given]) -> None:
        """Load the function.

        Args:
            named: ``file.py:function``. It gets the outputs by name, and the inputs with whatever was stored beside
                them; it returns a number, a condition, or a mapping of these by name.
            given: The user's own inputs.

        Raises:
            SourceError: If there is no such function.
        """
        self._named, self._given = named, tuple(given)
        self._function = load_function(named, option="--metric")
        self._failure: SourceError | None = None

    def __call__(self, outputs: Mapping[str, Array], feeds: Mapping[str, Array], place: int) -> Mapping[str, float]:
        """Return the figures by their names; a single one is called as the function is."""
        if self._failure is not None:
            return {}
        beside = self._given[place].beside if place < len(self._given) else {}
        try:
            found = self._function(dict(outputs), {**beside, **feeds})
        except BnfoldError:
            raise
        except Exception as error:
            self._failure = SourceError(
                f"--metric: {self._named} raised {type(error).__name__}: {first_line(error)}",
                hint="Let it take two mappings of arrays, the outputs and the inputs, and return a number.",
            )
            return {}
        name = self._named.rpartition(":")[2]
        figures = found if isinstance(found, Mapping) else {name: found}
        read = {str(key): _figure(value) for key, value in figures.items()}
        if not read or any(value is None for value in read.values()):
            self._failure = SourceError(
                f"--metric: {self._named} returned {type(found).__name__}, which is no number",
                hint="Return a number, a bool, or numbers by name.",
            )
            return {}
        return {key: value for key, value in read.items() if value is not None}

    def require(self) -> None:
        """Raise what went wrong in the function, if anything did.

        Raises:
            SourceError: If it raised, or returned no number.
        """
        if self._failure is not None:
            raise self._failure


def _figure(value: Any) -> float | None:
    """Return a number or a condition as Python has it; None if it is neither."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.size == 1):
        number = np.asarray(value).reshape(())
        if number.dtype.kind == "b":
            return bool(number)
        return float(number) if number.dtype.kind in "fiu" else None
    return None
