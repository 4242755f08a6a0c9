"""Dropout, which is nothing in inference mode, and operators that draw at random, which have no place in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.errors import InferenceModeError
from bnfold.inference.change import Change, named
from bnfold.inference.program import Program, is_random, standard

if TYPE_CHECKING:
    from onnx import NodeProto

    from bnfold.graph.view import GraphView

__all__ = ["refuse_random", "stop_dropping"]


def stop_dropping(program: Program) -> list[Change]:
    """Put every Dropout of a model in inference mode, in place.

    What only training reads is taken from them: the mode, and a ratio that is no constant.

    Raises:
        InferenceModeError: If the mode of one is computed, so that it cannot be told.
    """
    changes: list[Change] = []
    unknown: list[tuple[str, str]] = []
    deciding: set[str] = set()
    for view in program.views.values():
        for node in view.graph.node:
            if standard(node) != "Dropout":
                continue
            trains = program.trains(view, node, {})
            if trains is None:
                unknown.append((_label(node), node.input[2]))
                deciding |= _inputs_behind(program, view, node.input[2])
                continue
            if trains:
                changes.append(_stop(program, node))
            if program.opset >= 12:
                del node.input[2:]
                if len(node.input) > 1 and node.input[1] and not view.is_constant(node.input[1]):
                    del node.input[1:]
    if unknown:
        modes = sorted({mode for _name, mode in unknown})
        one = len(unknown) == 1
        raise InferenceModeError(
            f"whether {'a Dropout drops' if one else f'{len(unknown)} Dropouts drop'} anything depends on "
            f"{named(modes)}, and nothing proves which value is inference: {named([name for name, _mode in unknown])}",
            hint=f"Set the mode yourself, for example: --set {min(deciding)}=false"
            if deciding
            else "Export the model again in evaluation mode.",
        )
    return changes


def refuse_random(program: Program) -> None:
    """Refuse a model whose outputs depend on something drawn at random.

    Raises:
        InferenceModeError: Naming the nodes.
    """
    live = program.live({})
    found = [program.name(place) for place in sorted(live) if is_random(program.node(place))]
    if found:
        kinds = sorted({program.node(place).op_type for place in live if is_random(program.node(place))})
        raise InferenceModeError(
            f"the outputs depend on {len(found)} node{'' if len(found) == 1 else 's'} that draw"
            f"{'s' if len(found) == 1 else ''} at random ({', '.join(kinds)}): {named(found)}",
            hint="Export the model again in evaluation mode, or name outputs that do not depend on them.",
        )


def _inputs_behind(program: Program, view: GraphView, name: str) -> set[str]:
    """Return the model's inputs that a value is computed from."""
    found: set[str] = set()
    pending, seen = [(view, name)], set[tuple[object, str]]()
    while pending:
        view, name = pending.pop()
        home = program.home(view, name)
        if home is None or (home.path, name) in seen:
            continue
        seen.add((home.path, name))
        if name in home.producers:
            pending += [(home, read) for read in home.graph.node[home.producers[name]].input if read]
        elif home.path == () and name in home.inputs:
            found.add(name)
    return found


def _stop(program: Program, node: NodeProto) -> Change:
    if program.opset < 7:
        for attribute in node.attribute:
            if attribute.name == "is_test":
                attribute.i = 1
                break
        else:
            node.attribute.add(name="is_test", type=2, i=1)
        return Change("dropout", _label(node), "is_test=0", "is_test=1", "")
    return Change("dropout", _label(node), "training_mode=true", "training_mode=false", "")


def _label(node: NodeProto) -> str:
    return node.name or node.output[0]
