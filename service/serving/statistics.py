"""What was asked of each model and how long it took, as the protocol's extension for statistics has it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from service.serving.frames import Answer

__all__ = ["DURATIONS", "Statistics"]

DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds, between which the requests that succeeded are counted by how long they took."""

_BOUNDS = [round(bound * 1e9) for bound in DURATIONS]


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def told(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class _Together:
    """Runs of so many requests together: how many, and how long they took."""

    read: _Duration = field(default_factory=_Duration)
    ran: _Duration = field(default_factory=_Duration)
    wrote: _Duration = field(default_factory=_Duration)


@dataclass(slots=True)
class Statistics:
    """Of one version of a model, since the service started.

    Attributes:
        last: When the last inference was answered, in milliseconds since 1970.
        inferences: Requests that were answered.
        executions: Runs; requests that were run together count once.
        codes: How many requests ended with each code; ``""`` for success.
        durations: How many that succeeded took up to each of ``DURATIONS`` and longer than the one before; in the last
            place those that took longer than all.
    """

    last: int = 0
    inferences: int = 0
    executions: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))
    _success: _Duration = field(default_factory=_Duration)
    _fail: _Duration = field(default_factory=_Duration)
    _queue: _Duration = field(default_factory=_Duration)
    _all: _Together = field(default_factory=_Together)
    _by_size: dict[int, _Together] = field(default_factory=dict)

    def answered(self, answer: Answer, ns: int, now: int) -> None:
        """Count an answer of a runner.

        Args:
            answer: What the runner said.
            ns: How long it took since the request was there.
            now: In milliseconds since 1970.
        """
        if answer.code:
            self.failed(answer.code, ns)
            return
        self.codes[""] = self.codes.get("", 0) + 1
        self.last = now
        self.inferences += 1
        self._success.add(ns)
        self.durations[bisect_left(_BOUNDS, ns)] += 1
        self._queue.add(max(0, ns - answer.read - answer.ran - answer.wrote))
        together = self._by_size.get(answer.together)
        if together is None:
            together = self._by_size[answer.together] = _Together()
        self._all.read.add(answer.read)
        self._all.ran.add(answer.ran)
        self._all.wrote.add(answer.wrote)
        if answer.first:
            self.executions += 1
            together.read.add(answer.read)
            together.ran.add(answer.ran)
            together.wrote.add(answer.wrote)

    def failed(self, code: str, ns: int) -> None:
        """Count a request that was not answered, by what the error is called."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self._fail.add(ns)

    @property
    def seconds(self) -> float:
        """How long the requests that succeeded took altogether."""
        return self._success.ns / 1e9

    @property
    def sizes(self) -> dict[int, int]:
        """How many runs there were of so many requests."""
        return {size: together.ran.count for size, together in self._by_size.items()}

    def told(self, name: str, version: str) -> dict[str, Any]:
        """Return the statistics in the words of the protocol's extension."""
        nothing = _Duration()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self._success.told(),
                "fail": self._fail.told(),
                "queue": self._queue.told(),
                "compute_input": self._all.read.told(),
                "compute_infer": self._all.ran.told(),
                "compute_output": self._all.wrote.told(),
                "cache_hit": nothing.told(),
                "cache_miss": nothing.told(),
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": together.read.told(),
                    "compute_infer": together.ran.told(),
                    "compute_output": together.wrote.told(),
                }
                for size, together in sorted(self._by_size.items())
            ],
        }
