"""The smallest piece of a model that shows a fault, with what has to be fed to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from bnfold.errors import BnfoldError
from bnfold.graph.extract import OpenPiece, extract
from bnfold.graph.shapes import infer
from bnfold.parity.compare import match
from bnfold.parity.feeds import Probe
from bnfold.parity.kernels import Array, computes_with, roundoff
from bnfold.parity.local import region_probes
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session, run_node
from bnfold.parity.trials import redrawn
from bnfold.parity.verdict import RegionCheck, Verdict

if TYPE_CHECKING:
    from bnfold.graph.region import Region
    from bnfold.parity.localise import Inside
    from bnfold.parity.stand import Runner
    from bnfold.parity.verdict import Parity

__all__ = ["Case", "Reproduction", "reproduce"]

Values = Mapping[str, Array]
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


@dataclass(frozen=True, slots=True)
class Case:
    """What was verified, and what was found.

    Attributes:
        unfolded: The model before folding.
        folded: The model after it.
        proof: What verifying the two found; its verdict is FAIL.
        regions: What was folded.
        original: Runs the original program; None where the unfolded model is the original.
        inside: Returns its inner values.
        level: Of the verification.
        seed: Of its probes.
        feeds: The user's own inputs.
        batches: Sizes of the batch that the probes were drawn with.
    """

    unfolded: ModelProto
    folded: ModelProto
    proof: Parity
    regions: tuple[Region, ...] = ()
    original: Runner | None = None
    inside: Inside | None = None
    seed: int = 0
    feeds: tuple[Values, ...] = ()
    batches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A piece that shows a fault.

    Attributes:
        says: What it shows, in one line.
        before: The piece as it was before folding.
        after: The piece after it; None where the original program and its translation differ.
        feeds: What to feed either.
        expected: What ``before`` computes in float64; of a translation, what the original program returns.
        error: Largest error of the wrong side, relative to the largest value.
    """

    says: str
    before: ModelProto
    after: ModelProto | None
    feeds: Values = field(repr=False)
    expected: Values = field(repr=False)
    error: float


def reproduce(case: Case) -> Reproduction | None:
    """Return the smallest piece that shows what a failed verification found; None where nothing can be shown.

    A fold that failed its own check is shown by itself; a model that is wrong as a whole, from the last right values to
    the first wrong one; where that piece cannot be cut out, or does not show the fault, by the whole model.
    """
    proof = case.proof
    try:
        if proof.failed_regions:
            return _of_region(case, max(proof.failed_regions, key=lambda check: check.eta / check.limit))
        wrong = [item for item in proof.folding if item.verdict is Verdict.FAIL]
        if wrong or proof.detail:
            probe = _probe(case, wrong[0].probe if wrong else "")
            if probe is None:
                return None
            return _of_suspect(case, probe) or _whole(case, probe)
        translated = [item for item in proof.translation if item.verdict is Verdict.FAIL]
        if translated and case.original is not None:
            probe = _probe(case, translated[0].probe)
            return None if probe is None else _of_translation(case, probe)
    except BnfoldError:
        return None
    return None


def _probe(case: Case, name: str) -> Probe | None:
    return redrawn(case.unfolded, case.proof, name, seed=case.seed, given=case.feeds, batches=case.batches)


def _of_region(case: Case, check: RegionCheck) -> Reproduction | None:
    region = next(item for item in case.regions if item.sources == check.sources and item.outputs == check.outputs)
    probe = _probe(case, "")
    if probe is None:
        return None
    captured = Reference(case.unfolded, foreign=run_node).capture(probe.feeds, {region.scope: region.inputs})[1]
    elements = _elements(case.unfolded)
    visits = [
        {name: _stored(visit[name], elements.get(name, 0)) for name in region.inputs}
        for visit in captured.get(region.scope, ())
        if visit.keys() >= set(region.inputs)
    ]
    if not visits:
        return None
    feeds = next(
        (values for name, values in region_probes(visits, case.seed, case.proof.level) if name == check.probe),
        visits[0],
    )
    before, after = (_cut(model, feeds, region.outputs, region.scope) for model in (case.unfolded, case.folded))
    if isinstance(before, OpenPiece) or isinstance(after, OpenPiece):
        return _whole(case, probe)
    folded = ", ".join(region.sources)
    pairs = zip(before, after, strict=False)  # one for each branch that has it
    shown = [_shown(one, other, feeds, f"the fold of {folded}: {check.detail}") for one, other in pairs]
    return max(shown, key=lambda item: item.error, default=None)


def _of_suspect(case: Case, probe: Probe) -> Reproduction | None:
    suspect = case.proof.suspect
    if suspect is None or suspect.layer or not suspect.between:
        return None
    elements = _elements(case.unfolded)
    inner = [name for name in suspect.between if name not in probe.feeds]
    values = Reference(case.unfolded, foreign=run_node).run(probe.feeds, inner) if inner else {}
    feeds = {
        name: probe.feeds[name] if name in probe.feeds else _stored(values[name], elements.get(name, 0))
        for name in suspect.between
    }
    before, after = (_cut(model, feeds, (suspect.value,)) for model in (case.unfolded, case.folded))
    if isinstance(before, OpenPiece) or isinstance(after, OpenPiece):
        return None
    shown = _shown(before[0], after[0], feeds, suspect.says)
    return shown if not shown.error <= suspect.limit else None


def _of_translation(case: Case, probe: Probe) -> Reproduction | None:
    suspect = case.proof.suspect
    if suspect is not None and not suspect.layer and case.inside is not None:
        inner = [name for name in suspect.between if name not in probe.feeds]
        found = {**probe.feeds, **case.inside([*inner, suspect.value])(probe.feeds)}
        if suspect.value in found and all(name in found for name in suspect.between):
            feeds = {name: np.asarray(found[name]) for name in suspect.between}
            piece = _cut(case.unfolded, feeds, (suspect.value,))
            if not isinstance(piece, OpenPiece):
                before = _typed(piece[0], feeds)
                answer = {suspect.value: np.asarray(found[suspect.value])}
                error = _error(Session(before).run(_of(before, feeds)), answer)
                if not error <= suspect.limit:
                    return Reproduction(f"the translation: {suspect.says}", before, None, feeds, answer, error)
    assert case.original is not None
    answer = {name: np.asarray(value) for name, value in case.original(probe.feeds).items()}
    error = _error(Session(case.unfolded).run(probe.feeds), answer)
    return Reproduction("the translation of the whole model", case.unfolded, None, probe.feeds, answer, error)


def _whole(case: Case, probe: Probe) -> Reproduction:
    expected = Reference(case.unfolded, foreign=run_node).run(probe.feeds)
    try:
        error = _error(Session(case.folded).run(probe.feeds), expected)
    except BnfoldError:
        error = math.inf
    return Reproduction("the whole model", case.unfolded, case.folded, probe.feeds, expected, error)


def _cut(
    model: ModelProto, feeds: Values, outputs: Sequence[str], scope: tuple[str, ...] = ()
) -> tuple[ModelProto, ...] | OpenPiece:
    elements = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    return extract(model, inputs=tuple(feeds), outputs=outputs, elements=elements, scope=scope)


def _shown(before: ModelProto, after: ModelProto, feeds: Values, says: str) -> Reproduction:
    one, other = _typed(before, feeds), _typed(after, feeds)
    expected = Reference(one, foreign=run_node).run(_of(one, feeds))
    return Reproduction(says, one, other, feeds, expected, _error(Session(other).run(_of(other, feeds)), expected))


def _of(model: ModelProto, feeds: Values) -> dict[str, Array]:
    wanted = {value.name for value in model.graph.input}
    return {name: value for name, value in feeds.items() if name in wanted}


def _typed(piece: ModelProto, feeds: Values) -> ModelProto:
    """Return a piece that says of all its inputs and outputs what they are; both sides take the same inputs."""
    found = Session(piece).run(_of(piece, feeds))
    copy = ModelProto()
    copy.CopyFrom(piece)
    del copy.graph.input[:]
    del copy.graph.output[:]
    copy.graph.input.extend(_described(name, value) for name, value in feeds.items())
    copy.graph.output.extend(_described(name, value) for name, value in found.items())
    return copy


def _described(name: str, value: object) -> ValueInfoProto:
    if not isinstance(value, np.ndarray):
        return ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))


def _error(found: Values, expected: Values) -> float:
    worst = 0.0
    for name in expected:
        value, truth = _any(found, name), _any(expected, name)
        if not isinstance(value, np.ndarray) or not isinstance(truth, np.ndarray) or value.shape != truth.shape:
            return math.inf
        if roundoff(value.dtype):
            compared = match(value, truth.astype(np.float64))
            worst = max(worst, math.inf if compared.misplaced else compared.errors.worst)
        elif not np.array_equal(value, truth):
            return math.inf
    return worst


def _any(values: Mapping[str, object], name: str) -> object:
    """Return a value of any kind: sequences and absent ones are among them."""
    return values.get(name)


def _elements(model: ModelProto) -> dict[str, int]:
    found: dict[str, int] = {}
    for types in infer(model).values():
        for name, item in types.items():
            if item.element:
                found.setdefault(name, item.element)
    return found


def _stored(value: Array, element: int) -> Array:
    if not computes_with(value):
        return value
    with np.errstate(over="ignore", under="ignore"):
        return value.astype(helper.tensor_dtype_to_np_dtype(element if element in _FLOATS else TensorProto.FLOAT))
