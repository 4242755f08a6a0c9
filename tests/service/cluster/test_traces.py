"""A job that a worker works on goes on with the trace of the request that a service was sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.service.cluster.conftest import new_database
from tests.service.cluster.deployment import SEEDS, ask, deployed, succeeded, until
from tests.service.cluster.servers import Broker, PostgreSQL
from tests.service.observing.collector import collecting
from tests.service.server import conv_model

if TYPE_CHECKING:
    import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_worker_goes_on_with_the_trace(
    tmp_path: Path, postgres: PostgreSQL, rabbit: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"engine": "celery", "broker": rabbit.url, "sandbox": "limits", "jobs": "1"}
    with collecting() as collector, deployed(tmp_path, new_database(postgres), settings) as on:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "the service")
        on.add(0)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "the worker")
        on.add(0, "worker")
        on.start()
        answer = ask(on, conv_model(next(SEEDS)), traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
        succeeded(on, answer.json()["id"])
        # Both send what they have every few seconds, and not only when they end.
        until(lambda: {"POST /fold", "job"} <= {span.name for span in collector.of(TRACE)}, "both spans")
        (request,) = [span for span in collector.of(TRACE) if span.name == "POST /fold"]
        (job,) = [span for span in collector.of(TRACE) if span.name == "job"]
        assert (request.service, job.service, job.parent) == ("the service", "the worker", request.id)
