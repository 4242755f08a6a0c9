"""The Open Inference Protocol over gRPC, on a port of its own, in the process of the service."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from service.problems import InternalError, MalformedError, QueueFullError, ServiceError, storage_error
from service.serving.frames import Form
from service.serving.http import error_of
from service.serving.messages import METHODS, SERVICE, message
from service.serving.protocol import Protocol
from service.serving.runners import Ask
from service.settings import Settings

__all__ = ["check_port", "serving_rpc"]

_LOG = logging.getLogger("service.serving")
_AROUND = 2**16  # bytes of a message around the tensors in it
_MOST_CALLS = 256
_TYPES = (
    "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16".split()  # noqa: SIM905  (numbers are places)
)
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

Enter = Callable[[str, Mapping[str, str]], Awaitable[str]]
"""Says for whom a call of a method is, by its metadata; raises a ``ServiceError`` where nobody may make it."""


def check_port(settings: Settings) -> None:
    """Find out early whether the port can be had, because gRPC says nothing of why it cannot.

    Raises:
        OSError: If it cannot.
    """
    if settings.grpc_port <= 0:
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.grpc_port))
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {settings.host}, port {settings.grpc_port}, for gRPC: {error.strerror}"
            ) from error


@contextlib.asynccontextmanager
async def serving_rpc(
    settings: Settings, protocol: Protocol, enter: Enter, can_work: Callable[[], Awaitable[bool]]
) -> AsyncIterator[None]:
    """Serve while the context lasts, and say on standard output where.

    Args:
        settings: Of the service; a ``grpc_port`` of -1 serves nothing.
        protocol: What there is to say.
        enter: Says for whom a call is, and lets nobody else in.
        can_work: Says whether the service is ready.
    """
    if settings.grpc_port < 0:
        yield
        return
    # The library would act on every start of a runner, and runners do not use it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    largest = int(settings.infer_size) + _AROUND
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    calls = _Calls(protocol, enter, can_work, settings)
    # Without the library's own reading of messages, so that what is none is told as what it is.
    handlers = {method: grpc.unary_unary_rpc_method_handler(calls.call(method)) for method in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.host}, port {settings.grpc_port}, for gRPC") from error
    await server.start()
    print(f"bnfold serves gRPC on {host}:{port}", flush=True)  # noqa: T201  (whoever started it with port 0 must learn it)
    try:
        yield
    finally:
        await server.stop(settings.stop_seconds)


class _Calls:
    """What each method does."""

    def __init__(
        self, protocol: Protocol, enter: Enter, can_work: Callable[[], Awaitable[bool]], settings: Settings
    ) -> None:
        self._protocol = protocol
        self._enter = enter
        self._can_work = can_work
        self._limit = int(settings.infer_size)
        self._seconds = settings.infer_seconds

    def call(self, method: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Return what answers a method."""
        answer = self._infer if method == "ModelInfer" else self._told(method)

        async def call(request: bytes, context: Any) -> bytes:
            error: ServiceError
            try:
                return await answer(await self._tenant(method, context), request, context)
            except ServiceError as caught:
                error = caught
            except OSError as caught:
                error = storage_error(caught)
            except Exception:
                _LOG.exception("%s over gRPC met a defect", method)
                error = InternalError(
                    "the service met a defect of bnfold", hint="Report this, with what the service logged."
                )
            await _abort(context, error)
            raise error

        return call

    def _told(self, method: str) -> Callable[[str, bytes, Any], Awaitable[bytes]]:
        tell: Callable[[str, Any], Awaitable[dict[str, Any]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._server,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._metadata,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }[method]
        request_class, response_class = message(f"{method}Request"), message(f"{method}Response")

        async def answer(tenant: str, request: bytes, _context: Any) -> bytes:
            try:
                asked = request_class.FromString(request)
            except DecodeError:
                raise _no_message(f"{method}Request") from None
            told: bytes = response_class(**await tell(tenant, asked)).SerializeToString()
            return told

        return answer

    async def _infer(self, tenant: str, request: bytes, context: Any) -> bytes:
        name, version = model_of(request)
        card = await self._protocol.source.card(tenant, name, version)
        left = context.time_remaining()
        seconds = self._seconds if left is None else min(self._seconds, left)
        answer, content = await self._protocol.runners.infer(tenant, card, Ask(Form.RPC, seconds=seconds), (request,))
        if answer.code:
            raise error_of(answer, self._limit)
        return content

    async def _tenant(self, method: str, context: Any) -> str:
        pairs = context.invocation_metadata() or ()
        return await self._enter(method, {key: value for key, value in pairs if isinstance(value, str)})

    async def _live(self, _tenant: str, _request: Any) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, _tenant: str, _request: Any) -> dict[str, Any]:
        return {"ready": await self._can_work()}

    async def _server(self, _tenant: str, _request: Any) -> dict[str, Any]:
        return self._protocol.server()

    async def _model_ready(self, tenant: str, request: Any) -> dict[str, Any]:
        return {"ready": await self._protocol.is_ready(tenant, request.name, request.version)}

    async def _metadata(self, tenant: str, request: Any) -> dict[str, Any]:
        return await self._protocol.metadata(tenant, request.name, request.version)

    async def _config(self, tenant: str, request: Any) -> dict[str, Any]:
        told = await self._protocol.config(tenant, request.name, request.version)
        tensors = {
            side: [{**one, "data_type": _TYPES.index(one["data_type"].removeprefix("TYPE_"))} for one in told[side]]
            for side in ("input", "output")
        }
        plain = {name: told[name] for name in ("name", "platform", "backend", "max_batch_size")}
        return {"config": {**plain, **tensors}}

    async def _statistics(self, tenant: str, request: Any) -> dict[str, Any]:
        return await self._protocol.statistics(tenant, request.name, request.version)

    async def _index(self, tenant: str, request: Any) -> dict[str, Any]:
        return {"models": await self._protocol.index(tenant, ready=request.ready)}

    async def _load(self, tenant: str, request: Any) -> dict[str, Any]:
        name = _model_name(request)
        await self._protocol.load(tenant, name, dict(request.parameters))
        return {"model_name": name, "isLoaded": True}

    async def _unload(self, tenant: str, request: Any) -> dict[str, Any]:
        name = _model_name(request)
        await self._protocol.unload(tenant, name)
        return {"model_name": name, "isLoaded": False}


def _model_name(request: Any) -> str:
    """Return the model that is meant; some clients have its name where others have that of a repository."""
    return str(request.model_name or request.repository_name)


def model_of(request: bytes) -> tuple[str, str]:
    """Return the name and the version of the model that an inference request is for; all else is left unread.

    Raises:
        MalformedError: If it is no message.
    """
    found = {1: b"", 2: b""}
    at, end = 0, len(request)
    while at < end:
        tag, at = _varint(request, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(request, at)
            if tag >> 3 in found:
                found[tag >> 3] = request[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(request, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise _no_message()
    if at != end:
        raise _no_message()
    try:
        return found[1].decode("utf-8"), found[2].decode("utf-8")
    except UnicodeDecodeError:
        raise _no_message() from None


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise _no_message()


def _no_message(kind: str = "ModelInferRequest") -> MalformedError:
    return MalformedError(f"the request is no {kind}", hint="Follow the Open Inference Protocol, version 2.")


async def _abort(context: Any, error: ServiceError) -> Any:
    import grpc

    code = "RESOURCE_EXHAUSTED" if isinstance(error, QueueFullError) else _CODES.get(error.status, "INTERNAL")
    await context.abort(getattr(grpc.StatusCode, code), f"{error}. {error.hint}")
