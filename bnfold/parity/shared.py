"""Which values two models share: computed in both, under one name, and meaning the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bnfold.graph.region import Region
from bnfold.parity.program import reads_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["behind", "producers_of", "shared_values"]


def shared_values(model: ModelProto, other: ModelProto, regions: Sequence[Region] = ()) -> tuple[tuple[str, ...], int]:
    """Return the inner values and outputs that both main graphs compute and that mean the same, in graph order.

    Values that do not depend on the inputs are left out, and those inside a folded region: there a name may mean
    something else after folding.

    Args:
        model: The first model, before folding.
        other: The second one, after it.
        regions: What folding changed.

    Returns:
        The names, and how many values that depend on the inputs were left out.
    """
    varying = _varying(model)
    theirs = {name for node in other.graph.node for name in node.output if name}
    producers = producers_of(model)
    inside: set[str] = set()
    for region in regions:
        if not region.scope:
            edge = {*region.inputs, *region.outputs}
            inside.update(name for name in behind(producers, region.outputs, region.inputs) if name not in edge)
    kept = tuple(name for name in varying if name in theirs and name not in inside)
    return kept, len(varying) - len(kept)


def producers_of(model: ModelProto) -> dict[str, NodeProto]:
    """Return the node that computes a value of the main graph, by the value."""
    return {name: node for node in model.graph.node for name in node.output if name}


def behind(producers: Mapping[str, NodeProto], outputs: Collection[str], stops: Collection[str]) -> Iterator[str]:
    """Yield the computed values that some values come from, themselves included, as far as to those that stop.

    Args:
        producers: Who computes what.
        outputs: The values to start from.
        stops: Values that are not gone through, nor yielded.
    """
    seen: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name in seen or name not in producers or name in stops:
            continue
        seen.add(name)
        yield name
        pending.extend(reads_of(producers[name]))


def _varying(model: ModelProto) -> tuple[str, ...]:
    """Return the values of the main graph that depend on its inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {value.name for value in model.graph.input} - constants
    found = []
    for node in model.graph.node:
        if not known.isdisjoint(reads_of(node)):
            names = [name for name in node.output if name]
            known.update(names)
            found += names
    return tuple(found)
