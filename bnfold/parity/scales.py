"""How large the rounding errors of a piece may be: the magnitudes of its outputs, and the narrowest type in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from bnfold.errors import BnfoldError
from bnfold.parity.bounded import DOMAIN, bounded
from bnfold.parity.kernels import Array, roundoff
from bnfold.parity.magnitude import Magnitude, Unbounded, magnitudes
from bnfold.parity.nodes import STANDARD, attributes_of
from bnfold.parity.program import versions_of
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session, run_node

__all__ = ["Scales", "bound_of", "coarsest"]

Values = Mapping[str, Array]
_FINE = roundoff(np.dtype(np.float64))

Scales = Callable[[Values], Mapping[str, Array]]


def bound_of(original: ModelProto, piece: ModelProto) -> Scales | None:
    """Return what computes the magnitudes of a piece's outputs; None where they have no bound."""
    magnitude = magnitudes(piece)
    if isinstance(magnitude, Unbounded):
        return None
    after = _bounds(magnitude)
    if coarsest(piece) != _FINE:
        return after
    also = magnitudes(original)
    if isinstance(also, Unbounded):
        return None
    before = _bounds(also)

    def run(feeds: Values) -> Mapping[str, Array]:
        ours, theirs = after(feeds), before(feeds)
        return {name: scale + theirs[name] if name in theirs else scale for name, scale in ours.items()}

    return run


def _bounds(magnitude: Magnitude) -> Scales:
    """Return what computes the magnitudes: a bound needs no sixteen digits, so float32 does where nothing is tiny."""
    reference, quick = Reference(magnitude.model, foreign=_foreign), _quick(magnitude)

    def run(feeds: Values) -> Mapping[str, Array]:
        given = {value.name: feeds[value.name] for value in magnitude.model.graph.input if value.name in feeds}
        scales: Mapping[str, Array] = {}
        if quick is not None:
            try:
                scales = quick.run(given)
            except BnfoldError:
                scales = {}
        # A smallest one that is NaN is no more than that either.
        if not scales or not all(
            scale.size == 0 or (scale.min() > _TINY and np.isfinite(scale.max())) for scale in scales.values()
        ):
            scales = reference.run({**magnitude.weights, **given})
        return {output: scales[name] for output, name in magnitude.outputs.items()}

    return run


_TINY = 1e-30


def _foreign(node: NodeProto, inputs: Sequence[Any]) -> Sequence[Array]:
    return bounded(node, inputs) if node.domain == DOMAIN else run_node(node, inputs)


def _quick(magnitude: Magnitude) -> Session | None:
    """Return the magnitudes in float32; None where the piece is of another type, or onnxruntime cannot run them."""
    graph = magnitude.model.graph
    elements = {tensor.data_type for tensor in graph.initializer}
    elements |= {value.type.tensor_type.elem_type for value in graph.input}
    wide = elements & {TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    if wide or any(node.domain == DOMAIN for node in graph.node):
        return None
    try:
        session = Session(magnitude.model, weights=magnitude.weights)
    except BnfoldError:
        return None
    return session if session.native else None


def _elements(piece: ModelProto) -> set[int]:
    """Return the types that a piece reads, stores or casts to."""
    elements = {tensor.data_type for tensor in piece.graph.initializer}
    elements |= {value.type.tensor_type.elem_type for value in piece.graph.input}
    version = versions_of(piece.opset_import).get("", 1)
    for node in piece.graph.node:
        elements.update(_inner(node, version))
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                elements.add(attribute.t.data_type)
            elif attribute.name == "to":
                elements.add(attribute.i)
    return elements


def _inner(node: NodeProto, version: int) -> Iterator[int]:
    """Yield the type in which a normalization computes its statistics, whatever it is fed."""
    if node.domain in STANDARD and node.op_type in _STASHING:
        try:
            attributes = onnx.defs.get_schema(node.op_type, version, "").attributes
        except onnx.defs.SchemaError:
            return
        if "stash_type" in attributes:
            yield int(attributes_of(node).get("stash_type", TensorProto.FLOAT))


_STASHING = frozenset({"GroupNormalization", "LayerNormalization", "RMSNormalization"})


def coarsest(piece: ModelProto) -> float:
    """Return the round-off of the narrowest float that a piece stores or casts to."""
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    narrow = _elements(piece) & floats
    return max((roundoff(helper.tensor_dtype_to_np_dtype(element)) for element in narrow), default=0.0)
