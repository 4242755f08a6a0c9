"""Somebody who collects spans: an HTTP server that takes them as OTLP, in protobuf, as a real collector does."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "Span", "collecting"]


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as it was sent."""

    name: str
    trace: str
    id: str
    parent: str
    about: dict[str, Any]
    error: bool
    service: str


@dataclass(frozen=True, slots=True)
class Collector:
    """What was collected, and where to send more."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _spans(content: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
        about = {one.key: _value(one.value) for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    {one.key: _value(one.value) for one in span.attributes},
                    span.status.code == 2,
                    about["service.name"],
                )


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Collect spans while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            if self.headers.get("content-encoding") == "gzip":
                content = gzip.decompress(content)
            collector.spans.extend(_spans(content))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
