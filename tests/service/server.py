"""A real service in a process of its own, and what lies around it as the system sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import onnx
from onnx import numpy_helper

from service.sandbox import Level, choose

__all__ = ["CONV", "Server", "conv_model", "post", "serving", "strongest_level", "wait_for"]

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

CONV = """<ir_version: 8, opset_import: ["" : 17]>
g (float[batch,3,8,8] x) => (float[batch,4,6,6] y)
    <float[4,3,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var> {
    h = Conv(x, w)
    n = BatchNormalization(h, gamma, beta, mean, var)
    y = Relu(n)
}"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running service."""

    process: subprocess.Popen[str]
    url: str
    store: Path
    sandbox: str
    grpc: str = ""

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        text = self.store.with_name(f"{self.store.name}.log").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def children(self, module: str) -> list[int]:
        """Return the living processes that run a module of the service, whoever started them for it."""
        parents: dict[int, int] = {}
        running = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                program, *words = (folder / "cmdline").read_bytes().split(b"\0")
                parents[int(folder.name)] = int(parent)
                # The module also stands on the command line of what confines it.
                if state != "Z" and b"python" in program and module.encode() in words:
                    running.append(int(folder.name))
        return [process for process in running if self._is_above(process, parents)]

    def _is_above(self, process: int, parents: dict[int, int]) -> bool:
        while process in parents:
            process = parents[process]
            if process == self.process.pid:
                return True
        return False

    def held_child(self, module: str = "service.child") -> int:
        """Wait until a child is there and confined, and keep it from going on."""
        confined = "NoNewPrivs:\t1" if self.sandbox == "limits" else "Seccomp:\t2"
        child = wait_for(lambda: [child for child in self.children(module) if confined in _status(child)])[0]
        os.kill(child, signal.SIGSTOP)
        return child

    def aside(self) -> list[Path]:
        """Return the folders of requests; a runner's is left out."""
        runners = {Path(f"/proc/{runner}/cwd").resolve() for runner in self.children("service.serving.runner")}
        return [path for path in (self.store / "aside").iterdir() if path.resolve() not in runners]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(store: Path, **settings: str) -> Iterator[Server]:
    """Start a service with a store and with settings, and stop it at the end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BNFOLD_")}
    settings = {"port": "0", "grpc_port": "-1", "store": str(store), "sandbox": strongest_level(), **settings}
    told = {f"BNFOLD_{name.upper()}": value for name, value in settings.items()}
    log = store.with_name(f"{store.name}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**clean, **told, "A_SECRET": "of the service"},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    log.close()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("bnfold serves on http://127.0.0.1:"), line
        url = line.split()[-1]
        grpc = process.stdout.readline().split()[-1] if settings["grpc_port"] != "-1" else ""
        server = Server(process, url, store, settings["sandbox"], grpc)
        with server.client() as client:
            wait_for(lambda: _answers(client))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _ancestors(child: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while child in parents and child not in found:
        found.add(child)
        child = parents[child]
    return found - {0}


def strongest_level() -> str:
    """Return the strongest level of the sandbox that this machine can keep; where it can keep none, limits."""
    return (choose("auto").level or Level.LIMITS).value


def _status(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/status").read_text()
    return ""


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], T], seconds: float = 180) -> T:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError(f"it did not come true in {seconds} s")


def conv_model(seed: int) -> bytes:
    """Return a small ONNX model with one batch norm that can be folded."""
    model = onnx.parser.parse_model(CONV)
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 3, 3, 3), "gamma": (4,), "beta": (4,), "mean": (4,), "var": (4,)}
    for name, shape in shapes.items():
        values = rng.uniform(0.5, 1.5, shape) if name == "var" else rng.normal(size=shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    content: bytes = model.SerializeToString()
    return content


def post(client: httpx.Client, content: bytes, name: str = "network.onnx", **fields: str) -> httpx.Response:
    """Post a model to ``/fold``."""
    return client.post("/fold", files={"model": (name, content)}, data=fields)
