"""What a linear layer has taken in so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnfold.affine import Field, PerChannelAffine
from bnfold.fold.step import Branch, Chain
from bnfold.rules import Absorber, Side

__all__ = ["Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a linear layer has taken in.

    Attributes:
        absorber: The rule that says where the layer's weights are.
        affine: The map, by that rule; None for anything else.
        branch: A branch beside the layer.
        chain: A layer in front of it or behind it.
        own: The branch's map, where it is one.
    """

    absorber: Absorber
    affine: PerChannelAffine | None = None
    branch: Branch | None = None
    chain: Chain | None = None
    own: Field | None = None

    def joined_to(self, first: Taken) -> Taken | None:
        """Return the one map that two are, which a layer took in one after the other; None where they are not."""
        if first.absorber is not self.absorber or self.affine is None or first.affine is None:
            return None
        inner, outer = first.affine, self.affine
        if self.absorber.side is Side.INPUT:  # in front of a layer, the later one acts first
            inner, outer = outer, inner
        if inner.sizes != outer.sizes:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            scale, shift = outer.scale * inner.scale, outer.scale * inner.shift + outer.shift
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            return None
        return Taken(self.absorber, replace(outer, scale=scale, shift=shift))
