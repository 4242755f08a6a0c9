"""One candidate beside the reference: its ledgers for gate B, its choices for gate C, and one probe after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.parity.behaviour import Choices
from bnfold.parity.feeds import jittered
from bnfold.parity.verdict import Agreement, Comparison, Verdict
from bnfold.parity.whole import Ledger, Run

if TYPE_CHECKING:
    from bnfold.parity.feeds import Probe
    from bnfold.parity.kernels import Array
    from bnfold.parity.margins import Decision
    from bnfold.parity.stand import Stand

__all__ = ["Candidate", "Side", "compare"]

Candidate = Callable[[Mapping[str, "Array"]], Mapping[str, "Array"] | None]
"""Runs the folded model, or the original program; None where it refuses."""


class Side:
    """What is known of one candidate: its ledgers for gate B, and its choices for gate C."""

    def __init__(
        self,
        candidate: str,
        outputs: Sequence[str],
        decisions: Mapping[str, Decision | None],
        classes: Mapping[str, int],
    ) -> None:
        self.decisions = decisions
        self.ledgers = {name: Ledger(name, decisions.get(name)) for name in outputs}
        self.choices = {name: Choices(name, axis, candidate) for name, axis in classes.items() if name in self.ledgers}

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return gate B, one entry an output."""
        return tuple(ledger.result() for ledger in self.ledgers.values())

    def agreements(self) -> tuple[Agreement, ...]:
        """Return gate C, one entry an output and metric."""
        return tuple(row for choices in self.choices.values() for row in choices.results())

    def wrong(self) -> tuple[list[str], str]:
        """Return the floats that are wrong or that decide what is, and the probe on which they are."""
        found = [item for item in self.comparisons() if item.verdict is Verdict.FAIL]
        names: list[str] = []
        for item in found:
            decision = self.decisions.get(item.output)
            names += [item.output] if decision is None else decision.values
        return names, found[0].probe if found else ""


def compare(stand: Stand, probe: Probe, run: Run, side: Side, candidate: Candidate) -> Mapping[str, Array]:
    """Give one probe's outputs to the ledgers of one comparison; return the candidate's outputs."""
    value = candidate(probe.feeds)
    if value is None:
        for ledger in side.ledgers.values():
            ledger.doubt = stand.refusal
        return {}
    run = replace(run, candidate=value)
    memory: dict[int, Run | None] = {}

    def redraw(look: int) -> Run | None:
        if stand.lost:
            return None
        if look not in memory:
            feeds = jittered(probe.feeds, 1000 + look)
            drawn = stand.baseline(probe.name, feeds, look + 1, weights=True)
            again = None if drawn is None else candidate(feeds)
            memory[look] = None
            if drawn is not None and again is not None:
                memory[look] = replace(drawn, candidate=again, amplification=run.amplification)
        return memory[look]

    for name, ledger in side.ledgers.items():
        if name not in value:
            ledger.doubt = "the original program does not return it"
            continue
        counted = ledger.probes
        ledger.add(run, redraw)
        if name in side.choices and ledger.probes > counted:
            side.choices[name].add(run, ledger.allowed)
    return value
