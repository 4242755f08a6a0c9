"""Inference at the service beside KServe's model server and MLServer, all in the same run on the same machine.

    .venv/bin/python -m bench.service.serving --kserve .venv-kserve --mlserver .venv-mlserver --write

Clients and server share the machine, so the figures are for comparing and not for planning: each line is measured at
one server after the other, as often as ``--rounds`` says, and the best round of each counts. ``--write`` writes
``docs/serving.md`` and its picture. ``bench/service/peers.txt`` says how the other two are set up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from service.serving.messages import message

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SMALL = (
    '<ir_version: 8, opset_import: ["" : 17]>\ng (float[n,4] x) => (float[n,4] y) <float[4,4] w> { y = MatMul(x, w) }'
)
IMAGE = (
    '<ir_version: 8, opset_import: ["" : 17]>\n'
    "g (float[n,3,224,224] x) => (float[n,3,1,1] y) { y = GlobalAveragePool(x) }"
)
CONVOLUTIONS = 5
CASES = {
    "small JSON, 16 clients": ("http", "small", "json", 16),
    "image of 602 kB, binary, 16 clients": ("http", "image", "binary", 16),
    "image as 1.6 MB of JSON, 4 clients": ("http", "image", "json", 4),
    "small, gRPC, 4 clients": ("grpc", "small", "rpc", 4),
    "image of 602 kB, gRPC, 4 clients": ("grpc", "image", "rpc", 4),
    "five convolutions, binary, 4 clients": ("http", "net", "binary", 4),
}
ALONE = "onnxruntime alone"  # what "five convolutions" is held against: a loop in one process, without a server


@dataclass
class Served:
    """A server that runs.

    Attributes:
        http: Its address.
        grpc: Its address for gRPC.
        process: Its main process.
    """

    http: str
    grpc: str
    process: subprocess.Popen[Any]


@dataclass
class Results:
    """Answers a second, by case and server, and memory by server."""

    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    medians: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _models(folder: Path) -> dict[str, Path]:
    paths = {}
    for name, text in (("small", SMALL), ("image", IMAGE)):
        model = onnx.parser.parse_model(text)
        if name == "small":
            w = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(w, "w"))
        paths[name] = folder / f"{name}.onnx"
        onnx.save(model, paths[name])
    paths["net"] = folder / "net.onnx"
    onnx.save(_net(), paths["net"])
    return paths


def _net() -> onnx.ModelProto:
    """Return convolutions one behind the other, half a billion multiplications for each image."""
    rng = np.random.default_rng(2)
    lines, weights, channels = [], [], 3
    for number in range(CONVOLUTIONS):
        value = "x" if number == 0 else f"r{number - 1}"
        lines.append(f"h{number} = Conv<pads=[1, 1, 1, 1]>({value}, w{number})  r{number} = Relu(h{number})")
        array = rng.normal(size=(32, channels, 3, 3)).astype(np.float32) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{number}"))
        channels = 32
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[n,3,112,112] x) => (float[n,32,1,1] y) {'
        + "  ".join(lines)
        + f"  y = GlobalAveragePool(r{CONVOLUTIONS - 1}) }}"
    )
    model.graph.initializer.extend(weights)
    return model


def _requests(folder: Path) -> dict[tuple[str, str], Path]:
    """Write the requests; over HTTP they are whole, but for the host."""
    rng = np.random.default_rng(1)
    shapes = {"small": (1, 4), "image": (1, 3, 224, 224), "net": (1, 3, 112, 112)}
    arrays = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    written = {}
    for name, array in arrays.items():
        one: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(array.shape)}
        data = [round(value, 8) for value in array.ravel().tolist()]
        bodies = {"json": (json.dumps({"inputs": [{**one, "data": data}]}).encode(), "")}
        head = json.dumps(
            {
                "inputs": [{**one, "parameters": {"binary_data_size": array.nbytes}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        bodies["binary"] = (head + array.tobytes(), f"Inference-Header-Content-Length: {len(head)}\r\n")
        for form, (body, more) in bodies.items():
            kind = "application/json" if form == "json" else "application/octet-stream"
            path = folder / f"{name}.{form}"
            start = (
                f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{more}"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            path.write_bytes(start.encode() + body)
            written[name, form] = path
        rpc = message("ModelInferRequest")(model_name=name, inputs=[one], raw_input_contents=[array.tobytes()])
        written[name, "rpc"] = folder / f"{name}.rpc"
        written[name, "rpc"].write_bytes(rpc.SerializeToString())
    return written


def _wait(url: str, process: subprocess.Popen[Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"{url} did not answer")


@contextlib.contextmanager
def _started(command: list[str], environment: dict[str, str], http: int, grpc: int, log: Path) -> Iterator[Served]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=log.parent, stdout=output, stderr=output
        )
    try:
        yield Served(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _bnfold(folder: Path, models: dict[str, Path]) -> Iterator[Served]:
    http, grpc = _free_port(), _free_port()
    environment = {
        "BNFOLD_PORT": str(http),
        "BNFOLD_GRPC_PORT": str(grpc),
        "BNFOLD_STORE": str(folder / "store"),
        "PYTHONPATH": str(ROOT),
    }
    with _started([sys.executable, "-m", "service"], environment, http, grpc, folder / "bnfold.log") as served:
        _wait(f"http://{served.http}/readyz", served.process)
        for name, path in models.items():
            url = f"http://{served.http}/fold?name={name}&verify=full"
            asked = urllib.request.Request(
                url, path.read_bytes(), {"Prefer": "wait=30", "Content-Type": "application/octet-stream"}
            )
            with urllib.request.urlopen(asked, timeout=120) as answer:
                assert answer.status == 200, answer.status
            _wait(f"http://{served.http}/v2/models/{name}/ready", served.process)
        yield served


@contextlib.contextmanager
def _kserve(folder: Path, models: dict[str, Path], environment: Path) -> Iterator[Served]:
    http, grpc = _free_port(), _free_port()
    script = ROOT / "bench" / "service" / "peers" / "kserve_server.py"
    listed = [f"{name}={path}" for name, path in models.items()]
    command = [str(environment / "bin" / "python"), str(script), str(http), str(grpc), *listed]
    with _started(command, {}, http, grpc, folder / "kserve.log") as served:
        _wait(f"http://{served.http}/v2/models/small/ready", served.process)
        yield served


@contextlib.contextmanager
def _mlserver(folder: Path, models: dict[str, Path], environment: Path) -> Iterator[Served]:
    http, grpc = _free_port(), _free_port()
    home = folder / "mlserver"
    home.mkdir()
    told = {"http_port": http, "grpc_port": grpc, "metrics_endpoint": None, "parallel_workers": 0, "debug": False}
    (home / "settings.json").write_text(json.dumps({**told, "host": "127.0.0.1"}))
    for name, path in models.items():
        (home / name).mkdir()
        settings = {"name": name, "implementation": "mlserver_runtime.OnnxModel", "parameters": {"uri": str(path)}}
        (home / name / "model-settings.json").write_text(json.dumps(settings))
    python_path = {"PYTHONPATH": str(ROOT / "bench" / "service" / "peers")}
    command = [str(environment / "bin" / "mlserver"), "start", str(home)]
    with _started(command, python_path, http, grpc, folder / "mlserver.log") as served:
        _wait(f"http://{served.http}/v2/models/small/ready", served.process)
        yield served


def _memory(process: int) -> float:
    """Return the memory in MiB that a process and all that it started have for themselves, with a share of the rest."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    total = 0
    for one in found:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _measure(name: str, served: Served, requests: dict[tuple[str, str], Path], seconds: float, into: Results) -> None:
    for case, (kind, model, form, clients) in CASES.items():
        address = served.http if kind == "http" else served.grpc
        for length in (seconds / 4, seconds):  # the first warms up
            done = _asked(kind, address, requests[model, form], clients, length)
            if done.returncode:
                into.failures[f"{name}: {case}"] = done.stderr.strip().splitlines()[-1][:200]
                break
        else:
            told = json.loads(done.stdout)
            if told["a_second"] > into.rates.setdefault(case, {}).get(name, 0):
                into.rates[case][name] = told["a_second"]
                into.medians.setdefault(case, {})[name] = told["median_ms"]
            print(f"{name:10} {case:40} {told['a_second']:8.0f}/s  median {told['median_ms']:.2f} ms", flush=True)


def _asked(kind: str, address: str, request: Path, clients: int, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run clients in a process of their own."""
    command = [sys.executable, "-m", "bench.service.asking", kind, address, str(request), str(clients), str(seconds)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def _alone(path: Path, seconds: float, into: Results) -> None:
    """Run a model in a loop in one process that does nothing else, with onnxruntime as it comes."""
    command = [sys.executable, "-m", "bench.service.alone", str(path), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    case = next(case for case, (_, model, _, _) in CASES.items() if model == "net")
    rate = float(done.stdout)
    print(f"{ALONE:10} {case:40} {rate:8.0f}/s", flush=True)
    into.rates.setdefault(case, {})[ALONE] = max(rate, into.rates.get(case, {}).get(ALONE, 0))


def _with_one(name: str, folder: Path, told: argparse.Namespace, models: dict[str, Path], into: Results) -> None:
    """Measure the memory of a server with one small model that was asked."""
    requests = _requests(folder)
    with _server(name, folder, {"small": models["small"]}, told) as served:
        _asked("http", served.http, requests["small", "json"], 4, 1)
        into.memory[name] = min(into.memory.get(name, float("inf")), _memory(served.process.pid))


def _page(results: Results, servers: list[str]) -> str:
    others = [server for server in servers if server != "bnfold"]
    lines = [
        "# How fast models are served",
        "",
        f"The service beside KServe's model server and MLServer, on {os.cpu_count()} processors that clients and",
        "server share: answers a second, the best of several rounds that took turns, and how many times as many",
        "bnfold gives. The service is as it comes: each model in a confined process of its own. The other two run",
        "models in their own process, with onnxruntime as it comes, too.",
        "`python -m bench.service.serving --write` measures it again.",
        "",
        "![Answers a second](serving.svg)",
        "",
        "| | bnfold | " + " | ".join(f"{server} | times" for server in others) + " |",
        "|---|---:|" + "---:|---:|" * len(others),
    ]
    for case, rates in results.rates.items():
        ours = rates.get("bnfold", 0.0)
        cells = [
            f"{rates[server]:,.0f} | {ours / rates[server]:.1f}" if server in rates else "— | " for server in others
        ]
        lines.append(f"| {case} | {ours:,.0f} | " + " | ".join(cells) + " |")
    memory = [
        f"{results.memory[server]:,.0f} | {results.memory[server] / results.memory['bnfold']:.1f}" for server in others
    ]
    lines.append(f"| memory with one small model, MiB | {results.memory['bnfold']:,.0f} | " + " | ".join(memory) + " |")
    for case, rates in results.rates.items():
        if ALONE in rates:
            share = rates.get("bnfold", 0.0) / rates[ALONE]
            lines += [
                "",
                f"The {case.partition(',')[0]} are half a billion multiplications an image. A loop in one process that",
                f"does nothing but run them in onnxruntime gets {rates[ALONE]:,.0f} images a second: what is served,",
                f"with its clients on the same processors, is {share:.0%} of that.",
            ]
    lines += [
        "",
        "Memory is what a server's processes have for themselves with their share of what they have in common (PSS).",
        "A dash: the server does not answer such a request.",
        "",
    ]
    return "\n".join(lines)


def _picture(results: Results, servers: list[str]) -> str:
    """Return bars on a logarithmic scale, as SVG."""
    colours = {"bnfold": "#2563eb", "KServe": "#f59e0b", "MLServer": "#10b981"}
    left, width, bar, gap = 260, 420, 16, 22
    top = max(rate for rates in results.rates.values() for rate in rates.values())
    drawn, y = [], 34
    for number, server in enumerate(servers):
        x = left + number * 110
        drawn.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colours[server]}"/>')
        drawn.append(f'<text x="{x + 18}" y="18">{server}</text>')
    for case, rates in results.rates.items():
        drawn.append(f'<text x="{left - 10}" y="{y + bar * len(servers) / 2 + 4}" text-anchor="end">{case}</text>')
        for server in servers:
            rate = rates.get(server)
            if rate is not None:
                length = max(2.0, width * np.log10(max(rate, 1)) / np.log10(top))
                drawn.append(
                    f'<rect x="{left}" y="{y}" width="{length:.0f}" height="{bar - 3}" fill="{colours[server]}"/>'
                )
                drawn.append(f'<text x="{left + length + 6:.0f}" y="{y + bar - 6}">{rate:,.0f}</text>')
            y += bar
        y += gap
    drawn.append(f'<text x="{left}" y="{y}" fill="#666">answers a second, on a logarithmic scale</text>')
    size = f'width="{left + width + 90}" height="{y + 14}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _server(
    name: str, folder: Path, models: dict[str, Path], told: argparse.Namespace
) -> contextlib.AbstractContextManager[Served]:
    if name == "KServe":
        return _kserve(folder, models, told.kserve.absolute())
    return _mlserver(folder, models, told.mlserver.absolute()) if name == "MLServer" else _bnfold(folder, models)


def main() -> None:
    """Measure, print, and write the page where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kserve", type=Path, help="an environment with kserve and onnxruntime")
    parser.add_argument("--mlserver", type=Path, help="an environment with mlserver and onnxruntime")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/serving.md and docs/serving.svg")
    told = parser.parse_args()
    results = Results()
    servers = ["bnfold", *(["KServe"] if told.kserve else []), *(["MLServer"] if told.mlserver else [])]
    for _ in range(told.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            models, requests = _models(folder), _requests(folder)
            _alone(models["net"], told.seconds, results)
            for server in servers:
                for part in ("one", "all"):
                    (folder / server / part).mkdir(parents=True)
                _with_one(server, folder / server / "one", told, models, results)
                with _server(server, folder / server / "all", models, told) as served:
                    _measure(server, served, requests, told.seconds, results)
    for what, why in results.failures.items():
        print(f"FAILED {what}: {why}")
    print(_page(results, servers))
    if told.write:
        (DOCS / "serving.md").write_text(_page(results, servers), "utf-8")
        (DOCS / "serving.svg").write_text(_picture(results, servers), "utf-8")


if __name__ == "__main__":
    main()
