"""What files and requests that were made to do harm cost a real service: seconds, processor time and memory, each.

``python -m bench.bombs`` prints a table, ``--write`` puts it into ``docs/sandbox.md``. Files go one after the other
through ``POST /fold``, at the strongest level of the sandbox; memory is the most that the child of a job took, and by
how much the service itself grew. A plain model goes first, to warm the caches, and last, to compare with.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import ROOT, table
from tests.service.attacks.files import ATTACKS, Outside
from tests.service.server import Server, conv_model, serving, strongest_level, wait_for

if TYPE_CHECKING:
    import httpx

PAGE = ROOT / "docs" / "sandbox.md"
BEGIN, END = "<!-- bombs -->", "<!-- end of bombs -->"
_EVERY = 0.01  # seconds
_HEAD = ("what is sent", "bytes", "seconds", "processor s", "child, MB", "service, MB", "answer")


@dataclass(slots=True)
class Sighting:
    """What was seen of the children of a service: the most memory that any of them took, in MB, and processor time."""

    peak: float = 0.0
    processor: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self, server: Server) -> None:
        """Look again and again until told to stop; what a child took at most stays readable while it lives."""
        while not self.over.wait(_EVERY):
            for child in server.children("service.child"):
                self.peak = max(self.peak, _status(child, "VmHWM"))
                self.processor = max(self.processor, _spent(child))


@dataclass(frozen=True, slots=True)
class Cost:
    """What one thing cost: clock and processor seconds, the child's peak, the service's growth in MB, the answer."""

    size: int
    seconds: float
    processor: float
    child: float
    service: float
    answer: str

    def row(self, name: str) -> list[str]:
        """Return the row of the table."""
        child = f"{self.child:.0f}" if self.child else "–"
        return [
            name,
            f"{self.size:,}",
            f"{self.seconds:.2f}",
            f"{self.processor:.2f}",
            child,
            f"{self.service:+.0f}",
            self.answer,
        ]


def _status(process: int, what: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) / 1000
    return 0.0


def _spent(process: int) -> float:
    """Return the processor time of a process, in seconds."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _measured(server: Server, size: int, act: Callable[[], str]) -> Cost:
    sighting = Sighting()
    watcher = threading.Thread(target=sighting.watch, args=[server], daemon=True)
    watcher.start()
    memory, spent, began = _status(server.process.pid, "VmRSS"), _spent(server.process.pid), time.perf_counter()
    answer = act()
    seconds = time.perf_counter() - began
    wait_for(lambda: not server.children("service.child"), 60)
    sighting.over.set()
    watcher.join()
    process = server.process.pid
    spent = sighting.processor + _spent(process) - spent
    return Cost(size, seconds, spent, sighting.peak, _status(process, "VmRSS") - memory, answer)


def _file(client: httpx.Client, filename: str, content: bytes) -> str:
    answer = client.post(
        "/fold",
        params={"filename": filename},
        content=content,
        headers={"Prefer": "wait=30", "Content-Type": "application/octet-stream"},
    )
    return _said(answer)


def _said(answer: httpx.Response) -> str:
    try:
        code = answer.json().get("code", "")
    except ValueError:
        code = ""
    return f"{answer.status_code} {code}".strip()


def _requests(client: httpx.Client) -> Iterator[tuple[str, int, Callable[[], str]]]:
    """Requests that are made to do harm, beside the files."""
    infer = "/v2/models/plain/infer"

    def asked(body: bytes, **headers: str) -> Callable[[], str]:
        return lambda: _said(client.post(infer, content=body, headers=headers))

    def tensor(shape: str, values: str = "[1.0]") -> bytes:
        told = f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":{values}}}]}}'
        return told.encode()

    deep = b'{"inputs":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
    yield "infer: a million brackets", len(deep), asked(deep)
    for name, body in (
        ("infer: sizes whose product is beyond 2⁶⁴", tensor("[4294967296,4294967296,4]")),
        ("infer: sizes whose product is 0 beyond 2⁶⁴", tensor("[4294967296,4294967296,0]", "[]")),
        ("infer: a negative size", tensor("[-1,3,8,8]")),
        ("infer: data nested 100,000 deep", tensor("[1,3,8,8]", "[" * 100_000 + "]" * 100_000)),
    ):
        yield name, len(body), asked(body)
    packed = gzip.compress(b" " * (1 << 30), 9)
    yield "infer: 1 GiB of gzip", len(packed), asked(packed, **{"content-encoding": "gzip"})
    lying = tensor("[1,3,8,8]")
    yield (
        "infer: a header longer than the body",
        len(lying),
        asked(lying, **{"inference-header-content-length": "99999999999"}),
    )
    many = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % number for number in range(100_000)
    )
    kind = {"content-type": "multipart/form-data; boundary=b"}
    yield (
        "a form of 100,000 fields",
        len(many),
        lambda: _said(client.post("/fold", content=many + b"--b--\r\n", headers=kind)),
    )
    head = (
        b'--b\r\nContent-Disposition: form-data; name="model"; filename="'
        + b"a" * (8 << 20)
        + b'"\r\n\r\nx\r\n--b--\r\n'
    )
    yield (
        "a form whose file has a name of 8 MiB",
        len(head),
        lambda: _said(client.post("/fold", content=head, headers=kind)),
    )
    endless = b"--b\r\n" + b"X-A: " + b"a" * (16 << 20)
    yield (
        "a form whose head does not end",
        len(endless),
        lambda: _said(client.post("/fold", content=endless, headers=kind)),
    )


def _all(server: Server, folder: Path) -> Iterator[tuple[str, Cost]]:
    secrets = folder / "others"
    secrets.mkdir()
    (secrets / "secret").write_text("what only its owner may read", "utf-8")
    with socket.socket() as listener, server.client() as client:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/vocabulary.txt"
        outside = Outside(folder / "marker", secrets / "secret", address)
        plain = conv_model(1)
        first = client.post("/fold", params={"name": "plain"}, content=plain, headers={"Prefer": "wait=30"})
        assert first.status_code == 200, first.text
        for name, attack in ATTACKS.items():
            content = attack.content(outside)
            yield name, _measured(server, len(content), lambda a=attack, c=content: _file(client, a.filename, c))  # type: ignore[misc]
        for name, size, act in _requests(client):
            yield name, _measured(server, size, act)
        other = conv_model(2)
        yield "(a plain model of 1 kB)", _measured(server, len(other), lambda: _file(client, "m.onnx", other))
        assert not outside.marker.exists()


def main() -> int:
    """Print the table."""
    told = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    told.add_argument("--write", action="store_true", help="put the table into docs/sandbox.md")
    wanted = told.parse_args()
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="bnfold-") as place,
        serving(Path(place) / "store", sandbox=strongest_level(), jobs="1") as server,
    ):
        for name, cost in _all(server, Path(place)):
            rows.append(cost.row(name))
            print(json.dumps(rows[-1], ensure_ascii=False), file=sys.stderr, flush=True)
    text = table(_HEAD, rows)
    print(text)
    if wanted.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
