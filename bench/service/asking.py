"""Clients that ask as fast as they are answered, in a process of their own: how many answers a second, and how soon.

    python -m bench.service.asking http HOST:PORT REQUEST CLIENTS SECONDS
    python -m bench.service.asking grpc HOST:PORT REQUEST CLIENTS SECONDS

REQUEST is a file: a whole HTTP request, or a ModelInferRequest. The clients are as lean as can be, because they take
their share of the machine: sockets and a selector for HTTP.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["main"]

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    request: memoryview
    sent: int = 0
    came: bytearray = field(default_factory=bytearray)
    wanted: int = 0
    began: float = 0.0

    def begin(self) -> None:
        """Send the next request, as much of it as can be sent."""
        self.began, self.sent, self.wanted = time.perf_counter(), 0, 0
        self.came.clear()
        self.go_on()

    def go_on(self) -> bool:
        """Send more, and say whether all was sent."""
        try:
            while self.sent < len(self.request):
                self.sent += self.socket.send(self.request[self.sent :])
        except BlockingIOError:
            return False
        return True

    def take(self) -> bool:
        """Read what came, and say whether it is a whole answer."""
        try:
            piece = self.socket.recv(2**20)
        except BlockingIOError:
            return False
        if not piece:
            raise ConnectionError("the server closed the connection")
        self.came += piece
        if not self.wanted:
            end = self.came.find(_END)
            if end < 0:
                return False
            if not self.came.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(bytes(self.came[:500]).decode("latin-1"))
            head = bytes(self.came[: end + 2]).lower()
            at = head.index(_LENGTH) + len(_LENGTH)
            self.wanted = end + len(_END) + int(head[at : head.index(b"\r", at)])
        return len(self.came) >= self.wanted


def _http(address: str, request: bytes, clients: int, seconds: float) -> list[float]:
    host, _, port = address.rpartition(":")
    selector = selectors.DefaultSelector()
    took: list[float] = []
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    for _ in range(clients):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)  # noqa: FBT003  (it has no name)
        client = _Client(connection, memoryview(request))
        client.begin()
        selector.register(connection, both, client)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, events in selector.select(1):
            client = key.data
            if events & selectors.EVENT_WRITE and client.go_on() and key.events == both:
                selector.modify(client.socket, selectors.EVENT_READ, client)
            if events & selectors.EVENT_READ and client.take():
                took.append(time.perf_counter() - client.began)
                client.begin()
                if client.sent < len(request):
                    selector.modify(client.socket, both, client)
    return took


async def _grpc(address: str, request: bytes, clients: int, seconds: float) -> list[float]:
    import grpc

    took: list[float] = []
    end = time.perf_counter() + seconds

    async def ask() -> None:
        options: Any = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while time.perf_counter() < end:
                began = time.perf_counter()
                await call(request)
                took.append(time.perf_counter() - began)

    await asyncio.gather(*(ask() for _ in range(clients)))
    return took


def main() -> None:
    """Ask as the command line says, and print what came of it as JSON."""
    kind, address, path, clients, seconds = sys.argv[1:]
    request = Path(path).read_bytes()
    if kind == "http":
        took = _http(address, request, int(clients), float(seconds))
    else:
        took = asyncio.run(_grpc(address, request, int(clients), float(seconds)))
    took.sort()
    if not took:
        raise SystemExit("no answer came")
    print(
        json.dumps(
            {
                "a_second": len(took) / float(seconds),
                "median_ms": took[len(took) // 2] * 1e3,
                "p99_ms": took[int(len(took) * 0.99)] * 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
