"""Several probes as the rows of one batch: run together, and judged one by one.

Programs run a batch faster than its rows one after the other, and a batch of seven is to be tried anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bnfold.parity.feeds import Probe
    from bnfold.parity.kernels import Array
    from bnfold.parity.whole import Run

__all__ = ["Bundle", "alone", "bundles"]

_LARGEST = 7
_LEAST = 3
_HELD = 1 << 28
"""Bytes that the largest value of a batch of seven may have in float64: 256 MiB."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One probe, or several that stand in one batch.

    Attributes:
        numbers: Their places among all probes.
        probes: The probes.
        feeds: What is fed.
        count: How many rows that has; 0 for one probe alone, which may have any number of them.
    """

    numbers: tuple[int, ...]
    probes: tuple[Probe, ...]
    feeds: Mapping[str, Array]
    count: int = 0

    @property
    def name(self) -> str:
        """What it is called."""
        return ", ".join(probe.name for probe in self.probes)

    def apart(self) -> list[Bundle]:
        """Return its probes, each alone."""
        return [alone(number, probe) for number, probe in zip(self.numbers, self.probes, strict=True)]

    def divides(self, run: Run, outputs: Sequence[str]) -> bool:
        """Whether every output has one row a sample."""
        if not self.count:
            return True
        returned: list[Any] = [side[name] for side in (run.reference, run.unfolded) for name in outputs]
        return all(isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == self.count for value in returned)

    def outputs(self, values: Mapping[str, Any], place: int) -> Mapping[str, Any]:
        """Return what belongs to one probe, of everything that has one row a sample."""
        if not self.count:
            return values
        return {
            name: value[place : place + 1]
            if isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == self.count
            else value
            for name, value in values.items()
        }

    def row(self, run: Run, place: int) -> Run:
        """Return what came of one probe."""
        if not self.count:
            return run
        return replace(
            run,
            probe=self.probes[place].name,
            reference=self.outputs(run.reference, place),
            unfolded=self.outputs(run.unfolded, place),
            candidate=self.outputs(run.candidate, place),
            noisy=self.outputs(run.noisy, place),
            quiet=self.outputs(run.quiet, place),
            behind=None if run.behind is None else self.outputs(run.behind, place),
        )


def alone(number: int, probe: Probe) -> Bundle:
    """Return one probe as it is."""
    return Bundle((number,), (probe,), probe.feeds)


def bundles(probes: Sequence[tuple[int, Probe]], largest: int) -> list[Bundle]:
    """Return probes by the batches that they stand in.

    Args:
        probes: The probes, in order, each with its place among all.
        largest: Bytes of the largest value that one row makes in float64.
    """
    most = _LARGEST if largest * _LARGEST <= _HELD else _LEAST
    found: list[list[tuple[int, Probe]]] = []
    unfilled: dict[int, list[tuple[int, Probe]]] = {}
    for number, probe in probes:
        members = unfilled.get(probe.group) if probe.group else None
        if members is None or len(members) == most:
            members = []
            found.append(members)
            unfilled[probe.group] = members
        members.append((number, probe))
    return [_bundle(members) for members in found]


def _bundle(members: Sequence[tuple[int, Probe]]) -> Bundle:
    if len(members) == 1:
        return alone(*members[0])
    numbers, probes = zip(*members, strict=True)
    # Six are filled up by the first one again: a batch of seven is what is to be tried.
    rows = [*probes, probes[0]] if len(probes) == _LARGEST - 1 else probes
    feeds = {name: np.concatenate([row.feeds[name] for row in rows]) for name in probes[0].feeds}
    return Bundle(tuple(numbers), tuple(probes), feeds, len(rows))
