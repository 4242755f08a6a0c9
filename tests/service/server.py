"""A real service in a process of its own, and what lies around it as the system sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["CONV", "Server", "conv_model", "post", "serving", "wait_for"]

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

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def children(self, module: str) -> list[int]:
        """Return the living children that run a module of the service."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if state != "Z" and int(parent) == self.process.pid and module.encode() in command:
                    found.append(int(folder.name))
        return found

    def held_child(self, module: str = "service.child") -> int:
        """Wait until a child is there, and keep it from going on."""
        child = wait_for(lambda: self.children(module))[0]
        # Only then is it tied to the service and has its limits.
        wait_for(lambda: "NoNewPrivs:\t1" in Path(f"/proc/{child}/status").read_text())
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
    told = {f"BNFOLD_{name.upper()}": value for name, value in {"port": "0", "store": str(store), **settings}.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**clean, **told, "A_SECRET": "of the service"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("bnfold serves on http://127.0.0.1:"), line
        server = Server(process, line.split()[-1], store)
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


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], T], seconds: float = 30) -> T:
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
