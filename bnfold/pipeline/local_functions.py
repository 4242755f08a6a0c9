"""Functions of the model itself, replaced by their nodes where a batch norm could not be folded otherwise."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from bnfold import fold as folding
from bnfold.graph.functions import Key, calls, functions_with, inline_functions, key_of
from bnfold.graph.inlining import called_by
from bnfold.graph.view import views
from bnfold.report import Inlined
from bnfold.rules import BATCH_NORM, RULES, Reason

if TYPE_CHECKING:
    import onnx

    from bnfold.fold import FoldPlan

__all__ = ["inline_batch_norms", "inlined_since"]

_MOST_ROUNDS = 8
_MOST_TRIED = 16


def inline_batch_norms(model: onnx.ModelProto, keep: Collection[str] = (), *, fewest: bool = False) -> onnx.ModelProto:
    """Return a model whose batch norms stand in its graph, where they can be folded, and not in functions of its own.

    A function that holds a batch norm is replaced by its nodes wherever it is called. One that holds none is, too, but
    only if a batch norm that would stay can be folded then: its layer may stand in there. All others stay as they are.

    Args:
        model: A model in inference mode; it is not changed.
        keep: Names of batch norms, or glob patterns of them, that are to stay.
        fewest: Whether folding may make the model slower.

    Raises:
        CorruptModelError: If the functions call each other in a circle, stand for too much, or break a rule of the
            format.
    """
    if not model.functions:
        return model
    holding = functions_with(model, BATCH_NORM)
    bare = inline_functions(model, holding) if holding else model
    if not bare.functions:
        return bare

    def staying_in(tried: onnx.ModelProto) -> frozenset[str]:
        return _staying(folding.plan(tried, keep=keep, fewest=fewest))

    best = staying_in(bare)
    chosen, more, current, staying = set[Key](), set[Key](), bare, best
    for _round in range(_MOST_ROUNDS):
        near = _calls_near(current, staying)
        if not near:
            break
        more |= near
        current = inline_functions(bare, more)
        staying = staying_in(current)
        if len(staying) < len(best):
            best, chosen = staying, set(more)
    for key in sorted(chosen) if len(chosen) <= _MOST_TRIED else ():
        fewer = chosen - {key}
        if len(staying_in(inline_functions(bare, fewer))) == len(best):
            chosen = fewer
    return inline_functions(bare, chosen)


def inlined_since(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[Inlined, ...]:
    """Return the functions that a model had, and that were replaced by their nodes."""
    left = calls(after)
    counted, holding = calls(before), functions_with(before, BATCH_NORM)
    return tuple(
        Inlined(f"{function.domain}::{function.name}", counted[key_of(function)], key_of(function) in holding)
        for function in before.functions
        if counted[key_of(function)] and not left.get(key_of(function))
    )


def _staying(plan: FoldPlan) -> frozenset[str]:
    """Return the batch norms that stay though nobody asked for it, by the values that they compute."""
    wanted = {Reason.KEPT_ON_REQUEST, Reason.INSIDE_FUNCTION}
    return frozenset(kept.subject.output for kept in plan.kept if kept.refusal.reason not in wanted)


def _calls_near(model: onnx.ModelProto, staying: Collection[str]) -> set[Key]:
    """Return the functions that are called where a map could get to from one of these batch norms."""
    own = {key_of(function) for function in model.functions}
    passable = {*RULES.carriers, *RULES.sources}
    found: set[Key] = set()
    for view in views(model):
        nodes = view.graph.node
        for backward in (True, False):
            starts = [index for index, node in enumerate(nodes) if node.output and node.output[0] in staying]
            seen, pending = set(starts), list(starts)
            while pending:
                node = nodes[pending.pop()]
                if backward:
                    near = [view.producers[name] for name in node.input if name in view.producers]
                else:
                    near = [index for name in node.output if name for index, _at in view.consumers.get(name, ())]
                for index in near:
                    if called_by(nodes[index]) in own:
                        found.add(called_by(nodes[index]))
                    elif index not in seen and nodes[index].op_type in passable:
                        seen.add(index)
                        pending.append(index)
    return found
