"""The metrics, in the form that Prometheus reads.

Those of jobs are counted from what the end of each job leaves in the database, by whichever service is asked first; so
they are to be summed over all services. Those of inference are of this service. A model gets a label of its own while
there are not too many of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

import bnfold
from service.jobs.job import QUEUED, RUNNING, STATES
from service.jobs.table import JobTable
from service.jobs.tally import STEPS, Tally, take_tallies
from service.serving.runners import Runners
from service.serving.statistics import DURATIONS

__all__ = ["Metrics"]

_LOG = logging.getLogger("service.observing")
# What a report may call a file. It comes from a child that read it, and must not make up labels.
_FORMATS = frozenset(
    {
        "onnx",
        "keras",
        "h5",
        "h5-weights",
        "saved-model",
        "saved-model-archive",
        "frozen-graph",
        "frozen-graph-text",
        "meta-graph",
        "checkpoint",
    }
)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MOST_MODELS = 500
_OTHER = ("(other)", "")
_BATCH = 500


@dataclass(slots=True)
class Metrics:
    """What is counted.

    Attributes:
        table: Of the jobs.
        runners: Count what they are asked.
    """

    table: JobTable
    runners: Runners
    registry: CollectorRegistry = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _jobs: Counter = field(init=False)
    _duration: Histogram = field(init=False)
    _queue: Histogram = field(init=False)
    _kills: Counter = field(init=False)
    _unfinished: Gauge = field(init=False)

    def __post_init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._jobs = Counter(
            "bnfold_jobs",
            "Jobs that ended, by how, and by the format of the model.",
            ["state", "format"],
            registry=registry,
        )
        self._duration = Histogram(
            "bnfold_job_duration_seconds",
            "How long each step of a conversion took, and all of it (total).",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "bnfold_job_queue_seconds",
            "How long jobs waited until somebody began to work on them.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._kills = Counter(
            "bnfold_sandbox_kills",
            "Conversions that their limits or a signal ended.",
            ["reason"],
            registry=registry,
        )
        self._unfinished = Gauge(
            "bnfold_jobs_unfinished",
            "Jobs that wait or run; the same at every service of a database.",
            ["state"],
            registry=registry,
        )
        Gauge("bnfold_build_info", "Which version this is.", ["version"], registry=registry).labels(
            bnfold.__version__
        ).set(1)
        for stage in (*STEPS.values(), "total"):
            self._duration.labels(stage)
        for reason in ("time", "memory", "file-size", "signal"):
            self._kills.labels(reason)
        registry.register(_Inference(self.runners))
        prometheus_client.ProcessCollector(registry=registry)

    def told(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as they are now, and their media type; may wait for the database.

        Args:
            accept: The media types that a client takes.
        """
        with self._lock:
            try:
                self._count()
            except DBAPIError as error:
                _LOG.warning("the jobs that ended cannot be counted: %s", error.orig)
            encoder, kind = choose_encoder(accept)
            return encoder(self.registry), kind

    def _count(self) -> None:
        while tallies := take_tallies(self.table.engine):
            for tally in tallies:
                self._take(tally)
            if len(tallies) < _BATCH:
                break
        counts = self.table.counts()
        for state in (QUEUED, RUNNING):
            self._unfinished.labels(state).set(counts.get(state, 0))

    def _take(self, tally: Tally) -> None:
        if tally.state in STATES:
            self._jobs.labels(tally.state, tally.format if tally.format in _FORMATS else "unknown").inc()
        if tally.waited is not None:
            self._queue.observe(tally.waited)
        for stage, seconds in tally.steps.items():
            self._duration.labels(stage).observe(seconds)
        if tally.kill:
            self._kills.labels(tally.kill).inc()


class _Inference(Collector):
    """What the runners of this service were asked."""

    def __init__(self, runners: Runners) -> None:
        self._runners = runners
        self._labelled: dict[tuple[str, str], tuple[str, str]] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        requests: dict[tuple[str, str, str], int] = {}
        durations = [0] * (len(DURATIONS) + 1)
        seconds, sizes = 0.0, dict.fromkeys((*_SIZES, 0), 0)
        rows = 0
        # Two tenants may call different models the same: what is shown is all that was asked under the name.
        for (_, name, version), statistics in list(self._runners.statistics.items()):
            model = self._label(name, version)
            for code, count in list(statistics.codes.items()):
                key = (*model, code or "ok")
                requests[key] = requests.get(key, 0) + count
            for place, count in enumerate(statistics.durations):
                durations[place] += count
            seconds += statistics.seconds
            for size, count in list(statistics.sizes.items()):
                rows += size * count
                sizes[next((bound for bound in _SIZES if size <= bound), 0)] += count
        asked = CounterMetricFamily(
            "bnfold_infer_requests", "Inference requests, by how they ended.", labels=["model", "version", "code"]
        )
        for key, count in requests.items():
            asked.add_metric(key, count)
        yield asked
        yield HistogramMetricFamily(
            "bnfold_infer_duration_seconds",
            "How long inference requests that succeeded took.",
            buckets=_cumulated(dict(zip(map(str, DURATIONS), durations[:-1], strict=True)), durations[-1]),
            sum_value=seconds,
        )
        yield HistogramMetricFamily(
            "bnfold_infer_batch_size",
            "How many requests were run together.",
            buckets=_cumulated({f"{bound:.1f}": sizes[bound] for bound in _SIZES}, sizes[0]),
            sum_value=rows,
        )
        yield GaugeMetricFamily(
            "bnfold_model_loaded", "Models that are loaded.", value=len(list(self._runners.loaded()))
        )

    def _label(self, name: str, version: str) -> tuple[str, str]:
        """Return the labels of a model, which stay what they were once given."""
        found = self._labelled.get((name, version))
        if found is None:
            found = (name, version) if len(self._labelled) < _MOST_MODELS else _OTHER
            if found is not _OTHER:
                self._labelled[name, version] = found
        return found


def _cumulated(counts: Mapping[str, int], more: int) -> list[tuple[str, float]]:
    """Return for each bound how many are up to it, as Prometheus wants them."""
    total, found = 0, []
    for bound, count in (*counts.items(), ("+Inf", more)):
        total += count
        found.append((bound, float(total)))
    return found
