"""One candidate beside the reference: its ledgers for gate B, its choices for gate C, and one probe after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.parity.behaviour import Choices
from bnfold.parity.feeds import jittered
from bnfold.parity.verdict import Agreement, Comparison, RegionCheck, Verdict
from bnfold.parity.whole import Ledger, Run

if TYPE_CHECKING:
    from bnfold.parity.kernels import Array
    from bnfold.parity.margins import Decision
    from bnfold.parity.rows import Bundle
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
        chosen_by: Mapping[str, str] | None = None,
        *,
        slack: float = 1.0,
    ) -> None:
        """Open the ledgers.

        Args:
            candidate: Who is judged.
            outputs: What is compared.
            decisions: What decides an exact output, by the output.
            classes: The axis of the classes, by the output.
            chosen_by: Floats that something is chosen by and that the candidate has, too, with an output behind them.
            slack: By how many times the candidate may be further off than a folded model may.
        """
        self.decisions = decisions
        self.chosen_by = chosen_by or {}
        self.inner = {name: Ledger(name) for name in self.chosen_by if name not in outputs}
        self.ledgers = {name: Ledger(name, decisions.get(name), slack) for name in outputs}
        self.choices = {name: Choices(name, axis, candidate) for name, axis in classes.items() if name in self.ledgers}

    def back(self, checks: Sequence[RegionCheck]) -> None:
        """Take note of what gate A found: where every fold is right by itself, less is left to prove of the whole."""
        backed = bool(checks) and all(check.verdict.passed for check in checks)
        for ledger in (*self.ledgers.values(), *self.inner.values()):
            ledger.backed = backed

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return gate B, one entry an output."""
        results = {name: ledger.result() for name, ledger in self.ledgers.items()}
        for name, found in self._wrong_inside().items():
            output = self.chosen_by[name]
            if results[output].verdict is not Verdict.FAIL:
                why = f"{name}, by which it is chosen, is off: {found.detail}"
                results[output] = replace(
                    results[output], verdict=Verdict.FAIL, detail=why, probe=found.probe, closest=found.closest
                )
        return tuple(results.values())

    def _wrong_inside(self) -> dict[str, Comparison]:
        found = {name: ledger.result() for name, ledger in self.inner.items()}
        return {name: item for name, item in found.items() if item.verdict is Verdict.FAIL}

    def agreements(self) -> tuple[Agreement, ...]:
        """Return gate C, one entry an output and metric."""
        return tuple(row for choices in self.choices.values() for row in choices.results())

    def wrong(self) -> tuple[list[str], str]:
        """Return the floats that are wrong or that decide what is, and the probe on which they are."""
        found = [item for item in self.comparisons() if item.verdict is Verdict.FAIL]
        inside = self._wrong_inside()
        names: list[str] = list(inside)
        for item in found:
            if any(self.chosen_by[name] == item.output for name in inside):
                continue
            decision = self.decisions.get(item.output)
            names += [item.output] if decision is None else decision.values
        return names, found[0].probe if found else ""


def compare(
    stand: Stand, bundle: Bundle, run: Run, side: Side, candidate: Candidate, *, refusal: Callable[[], str] = lambda: ""
) -> list[Mapping[str, Array]]:
    """Give the outputs to the ledgers of one comparison, probe by probe; return the candidate's outputs by probe.

    Args:
        stand: Runs everything else.
        bundle: What is fed.
        run: What everything else returned.
        side: The ledgers.
        candidate: Who is judged.
        refusal: Says why the candidate did not run.
    """
    feeds = bundle.feeds
    value = candidate(feeds)
    if value is None and bundle.count:  # it may be pickier about batches than its translation
        apart = [(one, bundle.row(run, place)) for place, one in enumerate(bundle.apart())]
        return [found for one, row in apart for found in compare(stand, one, row, side, candidate, refusal=refusal)]
    if value is None:
        for ledger in side.ledgers.values():
            ledger.doubt = refusal()
        return [{}]
    fragile: list[frozenset[str]] = []

    def unseen(output: str) -> bool:
        """Whether an output may be another one by a choice that nobody can see in the candidate."""
        hidden = [name for name in stand.decisions.of(output) if name in stand.decisions.chosen and name not in value]
        if not hidden:
            return False
        if not fragile:
            fragile.append(stand.fragile(feeds, run))
        return not fragile[0].isdisjoint(hidden)

    behind = stand.behind(feeds, value, dict(run.reference))
    run = replace(run, candidate=value, behind=behind, fragile=unseen)
    memory: dict[int, Run | None] = {}

    def redraw(look: int) -> Run | None:
        if stand.lost:
            return None
        if look not in memory:
            moved = jittered(feeds, 1000 + look)
            drawn = stand.baseline(bundle.name, moved, look + 1, weights=True)
            again = None if drawn is None else candidate(moved)
            memory[look] = None
            if drawn is not None and again is not None:
                chosen = stand.behind(moved, again, dict(drawn.reference))
                memory[look] = replace(drawn, candidate=again, amplification=run.amplification, behind=chosen)
        return memory[look]

    def redrawn(place: int) -> Callable[[int], Run | None]:
        return lambda look: None if (again := redraw(look)) is None else bundle.row(again, place)

    for place in range(len(bundle.probes)):
        _add(side, bundle.row(run, place), redrawn(place))
    return [bundle.outputs(value, place) for place in range(len(bundle.probes))]


def _add(side: Side, run: Run, redraw: Callable[[int], Run | None]) -> None:
    """Give one probe's outputs to the ledgers."""
    for name, ledger in side.ledgers.items():
        if name not in run.candidate:
            ledger.doubt = "the original program does not return it"
            continue
        counted = ledger.probes
        ledger.add(run, redraw)
        if name in side.choices and ledger.probes > counted:
            side.choices[name].add(run, ledger.allowed)
    for name, ledger in side.inner.items():
        if name in run.candidate and name in run.unfolded:
            ledger.add(run, redraw)
