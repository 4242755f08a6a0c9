"""Where a fault enters a model whose output is wrong although every fold passes its own check.

The errors of the inner values that two programs both compute are compared with float64. A name may stand for another
value in the other program (a convolution's output before its batch norm, or with it): such a value is far off, and what
is computed from it is right again. So the fault is looked for from the wrong output backwards, and no further than to
values that are right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.graph.region import Region
from bnfold.parity.compare import allowed, match
from bnfold.parity.feeds import jittered
from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.program import called, reads_of
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session
from bnfold.parity.shared import behind, producers_of
from bnfold.parity.verdict import Suspect

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["InnerError", "Inside", "Programs", "inner_errors", "inside_of", "locate"]

Values = Mapping[str, Array]

Inside = Callable[[Sequence[str]], Callable[[Values], Values]]
"""Opens a program so that it also returns inner values of these names; what it does not know is left out."""

_AT_ONCE = 48
"""How many inner values are held at a time."""
_DRAWS = 3
"""How often the rounding errors are drawn: a value that one lucky draw of the other program accuses is innocent."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Two programs, and what both are measured against.

    Attributes:
        model: The unfolded model; its graph says what is computed from what.
        reference: It, in float64.
        baseline: It, as it is stored.
        candidate: The folded model, or the original program.
    """

    model: ModelProto
    reference: Reference
    baseline: Inside
    candidate: Inside


@dataclass(frozen=True, slots=True)
class InnerError:
    """The errors of one inner value in two programs, the worst of a few draws.

    Attributes:
        unfolded: In the unfolded model.
        candidate: In the other program.
        limit: What rounding explains.
    """

    unfolded: float
    candidate: float
    limit: float

    @property
    def differs(self) -> bool:
        """Whether the error is more than rounding explains."""
        return not self.candidate <= self.limit


def inside_of(model: ModelProto) -> Inside:
    """Return what opens a model for its inner values."""
    computed = {name for node in model.graph.node for name in node.output if name}

    def opened(names: Sequence[str]) -> Callable[[Values], Values]:
        return Session(model, also=[name for name in names if name in computed]).run

    return opened


def inner_errors(programs: Programs, names: Sequence[str], feeds: Values) -> dict[str, InnerError]:
    """Return the errors of inner values on one probe; those that a program does not return so are left out.

    Args:
        programs: What is compared.
        names: Values to compare.
        feeds: The probe. Its rounding errors are drawn a few times.
    """
    draws = [feeds, *(jittered(feeds, 2000 + number) for number in range(1, _DRAWS))]
    found: dict[str, InnerError] = {}
    for start in range(0, len(names), _AT_ONCE):
        chunk = names[start : start + _AT_ONCE]
        baseline, candidate = programs.baseline(chunk), programs.candidate(chunk)
        for draw in draws:
            truth, ours, theirs = programs.reference.run(draw, chunk), baseline(draw), candidate(draw)
            for name in chunk:
                errors = _errors(truth.get(name), ours.get(name), theirs.get(name))
                if errors is not None:
                    found[name] = _worse(found.get(name), errors)
    return found


def _worse(one: InnerError | None, other: InnerError) -> InnerError:
    if one is None:
        return other
    return InnerError(
        max(one.unfolded, other.unfolded), max(one.candidate, other.candidate), max(one.limit, other.limit)
    )


def _errors(truth: object, ours: object, theirs: object) -> InnerError | None:
    """Return the errors on one draw; None where the three are no floats of one shape."""
    if not (isinstance(truth, np.ndarray) and isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray)):
        return None
    if not roundoff(ours.dtype) or not roundoff(theirs.dtype) or not ours.shape == theirs.shape == truth.shape:
        return None
    own = match(ours, truth)
    if own.misplaced or not own.compared:
        return None
    other = match(theirs, truth)
    u = max(roundoff(ours.dtype), roundoff(theirs.dtype))
    limit = allowed(own.errors.worst, truth.size, u)
    return InnerError(own.errors.worst, math.inf if other.misplaced else other.errors.worst, limit)


def locate(
    model: ModelProto,
    errors: Mapping[str, InnerError],
    outputs: Sequence[str],
    *,
    probe: str,
    regions: Sequence[Region] = (),
) -> Suspect | None:
    """Return the first value on the way to a wrong output that is off, with the right ones in front of it.

    Args:
        model: The unfolded model.
        errors: Of the values that could be compared.
        outputs: Outputs that are wrong, or the values that decide them.
        probe: What the errors were found on.
        regions: What was folded.
    """
    right = {name for name, error in errors.items() if not error.differs}
    producers = producers_of(model)
    places = {name: place for place, node in enumerate(model.graph.node) for name in node.output if name}
    off = sorted((name for name in behind(producers, outputs, right) if name in errors), key=places.__getitem__)
    value = off[0] if off else next((name for name in outputs if name in producers), None)
    if value is None:
        return None
    within = set(behind(producers, (value,), right - {value}))
    fed = {item.name for item in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    entering = dict.fromkeys(
        name
        for node in model.graph.node
        if not within.isdisjoint(node.output)
        for name in reads_of(node)
        if name not in within and (name in producers or name in fed)
    )
    nodes = {called(node) for node in model.graph.node if not within.isdisjoint(node.output)}
    folded = [
        source
        for region in regions
        if (region.scope[0] in nodes if region.scope else not within.isdisjoint(region.outputs))
        for source in region.sources
    ]
    nothing = InnerError(math.nan, math.nan, math.nan)
    error, node = errors.get(value, nothing), producers[value]
    return Suspect(
        value=value,
        op_type=node.op_type,
        node=called(node),
        between=tuple(entering),
        unfolded=error.unfolded,
        candidate=error.candidate,
        limit=error.limit,
        probe=probe,
        sources=tuple(dict.fromkeys(folded)),
    )
