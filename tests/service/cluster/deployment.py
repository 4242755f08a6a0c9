"""Services and workers as processes of their own, and what must hold of all of them whatever happened."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import Engine, create_engine, select

from service.database.connecting import reading
from service.database.schema import events, jobs, models
from service.jobs.job import ENDED, SUCCEEDED
from tests.service.server import ROOT, conv_model

__all__ = ["SEEDS", "Deployment", "Program", "ask", "deployed", "in_order", "let_go", "submitted", "succeeded", "until"]

T = TypeVar("T")
SEEDS = itertools.count(1000)
"""Of models that nobody posted before."""
_SECONDS = 300.0  # a hang, on the slowest machine


def until(condition: Callable[[], T], what: str = "it", seconds: float = _SECONDS) -> T:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true in {seconds} s")


def _status() -> dict[int, tuple[int, str, bytes]]:
    """Return the parent, the state and the command line of each process of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(folder.name)] = (int(parent), state, (folder / "cmdline").read_bytes())
    return found


def below(leader: int) -> list[int]:
    """Return the living processes that a process started, and those that they started."""
    status, found = _status(), [leader]
    for process in found:
        found += [one for one, (parent, state, _) in status.items() if parent == process and state != "Z"]
    return found[1:]


@dataclass(slots=True)
class Program:
    """A service or a worker.

    Attributes:
        store: Its own folder.
        words: What follows ``python -m service``.
        environment: Its settings.
    """

    store: Path
    words: tuple[str, ...]
    environment: Mapping[str, str]
    url: str = ""
    process: subprocess.Popen[str] | None = None
    _heard: bool = False

    @property
    def log(self) -> str:
        """What it said so far."""
        return self.store.with_suffix(".log").read_text("utf-8", "replace")

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it."""
        self._heard = False
        with self.store.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", *self.words],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ready(self) -> None:
        """Return when it can work."""
        if self._heard:
            return
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("bnfold "), self.log
        self._heard = True
        if not self.words:
            self.url = line.split()[-1]
            with self.client() as client:
                until(lambda: _answers(client), f"{self.url} answers")

    def client(self) -> httpx.Client:
        """Return a client of a service."""
        return httpx.Client(base_url=self.url, timeout=_SECONDS, trust_env=False)

    def kill(self, *, tree: bool = True) -> None:
        """Kill it at once, with all that it started or without."""
        for process in [self.pid, *(below(self.pid) if tree else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Let it end, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self._end()

    def _end(self) -> int:
        assert self.process is not None
        try:
            code = self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def left(self) -> list[Path]:
        """Return the folders of requests and conversions that lie in its own folder."""
        return [path for aside in self.store.rglob("aside") for path in aside.iterdir()]

    def conversions(self) -> list[int]:
        """Return the processes below it that convert something."""
        status = _status()
        words = b"\0service.child\0"
        return [one for one in below(self.pid) if one in status and words in status[one][2]]


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


@dataclass(slots=True)
class Deployment:
    """Services, and who works for them: the services themselves, or workers.

    Attributes:
        folder: Of the files of all.
        database: Its address.
        storage: The folder that all of them keep files in.
        settings: Of each.
    """

    folder: Path
    database: str
    storage: Path
    settings: Mapping[str, str]
    services: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = create_engine(self.database, pool_pre_ping=True)

    def add(self, number: int, *words: str, **settings: str) -> Program:
        """Add a service, or with the word ``worker`` a worker; it is not started yet."""
        store = self.folder / f"{words[0] if words else 'service'}{number}"
        told = {
            "port": "0",
            "grpc_port": "-1",
            "store": str(store),
            "database": self.database,
            "storage": self.storage.as_uri(),
            **self.settings,
            **settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BNFOLD_")}
        program = Program(store, words, clean | {f"BNFOLD_{name.upper()}": value for name, value in told.items()})
        (self.workers if words else self.services).append(program)
        return program

    @property
    def crew(self) -> list[Program]:
        """Those who work on jobs."""
        return self.workers or self.services

    def start(self) -> None:
        """Start whoever does not run."""
        for program in (*self.services, *self.workers):
            if not program.alive:
                program.start()
        for program in (*self.services, *self.workers):
            program.ready()

    def close(self) -> None:
        """End all."""
        for program in (*self.workers, *self.services):
            if program.alive:
                program.kill()
        self.engine.dispose()

    def client(self, number: int = 0) -> httpx.Client:
        """Return a client of one of the services that run."""
        alive = [service for service in self.services if service.alive]
        return alive[number % len(alive)].client()

    def held(self, others: tuple[int, ...] = ()) -> tuple[Program, int]:
        """Wait until somebody converts something, keep it from going on, and return who and what."""

        def find() -> list[tuple[Program, int]]:
            return [
                (program, one)
                for program in self.crew
                if program.alive
                for one in program.conversions()
                if one not in others and "NoNewPrivs:\t1" in _text(Path(f"/proc/{one}/status"))
            ]

        program, child = until(find, "a conversion")[0]
        os.kill(child, signal.SIGSTOP)
        return program, child

    def go_on(self) -> None:
        """Let all conversions go on that were kept from it."""
        for program in self.crew:
            for child in program.conversions() if program.alive else ():
                os.kill(child, signal.SIGCONT)

    def state(self, job: str) -> str:
        """Return the state of a job."""
        with reading(self.engine) as connection:
            return str(connection.execute(select(jobs.c.state).where(jobs.c.id == job)).scalar_one())

    def attempts(self, job: str) -> int:
        """Return how often a job was begun."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(jobs.c.attempt).where(jobs.c.id == job)).scalar_one())

    def ended(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended, and return what a client is told of it."""
        until(lambda: self.state(job) in ENDED, f"the end of the job {job}")
        with self.client() as client:
            body: dict[str, Any] = client.get(f"/jobs/{job}").json()
        return body

    def check(self) -> None:
        """Check that every job ended once and has one result, and that nothing half-done lies about."""
        with reading(self.engine) as connection:
            rows = list(connection.execute(select(jobs)))
            kept = list(connection.execute(select(models)))
            told = list(connection.execute(select(events).order_by(events.c.job, events.c.number)))
        results = Counter((model.name, model.version) for model in kept)
        for row in rows:
            assert row.state in ENDED, f"{row.id} is {row.state}"
            assert results[row.name, row.version] == (row.state == SUCCEEDED), f"{row.id} has no result, or several"
            happened = [event for event in told if event.job == row.id]
            assert [event.number for event in happened] == list(range(1, len(happened) + 1))
            ends = [event for event in happened if event.kind == "state" and event.body["state"] in ENDED]
            assert ends == happened[-1:]
        assert len(kept) == sum(row.state == SUCCEEDED for row in rows), "each job has one result of its own"
        digests = {digest for model in kept for digest in (model.sha256, model.report, model.page)}
        for path in self.storage.rglob("*"):
            if path.is_file() and "artifacts" in path.parts:
                assert path.name in digests or not path.name.startswith("."), f"{path} is half-written"
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert all((self.storage / "artifacts" / one[:2] / one).is_file() for one in digests)
        for program in (*self.services, *self.workers):
            if program.alive:
                until(lambda program=program: not program.conversions(), "the end of all conversions")  # type: ignore[misc]
                until(lambda program=program: not program.left(), f"nothing is left in {program.store}")  # type: ignore[misc]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def deployed(folder: Path, database: str, settings: Mapping[str, str]) -> Iterator[Deployment]:
    """Make a deployment with nobody in it yet, and end whoever was added."""
    storage = folder / "storage"
    storage.mkdir()
    deployment = Deployment(folder, database, storage, settings)
    try:
        yield deployment
    finally:
        deployment.close()


@contextlib.contextmanager
def in_order(deployment: Deployment) -> Iterator[Deployment]:
    """Start whoever does not run, and look at the end whether everything is in order."""
    deployment.start()
    try:
        yield deployment
    finally:
        deployment.go_on()
    deployment.start()
    deployment.check()


def ask(on: Deployment, content: bytes, number: int = 0, **headers: str) -> httpx.Response:
    """Post a model to one of the services, without waiting for what comes of it."""
    told = {"Prefer": "respond-async", **{name.replace("_", "-"): value for name, value in headers.items()}}
    with on.client(number) as client:
        files = {"model": ("network.onnx", content)}
        return client.post("/fold", files=files, data={"verify": "off"}, headers=told)


def submitted(on: Deployment, number: int = 0) -> str:
    """Post a model that nobody posted before, and return the job."""
    answer = ask(on, conv_model(next(SEEDS)), number)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def succeeded(on: Deployment, job: str) -> dict[str, Any]:
    """Wait for a job, which has to succeed, and return what a client is told of it."""
    body = on.ended(job)
    assert body["state"] == "succeeded", body
    return body


def let_go(*children: int) -> None:
    """Let conversions go on."""
    for child in children:
        os.kill(child, signal.SIGCONT)
