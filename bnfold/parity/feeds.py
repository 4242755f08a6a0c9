"""What a model is fed when it is verified: probes, each of them seeded, each saying where its values come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bnfold.parity.inputs import Input
from bnfold.parity.kernels import Array, computes_with, roundoff

__all__ = ["Probe", "Sizes", "batch_symbols", "draw_probes", "jittered", "resized", "sizes_to_try", "turned"]

_NOMINAL = (32, 28, 64, 224, 16, 96, 128, 299, 256, 8, 48, 512)
"""Sizes that free axes are tried with, likelier ones first."""
_BATCH = frozenset({"n", "b", "batch", "batch_size", "batchsize", "bs", "unk__0"})

Sizes = Mapping[str, int]
"""A size for every free axis, by its symbol."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One set of inputs.

    Attributes:
        name: What it is.
        origin: Where its values come from.
        feeds: The arrays.
        real: Whether it resembles what the model is meant for.
        group: Probes with the same number are rows of one batch; 0 is a run of its own.
    """

    name: str
    origin: str
    feeds: Mapping[str, Array] = field(repr=False)
    real: bool = False
    group: int = 0


def _free(inputs: Sequence[Input]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(size for item in inputs for size in item.shape if isinstance(size, str)))


def batch_symbols(inputs: Sequence[Input]) -> tuple[str, ...]:
    """Return the symbols of the free batch axes: those that stand first and nowhere else, or are called so."""
    first = {item.shape[0] for item in inputs if item.shape}
    elsewhere = {size for item in inputs for size in item.shape[1:]}
    return tuple(
        symbol for symbol in _free(inputs) if (symbol in first and symbol not in elsewhere) or symbol.lower() in _BATCH
    )


def sizes_to_try(inputs: Sequence[Input]) -> Iterator[Sizes]:
    """Yield choices for the free axes with batch 1, the likeliest first; a model without any has the empty one."""
    free, batch = _free(inputs), batch_symbols(inputs)
    others = [symbol for symbol in free if symbol not in batch]
    for size in _NOMINAL if others else (1,):
        yield {symbol: 1 if symbol in batch else size for symbol in free}
    if others:
        yield dict.fromkeys(free, 1)


def resized(sizes: Sizes, inputs: Sequence[Input], *, batch: int, odd: bool) -> Sizes:
    """Return a choice with another batch, and with every other free axis odd where that is asked for."""
    batches, changed = batch_symbols(inputs), dict(sizes)
    for number, symbol in enumerate(sizes):
        if symbol in batches:
            changed[symbol] = batch
        elif odd:
            changed[symbol] = sizes[symbol] + 1 + sizes[symbol] % 2 + 2 * (number % 2)
    return changed


def draw_probes(
    inputs: Sequence[Input],
    sizes: Sizes,
    *,
    level: str,
    seed: int,
    given: Sequence[Mapping[str, Array]] = (),
    batches: Sequence[int] = (),
    together: bool = False,
) -> tuple[Probe, ...]:
    """Return the probes, each drawn from a generator of its own, so that none depends on another.

    Args:
        inputs: What the model takes.
        sizes: A choice of the free axes that the model accepts.
        level: ``"full"`` or ``"fast"``: twelve probes or two.
        seed: Of everything random.
        given: The user's own arrays; they take the place of the drawn ones.
        batches: Sizes of a free batch, one probe each; empty means the usual ones.
        together: Whether probes may be rows of one batch, so that larger batches cost no more than their probes.
    """
    joined = together and level == "full" and not batches and _in_rows(inputs)
    plan: Sequence[tuple[int, bool]]
    plan = ((1, False), (2, False), (3, True), (1, True)) if level == "full" else ((1, False), (1, True))
    if joined:
        plan = tuple((1, odd) for _, odd in _GROUPS)
    elif batches:
        plan = [(batch, number % 2 == 1) for number, batch in enumerate(batches)]
    real = []
    for number, item in enumerate(given):
        feeds = {name: np.asarray(array) for name, array in item.items()}
        real.append(Probe(f"given {number + 1}", "the user's arrays", feeds, real=True))
    for number, (batch, odd) in enumerate(plan[len(real) :], start=len(real)):
        kind = "normal" if number % 2 == 0 else "uniform"
        feeds = _drawn(inputs, resized(sizes, inputs, batch=batch, odd=odd), kind, seed + number)
        feeds = _switched(feeds, number)
        real.append(Probe(f"{kind} draw {number + 1}", _origin(inputs), feeds, real=True, group=number * joined))
    if level != "full":
        return tuple(real)
    plain = resized(sizes, inputs, batch=1, odd=False)
    floats = any(item.floating for item in inputs)
    shaped = []
    for number, (name, make) in enumerate(_PATTERNS if floats else _WHOLE):
        group = next(group for group, (first, _) in reversed(list(enumerate(_GROUPS))) if number >= first) * joined
        chosen = resized(sizes, inputs, batch=1, odd=True) if joined and _GROUPS[group][1] else plain
        feeds = _switched(_shaped(inputs, chosen, make, seed + 100 + number), number) if floats else {}
        feeds = feeds or _spread(inputs, chosen, make, seed + 100 + number)
        shaped.append(Probe(name, _origin(inputs), feeds, group=group))
    return (*real, *shaped)


_GROUPS = ((0, False), (0, False), (1, True), (3, False))
"""What runs together: a draw, and the patterns from this one on to those of the next group; odd sizes or not."""


def _in_rows(inputs: Sequence[Input]) -> bool:
    """Whether every input has one row a sample, so that samples of several probes can stand in one batch."""
    batches = batch_symbols(inputs)
    first = {item.shape[0] if item.shape else None for item in inputs}
    return len(batches) == 1 and first == set(batches)


def jittered(feeds: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Return the same inputs with every float moved by about its type's round-off: other rounding errors.

    Zeros are moved by the round-off of the largest value beside them, or of 1.
    """
    moved = {}
    for number, (name, value) in enumerate(feeds.items()):
        if not computes_with(value) or not value.size:
            moved[name] = value
            continue
        wide = value.astype(np.float64)
        usable = np.abs(wide[np.isfinite(wide)])
        peak = float(usable.max(initial=0.0)) or 1.0
        step = np.random.default_rng([seed, number]).integers(-1, 2, size=value.shape)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            size = 2 * roundoff(value.dtype) * np.where(wide == 0, peak, np.abs(wide))
            moved[name] = np.where(step == 0, wide, wide + step * size).astype(value.dtype)
    return moved


def turned(value: Array) -> Array:
    """Return another sample of the same kind: the same numbers, in another order, and some of them larger."""
    turned = np.roll(value.reshape(-1), max(1, value.size // 3))[::-1].reshape(value.shape)
    return (2 * turned).astype(value.dtype) if computes_with(value) else turned


def _origin(inputs: Sequence[Input]) -> str:
    return "; ".join(f"{item.name}: {item.origin}" for item in inputs)


def _drawn(inputs: Sequence[Input], sizes: Sizes, kind: str, seed: int) -> dict[str, Array]:
    return {
        item.name: _draw(item, sizes, kind, np.random.default_rng([seed, number])) for number, item in enumerate(inputs)
    }


def _switched(feeds: Mapping[str, Array], number: int) -> dict[str, Array]:
    """Set conditions so that successive probes go through all of their combinations, both of one alone at first."""
    switches = [name for name, value in feeds.items() if value.dtype.kind == "b" and value.size == 1]
    chosen = {
        name: np.full(feeds[name].shape, not (number >> place) & 1, dtype=np.bool_)
        for place, name in enumerate(switches)
    }
    return {**feeds, **chosen}


def _draw(item: Input, sizes: Sizes, kind: str, generator: np.random.Generator) -> Array:
    shape = item.sized(sizes)
    if item.dtype.kind == "b":
        return np.asarray(generator.random(shape) < 0.5)
    if item.words:
        places = generator.integers(0, len(item.words), size=shape)
        return np.asarray(np.array(item.words, dtype=object)[places], dtype=object)
    if not item.floating:
        if item.origin.startswith("a mask"):
            return _mask(shape).astype(item.dtype)
        return np.asarray(generator.integers(int(item.low), int(item.high) + 1, size=shape)).astype(item.dtype)
    if item.mean is None or item.deviation is None or kind == "uniform":
        return np.asarray(generator.uniform(item.low, item.high, size=shape)).astype(item.dtype)
    noise = generator.normal(size=shape)
    drawn = noise * _on_channels(item.deviation, shape) + _on_channels(item.mean, shape)
    return np.asarray(drawn).astype(item.dtype)


def _mask(shape: tuple[int, ...]) -> Array:
    """Ones, with the last quarter of every other sample masked out."""
    mask = np.ones(shape)
    if mask.ndim > 1 and mask.shape[-1] > 3:
        mask[1::2, ..., -(mask.shape[-1] // 4) :] = 0
    return mask


def _on_channels(parameter: Array, shape: tuple[int, ...]) -> Array:
    for axis in (1, len(shape) - 1):
        if parameter.size > 1 and axis < len(shape) and shape[axis] == parameter.size:
            return parameter.reshape([-1 if position == axis else 1 for position in range(len(shape))])
    return np.asarray(parameter.mean())


Pattern = Callable[[Input, tuple[int, ...], np.random.Generator], Array]


def _checkerboard(_item: Input, shape: tuple[int, ...], _generator: np.random.Generator) -> Array:
    parity = sum(np.indices(shape, sparse=True), np.zeros((), dtype=np.int64)) % 2
    return np.broadcast_to(1.0 - 2.0 * parity, shape)


def _hot(item: Input, shape: tuple[int, ...], _generator: np.random.Generator) -> Array:
    hot = np.zeros(shape)
    if hot.size and hot.ndim > 2:
        hot.reshape(shape[0], shape[1], -1)[:, :, 0] = item.peak
    elif hot.size:
        hot.reshape(-1)[0] = item.peak
    return hot


def _gradient(item: Input, shape: tuple[int, ...], _generator: np.random.Generator) -> Array:
    ramp = np.zeros(())
    for axis, size in enumerate(shape):
        ramp = ramp + np.linspace(0, 1, size).reshape([-1 if position == axis else 1 for position in range(len(shape))])
    return np.broadcast_to(item.low + (item.high - item.low) * ramp / max(len(shape), 1), shape)


_PATTERNS: tuple[tuple[str, Pattern], ...] = (
    ("zeros", lambda _item, shape, _generator: np.zeros(shape)),
    ("ones", lambda _item, shape, _generator: np.ones(shape)),
    ("constant maximum", lambda item, shape, _generator: np.full(shape, item.peak)),
    ("±1 checkerboard", _checkerboard),
    ("hot pixel", _hot),
    ("noise × 10", lambda item, shape, generator: np.asarray(10 * item.peak * generator.normal(size=shape))),
    ("smooth gradient", _gradient),
    ("1e-30", lambda _item, shape, _generator: np.full(shape, 1e-30)),
)


def _shaped(inputs: Sequence[Input], sizes: Sizes, make: Pattern, seed: int) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    for number, item in enumerate(inputs):
        generator = np.random.default_rng([seed, number])
        if not item.floating:
            feeds[item.name] = _draw(item, sizes, "uniform", generator)
            continue
        with np.errstate(over="ignore", under="ignore"):
            feeds[item.name] = make(item, item.sized(sizes), generator).astype(item.dtype)
    return feeds


def _spread(inputs: Sequence[Input], sizes: Sizes, make: Pattern, seed: int) -> dict[str, Array]:
    """Return integers, conditions and words where a pattern of numbers from 0 to 1 stands for the range of each."""
    feeds: dict[str, Array] = {}
    for number, item in enumerate(inputs):
        share = make(item, item.sized(sizes), np.random.default_rng([seed, number]))
        if item.words:
            places = np.rint(share * (len(item.words) - 1)).astype(np.int64)
            feeds[item.name] = np.asarray(np.array(item.words, dtype=object)[places], dtype=object)
        else:
            feeds[item.name] = np.asarray(item.low + np.floor(share * (item.high - item.low))).astype(item.dtype)
    return feeds


def _corner(_item: Input, shape: tuple[int, ...], _generator: np.random.Generator) -> Array:
    lit = np.zeros(shape)
    if lit.size:
        lit.reshape(-1)[0] = 1.0
    return lit


def _ramp(_item: Input, shape: tuple[int, ...], _generator: np.random.Generator) -> Array:
    return np.linspace(0, 1, math.prod(shape)).reshape(shape)


_WHOLE: tuple[tuple[str, Pattern], ...] = (
    ("checkerboard of integers", lambda *which: (1 + _checkerboard(*which)) / 2),
    ("one highest integer", _corner),
    ("rising integers", _ramp),
    ("integers in the middle", lambda _item, shape, _generator: np.full(shape, 0.5)),
    ("low integers", lambda _item, shape, generator: np.asarray(generator.random(shape) ** 4)),
    ("integers at either end", lambda _item, shape, generator: np.rint(generator.random(shape))),
    ("lowest integers", lambda _item, shape, _generator: np.zeros(shape)),
    ("highest integers", lambda _item, shape, _generator: np.ones(shape)),
)
