"""Traces of requests and of jobs: sent to whoever the standard variables name, and to nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.observing import tracing
from service.observing.tracing import UNTRACED, open_tracing
from tests.service.observing.collector import Collector, Span, collecting
from tests.service.server import ROOT, Server, conv_model, post, serving, wait_for

if TYPE_CHECKING:
    import httpx

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = {"read", "fold", "verify", "write"}


def traceparent(number: int) -> tuple[str, dict[str, str]]:
    """Return the id of a trace of a client's own, and the header that tells of it."""
    trace = f"{TRACE[:-2]}{number:02x}"
    return trace, {"traceparent": f"00-{trace}-{PARENT}-01"}


EXPECTED = {
    (traceparent(number)[0], name)
    for number, name in [
        (1, "POST /fold"),
        (1, "job"),
        (2, "POST /v2/models/{m}/infer"),
        (3, "POST /fold"),
        (3, "job"),
        (4, "GET /jobs/{id}"),
    ]
}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """What a service sent that did a few things and then ended."""
    with collecting() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        with serving(tmp_path_factory.mktemp("traced") / "store") as server:
            _visit(server)
            # They are sent every now and then, and not only when the service ends.
            wait_for(lambda: not EXPECTED - {(span.trace, span.name) for span in found.spans}, 240)
        return found


def _visit(server: Server) -> None:
    with server.client() as client:

        def ended(answer: httpx.Response) -> str:
            """Return how a job ended, on a machine that may be too busy to say so at once."""
            if answer.status_code == 202:
                location = answer.headers["location"]
                return wait_for(lambda: _ended(client.get(location).json()["state"]), 300)
            return "succeeded" if answer.status_code == 200 else "failed"

        folded = client.post(
            "/fold",
            params={"name": "secretly", "filename": "private.onnx"},
            content=conv_model(1),
            headers={**traceparent(1)[1], "Prefer": "wait=30", "Content-Type": "application/octet-stream"},
        )
        assert ended(folded) == "succeeded"
        tensor = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": np.ones(192).tolist()}
        question = {"inputs": [tensor]}
        url, header = "/v2/models/secretly/infer", traceparent(2)[1]
        wait_for(lambda: client.post(url, json=question, headers=header).status_code == 200, 300)
        assert ended(client.post("/fold", content=b"nothing", headers=traceparent(3)[1])) == "failed"
        assert client.get("/jobs/nowhere", headers=traceparent(4)[1]).status_code == 404
        assert client.get("/livez", headers=traceparent(5)[1]).status_code == 200


def _ended(state: str) -> str:
    return state if state in {"succeeded", "failed"} else ""


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_job_goes_on_with_the_trace_of_the_request_that_it_came_with(collector: Collector) -> None:
    spans = collector.of(traceparent(1)[0])
    request = one(spans, "POST /fold")
    assert request.parent == PARENT
    job = one(spans, "job")
    assert job.parent == request.id
    assert (job.about["bnfold.tenant"], job.about["bnfold.attempt"], job.about["bnfold.outcome"]) == ("local", 1, "ok")
    assert not job.error
    stages = [span for span in spans if span.parent == job.id]
    assert {span.name for span in stages} >= STAGES
    assert {span.service for span in spans} == {"bnfold"}


def test_inference_has_one_span_and_no_name_of_a_model_in_its_name(collector: Collector) -> None:
    spans = collector.of(traceparent(2)[0])
    assert {span.parent for span in spans} == {PARENT}, "nothing below them"
    assert {(span.name, span.about["http.route"]) for span in spans} == {
        ("POST /v2/models/{m}/infer", "/v2/models/{m}/infer")
    }


def test_a_job_that_is_refused_says_so(collector: Collector) -> None:
    job = one(collector.of(traceparent(3)[0]), "job")
    assert (job.error, job.about["bnfold.outcome"]) == (True, "unknown-format")


def test_what_is_not_there_has_a_name_all_the_same(collector: Collector) -> None:
    assert [span.name for span in collector.of(traceparent(4)[0])] == ["GET /jobs/{id}"]


def test_questions_after_health_leave_no_spans(collector: Collector) -> None:
    assert collector.of(traceparent(5)[0]) == []


def test_queries_are_not_told(collector: Collector) -> None:
    told = [str(value) for span in collector.spans for value in span.about.values()]
    assert not [value for value in told if "private" in value or "?" in value]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["nothing", "a name", "an empty address", "disabled", "no exporter"],
)
def test_nothing_is_traced_unless_somebody_wants_it(environment: dict[str, str]) -> None:
    assert open_tracing(environment) is UNTRACED


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin is asked for"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "the protocol grpc is asked for",
        ),
    ],
)
def test_what_cannot_be_sent_is_told(environment: dict[str, str], told: str, caplog: pytest.LogCaptureFixture) -> None:
    assert open_tracing(environment) is UNTRACED
    (line,) = caplog.messages
    assert line == f"no traces are sent: {told}, and the service only speaks OTLP by http/protobuf"


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    assert open_tracing({"OTEL_TRACES_EXPORTER": "otlp"}) is UNTRACED
    assert caplog.messages == [
        "no traces are sent: OpenTelemetry is not installed (pip install 'bnfold[service,otel]')"
    ]


PROGRAM = """
import os, sys, tempfile
from pathlib import Path
from service.app import make_app
from service.observing.tracing import Traced
from service.scratch import open_scratch
from service.settings import read_settings
from service.state import make_state
app = make_app(make_state(read_settings({"BNFOLD_SANDBOX": "off"}), open_scratch(Path(tempfile.mkdtemp()))))
assert not [one for one in app.user_middleware if one.cls is Traced]
ours = tuple(f"opentelemetry.{part}" for part in ("sdk", "exporter", "instrumentation"))
sys.stdout.write(" ".join(name for name in sys.modules if name.startswith(ours)))
"""


def test_a_service_that_traces_nothing_loads_nothing_for_it_and_puts_nothing_in_the_way() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == ""


def test_a_collector_that_is_away_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(tmp_path / "store") as server, server.client() as client:
        assert post(client, conv_model(2)).status_code in {200, 202}
