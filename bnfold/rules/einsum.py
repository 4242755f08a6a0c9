"""``Einsum`` of one computed and one constant factor, whatever its equation sums over."""

from __future__ import annotations

import re

from bnfold.affine import Linear, PerChannelAffine
from bnfold.graph.view import NodeView
from bnfold.rules.contraction import Labels, absorb_input, absorb_output, form_of
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["INPUT_SIDE", "OUTPUT_SIDE"]

_TERM = re.compile(r"([A-Za-z]*)(?:(\.\.\.)([A-Za-z]*))?")
_MOST_LABELS = 26
"""An ellipsis that stands for more axes than this is not looked into."""

Term = tuple[str, str | None]
"""The letters in front of an ellipsis, and those behind it; None where there is no ellipsis."""


def _terms(equation: str) -> tuple[list[Term], Term | None] | None:
    """Split an equation into the terms of its factors and that of its output, if it has one."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms: list[Term] = []
    for part in [*left.split(","), *([right] if arrow else [])]:
        found = _TERM.fullmatch(part)
        if found is None:
            return None
        terms.append((found[1], found[3] if found[2] else None))
    return (terms[:-1], terms[-1]) if arrow else (terms, None)


def _implicit(factors: list[Term]) -> Term | None:
    """Return the output that an equation without one has: what is there once, in the order of the alphabet."""
    letters = "".join(front + (behind or "") for front, behind in factors)
    if letters.lower() != letters and letters.upper() != letters:
        return None  # whether "B" comes before "a" is nobody's promise
    once = "".join(sorted(letter for letter in letters if letters.count(letter) == 1))
    return ("", once) if any(behind is not None for _front, behind in factors) else (once, None)


def _numbered(term: Term, hidden: int) -> tuple[int, ...]:
    """Return one number a letter; those of an ellipsis are negative, -1 the last of them."""
    front, behind = term
    middle = range(-hidden, 0) if behind is not None else ()
    return (*map(ord, front), *middle, *map(ord, behind or ""))


def _labels(equation: str, ranks: tuple[int, int], weight: int) -> Labels | str:
    """Read an equation of two factors; in words why not, where it is of another kind."""
    terms = _terms(equation)
    factors, output = terms if terms is not None else ([], None)
    if len(factors) != 2:
        return f"its equation {equation!r} is not of two factors"
    output = _implicit(factors) if output is None else output
    if output is None:
        return f"its equation {equation!r} leaves open which axis of the output comes first"
    hidden = []
    for (front, behind), rank in zip(factors, ranks, strict=True):
        hidden.append(rank - len(front) - len(behind or ""))
        if hidden[-1] < 0 or hidden[-1] > _MOST_LABELS or (behind is None and hidden[-1]):
            return f"its equation {equation!r} does not fit a factor of {rank} axes"
    if output[1] is None and any(behind is not None for _front, behind in factors):
        return f"its equation {equation!r} has no ellipsis behind the arrow"
    given = [_numbered(term, axes) for term, axes in zip(factors, hidden, strict=True)]
    out = _numbered(output, max(hidden))
    if any(len(set(labels)) != len(labels) for labels in (*given, out)):
        return f"its equation {equation!r} has a label twice in one term"
    if not set(out) <= {*given[0], *given[1]}:
        return f"its equation {equation!r} has a label behind the arrow that no factor has"
    if not out:
        return f"its equation {equation!r} sums up to a single number"
    return Labels(given[1 - weight], given[weight], out)


def _form(node: NodeView, side: Side) -> Form | Refusal:
    equation = node.attributes.get("equation")
    if not isinstance(equation, str) or len(node.reads) != 2:
        return Refusal(Reason.NO_RULE, f"{node.name} has {len(node.reads)} factors, and the rule is for two")
    weight = next((position for position in (1, 0) if node.is_weight(position)), None)
    if weight is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"neither factor of {node.name} is a constant")
    shapes = (node.shape(0), node.shape(1))
    ranks = tuple(len(shape) for shape in shapes if shape is not None)
    if len(ranks) != 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of a factor of {node.name} is not known")
    sizes = [size for size in shapes[weight] or () if isinstance(size, int)]
    if len(sizes) != ranks[weight]:
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the shape of the constant factor of {node.name} is not known")
    labels = _labels(equation, (ranks[0], ranks[1]), weight)
    if isinstance(labels, str):
        return Refusal(Reason.NO_RULE, f"{node.name}: {labels}")
    return form_of(labels, sizes, weight, side)


def _form_output(node: NodeView) -> Form | Refusal:
    return _form(node, Side.OUTPUT)


def _form_input(node: NodeView) -> Form | Refusal:
    return _form(node, Side.INPUT)


def _labels_of(einsum: Linear) -> Labels:
    ranks = (len(einsum.data_shape), einsum.weight.ndim)
    first, second = ranks if einsum.weight_input == 1 else ranks[::-1]
    labels = _labels(str(einsum.attributes["equation"]), (first, second), einsum.weight_input)
    assert isinstance(labels, Labels), "the form has refused these"
    return labels


def _absorb_output(einsum: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return absorb_output(einsum, affine, _labels_of(einsum))


def _absorb_input(einsum: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    return absorb_input(einsum, affine, _labels_of(einsum))


OUTPUT_SIDE = Absorber(
    op_type="Einsum",
    side=Side.OUTPUT,
    algebra="s·Σ x·W + o = Σ x·(W·s) + o, where W has every label along which s varies",
    form=_form_output,
    absorb=_absorb_output,
    examples=(
        Example(
            "a dense layer on a sequence, with a bias in an Add",
            """(double[2,3,4] x) => (double y) <double[4,5] W, double[5] b, double[5] c, double[5] d> {
               h = Einsum<equation="bti,io->bto">(x, W)
               a = Add(h, b)
               m = Mul(a, c)
               y = Add(m, d) }""",
            stays=1,
        ),
        Example(
            "the constant first, the output not spelled out",
            """(double[2,4] x) => (double y)
               <double[4,6] W, double[6] gamma, double[6] beta, double[6] mean, double[6] var> {
               h = Einsum<equation="ik, bi">(W, x)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "heads of a projection, each head and each feature with its own constant",
            """(double[2,3,4] x) => (double y) <double[4,5,6] W, double[5,6] c> {
               h = Einsum<equation="abc,cde->abde">(x, W)
               y = Mul(h, c) }""",
        ),
        Example(
            "a factor that multiplies each channel by itself",
            """(double[2,4,3] x) => (double y)
               <double[4] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = Einsum<equation="bct,c->bct">(x, W)
               y = BatchNormalization(h, gamma, beta, mean, var) }""",
        ),
        Example(
            "the constant factor has only what is summed over",
            """(double[2,3,4] x) => (double y) <double[4] W, double[3] c> {
               h = Einsum<equation="bti,i->bt">(x, W)
               y = Mul(h, c) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "three factors",
            """(double[2,3,4] x) => (double y) <double[4,5] W, double[5,6] V, double[6] c> {
               h = Einsum<equation="bti,io,op->btp">(x, W, V)
               y = Mul(h, c) }""",
            refused=Reason.NO_RULE,
        ),
        Example(
            "the diagonal of a constant",
            """(double[2,4] x) => (double y) <double[4,4] W, double[4] c> {
               h = Einsum<equation="bi,ii->bi">(x, W)
               y = Mul(h, c) }""",
            refused=Reason.NO_RULE,
        ),
        Example(
            "two computed factors",
            """(double[2,3,4] x, double[4,5] W) => (double y) <double[5] c> {
               h = Einsum<equation="bti,io->bto">(x, W)
               y = Mul(h, c) }""",
            refused=Reason.DYNAMIC_WEIGHT,
        ),
    ),
)

INPUT_SIDE = Absorber(
    op_type="Einsum",
    side=Side.INPUT,
    algebra="Σ (s·x + o)·W = Σ x·(W·s) + Σ o·W, where W has every label along which s and o vary",
    form=_form_input,
    absorb=_absorb_input,
    examples=(
        Example(
            "the channel is summed over",
            """(double[2,4,3] x) => (double y)
               <double[4,5] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Einsum<equation="bct,co->bto">(h, W) }""",
        ),
        Example(
            "the sum also runs over an axis that the constant does not have",
            """(double[2,4,3] x) => (double y)
               <double[5,4] W, double[4] gamma, double[4] beta, double[4] mean, double[4] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Einsum<equation="oc,bct->bo">(W, h) }""",
        ),
        Example(
            "whatever stands in front of the last axis",
            """(double[2,3,4] x) => (double y) <double[4,5] W, double[4] c, double[4] d> {
               m = Mul(x, c)
               h = Add(m, d)
               y = Einsum<equation="...i,io->...o">(h, W) }""",
            stays=1,
        ),
        Example(
            "the batch norm stands on an axis that the constant does not have",
            """(double[2,3,4] x) => (double y)
               <double[4,5] W, double[3] gamma, double[3] beta, double[3] mean, double[3] var> {
               h = BatchNormalization(x, gamma, beta, mean, var)
               y = Einsum<equation="bti,io->bto">(h, W) }""",
            refused=Reason.WRONG_AXIS,
        ),
        Example(
            "it sums over an axis whose size is not known",
            """(double[2,4,T] x) => (double y) <double[4,5] W, double[4,1] c> {
               h = Add(x, c)
               y = Einsum<equation="bct,co->bo">(h, W) }""",
            refused=Reason.UNKNOWN_SHAPE,
        ),
    ),
)
