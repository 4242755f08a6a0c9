"""Operations that slide a window over an input: convolutions and pools, any rank, in float64.

A convolution is one matrix product a group over the unrolled windows, in pieces of bounded memory; with one channel a
group it is a sum over the taps instead. A pool goes tap by tap.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required

__all__ = ["WINDOWS", "Grid", "convolve"]

_PIECE = 1 << 18
"""Elements of the unrolled windows that are held at once: 2 MiB, which stay in a processor's cache."""
_COLUMNS = 768
"""A matrix product of fewer columns is slow, so small images are unrolled together."""
_GLIMPSE = 256
_UNROLLED = threading.local()
"""A thread's memory for unrolled windows: new memory costs as much as what is written into it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the windows lie, one entry a spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def taps(self) -> Iterator[tuple[int, ...]]:
        """The positions inside the window, in row-major order."""
        return itertools.product(*(range(size) for size in self.kernel))

    def reached(self, tap: Sequence[int], first: int = 0, last: int | None = None) -> tuple[slice, ...]:
        """Return what one tap reads of the padded input, for the rows ``first`` to ``last`` of the output."""
        slices = []
        for axis, position in enumerate(tap):
            stride, start = self.strides[axis], position * self.dilations[axis]
            low, high = (first, self.out[0] if last is None else last) if axis == 0 else (0, self.out[axis])
            slices.append(slice(start + low * stride, start + (high - 1) * stride + 1, stride))
        return tuple(slices)

    def inside(
        self, axis: int, position: int, size: int, first: int = 0, last: int | None = None
    ) -> tuple[slice, slice]:
        """Return the outputs of ``first`` to ``last`` whose tap lies inside of the input, and what these read there.

        Args:
            axis: A spatial axis.
            position: The tap's place on it.
            size: The input's.
            first: The first output that is asked for.
            last: The one behind the last; None means all.
        """
        stride, offset = self.strides[axis], position * self.dilations[axis] - self.before[axis]
        high = self.out[axis] if last is None else last
        # 0 ≤ o·stride + offset < size
        begin = min(max(first, -(offset // stride)), high)
        end = max(begin, min(high, (size - 1 - offset) // stride + 1))
        reads = slice(begin * stride + offset, (end - 1) * stride + offset + 1 if end > begin else 0, stride)
        return slice(begin, end), reads


def _grid(call: Call, kernel: Sequence[int], spatial: Sequence[int]) -> Grid:
    rank = len(spatial)
    strides = call.integers("strides") or (1,) * rank
    dilations = call.integers("dilations") or (1,) * rank
    pads = call.integers("pads") or (0,) * (2 * rank)
    auto = call.text("auto_pad", "NOTSET")
    ceil = bool(call.integer("ceil_mode"))
    before, after, out = [], [], []
    for axis, size in enumerate(spatial):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        stride = strides[axis]
        if auto.startswith("SAME"):
            count = -(-size // stride)
            total = max(0, (count - 1) * stride + extent - size)
            small, large = total // 2, total - total // 2
            low, high = (small, large) if auto == "SAME_UPPER" else (large, small)
        else:
            low, high = (0, 0) if auto == "VALID" else (pads[axis], pads[rank + axis])
            room = size + low + high - extent
            count = (-(-room // stride) if ceil else room // stride) + 1
            if ceil and (count - 1) * stride >= size + low:
                count -= 1  # a window has to start inside the input or in front of it
        if count <= 0:
            raise ValueError(f"a window of {extent} does not fit into {size} with pads {low} and {high}")
        before.append(low)
        after.append(high)
        out.append(count)
    return Grid(tuple(kernel), tuple(strides), tuple(dilations), tuple(before), tuple(after), tuple(out))


def _padded(x: Array, grid: Grid, value: float = 0.0) -> Array:
    """Pad the spatial axes so that every window lies inside: also behind the pads, where rounding up put one."""
    spatial = x.shape[2:]
    pads: list[tuple[int, int]] = [(0, 0), (0, 0)]
    for axis, size in enumerate(spatial):
        extent = (grid.kernel[axis] - 1) * grid.dilations[axis] + 1
        needed = (grid.out[axis] - 1) * grid.strides[axis] + extent
        pads.append((grid.before[axis], max(grid.after[axis], needed - size - grid.before[axis])))
    if not any(low or high for low, high in pads):
        return x
    if any(low < 0 or high < 0 for low, high in pads):
        cut = tuple(slice(max(0, -low), x.shape[axis] - max(0, -high)) for axis, (low, high) in enumerate(pads))
        x, pads = x[cut], [(max(low, 0), max(high, 0)) for low, high in pads]
    return np.pad(x, pads, constant_values=value)


def convolve(x: Array, weight: Array, grid: Grid, group: int) -> Array:
    """Return the cross-correlation of ``x`` (N, C, …) with ``weight`` (M, C/group, …), shape (N, M, …out)."""
    batch, outputs = x.shape[0], weight.shape[0]
    if not x.reshape(-1)[:_GLIMPSE].any() and not x.any() and np.isfinite(weight).all():
        return np.zeros((batch, outputs, *grid.out))  # a probe that isolates the bias
    if weight.shape[1] == 1 and group > 1:
        return _depthwise(_padded(x, grid), weight, grid, group)
    result = np.empty((batch, outputs, *grid.out), dtype=np.float64)
    pixels = math.prod(grid.out)
    matrix = weight.reshape(group, outputs // group, -1)
    plain = math.prod(grid.kernel) == 1 and not any(grid.before) and not any(grid.after)
    if plain and (batch == 1 or pixels >= _COLUMNS):
        # Every output reads one pixel: no windows are unrolled, only the pixels between strides are left out.
        if any(stride > 1 for stride in grid.strides):
            x = x[:, :, *grid.reached((0,) * len(grid.kernel))]
        flat = np.ascontiguousarray(x).reshape(batch, group, weight.shape[1], -1)
        np.matmul(matrix, flat, out=result.reshape(batch, group, outputs // group, -1))
        return result
    row = math.prod(grid.out[1:])
    columns = max(_COLUMNS, _PIECE // max(1, x.shape[1] * math.prod(grid.kernel)))
    rows = max(1, min(grid.out[0], columns // max(1, row)))
    samples = max(1, min(batch, columns // max(1, pixels)))
    for start, first in itertools.product(range(0, batch, samples), range(0, grid.out[0], rows)):
        stop, last = min(start + samples, batch), min(first + rows, grid.out[0])
        unrolled = _unrolled(x[start:stop], grid, first, last)
        pieces = unrolled.reshape(group, matrix.shape[2], -1)
        if samples == 1 and rows == grid.out[0]:
            np.matmul(matrix, pieces, out=result[start].reshape(group, outputs // group, -1))
            continue
        product = np.matmul(matrix, pieces).reshape(outputs, stop - start, last - first, *grid.out[1:])
        result[start:stop, :, first:last] = product.swapaxes(0, 1)
    return result


def _unrolled(x: Array, grid: Grid, first: int, last: int) -> Array:
    """Return what the windows of some rows of the output read, shape (C, taps, N, rows, …out); valid until next time.

    What lies outside of the input is zero, without a padded copy of it.
    """
    batch, channels, *spatial = x.shape
    shape = (channels, math.prod(grid.kernel), batch, last - first, *grid.out[1:])
    size = math.prod(shape)
    memory: Array | None = getattr(_UNROLLED, "memory", None)
    if memory is None or memory.size < size:
        memory = np.empty(size)
        if size <= 4 * _PIECE:
            _UNROLLED.memory = memory
    unrolled = memory[:size].reshape(shape)
    source = x.swapaxes(0, 1)
    for number, tap in enumerate(grid.taps):
        into, reads, target = unrolled[:, number], [slice(None)] * 2, [slice(None)] * 2
        for axis, position in enumerate(tap):
            low, high = (first, last) if axis == 0 else (0, grid.out[axis])
            there, source_there = grid.inside(axis, position, spatial[axis], low, high)
            before: list[slice] = [*[slice(None)] * (2 + axis)]
            into[*before, : there.start - low] = 0
            into[*before, there.stop - low :] = 0
            target.append(slice(there.start - low, there.stop - low))
            reads.append(source_there)
        if all(place.stop > place.start for place in target[2:]):
            into[*target] = source[*reads]
    return unrolled


def _depthwise(x: Array, weight: Array, grid: Grid, group: int) -> Array:
    multiplier = weight.shape[0] // group
    result = np.zeros((x.shape[0], group, multiplier, *grid.out), dtype=np.float64)
    factors = weight.reshape(1, group, multiplier, -1)
    ones = (1,) * len(grid.kernel)
    for number, tap in enumerate(grid.taps):
        window = x[:, :, *grid.reached(tap)]
        result += window[:, :, None] * factors[..., number].reshape(1, group, multiplier, *ones)
    return result.reshape(x.shape[0], weight.shape[0], *grid.out)


def _add_bias(y: Array, bias: Array | None) -> Array:
    if bias is not None:
        y += bias.reshape(-1, *[1] * (y.ndim - 2))
    return y


def _conv(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, weight = required(inputs, 0), required(inputs, 1)
    grid = _grid(call, weight.shape[2:], x.shape[2:])
    return (_add_bias(convolve(x, weight, grid, call.integer("group", 1)), given(inputs, 2)),)


def _conv_transpose(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, weight = required(inputs, 0), required(inputs, 1)
    group, rank = call.integer("group", 1), x.ndim - 2
    kernel, spatial = weight.shape[2:], x.shape[2:]
    strides = call.integers("strides") or (1,) * rank
    dilations = call.integers("dilations") or (1,) * rank
    extra = call.integers("output_padding") or (0,) * rank
    extents = [(kernel[axis] - 1) * dilations[axis] + 1 for axis in range(rank)]
    full = [strides[axis] * (spatial[axis] - 1) + extents[axis] for axis in range(rank)]
    before, out = _transposed_frame(call, [size + extra[axis] for axis, size in enumerate(full)], spatial, strides)
    # Every input element spreads the whole kernel over the output; the frame is cut out of that afterwards.
    batch, channels, outputs = x.shape[0], x.shape[1] // group, weight.shape[1]
    matrix = weight.reshape(group, channels, -1).transpose(0, 2, 1)
    spread = np.matmul(matrix, np.ascontiguousarray(x).reshape(batch, group, channels, -1))
    spread = spread.reshape(batch, group * outputs, *kernel, *spatial)
    canvas = np.zeros((batch, group * outputs, *full), dtype=np.float64)
    for tap in itertools.product(*(range(size) for size in kernel)):
        place = tuple(
            slice(
                tap[axis] * dilations[axis],
                tap[axis] * dilations[axis] + strides[axis] * (spatial[axis] - 1) + 1,
                strides[axis],
            )
            for axis in range(rank)
        )
        canvas[:, :, *place] += spread[:, :, *tap]
    y = np.zeros((batch, group * outputs, *out), dtype=np.float64)
    source, target = [slice(None), slice(None)], [slice(None), slice(None)]
    for axis in range(rank):
        low, high = max(0, before[axis]), min(full[axis], before[axis] + out[axis])
        source.append(slice(low, max(low, high)))
        target.append(slice(low - before[axis], max(low, high) - before[axis]))
    y[tuple(target)] = canvas[tuple(source)]
    return (_add_bias(y, given(inputs, 2)),)


def _transposed_frame(
    call: Call, full: Sequence[int], spatial: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return where the output begins in the full canvas, and how large it is."""
    rank, auto = len(full), call.text("auto_pad", "NOTSET")
    wanted = list(call.integers("output_shape"))[-rank:]
    if not wanted and auto.startswith("SAME"):
        wanted = [spatial[axis] * strides[axis] for axis in range(rank)]
    if wanted:
        before = []
        for axis in range(rank):
            total = max(0, full[axis] - wanted[axis])
            before.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
        return before, wanted
    pads = call.integers("pads") if auto == "NOTSET" else ()
    pads = pads or (0,) * (2 * rank)
    return list(pads[:rank]), [full[axis] - pads[axis] - pads[rank + axis] for axis in range(rank)]


def _max_pool(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    grid = _grid(call, call.integers("kernel_shape"), x.shape[2:])
    indexed = call.asks_for(1)
    result = np.full((*x.shape[:2], *grid.out), lowest, dtype=x.dtype)
    where = np.full(result.shape, -1, dtype=np.int64) if indexed else None
    for tap in grid.taps:
        spans = [grid.inside(axis, position, x.shape[2 + axis]) for axis, position in enumerate(tap)]
        if any(target.stop <= target.start for target, _ in spans):
            continue  # nothing but pads
        place = (slice(None), slice(None), *(target for target, _ in spans))
        window = x[:, :, *(source for _, source in spans)]
        if where is not None:
            flat = _flat_index(grid, tap, x.shape[2:], column_major=bool(call.integer("storage_order")))
            np.copyto(where[place], flat[place[2:]], where=window > result[place])
        np.maximum(result[place], window, out=result[place])
    if where is None:
        return (result,)
    offsets = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[0], x.shape[1], *[1] * len(grid.out))
    return result, where + offsets * math.prod(x.shape[2:])


def _flat_index(grid: Grid, tap: Sequence[int], spatial: Sequence[int], *, column_major: bool) -> Array:
    """Return which element of one channel each window reads with a tap; -1 where that is a pad."""
    axes = range(len(spatial))
    places = np.meshgrid(
        *(
            np.arange(grid.out[axis]) * grid.strides[axis] + tap[axis] * grid.dilations[axis] - grid.before[axis]
            for axis in axes
        ),
        indexing="ij",
    )
    flat = np.zeros(grid.out, dtype=np.int64)
    inside = np.ones(grid.out, dtype=bool)
    for axis in reversed(axes) if column_major else axes:
        flat = flat * spatial[axis] + places[axis]
        inside &= (places[axis] >= 0) & (places[axis] < spatial[axis])
    return np.where(inside, flat, -1)


def _sum_of_taps(x: Array, grid: Grid) -> Array:
    padded = _padded(x, grid)
    result = np.zeros((*x.shape[:2], *grid.out), dtype=np.float64)
    for tap in grid.taps:
        result += padded[:, :, *grid.reached(tap)]
    return result


def _average_pool(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    grid = _grid(call, call.integers("kernel_shape"), x.shape[2:])
    # What counts is the input, with its pads where they are asked for; never what lies behind the pads.
    if call.integer("count_include_pad"):
        ones = np.ones((1, 1, *(size + grid.before[i] + grid.after[i] for i, size in enumerate(x.shape[2:]))))
        bare = Grid(grid.kernel, grid.strides, grid.dilations, (0,) * len(grid.out), (0,) * len(grid.out), grid.out)
        count = _sum_of_taps(ones, bare)
    else:
        count = _sum_of_taps(np.ones((1, 1, *x.shape[2:])), grid)
    with np.errstate(all="ignore"):
        return (_sum_of_taps(x, grid) / count,)


def _lp_pool(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x, p = required(inputs, 0), call.number("p", 2)
    grid = _grid(call, call.integers("kernel_shape"), x.shape[2:])
    return (_sum_of_taps(np.abs(x) ** p, grid) ** (1.0 / p),)


def _global(call: Call, inputs: Inputs) -> tuple[Array, ...]:
    x = required(inputs, 0)
    axes = tuple(range(2, x.ndim))
    if call.op_type == "GlobalMaxPool":
        return (x.max(axis=axes, keepdims=True),)
    if call.op_type == "GlobalLpPool":
        p = call.number("p", 2)
        return ((np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1.0 / p),)
    return (x.mean(axis=axes, keepdims=True),)


WINDOWS: Mapping[str, Kernel] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global,
    "GlobalLpPool": _global,
    "GlobalMaxPool": _global,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
"""The window operations of the standard domain."""
