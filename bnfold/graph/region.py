"""A piece of a graph that folding changed, by the names of the values around it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Region"]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a model between values that exist, under the same names, before and after folding.

    Attributes:
        sources: Names of the batch norms and constant affines that were folded inside it.
        inputs: Values that enter it (activations only; constants are found through the model).
        outputs: Values that leave it.
        fan_in: The most products that any output element sums up, ``n`` in the error bound of gate A.
        scope: Names of the control-flow nodes around it, outermost first; empty in the main graph.
    """

    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fan_in: int
    scope: tuple[str, ...] = ()
