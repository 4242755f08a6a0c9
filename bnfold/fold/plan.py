"""Decide what becomes of every batch norm, without touching the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.backward import toward_producer
from bnfold.fold.both_ways import both_ways
from bnfold.fold.branches import find_joint, sums
from bnfold.fold.chains import Link, find_link, layers_of
from bnfold.fold.draft import Draft
from bnfold.fold.forward import toward_consumers
from bnfold.fold.patterns import belongs_to_function
from bnfold.fold.stage import STAGES, Stage, dearer_than_batch_norm
from bnfold.fold.step import Step
from bnfold.fold.trail import Route
from bnfold.fold.uncollected import uncollected
from bnfold.graph.view import NodeView, views
from bnfold.rules import BATCH_NORM, RULES, Direction, Reason, Refusal, Rules, Side

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnx import FunctionProto, ModelProto

    from bnfold.affine import Field
    from bnfold.graph.shapes import GraphPath

__all__ = ["Fold", "FoldPlan", "Kept", "Subject", "plan"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A node that is, or is said to be, an affine map.

    Attributes:
        name: Its name; that of its output where it has none.
        op_type: Its operation.
        output: The value that it computes.
        channels: How many channels its map has; 0 where that is not known.
        scope: Names of the control-flow nodes (or the function) around it, outermost first.
    """

    name: str
    op_type: str
    output: str
    channels: int
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fold:
    """One affine map that goes into the layers around it.

    Attributes:
        subject: The map's node, which disappears.
        direction: Which way it goes.
        steps: What takes it in.
        path: Nodes that it passes through unchanged, by index.
        graph: Where in the model it happens.
        index: The subject's place among the graph's nodes.
        form: What is left of it: nothing (empty), or the name of the stage that folded it.
        rest: The shift that stays as an Add in its place; None where nothing stays.
    """

    subject: Subject
    direction: Direction
    steps: tuple[Step, ...]
    path: tuple[int, ...]
    graph: GraphPath
    index: int
    form: str = ""
    rest: Field | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """One affine map that stays.

    Attributes:
        subject: The map's node.
        refusal: The reason that tells most.
        also: What the other side said, where that differs.
    """

    subject: Subject
    refusal: Refusal
    also: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """What becomes of every batch norm: each is in ``folds`` or in ``kept``, exactly once.

    It holds no weights: only per-channel vectors.

    Attributes:
        folds: In the order in which they are applied; plain constant affines are among them.
        kept: Batch norms that stay, in the order of the graph.
        plain: Plain constant affines that stay, which is no news.
        keep: The names and patterns that were to stay.
        apart: Layers that stand right in front of another one, or behind it, and stay apart from it, which is no news.
    """

    folds: tuple[Fold, ...]
    kept: tuple[Kept, ...]
    plain: tuple[Kept, ...] = ()
    keep: tuple[str, ...] = ()
    apart: tuple[Kept, ...] = ()


_SPECIFICITY = {reason: rank for rank, reason in enumerate(Reason)}
_MOST_ROUNDS = 24


@uncollected()
@np.errstate(all="ignore")  # what overflows is looked at, and refused
def plan(model: ModelProto, *, keep: Collection[str] = (), rules: Rules = RULES, fewest: bool = False) -> FoldPlan:
    """Plan the folding of a model in inference mode.

    Args:
        model: Any ONNX model. It is only read.
        keep: Names of nodes or values, or glob patterns of them, to leave as they are.
        rules: The tables to plan with.
        fewest: Whether a batch norm may also become a Max or an Add where onnxruntime would take longer for that.
    """
    folds: list[Fold] = []
    kept: list[Kept] = []
    plain: list[Kept] = []
    apart: list[Kept] = []
    every = tuple(views(model))
    taken = set[str]().union(*(view.names() for view in every))
    for view in every:
        draft = Draft(view, rules, taken, fewest=fewest)
        scope = tuple(view.scope())
        account = _Account(layers_of(view), keep)
        subjects, refusals, dear = account.subjects, account.refusals, account.dear
        for index, reading in draft.read_sources(keep):
            field_read = None if isinstance(reading, Refusal) else reading.field
            subjects[index] = _subject(view.node(index), field_read, scope)
            if isinstance(reading, Refusal):
                refusals[index] = [reading]
        first = len(folds)
        for _round in range(_MOST_ROUNDS):
            # What leaves something behind is a last resort: after it, all that leaves nothing is tried again.
            found = next((found for stage in STAGES if (found := _tried(draft, stage, account))), [])
            if not found:
                break
            folds.extend(found)
        # A batch norm whose Add went on later has left nothing.
        folds[first:] = [
            replace(fold, form="") if fold.index in draft.gone and fold.rest else fold for fold in folds[first:]
        ]
        for index, subject in sorted(subjects.items()):
            if index in draft.gone or (subject.op_type == BATCH_NORM and draft.op_type(index) != BATCH_NORM):
                continue
            reasons = sorted(refusals.get(index, []), key=lambda refusal: _SPECIFICITY[refusal.reason])
            reasons += [dear[index]] if index in dear else []
            row = Kept(subject, reasons[0], tuple(r for r in reasons[1:] if r.reason is not reasons[0].reason))
            (kept if subject.op_type == BATCH_NORM else plain).append(row)
        apart += [Kept(_subject(view.node(index), None, scope), why) for index, why in sorted(account.apart.items())]
    kept.extend(_inside_functions(model))
    for view in every:
        view.release()
    return FoldPlan(tuple(folds), tuple(kept), tuple(plain), tuple(keep), tuple(apart))


@dataclass(frozen=True, slots=True)
class _Account:
    """What a plan notes of one graph.

    Attributes:
        layers: Its layers that may be one with the one in front.
        keep: The names and patterns that are to stay.
        subjects: The nodes that are affine maps.
        refusals: Why they stay, as far as that is known.
        dear: Those that could become something slower.
        apart: Why layers stay apart from the one in front of them, or behind.
    """

    layers: tuple[int, ...]
    keep: Collection[str]
    subjects: dict[int, Subject] = field(default_factory=dict)
    refusals: dict[int, list[Refusal]] = field(default_factory=dict)
    dear: dict[int, Refusal] = field(default_factory=dict)
    apart: dict[int, Refusal] = field(default_factory=dict)


def _tried(draft: Draft, stage: Stage, account: _Account) -> list[Fold]:
    """Take all the folds of one stage."""
    if stage.chains:
        return _link_layers(draft, account)
    if stage.branches:
        return _join_branches(draft, account.subjects, account.refusals)
    return _sweep(draft, stage, account)


def _sweep(draft: Draft, stage: Stage, account: _Account) -> list[Fold]:
    """Try every affine once: backward in the order of the graph, what is left forward in the opposite order."""
    refusals = account.refusals
    found = []
    for direction in Direction:
        if stage.apart and direction is Direction.FORWARD:
            break
        backward = direction is Direction.BACKWARD
        walk = both_ways if stage.apart else toward_producer if backward else toward_consumers
        for index in sorted(draft.affines, key=draft.order, reverse=not backward):
            route: Route | Refusal
            value = draft.wiring.outputs[index][0]
            if not draft.wiring.uses_of(value) and not draft.wiring.is_fixed(value):
                route = Refusal(Reason.EDGE, f"no layer reads {value}")
            elif belongs_to_function(draft, index):
                route = Refusal(Reason.NO_GAIN, f"{draft.name(index)} is the tail of a function that runtimes know")
            else:
                route = walk(draft, index, stage)
                last_resort = stage.max_form or stage.scale_only
                if last_resort and isinstance(route, Route) and dearer_than_batch_norm(draft, index):
                    detail = f"an Add would cost more than {draft.name(index)}"
                    route = account.dear[index] = Refusal(Reason.NO_GAIN, detail, unless="fewest")
            if isinstance(route, Refusal):
                if stage is STAGES[0]:
                    refusals.setdefault(index, []).append(route)
                    refusals[index] = refusals[index][-2:]
                elif stage.apart and route.reason is Reason.SIGN:
                    refusals.setdefault(index, []).append(route)
                continue
            subject = account.subjects.get(index)
            if subject is None or subject.op_type != draft.op_type(index):
                subject = _inserted(draft, index)
            form = stage.form if route.rest is not None or any(step.becomes for step in route.steps) else ""
            path = draft.view.path
            found.append(Fold(subject, direction, route.steps, route.path, path, index, form, route.rest))
            draft.take(index, direction, route.steps, route.rest)
    return found


def _join_branches(draft: Draft, subjects: dict[int, Subject], refusals: dict[int, list[Refusal]]) -> list[Fold]:
    """Let convolutions take in the branches beside them, one branch after another."""
    found = []
    for last in list(sums(draft)):
        while (joint := find_joint(draft, last, refusals)) is not None:
            index, path = joint.index, draft.view.path
            subject = subjects.get(index) or _subject(draft.view.node(index), None, tuple(draft.view.scope()))
            found.append(Fold(subject, Direction.FORWARD, (joint.step,), joint.path, path, index, "branches"))
            draft.take(index, Direction.FORWARD, (joint.step,))
            if last in draft.gone:
                break
    return found


def _link_layers(draft: Draft, account: _Account) -> list[Fold]:
    """Let layers take in those right in front of them, or behind them."""
    found = []
    path, scope = draft.view.path, tuple(draft.view.scope())
    account.apart.clear()
    for index in account.layers:
        while (link := find_link(draft, index, account.keep)) is not None:
            if not isinstance(link, Link):
                account.apart[link[0]] = link[1]
                break
            parts = [(link.index, link.step)] if link.shift is None else [link.shift, (link.index, link.step)]
            for part, step in parts:
                subject = account.subjects.get(part)
                if subject is None and part >= len(draft.view):
                    subject = _inserted(draft, part)
                subject = subject or _subject(draft.view.node(part), None, scope)
                direction = Direction.FORWARD if step.side is Side.INPUT else Direction.BACKWARD
                found.append(Fold(subject, direction, (step,), (), path, part))
                draft.take(part, direction, (step,))
    return found


def _inserted(draft: Draft, index: int) -> Subject:
    """Name an Add that folding put behind a layer, and that can go on from there."""
    (value,) = draft.wiring.outputs[index]
    return Subject(value, "Add", value, max(draft.affines[index].field.shape), tuple(draft.view.scope()))


def _subject(node: NodeView, field: Field | None, scope: tuple[str, ...]) -> Subject:
    channels = 0 if field is None else max(field.shape, default=1)
    return Subject(node.name, node.op_type, node.proto.output[0], channels, scope)


def _inside_functions(model: ModelProto) -> list[Kept]:
    """Account for the batch norms of the model's own functions, which are not looked into."""

    def row(function: FunctionProto, index: int) -> Kept:
        node = function.node[index]
        name = node.name or node.output[0]
        subject = Subject(name, BATCH_NORM, node.output[0], 0, (f"{function.domain}::{function.name}",))
        return Kept(subject, Refusal(Reason.INSIDE_FUNCTION, f"{name} stands in the function {function.name}"))

    return [
        row(function, index)
        for function in model.functions
        for index, node in enumerate(function.node)
        if node.op_type == BATCH_NORM and node.domain in {"", "ai.onnx"}
    ]
