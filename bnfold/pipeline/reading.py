"""Reading an artifact: what the frontend made of it, in inference mode, and the time that each step takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnfold import frontends
from bnfold.errors import BnfoldError
from bnfold.frontends.loaded import Loaded, ModeChange, Runner, TensorSpec
from bnfold.graph.overridable import freeze, overridable
from bnfold.inference import to_inference_mode
from bnfold.pipeline.checks import check_idle
from bnfold.pipeline.feeds import Given, load_given
from bnfold.pipeline.local_functions import inlined_since
from bnfold.pipeline.measure import measure, source_of
from bnfold.pipeline.options import LARGE, Options, Progress
from bnfold.report import Inlined, Source, Timing

if TYPE_CHECKING:
    import onnx

    from bnfold.parity.localise import Inside

__all__ = ["Clock", "Reading", "given_of", "level_of", "read"]

_FROZEN = "asked for with --freeze-initializers"


@dataclass(frozen=True, slots=True)
class Reading:
    """An artifact in inference mode, and the original program to compare with.

    Attributes:
        loaded: What the frontend read.
        model: The model that is folded.
        mode: What was done to reach inference mode.
        account: What was read, for the report.
        whole: The model with all of its functions, where some were replaced by their nodes.
    """

    loaded: Loaded
    model: onnx.ModelProto
    mode: tuple[ModeChange, ...]
    account: Source
    whole: onnx.ModelProto | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What is left to feed in inference mode."""
        left = {value.name for value in self.model.graph.input}
        return tuple(spec for spec in self.loaded.inputs if spec.name in left)

    @property
    def inlined(self) -> tuple[Inlined, ...]:
        """The functions of the file that are nodes of the model now."""
        return inlined_since(self.loaded.model, self.model)

    def original(self) -> Runner | None:
        """Return what runs the original program; None where the model that is folded is the original itself."""
        if self.loaded.run is not None or self.whole is None:
            return self.loaded.run
        from bnfold.parity.run import Session

        # Replacing functions is a translation, and judged as one.
        try:
            return Session(self.whole).run
        except BnfoldError:
            return Session(self.whole, native=False).run

    def inside(self) -> Inside | None:
        """Return what opens the original program for its inner values; None where there is no such thing."""
        if self.loaded.run is not None or self.whole is None:
            return None
        from bnfold.parity.localise import inside_of

        return inside_of(self.whole)


class Clock:
    """Times the steps, and tells whoever waits which one runs."""

    def __init__(self, progress: Progress | None) -> None:
        self.timings: list[Timing] = []
        self._progress = progress

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Time a block; yields a function that takes what is done in it, how much of it, and of how much."""
        self._tell(name, None)
        started = time.perf_counter()
        yield lambda what, done, of: self._tell(f"{name}: {what}", done / of if of else None)
        self.timings.append(Timing(name, time.perf_counter() - started))

    def _tell(self, name: str, done: float | None) -> None:
        if self._progress is not None:
            self._progress(name, done)


def read(path: Path, options: Options, clock: Clock) -> Reading:
    """Read an artifact, and put it in inference mode.

    Raises:
        SourceError: If it cannot be converted.
        OSError: If a file cannot be read.
    """
    with clock.step("read"):
        loaded = frontends.load(path, options.request)
        check_idle(options, loaded, path)
        account = source_of(path, loaded)
    frozen: tuple[str, ...] = ()
    with clock.step("inference mode"):
        model = loaded.model
        if options.freeze_initializers:
            frozen, model = overridable(model), freeze(model)
        model, changes = to_inference_mode(model)
    mode = [ModeChange("initializer", name, "input with a default", "constant", _FROZEN) for name in frozen]
    mode += [ModeChange(c.kind, c.name, c.before, c.after, c.proof) for c in changes]
    return Reading(loaded, model, (*loaded.mode, *mode), account)


def given_of(options: Options, source: Reading) -> tuple[Given, ...]:
    """Return the caller's own inputs; nothing where there are none.

    Raises:
        SourceError: If they cannot be read, or the model does not take them.
        OSError: If a file cannot be read.
    """
    return () if options.data is None else load_given(options.data, source.inputs)


def level_of(options: Options, model: onnx.ModelProto) -> Literal["full", "fast"] | None:
    """Return how much to verify: what was asked for, or what the size of the model calls for."""
    if options.verify is None:
        return "fast" if measure(model).parameters > LARGE else "full"
    return None if options.verify == "off" else options.verify
