"""Gate A: every fold by itself, against the original nodes in float64.

``S = |W'|⊛|x| + |b'|``, ``η = max |y_folded − y_64| / (u·S)``; a fold passes iff ``η ≤ 4 + 2√n``, where n is the
fan-in and u the unit round-off. That is a componentwise backward error: it does not depend on the scale of anything,
nor on how deep the fold stands.

Below a type's normal range rounding has a smallest step, so a few of those are granted for free. In float64 the
reference itself rounds, and so did the fold's own arithmetic: there S is that of the original nodes as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from bnfold.errors import BnfoldError
from bnfold.graph.extract import OpenPiece, extract
from bnfold.graph.region import Region
from bnfold.parity.kernels import Array, computes_with, roundoff
from bnfold.parity.magnitude import Unbounded, magnitudes
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session
from bnfold.parity.verdict import RegionCheck, Verdict

__all__ = ["check_region", "eta_limit"]

Values = Mapping[str, Array]
_FINE = roundoff(np.dtype(np.float64))


def eta_limit(fan_in: int) -> float:
    """Return the largest backward error that rounding explains, ``4 + 2√n``, in units of ``u·S``."""
    return 4 + 2 * math.sqrt(max(fan_in, 1))


@dataclass(slots=True)
class _Worst:
    eta: float = 0.0
    probe: str = ""
    where: str = ""
    compared: int = 0
    probes: int = 0

    def judge(
        self, value: Array, expected: Array, scale: Array, *, u: float, steps: float, place: tuple[str, str]
    ) -> None:
        """Take in one output on one probe: ``η = max(|y − y_64| − steps, 0) / (u·S)``, element by element."""
        probe, output = place
        if value.shape != expected.shape or scale.shape != expected.shape:
            self.eta, self.probe = math.inf, probe
            self.where = f"{output} has the shape {value.shape}, not {expected.shape},"
            return
        if not computes_with(value):
            same = np.asarray(value == expected)
            self.compared += int(same.size)
            if not same.all():
                self.eta, self.probe, self.where = math.inf, probe, f"{output} is not of a floating type and differs"
            return
        # Where the sum of magnitudes leaves the type's range, an overflow on the way is nobody's mistake.
        limit = float(ml_dtypes.finfo(value.dtype).max)  # type: ignore[no-untyped-call]
        counted = np.isfinite(expected) & (scale < limit)
        self.compared += int(counted.sum())
        if not counted.any():
            return
        with np.errstate(all="ignore"):
            beyond = np.maximum(np.abs(value.astype(np.float64) - expected) - steps, 0)
            eta = np.where(beyond == 0, 0.0, beyond / (u * scale))
            eta = np.where(counted, np.where(np.isnan(eta), np.inf, eta), 0.0)
        worst = np.unravel_index(int(np.argmax(eta)), eta.shape)
        if not self.probe or eta[worst] > self.eta:
            self.eta, self.probe = float(eta[worst]), probe
            self.where = f"{output}[{', '.join(str(int(index)) for index in worst)}]"


def check_region(
    region: Region,
    unfolded: ModelProto,
    folded: ModelProto,
    captured: Sequence[Values],
    *,
    seed: int,
    level: str = "full",
) -> RegionCheck:
    """Judge one fold.

    Args:
        region: The piece, by the names of the values around it.
        unfolded: The model before.
        folded: The model after.
        captured: Values of the region's inputs in real runs, in their stored types. May be empty where a region stands
            in a body that no run reached.
        seed: Of the random probe.
        level: ``"fast"`` runs two probes, one captured and the zeros.
    """
    limit = eta_limit(region.fan_in)

    def ended(verdict: Verdict, detail: str, worst: _Worst | None = None) -> RegionCheck:
        worst = worst or _Worst(eta=math.nan)
        return RegionCheck(
            region.sources, region.outputs, worst.eta, limit, worst.probe, worst.probes, worst.compared, verdict, detail
        )

    if not captured:
        return ended(Verdict.INCONCLUSIVE, "no run reached it, so no values were captured at its inputs")
    elements = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in captured[0].items()}
    frame = {"inputs": region.inputs, "outputs": region.outputs, "elements": elements, "scope": region.scope}
    before, after = extract(unfolded, **frame), extract(folded, **frame)  # type: ignore[arg-type]
    for side, pieces in (("before", before), ("after", after)):
        if isinstance(pieces, OpenPiece):
            return ended(Verdict.FAIL, f"the region is not whole {side} folding: {pieces.detail}")
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    if len(before) != len(after):
        return ended(Verdict.FAIL, f"{len(before)} bodies hold it before folding, and {len(after)} after")
    worst = _Worst()
    for original, piece in zip(before, after, strict=True):
        try:
            unbounded = _compare(original, piece, region, captured, worst, seed=seed, level=level)
        except BnfoldError as error:
            return ended(Verdict.INCONCLUSIVE, f"it cannot be run by itself: {error}", worst)
        if unbounded:
            return ended(Verdict.INCONCLUSIVE, f"{unbounded.op_type} is not linear, so there is no error bound", worst)
    if not worst.compared:
        return ended(Verdict.INCONCLUSIVE, "no element could be compared", worst)
    if worst.eta <= limit:
        return ended(Verdict.PASS, "", worst)
    detail = f"backward error {worst.eta:.3g} u, {limit:.1f} u allowed; {worst.where} on the probe {worst.probe!r}"
    return ended(Verdict.FAIL, detail, worst)


def _compare(
    original: ModelProto,
    piece: ModelProto,
    region: Region,
    captured: Sequence[Values],
    worst: _Worst,
    *,
    seed: int,
    level: str,
) -> Unbounded | None:
    magnitude = magnitudes(piece)
    if isinstance(magnitude, Unbounded):
        return magnitude
    truth, bound, session = Reference(original), _bounds(magnitude), Session(piece)
    also: Reference | None = None
    coarse = _coarsest(piece)
    for name, feeds in _probes(captured, seed, level):
        expected = truth.run(_of(original, feeds))
        computed = session.run(_of(piece, feeds))
        scales = bound(_of(magnitude, feeds))
        worst.probes += 1
        for output in region.outputs:
            value = computed[output]
            u = max(coarse, roundoff(value.dtype))
            scale = scales[output]
            if u == _FINE:
                if also is None:
                    theirs = magnitudes(original)
                    if isinstance(theirs, Unbounded):
                        return theirs
                    also = Reference(theirs)
                absolute = {key: np.abs(entry) for key, entry in _of(also.model, feeds).items()}
                scale = scale + also.run(absolute)[output]
            # Below the normal range a node's own rounding has a smallest step, and so has each product.
            steps = 2 * len(piece.graph.node) * _smallest(value.dtype) + 2 * region.fan_in * 2.0**-149
            worst.judge(value, expected[output], scale, u=u, steps=steps, place=(name, output))
    return None


def _bounds(magnitude: ModelProto) -> Callable[[Values], Mapping[str, Array]]:
    """Return what computes the magnitudes: a bound needs no sixteen digits, so float32 does where nothing is tiny."""
    reference, quick = Reference(magnitude), _quick(magnitude)

    def run(feeds: Values) -> Mapping[str, Array]:
        absolute = {name: np.abs(value) for name, value in feeds.items()}
        if quick is not None and all(value.dtype != np.float64 for value in absolute.values()):
            scales = quick.run(absolute)
            if all(np.isfinite(scale).all() and (scale > _TINY).all() for scale in scales.values()):
                return {name: scale.astype(np.float64) for name, scale in scales.items()}
        return reference.run(absolute)

    return run


_TINY = 1e-30


def _quick(magnitude: ModelProto) -> Session | None:
    """Return the magnitudes in float32; None where the piece is of another type, or onnxruntime cannot run them."""
    elements = {value.type.tensor_type.elem_type for value in magnitude.graph.input}
    if elements != {TensorProto.FLOAT} or any(node.op_type == "Cast" for node in magnitude.graph.node):
        return None
    narrow = ModelProto()
    narrow.CopyFrom(magnitude)
    for tensor in narrow.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            with np.errstate(over="ignore", under="ignore"):
                array = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    try:
        session = Session(narrow)
    except BnfoldError:
        return None
    return session if session.native else None


def _smallest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).smallest_subnormal) if roundoff(dtype) else 0.0  # type: ignore[no-untyped-call]


def _of(model: ModelProto, feeds: Values) -> dict[str, Array]:
    wanted = {value.name for value in model.graph.input}
    return {name: value for name, value in feeds.items() if name in wanted}


def _coarsest(piece: ModelProto) -> float:
    """Return the round-off of the narrowest float that a piece stores or casts to."""
    elements = {tensor.data_type for tensor in piece.graph.initializer}
    for node in piece.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                elements.add(attribute.t.data_type)
            elif attribute.name == "to":
                elements.add(attribute.i)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    return max((roundoff(helper.tensor_dtype_to_np_dtype(element)) for element in elements & floats), default=0.0)


def _probes(captured: Sequence[Values], seed: int, level: str) -> Iterator[tuple[str, Values]]:
    """Yield what a region is tried on: what it meets in real runs, then what isolates one kind of mistake each."""
    for number, values in enumerate(captured[:1] if level == "fast" else captured):
        yield f"captured {number + 1}", values
    shapes = captured[0]
    yield "zeros", _floats(shapes, np.zeros)
    if level == "fast":
        return
    generator = np.random.default_rng(seed)
    yield "ones", _floats(shapes, np.ones)
    yield "±1", _floats(shapes, _signs)
    yield "10·N(0,1)", _floats(shapes, lambda shape: 10 * generator.normal(size=shape))
    yield "hot pixel in a corner", _floats(shapes, _corner)


def _floats(shapes: Values, make: Callable[[Sequence[int]], Array]) -> Values:
    return {
        name: make(value.shape).astype(value.dtype) if computes_with(value) else value for name, value in shapes.items()
    }


def _signs(shape: Sequence[int]) -> Array:
    parity = sum(np.indices(shape, sparse=True), np.zeros((), dtype=np.int64)) % 2
    return np.broadcast_to(1.0 - 2.0 * parity, shape)


def _corner(shape: Sequence[int]) -> Array:
    """Light the first and the last pixel, whether the channels stand on the second axis or on the last."""
    hot = np.zeros(shape)
    if hot.size and len(shape) > 1:
        for edge in (0, -1):
            hot.reshape(*shape[:2], -1)[:, :, edge] = 1.0
            hot.reshape(shape[0], -1, shape[-1])[:, edge] = 1.0
    elif hot.size:
        hot.reshape(-1)[0] = 1.0
    return hot
