"""What a layer can surely take in, told from how large and how small its weights are, without a copy of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.affine import Unstorable, round_to, surely_storable
from bnfold.fold.linear_nodes import read_around, stored_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.fold.taken import Taken
    from bnfold.graph.view import NodeView
    from bnfold.rules import Form

__all__ = ["surely_takes"]


def surely_takes(node: NodeView, form: Form, wanted: Taken, earlier: Sequence[Taken]) -> bool:
    """Tell whether a layer can take in a map; False leaves that open.

    Args:
        node: The layer.
        form: Where its parts are.
        wanted: What it is to take in.
        earlier: What it has taken in before.
    """
    new_bias = wanted.absorber.new_bias
    whole = wanted
    if new_bias is None or len(earlier) > 1:
        return False
    if earlier:
        joined = wanted.joined_to(earlier[0])
        if joined is None:
            return False
        whole = joined
    around = read_around(node, form)
    if around is None or whole.affine is None:
        return False
    linear, extent = around
    dtype = stored_dtype(node, form)
    if not surely_storable(extent.largest, extent.smallest, whole.affine.scale, dtype):
        return False
    return not isinstance(round_to(new_bias(linear, whole.affine), dtype, -1), Unstorable)
