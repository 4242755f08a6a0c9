"""Mixed load on a real service for some minutes: whether anything fails, and whether memory grows.

    .venv/bin/python -m bench.service.soak --minutes 10

Clients fold new models, ask for the same again, run models, watch jobs, download, list and delete, all at once. The
slope of the service's resident memory is fitted after a first third, in which caches fill. Needs Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.service.server import Server, conv_model, serving

_PAGE = 4096
_SAMPLE = 2.0  # seconds between two readings of memory


@dataclass
class Load:
    """What the clients share."""

    server: Server
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seeds: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def run(self, what: str, act: Callable[[httpx.Client, random.Random], None], seed: int) -> None:
        """Do one thing again and again until the time is over."""
        drawn = random.Random(seed)
        with self.server.client() as client:
            while time.monotonic() < self.until:
                try:
                    act(client, drawn)
                    self.counts[what] += 1
                except (AssertionError, httpx.HTTPError, KeyError) as error:
                    self.failures.append(f"{what}: {type(error).__name__} {str(error)[:200]}")
                    time.sleep(0.5)

    def fold(self, client: httpx.Client, drawn: random.Random) -> None:
        """Fold a new model, and sometimes the same once more."""
        content = conv_model(next(self.seeds))
        for _ in range(drawn.choice([1, 1, 2])):
            answer = client.post("/fold?verify=fast", content=content, headers={"Prefer": "wait=30"})
            assert answer.status_code in {200, 202, 503}, answer.text  # 202: it takes longer than one may wait
            if answer.status_code == 503:
                time.sleep(1)

    def watch(self, client: httpx.Client, drawn: random.Random) -> None:
        """Fold a new model and listen to its job."""
        del drawn
        answer = client.post("/fold?verify=off", content=conv_model(next(self.seeds)), headers={"Prefer": "wait=0"})
        if answer.status_code == 503:
            time.sleep(1)
            return
        assert answer.status_code == 202, answer.text
        with client.stream("GET", answer.json()["links"]["events"]) as stream:
            assert any('"succeeded"' in line for line in stream.iter_lines())

    def infer(self, client: httpx.Client, drawn: random.Random) -> None:
        """Run one of the newest models."""
        jobs = client.get("/jobs?state=succeeded&limit=3").json()["jobs"]
        if not jobs:
            time.sleep(0.2)
            return
        model = drawn.choice(jobs)["model"]
        shape = [drawn.choice([1, 2, 5]), 3, 8, 8]
        flat = np.ones(shape, np.float32).ravel().tolist()
        question = {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": flat}]}
        for _ in range(50):
            answer = client.post(f"/v2/models/{model['name']}/infer", content=json.dumps(question))
            assert answer.status_code in {200, 404, 503}, answer.text

    def look(self, client: httpx.Client, drawn: random.Random) -> None:
        """List, download, and delete an old model."""
        models = client.get("/models?limit=1000").json()["models"]
        client.get("/jobs")
        client.get("/metrics")
        if models:
            links = drawn.choice(models)["links"]
            for link in ("model", "report", "page", "triton"):
                assert client.get(links[link]).status_code in {200, 404}
        if len(models) > 30:
            oldest = min(models, key=lambda model: model["created"])
            client.delete(oldest["links"]["self"] + "?force=true")
        time.sleep(0.2)


def resident(process: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1]) * _PAGE


def main() -> None:
    """Run the load and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "store", queue="64") as server:
        began = time.monotonic()
        load = Load(server, began + 60 * arguments.minutes)
        acts = {"fold": load.fold, "watch": load.watch, "infer": load.infer, "look": load.look}
        crew = [
            threading.Thread(target=load.run, args=(what, act, 10 * number + copy))
            for number, (what, act) in enumerate(acts.items())
            for copy in range(2)
        ]
        for one in crew:
            one.start()
        readings = []
        while any(one.is_alive() for one in crew):
            readings.append((time.monotonic() - began, resident(server.process.pid)))
            time.sleep(_SAMPLE)
        settled = [(at, size) for at, size in readings if at > 20 * arguments.minutes]
        slope = np.polyfit([at / 60 for at, _ in settled], [size / 1e6 for _, size in settled], 1)[0]
        print(f"{dict(load.counts)} in {arguments.minutes:g} min, {len(load.failures)} failures")
        for failure in load.failures[:10]:
            print(f"  {failure}")
        print(f"memory {readings[0][1] / 1e6:.0f} → {readings[-1][1] / 1e6:.0f} MB, slope {slope:+.2f} MB a minute")


if __name__ == "__main__":
    main()
