"""Which pieces of a graph folding changed, each bounded by values that exist before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.graph.region import Region
from bnfold.rules import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.fold.draft import Draft
    from bnfold.fold.plan import Fold

__all__ = ["regions_of"]


def regions_of(draft: Draft, folds: Sequence[Fold]) -> tuple[Region, ...]:
    """Group folds that touch the same nodes, and return the piece of the graph around each group.

    Args:
        draft: The graph with the folds taken.
        folds: What was folded in it.
    """
    layer_of = {number: node for node, numbers in draft.wiring.inserted.items() for number in numbers}
    groups: list[tuple[set[int], list[Fold]]] = []
    owner: dict[int, int] = {}
    for fold in folds:
        nodes = {fold.index, *fold.path, *(step.index for step in fold.steps)}
        nodes |= {layer_of[node] for node in nodes if node in layer_of}
        nodes |= {draft.add_behind[node] for node in nodes if node in draft.add_behind}
        nodes |= {other for node in nodes for other in _dequantising(draft, node)}
        touched = {owner[node] for node in nodes if node in owner}
        members = [fold]
        for other in sorted(touched):
            nodes |= groups[other][0]
            members = [*groups[other][1], *members]
        for node in nodes:
            owner[node] = len(groups)
        groups.append((nodes, members))
    alive = sorted(set(owner.values()))
    return tuple(_region(draft, *groups[number]) for number in alive)


def _dequantising(draft: Draft, node: int) -> set[int]:
    """Return the nodes that dequantise weight or bias of a layer: they change with it."""
    if not draft.taken_in.get(node):
        return set()
    return {other for name in draft.view.graph.node[node].input for other in draft.view.dequantising(name)}


def _region(draft: Draft, nodes: set[int], folds: Sequence[Fold]) -> Region:
    view = draft.view
    inside = sorted(node for node in nodes if node < len(view))
    produced = {name for node in inside for name in view.graph.node[node].output if name}
    inputs: dict[str, None] = {}
    outputs: dict[str, None] = {}
    for node in inside:
        for name in view.graph.node[node].input:
            if name and name not in produced and not view.is_constant(name):
                inputs[name] = None
        for name in view.graph.node[node].output:
            readers = {reader for reader, _position in view.consumers.get(name, ())}
            read_outside = bool(readers - nodes - draft.wiring.shape_readers)
            if name in draft.wiring.producers and (read_outside or draft.wiring.is_fixed(name)):
                outputs[name] = None
    fan_in = 1
    for node in inside:
        for taken in draft.taken_in.get(node, ()):
            form = draft.form(node, taken.absorber)
            if isinstance(form, Form):
                fan_in = max(fan_in, form.fan_in)
    return Region(
        sources=tuple(dict.fromkeys(fold.subject.name for fold in folds if fold.index < len(view))),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        fan_in=fan_in,
        scope=tuple(view.scope()),
    )
