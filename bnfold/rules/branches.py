"""Parallel linear branches: ``Σ Linearᵢ(x)`` over one value is one convolution, whose kernel holds all the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnfold.affine import Linear
from bnfold.affine.per_channel import Float64Array
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["BRANCH_ALGEBRA", "BRANCH_RULE", "Grid", "add_convolution", "add_diagonal", "grid_of"]

BRANCH_RULE = "conv-branches"
"""The stable name of the rule."""

BRANCH_ALGEBRA = (
    "W₁ * x + W₂ * x + (s·x + o) = (W₁ + W₂ + diag s) * x + (b₁ + b₂ + o), the smaller kernels centred in the largest"
)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a convolution reads: per spatial axis, output ``y`` reads input ``stride·y − begin + dilation·tap``.

    Attributes:
        taps: Kernel sizes.
        strides: Strides.
        dilations: Dilations; of no meaning where there is one tap.
        begin: Padding in front.
        end: Padding behind.
    """

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @classmethod
    def point(cls, rank: int) -> Grid:
        """Return the grid of a map that acts on each position alone."""
        ones, zeros = (1,) * rank, (0,) * rank
        return cls(ones, ones, ones, zeros, zeros)

    def place_in(self, host: Grid) -> tuple[slice, ...] | str:
        """Return where in the kernel of ``host`` this one's taps stand, or say why they stand nowhere."""
        places = []
        for axis, (taps, room) in enumerate(zip(self.taps, host.taps, strict=True)):
            step = host.dilations[axis] if room > 1 else 1
            if taps > 1 and self.dilations[axis] != step:
                return "their dilations differ"
            if self.strides[axis] != host.strides[axis]:
                return "their strides differ"
            reach = self.begin[axis] + self.end[axis] - self.dilations[axis] * (taps - 1)
            if reach != host.begin[axis] + host.end[axis] - step * (room - 1):
                return "their outputs are of different sizes"
            offset, odd = divmod(host.begin[axis] - self.begin[axis], step)
            if odd or offset < 0 or offset + taps > room:
                return "the smaller kernel reads where the larger one does not"
            places.append(slice(offset, offset + taps))
        return tuple(places)


def grid_of(node: Linear, taps: tuple[int, ...]) -> Grid | str:
    """Return where a convolution or a pooling reads; a phrase that says why that is not known.

    Args:
        node: The node, with the shape of its input as far as that is known.
        taps: Its kernel's sizes.
    """
    rank = len(taps)
    strides = node.ints("strides") or (1,) * rank
    dilations = node.ints("dilations") or (1,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    auto_pad = node.attributes.get("auto_pad", "NOTSET")
    if not len(strides) == len(dilations) == len(pads) // 2 == rank or min((*strides, *dilations)) < 1:
        return "its strides, dilations or pads are none"
    spatial = node.data_shape[2:]
    if auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = []
        for axis in range(rank):
            size = spatial[axis] if axis < len(spatial) else None
            reach = dilations[axis] * (taps[axis] - 1) + 1
            if strides[axis] == 1:
                totals.append(reach - 1)
            elif size is None:
                return "its padding depends on a size that is not known"
            else:
                totals.append(max(0, (-(-size // strides[axis]) - 1) * strides[axis] + reach - size))
        small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
        pads = (*small, *large) if auto_pad == "SAME_UPPER" else (*large, *small)
    return Grid(taps, strides, dilations, pads[:rank], pads[rank:])


def _embedded(weight: Float64Array, groups: int, host: Float64Array, host_groups: int) -> Float64Array | None:
    """Lay a grouped kernel out among fewer groups; None where its inputs are not in the host's groups."""
    if groups == host_groups:
        return weight
    outputs, each = weight.shape[:2]
    if groups % host_groups or outputs % groups or each * groups != host.shape[1] * host_groups:
        return None
    wide = np.zeros((outputs, host.shape[1], *weight.shape[2:]))
    out = np.arange(outputs)
    first = out // (outputs // groups) * each - out // (outputs // host_groups) * host.shape[1]
    for offset in range(each):
        wide[out, first + offset] = weight[:, offset]
    return wide


def add_convolution(host: Linear, grid: Grid, branch: Linear, branch_grid: Grid, sign: float) -> Linear | Refusal:
    """Return the convolution that adds another one of the same value, times ``sign``, to what ``host`` computes."""
    place = branch_grid.place_in(grid)
    if isinstance(place, str):
        return Refusal(Reason.OTHER_GRID, place)
    (host_groups,), (groups,) = host.ints("group"), branch.ints("group")
    if branch.weight.shape[0] != host.weight.shape[0]:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{branch.weight.shape[0]} channels and {host.weight.shape[0]}")
    kernel = _embedded(branch.weight, groups, host.weight, host_groups)
    if kernel is None or kernel.shape[1] != host.weight.shape[1]:
        return Refusal(Reason.OTHER_GRID, f"{groups} groups do not fit into {host_groups}")
    weight = host.weight.copy()
    weight[(slice(None), slice(None), *place)] += sign * kernel
    return replace(host, weight=weight, bias=host.bias + sign * branch.bias)


def add_diagonal(host: Linear, grid: Grid, scale: Float64Array, shift: Float64Array, at: Grid) -> Linear | Refusal:
    """Return the convolution that adds ``scale·x + shift``, summed over the taps of ``at``, to what ``host`` computes.

    Args:
        host: The convolution.
        grid: Where it reads.
        scale: One number a channel.
        shift: One number a channel.
        at: Where the branch reads: a point for an affine map, a window for average pooling.
    """
    place = at.place_in(grid)
    if isinstance(place, str):
        return Refusal(Reason.OTHER_GRID, place)
    (groups,), (outputs, each) = host.ints("group"), host.weight.shape[:2]
    if outputs != each * groups or scale.shape != (outputs,):
        return Refusal(Reason.CHANNEL_MISMATCH, f"{each * groups} channels in, {outputs} out, and {scale.size}")
    weight = host.weight.copy()
    out = np.arange(outputs)
    window = weight[(slice(None), slice(None), *place)]  # a view
    window[out, out % each] += scale.reshape(-1, *[1] * (weight.ndim - 2))
    return replace(host, weight=weight, bias=host.bias + shift)
