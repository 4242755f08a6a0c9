"""What a look at every layer found: the error of each value that two models share, and how the worst one's spreads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Histogram", "Layerwise", "OriginalLayer", "SharedValue", "WorstLayer"]


@dataclass(frozen=True, slots=True)
class SharedValue:
    """A value that two models compute under one name, and how far each is from float64.

    Attributes:
        value: Its name, which both models use.
        node: The node that computes it in the unfolded model.
        op_type: That node's operation.
        elements: How many elements were compared.
        unfolded: Its error in the unfolded model: the largest of ``compare.Errors``.
        folded: Its error in the folded model.
        limit: What gate B would allow the folded one if this were an output.
        moved: Whether it stands for something else in the folded model: it is far off, and everything that is computed
            from it is right again.
    """

    value: str
    node: str
    op_type: str
    elements: int
    unfolded: float
    folded: float
    limit: float
    moved: bool

    @property
    def beyond(self) -> bool:
        """Whether the folded model's error is more than rounding explains."""
        return not self.moved and not self.folded <= self.limit


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many elements lie between each two edges, in three programs.

    Attributes:
        edges: One more than there are bins, ascending.
        unfolded: Counts of the unfolded model.
        folded: Counts of the folded model.
        reference: Counts of float64; empty where it has none, as in a histogram of errors.
        exact: Elements that fall in no bin because they are exact, of the unfolded and of the folded model.
    """

    edges: tuple[float, ...]
    unfolded: tuple[int, ...]
    folded: tuple[int, ...]
    reference: tuple[int, ...] = ()
    exact: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class WorstLayer:
    """The value whose error in the folded model is the largest part of what it is allowed.

    Attributes:
        value: Its name.
        errors: Of its elements, each relative to the root mean square of all, with edges that grow tenfold in equal
            steps.
        values: The elements themselves.
    """

    value: str
    errors: Histogram
    values: Histogram


@dataclass(frozen=True, slots=True)
class OriginalLayer:
    """What a layer of the original program computed, and how far the likest value of the judged model is from it.

    Attributes:
        layer: The layer's name.
        kind: What it is.
        value: The likest value, whose axes may be moved; empty where none has as many elements.
        error: Their distance, relative to what the layer computed (L2); NaN where there is no value.
    """

    layer: str
    kind: str
    value: str
    error: float


@dataclass(frozen=True, slots=True)
class Layerwise:
    """Two models beside float64, value by value, on one probe.

    Attributes:
        probe: The probe's name.
        origin: Where its values come from.
        values: Every floating value that both models compute under the same name, in the order of the graph.
        inside: Values of the unfolded model that folding removed or changed on purpose.
        worst: A closer look at the worst value; None where there is none.
        seconds: Wall time of the measurement.
        detail: Why there are no values, where there are none.
        original: The original program's layers, in the order in which they run; empty where it is an ONNX file.
    """

    probe: str
    origin: str
    values: tuple[SharedValue, ...]
    inside: int
    worst: WorstLayer | None
    seconds: float
    detail: str = ""
    original: tuple[OriginalLayer, ...] = ()

    @property
    def first_beyond(self) -> SharedValue | None:
        """The first value whose error is more than rounding explains; None where there is none."""
        return next((item for item in self.values if item.beyond), None)
