"""Traces of requests and jobs, by OpenTelemetry, where the environment says that somebody collects them.

What the standard variables (``OTEL_…``) do not ask for is not imported and stands in nobody's way. A job carries in its
row what its request called its trace, so that whoever works on it, wherever, goes on with the same one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import bnfold
from service.jobs.job import Job
from service.jobs.tally import STEPS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["UNTRACED", "JobTrace", "Traced", "Tracing", "open_tracing"]

_LOG = logging.getLogger("service")
_WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"
_STEPS = {**STEPS, "write": "write"}
_LAST = 3.0  # seconds that the last spans have to be sent in
_MOST_STEPS = 64  # of one attempt; a child that was taken over may tell any number
_QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"})
# Names are few, whatever is asked for; what stands between slashes is somebody's own.
_ROUTES = (
    (re.compile(r"/jobs/[^/]+(/events)?"), "/jobs/{id}%s"),
    (re.compile(r"/models/[^/]+"), "/models/{name}"),
    (re.compile(r"/models/[^/]+/versions/[^/]+(/model\.onnx|/report|/triton\.zip)?"), "/models/{name}/versions/{v}%s"),
    (re.compile(r"/v2/models/[^/]+(?:/versions/[^/]+)?(/infer|/ready|/config|/stats)?"), "/v2/models/{m}%s"),
    (re.compile(r"/v2/repository/models/[^/]+(/load|/unload)"), "/v2/repository/models/{m}%s"),
    (re.compile(r"(/fold|/jobs|/models|/v2|/v2/repository/index|/openapi\.json|/docs|/)"), "%s"),
)
_OTHER = "(other)"


class JobTrace:
    """What is told of one attempt at a job while it is worked on: nothing, where nobody wants to know."""

    def step(self, step: str) -> None:
        """Begin a step, and end the one before."""

    def end(self, code: str) -> None:
        """Say how the attempt ended: ``ok``, or the code of the problem."""


class Tracing:
    """What the parts of the service use of tracing: nothing, where nobody wants to know."""

    on = False

    def carried(self) -> Mapping[str, str] | None:
        """Return what the row of a job keeps, so that others can go on with the trace of this request."""
        return None

    @contextlib.contextmanager
    def job(self, job: Job) -> Iterator[JobTrace]:
        """Trace an attempt at a job."""
        del job
        yield JobTrace()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose requests are traced."""
        return app

    def close(self) -> None:
        """Send what is still to be sent."""


UNTRACED = Tracing()


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """Return what traces, as the standard variables say.

    Args:
        environment: ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_TRACES_EXPORTER=otlp`` turn it on; ``OTEL_SDK_DISABLED``
            and ``OTEL_TRACES_EXPORTER=none`` turn it off. All others are OpenTelemetry's own affair.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none"
    if off or not any(environment.get(name) for name in _WANTED):
        return UNTRACED
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _HTTP)
    if exporter not in ("", "otlp") or protocol != _HTTP:
        told = f"OTEL_TRACES_EXPORTER={exporter}" if exporter not in ("", "otlp") else f"the protocol {protocol}"
        _LOG.warning("no traces are sent: %s is asked for, and the service only speaks OTLP by %s", told, _HTTP)
        return UNTRACED
    if any(find_spec(name) is None for name in ("opentelemetry", "opentelemetry.instrumentation")):
        _LOG.warning("no traces are sent: OpenTelemetry is not installed (pip install 'bnfold[service,otel]')")
        return UNTRACED
    return _opened(environment)


def _opened(environment: Mapping[str, str]) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {} if named else {"service.name": "bnfold"}
    resource = Resource.create({"service.version": bnfold.__version__, **own})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _Spans(provider)


class _Spans(Tracing):
    """Traces to whoever collects spans.

    Args:
        provider: Of the SDK.
    """

    on = True

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("bnfold.service", bnfold.__version__)

    def carried(self) -> Mapping[str, str] | None:
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier or None

    @contextlib.contextmanager
    def job(self, job: Job) -> Iterator[JobTrace]:
        from opentelemetry import propagate, trace

        about: dict[str, str | int] = {
            "bnfold.job": job.id,
            "bnfold.tenant": job.tenant,
            "bnfold.attempt": job.attempt,
            "bnfold.bytes": job.bytes,
        }
        # Whoever goes on with somebody's trace does not inherit what else this task was doing.
        around = propagate.extract(dict(job.trace or {}), context=trace.set_span_in_context(trace.INVALID_SPAN))
        with self._tracer.start_as_current_span(
            "job", context=around, kind=trace.SpanKind.CONSUMER, attributes=about
        ) as span:
            told = _JobSpan(self._tracer, span)
            try:
                yield told
            finally:
                told.step("")

    def around(self, app: ASGIApp) -> ASGIApp:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        def named(scope: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
            route = _route(scope["path"])
            return f"{scope['method']} {route}", {"http.route": route}

        return OpenTelemetryMiddleware(
            app,
            default_span_details=named,
            server_request_hook=_without_query,
            exclude_spans=["receive", "send"],
            tracer_provider=self._provider,
        )

    def close(self) -> None:
        # A collector that is away is asked again and again, which nobody should wait for.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_LAST)


class _JobSpan(JobTrace):
    """One attempt, with a span for each step."""

    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer, self._span = tracer, span
        self._step: Any = None
        self._name = ""
        self._begun = 0

    def step(self, step: str) -> None:
        name = _STEPS.get(step, "")
        if name == self._name:
            return
        if self._step is not None:
            self._step.end()
            self._step = None
        self._name = name
        if name and self._begun < _MOST_STEPS:
            self._begun += 1
            self._step = self._tracer.start_span(name)

    def end(self, code: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("bnfold.outcome", code)
        if code not in ("ok", "cancelled"):
            self._span.set_status(StatusCode.ERROR, code)


class Traced:
    """Traces requests, but for those that only ask whether the service is well.

    Args:
        app: Answers them.
        tracing: Traces them.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._traced = tracing.around(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        told = scope["type"] == "http" and scope["path"] not in _QUIET
        await (self._traced if told else self._app)(scope, receive, send)


def _route(path: str) -> str:
    for pattern, name in _ROUTES:
        if found := pattern.fullmatch(path):
            return name % (found[1] or "") if "%s" in name else name
    return _OTHER


def _without_query(span: Any, _scope: Mapping[str, Any]) -> None:
    """Keep the values of queries, which are somebody's own, out of what others collect."""
    for name in ("http.url", "http.target", "url.full"):
        told = (span.attributes or {}).get(name)
        if isinstance(told, str) and "?" in told:
            span.set_attribute(name, told.partition("?")[0])
    if "url.query" in (span.attributes or {}):
        span.set_attribute("url.query", "")
