"""Looking inside where a whole model is wrong, and no fold of it was accused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bnfold.errors import BnfoldError
from bnfold.graph.region import Region
from bnfold.parity.localise import Inside, Programs, inner_errors, inside_of, locate
from bnfold.parity.original_layers import LayerReader, first_off, values_of
from bnfold.parity.reference import Reference
from bnfold.parity.shared import shared_values
from bnfold.parity.verdict import Suspect, Verdict

if TYPE_CHECKING:
    from onnx import ModelProto

    from bnfold.parity.feeds import Probe
    from bnfold.parity.sides import Side

__all__ = ["Search"]


@dataclass(frozen=True, slots=True)
class Search:
    """What is known where a fault is looked for.

    Attributes:
        unfolded: The model before folding.
        folded: The model after it.
        regions: What folding changed.
        reference: The unfolded model in float64.
        inside: Returns the original's inner values by the names that the unfolded model has for them.
        layers: Returns what the original's layers compute.
        floating: Whether a value is known to be a float, by its name.
        probes: The inputs that the models took.
    """

    unfolded: ModelProto
    folded: ModelProto
    regions: Sequence[Region]
    reference: Reference
    inside: Inside | None
    layers: LayerReader | None
    floating: Callable[[str], bool]
    probes: Sequence[Probe]

    def suspect(self, folding: Side, translation: Side) -> Suspect | None:
        """Return the first value, or the first layer of the original, that is off; None where nothing can be seen.

        Args:
            folding: What was found of the folded model.
            translation: What was found of the original program.
        """
        (wrong, place), folds = folding.wrong(), True
        if not wrong:
            (wrong, place), folds = translation.wrong(), False
        if not wrong or not (folds or self.inside is not None or self.layers is not None):
            return None
        other = self.folded if folds else self.unfolded
        regions = self.regions if folds else ()
        names = [name for name in shared_values(self.unfolded, other, regions)[0] if self.floating(name)]
        probe = next((probe for probe in self.probes if probe.name == place), self.probes[0])
        outputs = len(self.unfolded.graph.output)
        if self.layers is not None and (len(names) <= outputs or not (folds or self.inside is not None)):
            sides = [item for side in (folding, translation) for item in side.comparisons()]
            error = max(item.candidate for item in sides if item.verdict is Verdict.FAIL)
            found = self._layer(other, probe, error)
            if found is not None or not folds:
                return found
        inside = inside_of(self.folded) if folds or self.inside is None else self.inside
        programs = Programs(self.unfolded, self.reference, inside_of(self.unfolded), inside)
        try:
            errors = inner_errors(programs, names, probe.feeds)
        except BnfoldError:
            errors = {}  # a program that cannot be opened, or that refuses the inputs once they are moved
        return locate(self.unfolded, errors, wrong, probe=probe.name, regions=regions)

    def _layer(self, model: ModelProto, probe: Probe, error: float) -> Suspect | None:
        """Look for the first layer of the original program that has no counterpart in a model."""
        assert self.layers is not None
        try:
            known = self.layers(probe.feeds)
        except Exception:  # whatever the original program raises where somebody looks inside
            return None
        try:
            return first_off(known, partial(values_of, model, probe.feeds), error, probe.name)
        except BnfoldError:
            return None
