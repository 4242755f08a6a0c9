"""Files made to do harm, sent to a real service at every level: nothing outside is touched, and the answer is clear."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.sandbox import Level
from tests.service.attacks.files import ATTACKS, Outside
from tests.service.sandbox.children import at_level
from tests.service.server import Server, conv_model, post, serving, strongest_level, wait_for

if TYPE_CHECKING:
    import httpx

SECRET = "what only its owner may read"

# What takes TensorFlow takes seconds. At the strongest level all is sent; at the others, something of each row.
STRONGEST = Level(strongest_level())
EVERYWHERE = (
    "a SavedModel that reads",
    "a SavedModel that runs Python in a function",
    "a SavedModel whose functions expand",
    "a constant of 4 TiB",
    "two thousand million units",
    "deep JSON",
    "a link to another HDF5 file",
    "HDF5 values in another file",
    "256 GiB in 2 kB",
    "external data in a sibling",
    "external data at a path",
    "external data in the account list",
    "weights of a bundle in a sibling",
    "weights of a bundle behind a link",
    "functions that expand",
    "a value of 64 GiB",
    "an unknown domain",
    "a zip bomb",
    "a path out of an archive",
    "a path from the top in an archive",
    "a symbolic link in an archive",
    "one name twice",
)
SENT = [
    (level, name)
    for level in Level
    if level is not Level.OFF
    for name in (ATTACKS if level is STRONGEST else EVERYWHERE)
]


@dataclass(frozen=True, slots=True)
class Siege:
    """A service under attack, and what the attacks are after."""

    server: Server
    outside: Outside
    listener: socket.socket
    accounts: str
    jobs: dict[str, str]

    def unharmed(self) -> None:
        """Check that nothing outside was read, written or called, and that the service is well."""
        assert not self.outside.marker.exists()
        assert sorted(path.name for path in self.outside.secret.parent.iterdir()) == ["secret"]
        assert self.outside.secret.read_text("utf-8") == SECRET
        assert _accounts() == self.accounts
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        with self.server.client() as client:
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["sandbox"]) == (200, self.server.sandbox)


def _accounts() -> str:
    return hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()


@contextlib.contextmanager
def _besieged(level: Level, folder: Path) -> Iterator[Siege]:
    secrets = folder / "others"
    secrets.mkdir()
    (secrets / "secret").write_text(SECRET, "utf-8")
    with (
        socket.socket() as listener,
        serving(folder / "store", sandbox=level.value, jobs="2", queue="200", job_seconds="240") as server,
        server.client() as client,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        outside = Outside(
            folder / "marker", secrets / "secret", f"http://127.0.0.1:{listener.getsockname()[1]}/vocabulary.txt"
        )
        jobs = {}
        for sent_at, name in SENT:
            if sent_at is level:
                attack = ATTACKS[name]
                answer = client.post(
                    "/fold",
                    params={"filename": attack.filename},
                    content=attack.content(outside),
                    headers={"Prefer": "respond-async", "Content-Type": "application/octet-stream"},
                )
                assert answer.status_code in {200, 202}, answer.text
                jobs[name] = answer.headers["location"]
        yield Siege(server, outside, listener, _accounts(), jobs)


@pytest.fixture(scope="module")
def sieges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Level, Siege]]:
    """Services that are started when they are first needed."""
    with contextlib.ExitStack() as stack:
        yield _Begun(stack, tmp_path_factory)


class _Begun(dict[Level, Siege]):
    def __init__(self, stack: contextlib.ExitStack, folders: pytest.TempPathFactory) -> None:
        super().__init__()
        self._stack, self._folders = stack, folders

    def __missing__(self, level: Level) -> Siege:
        at_level(level)
        siege = self._stack.enter_context(_besieged(level, self._folders.mktemp("siege")))
        self[level] = siege
        return siege


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    return wait_for(lambda: _if_ended(client, job), 600)


def _if_ended(client: httpx.Client, job: str) -> dict[str, Any]:
    body: dict[str, Any] = client.get(job).json()
    if body["state"] in {"succeeded", "failed", "cancelled"}:
        return body
    time.sleep(0.1)
    return {}


@pytest.mark.parametrize(("level", "name"), SENT, ids=[f"{level}-{name.replace(' ', '-')}" for level, name in SENT])
def test_it_is_refused_and_nothing_outside_is_touched(sieges: dict[Level, Siege], level: Level, name: str) -> None:
    siege, attack = sieges[level], ATTACKS[name]
    with siege.server.client() as client:
        told = _ended(client, siege.jobs[name])
        text = json.dumps(told)
        if attack.status == 200:
            assert told["state"] == "succeeded", text
            for link in ("report", "page"):
                text += client.get(told["model"]["links"][link]).text
            model = client.get(told["model"]["links"]["model"]).content
            assert SECRET.encode() not in model
            assert b"root:" not in model
        else:
            problem = told["error"]
            assert (problem["status"], problem["code"]) == (attack.status, attack.code), text
            assert problem["detail"]
            assert problem["hint"]
        assert told["sandbox"] == level.value
    assert SECRET not in text
    assert "root:x:" not in text
    siege.unharmed()


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.OFF])
def test_after_all_of_them_the_service_folds_as_before(sieges: dict[Level, Siege], level: Level) -> None:
    siege = sieges[level]
    with siege.server.client() as client:
        for job in siege.jobs.values():
            _ended(client, job)
        answer = post(client, conv_model(1))
        assert answer.status_code in {200, 202}
        wait_for(lambda: siege.server.aside() == [], 120)
        wait_for(lambda: siege.server.children("service.child") == [], 120)
    siege.unharmed()


def test_each_attack_would_succeed_if_its_file_were_loaded(tmp_path: Path) -> None:
    """What is sent names what it is after: else nothing could be refused."""
    outside = Outside(tmp_path / "marker", tmp_path / "secret", "http://127.0.0.1:9/vocabulary.txt")
    after = {str(outside.marker).encode(), str(outside.secret).encode(), outside.url.encode(), b"/etc/passwd"}
    plain = [name for name, attack in ATTACKS.items() if any(path in attack.content(outside) for path in after)]
    assert len(plain) >= 10
    assert all(len(attack.content(outside)) < 2**21 for attack in ATTACKS.values())
