"""Gate A: every fold by itself, against the original nodes in float64.

``S = |W'|⊛|x| + |b'|``, ``η = max |y_folded − y_64| / (u·S)``; a fold passes iff ``η ≤ 4 + 2√n``, where n is the
fan-in and u the unit round-off. That is a componentwise backward error: it does not depend on the scale of anything,
nor on how deep the fold stands. Operations that are not linear take S along by ``parity/bounds``.

Below a type's normal range rounding has a smallest step, so a few of those are granted for free. In float64 the
reference itself rounds, and so did the fold's own arithmetic: there S is that of the original nodes as well.

Where there is no bound (a recurrent layer, a rounding in between), or one that allows too much to tell anything
(several layers in a row, float16), the rule of gate B is applied to the region by itself: its error against three times
that of the original nodes in the stored type.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto, helper

from bnfold.errors import BnfoldError
from bnfold.graph.extract import OpenPiece, extract
from bnfold.graph.region import Region
from bnfold.parity.corners import smaller
from bnfold.parity.feeds import jittered
from bnfold.parity.kernels import Array, computes_with, roundoff
from bnfold.parity.magnitude import longest_sum
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session, run_node
from bnfold.parity.scales import bound_of, coarsest
from bnfold.parity.verdict import Comparison, RegionCheck, Verdict
from bnfold.parity.whole import Ledger, Run, leaves_range, rounding_model

__all__ = ["check_region", "eta_limit", "region_probes"]

Values = Mapping[str, Array]
_TELLING = 2.0**-9
"""A bound that allows a larger error, relative to the output, is not relied on alone: one layer allows 1e-3 at most."""


def eta_limit(fan_in: int) -> float:
    """Return the largest backward error that rounding explains, ``4 + 2√n``, in units of ``u·S``."""
    return 4 + 2 * math.sqrt(max(fan_in, 1))


@dataclass(slots=True)
class _Worst:
    eta: float = 0.0
    probe: str = ""
    where: str = ""
    compared: int = 0

    def judge(
        self, value: Array, expected: Array, scale: Array | None, *, u: float, steps: float, place: tuple[str, str]
    ) -> None:
        """Take in one output on one probe: ``η = max(|y − y_64| − steps, 0) / (u·S)``, element by element."""
        probe, output = place
        if value.shape != expected.shape or (scale is not None and scale.shape != expected.shape):
            self.eta, self.probe = math.inf, probe
            self.where = f"{output} has the shape {value.shape}, not {expected.shape},"
            return
        if scale is None or not computes_with(value):
            same = np.asarray(value == expected)
            self.compared += int(same.size)
            if not same.all():
                self.eta, self.probe, self.where = math.inf, probe, f"{output} is not of a floating type and differs"
            return
        if not value.size:
            return
        # Where the sum of magnitudes leaves the type's range, an overflow on the way is nobody's mistake.
        limit = float(ml_dtypes.finfo(value.dtype).max)  # type: ignore[no-untyped-call]
        with np.errstate(all="ignore"):
            eta = np.subtract(value if value.dtype.kind == "f" else value.astype(np.float64), expected)
            np.abs(eta, out=eta)
            eta -= steps
            np.maximum(eta, 0, out=eta)
            lowest, highest = float(scale.min()), float(scale.max())
            eta /= scale
            eta /= u
        every = 0 < lowest <= highest < limit
        if not every or not math.isfinite(float(eta.max())):
            counted = np.isfinite(expected) & (scale < limit)
            if not counted.any():
                return
            with np.errstate(invalid="ignore"):
                off = np.abs(value.astype(np.float64) - expected) > steps
            eta = np.where(np.isnan(eta), np.where(off | np.isnan(value), np.inf, 0.0), eta)
            eta = np.where(counted, eta, 0.0)
            self.compared += int(counted.sum())
        else:
            self.compared += int(eta.size)
        worst = np.unravel_index(int(np.argmax(eta)), eta.shape)
        if not self.probe or eta[worst] > self.eta:
            self.eta, self.probe = float(eta[worst]), probe
            self.where = f"{output}[{', '.join(str(int(index)) for index in worst)}]"


@dataclass(slots=True)
class _Found:
    """What is known of a region so far."""

    worst: _Worst
    limit: float
    comparisons: tuple[Comparison, ...] = ()
    """By the rule of gate B, where it was asked."""
    bounded: bool = True
    probes: int = 0


def check_region(
    region: Region,
    unfolded: ModelProto,
    folded: ModelProto,
    captured: Sequence[Values],
    *,
    seed: int,
    level: str = "full",
    reference: Reference | None = None,
) -> RegionCheck:
    """Judge one fold.

    Args:
        region: The piece, by the names of the values around it.
        unfolded: The model before.
        folded: The model after.
        captured: Values of the region's inputs in real runs, in their stored types. May be empty where a region stands
            in a body that no run reached.
        seed: Of the random probe.
        level: ``"fast"`` runs two probes, one captured and the zeros.
        reference: Of the model before, if there is one: its constants need not be widened again.
    """
    found = _Found(_Worst(), eta_limit(region.fan_in))
    if not captured:
        found.worst.eta = math.nan
        return _ended(
            region, found, Verdict.INCONCLUSIVE, "no run reached it, so no values were captured at its inputs"
        )
    elements = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in captured[0].items()}
    frame = {"inputs": region.inputs, "outputs": region.outputs, "elements": elements, "scope": region.scope}
    before, after = extract(unfolded, **frame), extract(folded, **frame)  # type: ignore[arg-type]
    for side, pieces in (("before", before), ("after", after)):
        if isinstance(pieces, OpenPiece):
            found.worst.eta = math.nan
            return _ended(region, found, Verdict.FAIL, f"the region is not whole {side} folding: {pieces.detail}")
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    if len(before) != len(after):
        found.worst.eta = math.nan
        detail = f"{len(before)} bodies hold it before folding, and {len(after)} after"
        return _ended(region, found, Verdict.FAIL, detail)
    pairs = list(zip(before, after, strict=True))
    corners = [smaller(values, [model for pair in pairs for model in pair]) for values in captured]
    small = [values for values in corners if values is not None]

    def tried(found: _Found, values: Sequence[Values]) -> RegionCheck:
        try:
            for original, piece in pairs:
                truth = Reference(original, foreign=run_node, beside=None if region.scope else reference)
                _compare(truth, piece, region, region_probes(values, seed, level), found)
        except BnfoldError as error:
            return _ended(region, found, Verdict.INCONCLUSIVE, f"it cannot be run by itself: {error}")
        return _judged(region, found)

    if len(small) == len(captured):
        first = tried(_Found(_Worst(), found.limit), small)
        if first.verdict.passed:  # what fails in a corner has to fail as a whole
            return first
    return tried(found, captured)


def _judged(region: Region, found: _Found) -> RegionCheck:
    """Return the verdict of both rules together: a bound that holds is a proof, unless it allows too much."""
    worst = found.worst
    wrong = [item for item in found.comparisons if item.verdict is Verdict.FAIL]
    shown = max(wrong or found.comparisons, key=lambda item: item.closest, default=None)
    if worst.eta > found.limit and not (wrong and shown and shown.closest > worst.eta / found.limit):
        place = f"{worst.where} on the probe {worst.probe!r}"
        detail = f"backward error {worst.eta:.3g} u, {found.limit:.1f} u allowed; {place}"
        return _ended(region, found, Verdict.FAIL, detail)
    if shown is not None and (wrong or not found.bounded):
        u = 2.0**-24
        worst.eta, found.limit, worst.probe = shown.candidate / u, shown.limit / u, shown.probe
        worst.compared = max(worst.compared, sum(item.compared for item in found.comparisons))
    if wrong and shown is not None:
        return _ended(region, found, Verdict.FAIL, f"{shown.output}: {shown.detail}")
    open_ones = [item for item in found.comparisons if not item.verdict.passed]
    if not found.bounded and open_ones:
        return _ended(region, found, Verdict.INCONCLUSIVE, f"{open_ones[0].output}: {open_ones[0].detail}")
    if not worst.compared and (open_ones or not found.comparisons):
        return _ended(region, found, Verdict.INCONCLUSIVE, "no element could be compared")
    return _ended(region, found, Verdict.PASS, "")


def _ended(region: Region, found: _Found, verdict: Verdict, detail: str) -> RegionCheck:
    worst = found.worst
    return RegionCheck(
        sources=region.sources,
        outputs=region.outputs,
        eta=worst.eta,
        limit=found.limit,
        probe=worst.probe,
        probes=found.probes,
        compared=worst.compared,
        verdict=verdict,
        detail=detail,
    )


def _compare(
    truth: Reference,
    piece: ModelProto,
    region: Region,
    probes: Iterator[tuple[str, Values]],
    found: _Found,
) -> None:
    original = truth.model
    first = next(probes)
    shapes = {name: value.shape for name, value in first[1].items()}
    found.limit = max(found.limit, eta_limit(longest_sum(piece, shapes)))
    session, bound, coarse = Session(piece), bound_of(original, piece), coarsest(piece)
    whole = _Whole(original, piece, truth, session) if bound is None else None
    for number, (name, feeds) in enumerate(itertools.chain([first], probes)):
        found.probes += 1
        expected, computed = truth.run(_of(original, feeds)), session.run(_of(piece, feeds))
        if bound is not None:
            scales = bound(feeds)
            for output in region.outputs:
                value, scale = computed[output], scales.get(output)
                u = max(coarse, roundoff(value.dtype))
                # Below the normal range a node's own rounding has a smallest step, and so has each product.
                steps = 2 * len(piece.graph.node) * _smallest(value.dtype) + 2 * region.fan_in * 2.0**-149
                found.worst.judge(value, expected[output], scale, u=u, steps=steps, place=(name, output))
                share = 0.0 if number or whole is not None else _share(scale, expected[output])
                if found.limit * u * share > _TELLING:
                    whole = _Whole(original, piece, truth, session)
        if whole is not None:
            whole.add(name, feeds, expected, computed)
    found.bounded = found.bounded and bound is not None
    if whole is not None:
        found.comparisons += whole.results()


def _share(scale: Array | None, expected: Array) -> float:
    """Return how much larger than the output its bound is; 0 where the output is all zero, so that any error shows."""
    if scale is None:
        return 0.0
    with np.errstate(all="ignore"):
        top = np.linalg.norm(expected.reshape(-1))
        if top == 0:
            return 0.0
        ratio = float(np.linalg.norm(scale.astype(np.float64).reshape(-1)) / top)
        if math.isfinite(ratio):
            return ratio
        usable = np.isfinite(expected)
        ratio = float(np.linalg.norm(scale[usable].astype(np.float64)) / np.linalg.norm(expected[usable]))
    return ratio if math.isfinite(ratio) else math.inf


class _Whole:
    """The rule of gate B on one region."""

    def __init__(self, original: ModelProto, piece: ModelProto, truth: Reference, session: Session) -> None:
        self._original, self._piece, self._truth, self._session = original, piece, truth, session
        self._unfolded = Session(original)
        self._rounded = rounding_model(original, piece)
        self._ledgers = {value.name: Ledger(value.name) for value in piece.graph.output}

    def add(self, probe: str, feeds: Values, expected: Values, computed: Values) -> None:
        """Take in one probe."""
        run = self._run(probe, feeds, 0, expected, computed)

        def redraw(look: int) -> Run:
            moved = jittered(feeds, 1000 + look)
            return self._run(
                probe,
                moved,
                look + 1,
                self._truth.run(_of(self._original, moved)),
                self._session.run(_of(self._piece, moved)),
                weights=True,
            )

        for ledger in self._ledgers.values():
            ledger.add(run, redraw)

    def _run(
        self, probe: str, feeds: Values, look: int, expected: Values, computed: Values, *, weights: bool = False
    ) -> Run:
        run = Run(probe, expected, self._unfolded.run(_of(self._original, feeds)), computed)
        rounded = self._rounded
        if rounded is None and (weights or leaves_range(run.unfolded, expected)):
            rounded = self._original
        if rounded is None:
            return run
        given = _of(rounded, feeds)
        noisy = Reference(rounded, foreign=run_node, disturbance=look).run(given)
        return replace(run, noisy=noisy, quiet=Reference(rounded, foreign=run_node).run(given))

    def results(self) -> tuple[Comparison, ...]:
        """Return what was found, one entry an output."""
        return tuple(ledger.result() for ledger in self._ledgers.values())


def _smallest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).smallest_subnormal) if roundoff(dtype) else 0.0  # type: ignore[no-untyped-call]


def _of(model: ModelProto, feeds: Values) -> dict[str, Array]:
    wanted = {value.name for value in model.graph.input}
    return {name: value for name, value in feeds.items() if name in wanted}


def region_probes(captured: Sequence[Values], seed: int, level: str) -> Iterator[tuple[str, Values]]:
    """Yield what a region is tried on: what it meets in real runs, then what isolates one kind of mistake each."""
    for number, values in enumerate(captured[:1] if level == "fast" else captured):
        yield f"captured {number + 1}", values
    shapes = captured[0]
    yield "zeros", _floats(shapes, np.zeros)
    if level == "fast":
        return
    generator = np.random.default_rng(seed)
    yield "ones", _floats(shapes, np.ones)
    yield "±1", _floats(shapes, _signs)
    yield "10·N(0,1)", _floats(shapes, lambda shape: 10 * generator.normal(size=shape))
    yield "hot pixel in a corner", _floats(shapes, _corner)


def _floats(shapes: Values, make: Callable[[Sequence[int]], Array]) -> Values:
    return {
        name: make(value.shape).astype(value.dtype) if computes_with(value) else value for name, value in shapes.items()
    }


def _signs(shape: Sequence[int]) -> Array:
    parity = sum(np.indices(shape, sparse=True), np.zeros((), dtype=np.int64)) % 2
    return np.broadcast_to(1.0 - 2.0 * parity, shape)


def _corner(shape: Sequence[int]) -> Array:
    """Light the first and the last pixel, whether the channels stand on the second axis or on the last."""
    hot = np.zeros(shape)
    if hot.size and len(shape) > 1:
        for edge in (0, -1):
            hot.reshape(*shape[:2], -1)[:, :, edge] = 1.0
            hot.reshape(shape[0], -1, shape[-1])[:, edge] = 1.0
    elif hot.size:
        hot.reshape(-1)[0] = 1.0
    return hot
