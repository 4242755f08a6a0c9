"""Every value that two models share, against float64: where a fault begins, and how rounding grows on its way.

Values are computed a few at a time, each is summed up in two numbers and let go, so that a model of any size takes the
memory of a few of its values. The price is that the model runs several times where its values are many.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import BnfoldError
from bnfold.graph.region import Region
from bnfold.graph.shapes import infer
from bnfold.parity.compare import allowed, match
from bnfold.parity.decisions import FLOATS, decisions_of, within
from bnfold.parity.feeds import Probe, draw_probes, sizes_to_try
from bnfold.parity.inputs import inputs_of
from bnfold.parity.kernels import Array, computes_with, roundoff
from bnfold.parity.layerwise import Histogram, Layerwise, OriginalLayer, SharedValue, WorstLayer
from bnfold.parity.original_layers import LayerReader, beside, values_of
from bnfold.parity.program import called, reads_of
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session, run_node
from bnfold.parity.shared import shared_values
from bnfold.parity.verdict import Parity, Verdict

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["measure_layers"]

_BUDGET = 1 << 27
"""Elements times 16 bytes (two float32, one float64) that are held at a time."""
_BYTES = 16
_GROWTH = 4
"""A value of unknown size is taken for this many times the largest so far."""
_MOST = 256
"""Values in one run, however small."""
_FAR = 2.0**-4
"""A value further off than this is wrong, or stands for something else."""
_HEALED = 16
"""Where everything behind such a value is within this many times what rounding explains, it stands for something else:
a mistake may shrink on its way, but it does not vanish."""
_BINS = 24

Progress = Callable[[str, int, int], None]


def measure_layers(
    *,
    unfolded: ModelProto,
    folded: ModelProto,
    parity: Parity,
    regions: Sequence[Region] = (),
    seed: int = 0,
    feeds: Sequence[Mapping[str, Array]] = (),
    original: LayerReader | None = None,
    progress: Progress | None = None,
) -> Layerwise:
    """Compare every value of two models with float64, on the probe that failed, or else on the first one.

    Args:
        unfolded: The model before folding, in inference mode.
        folded: The model after it.
        parity: What verifying the two has found; it says on which probe to look.
        regions: What folding changed. Values inside a region may stand for something else afterwards.
        seed: What the probes of the verification were drawn with.
        feeds: The user's own inputs, as the verification got them.
        original: Returns what the original program's layers compute, whatever the models call that.
        progress: Told what is going on.
    """
    started = time.perf_counter()
    probe = _probe(unfolded, parity, seed, feeds)
    names, inside = shared_values(unfolded, folded, regions)
    if probe is None:
        detail = "no probe ran on both models"
        return Layerwise("", "", (), inside, None, time.perf_counter() - started, detail)
    listed = _listed(original, folded, probe)
    if not names:
        detail = "the two models share no value by name"
        where = (probe.name, probe.origin) if listed else ("", "")
        return Layerwise(*where, (), inside, None, time.perf_counter() - started, detail, listed)
    found: dict[str, _Figures] = {}
    try:
        bench = _bench(unfolded, folded, probe.feeds)
        sizes = _sizes(unfolded, probe.feeds)
        for chunk in _chunks(names, sizes, found):
            if progress is not None:
                progress("comparing layers", len(found), len(names))
            for name, sides in bench.values(chunk):
                found[name] = _figures(sides)
        values = _accounted(unfolded, folded, found)
        worst = _closer(bench, values)
    except BnfoldError as error:
        return Layerwise(probe.name, probe.origin, (), inside, None, time.perf_counter() - started, str(error), listed)
    detail = "" if values else "the two models share no floating value by name"
    return Layerwise(probe.name, probe.origin, values, inside, worst, time.perf_counter() - started, detail, listed)


def _listed(original: LayerReader | None, model: ModelProto, probe: Probe) -> tuple[OriginalLayer, ...]:
    """Return the original program's layers beside a model; nothing where one of them cannot be opened."""
    if original is None:
        return ()
    try:
        return beside(original(probe.feeds), values_of(model, probe.feeds))
    except Exception:  # whatever the original program raises where somebody looks inside
        return ()


@dataclass(frozen=True, slots=True)
class _Figures:
    unfolded: float
    folded: float
    limit: float
    elements: int


@dataclass(frozen=True, slots=True)
class _Bench:
    """Two models and the reference, on one probe."""

    unfolded: ModelProto
    folded: ModelProto
    reference: Reference
    feeds: Mapping[str, Array]
    chosen: Mapping[str, Array]
    """What the unfolded model chooses on its way."""
    otherwise: Mapping[str, Array] | None
    """What the folded one chooses, where that is anything else."""

    def values(self, names: Sequence[str]) -> Iterator[tuple[str, _Sides]]:
        """Yield a few values; those that are no floats are skipped."""
        base = Session(self.unfolded, also=names).run(self.feeds)
        other = Session(self.folded, also=names).run(self.feeds)
        truth = self.reference.run(self.feeds, names, forced={(): self.chosen})
        behind = truth
        if self.otherwise is not None:
            behind = self.reference.run(self.feeds, names, forced={(): self.otherwise})
        for name in names:
            four: tuple[object, ...] = other.pop(name), base.pop(name), truth[name], behind[name]
            arrays = [value for value in four if isinstance(value, np.ndarray) and computes_with(value)]
            if len(arrays) == 4:
                yield name, _Sides(*arrays)


@dataclass(frozen=True, slots=True)
class _Sides:
    """A value in the folded and the unfolded model, and in float64 behind what either has chosen."""

    value: Array
    base: Array
    truth: Array
    behind: Array


def _bench(unfolded: ModelProto, folded: ModelProto, feeds: Mapping[str, Array]) -> _Bench:
    """Prepare both models, and see what they choose."""
    elements = infer(unfolded).get((), {})
    decisions = decisions_of(unfolded, lambda name: name in elements and elements[name].element in FLOATS)
    shared = [name for name in within(decisions, unfolded, folded) if name in decisions.chosen]
    chosen: dict[str, Array] = {}
    otherwise: dict[str, Array] | None = None
    if shared:
        ours, theirs = (Session(model, also=shared).run(feeds) for model in (unfolded, folded))
        chosen = {name: ours[name] for name in shared}
        if decisions.differ(ours, theirs):
            otherwise = {name: theirs[name] for name in shared}
    return _Bench(unfolded, folded, Reference(unfolded, foreign=run_node), feeds, chosen, otherwise)


def _probe(unfolded: ModelProto, parity: Parity, seed: int, feeds: Sequence[Mapping[str, Array]]) -> Probe | None:
    """Draw again the probe on which an output failed; where none did, the first one that ran."""
    failed = {item.probe for item in parity.folding if item.verdict is Verdict.FAIL}
    used = [record for record in parity.probes if record.used]
    wanted = next((record for record in used if record.name in failed), used[0] if used else None)
    if wanted is None:
        return None
    inputs = inputs_of(unfolded)
    for sizes, together in itertools.product(sizes_to_try(inputs), (True, False)):
        for probe in draw_probes(inputs, sizes, level=parity.level, seed=seed, given=feeds, together=together):
            shapes = tuple((name, tuple(value.shape)) for name, value in probe.feeds.items())
            if probe.name == wanted.name and shapes == wanted.shapes:
                return probe
    return None


def _sizes(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Return how many elements values have on a probe, as far as shapes that can be inferred tell."""
    symbols: dict[str, int] = {}
    for value in model.graph.input:
        fed = feeds.get(value.name)
        if fed is not None:
            dimensions = value.type.tensor_type.shape.dim
            symbols.update({d.dim_param: size for d, size in zip(dimensions, fed.shape, strict=False) if d.dim_param})
    sizes = {}
    for name, known in infer(model).get((), {}).items():
        if known.shape is None:
            continue
        axes = [symbols.get(axis) if isinstance(axis, str) else axis for axis in known.shape]
        if all(axis is not None for axis in axes):
            sizes[name] = math.prod(axis for axis in axes if axis is not None)
    return sizes


def _chunks(names: Sequence[str], sizes: Mapping[str, int], found: Mapping[str, _Figures]) -> Iterator[list[str]]:
    """Yield names whose values fit the budget together; what is found meanwhile tells the size of the next ones."""
    chunk: list[str] = []
    held, largest = 0, 0
    unknown = 0
    for name in names:
        size = sizes.get(name)
        if size is None:
            largest = max([largest, *(found[earlier].elements for earlier in found)]) if not chunk else largest
            size, unknown = max(_GROWTH * largest, 1), unknown + 1
        full = (held + size) * _BYTES > _BUDGET or len(chunk) == _MOST
        # As long as nothing is known of any size, a few values are looked at first.
        if chunk and (full or (unknown and not largest and len(chunk) == _GROWTH)):
            yield chunk
            chunk, held = [], 0
        chunk.append(name)
        held += size
    if chunk:
        yield chunk


def _figures(sides: _Sides) -> _Figures:
    """Return the errors of one value in both models, and what gate B would allow."""
    own, theirs = _error(sides.base, sides.truth), _error(sides.value, sides.behind)
    u = max(roundoff(sides.value.dtype), roundoff(sides.base.dtype))
    return _Figures(own, theirs, allowed(own, sides.truth.size, u), int(sides.truth.size))


def _error(value: Array, truth: Array) -> float:
    if value.shape != truth.shape:
        return math.inf
    found = match(value, truth)
    return math.inf if found.misplaced else found.errors.worst


def _accounted(unfolded: ModelProto, folded: ModelProto, found: Mapping[str, _Figures]) -> tuple[SharedValue, ...]:
    """Return the values in graph order, with those marked that stand for something else in the folded model."""
    outputs = {value.name for value in folded.graph.output}
    readers: dict[str, list[str]] = {}
    for node in folded.graph.node:
        for name in reads_of(node):
            readers.setdefault(name, []).extend(output for output in node.output if output)
    healed: set[str] = set()
    moved: set[str] = set()
    for node in reversed(folded.graph.node):
        for name in node.output:
            figures = found.get(name)
            if figures is not None and figures.folded <= _HEALED * figures.limit:
                healed.add(name)
            elif name not in outputs and readers.get(name) and healed.issuperset(readers[name]):
                healed.add(name)
                if figures is not None and figures.folded > _FAR:
                    moved.add(name)
    values = []
    for node in unfolded.graph.node:
        for name in node.output:
            if name in found:
                figures = found[name]
                values.append(
                    SharedValue(
                        value=name,
                        node=called(node),
                        op_type=node.op_type,
                        elements=figures.elements,
                        unfolded=figures.unfolded,
                        folded=figures.folded,
                        limit=figures.limit,
                        moved=name in moved,
                    )
                )
    return tuple(values)


def _closer(bench: _Bench, values: Sequence[SharedValue]) -> WorstLayer | None:
    """Look at every element of the value that came closest to its limit, or went beyond it by most."""
    shown = [item for item in values if not item.moved and math.isfinite(item.folded) and item.elements]
    if not shown:
        return None
    worst = max(shown, key=lambda item: item.folded / item.limit)
    for name, sides in bench.values([worst.value]):
        return WorstLayer(name, _error_histogram(sides), _value_histogram(sides))
    return None


def _error_histogram(three: _Sides) -> Histogram:
    finite = np.isfinite(three.truth)
    scale = math.sqrt(float(np.mean(np.square(three.truth[finite])))) if finite.any() else 0.0
    sides = []
    for side, truth in ((three.base, three.truth), (three.value, three.behind)):
        usable = np.isfinite(truth) & np.isfinite(side)
        sides.append(np.abs(side[usable].astype(np.float64) - truth[usable]) / (scale or 1.0))
    nonzero = [side[side > 0] for side in sides]
    exact = tuple(int(side.size - some.size) for side, some in zip(sides, nonzero, strict=True))
    some = np.concatenate(nonzero)
    low = math.floor(math.log10(float(some.min()))) if some.size else -1
    high = max(math.ceil(math.log10(float(some.max()))) if some.size else 0, low + 1)
    low = max(low, high - _BINS // 2)  # what is smaller still is shown with the smallest
    edges = 10.0 ** np.linspace(low, high, 2 * (high - low) + 1)
    counts = [np.histogram(np.clip(side, edges[0], edges[-1]), bins=edges)[0] for side in nonzero]
    return Histogram(_numbers(edges), _counts(counts[0]), _counts(counts[1]), exact=(exact[0], exact[1]))


def _value_histogram(three: _Sides) -> Histogram:
    every = (three.base, three.value, three.truth)
    sides = [np.asarray(side[np.isfinite(side)], np.float64) for side in every]
    spans = [side for side in sides if side.size]
    low = min((float(side.min()) for side in spans), default=0.0)
    high = max((float(side.max()) for side in spans), default=1.0)
    if not math.isfinite(high - low) or high - low <= abs(high) * 1e-12:
        low, high = low - abs(low) - 1.0, low + abs(low) + 1.0  # one value, or a span that float64 cannot hold
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(side, bins=edges)[0] for side in sides]
    return Histogram(_numbers(edges), _counts(counts[0]), _counts(counts[1]), _counts(counts[2]))


def _numbers(edges: Array) -> tuple[float, ...]:
    return tuple(float(edge) for edge in edges)


def _counts(counts: Array) -> tuple[int, ...]:
    return tuple(int(count) for count in counts)
