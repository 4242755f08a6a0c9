"""Code that was taken over reaches nothing but its own folder, at every level that isolates."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.sandbox import NOT_CONFINED, Level, Limits, ended
from tests.service.sandbox.children import ISOLATING, Room, answers_of, at_level, run_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these means")

LEVELS = pytest.mark.parametrize("level", ISOLATING)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room.made(tmp_path)


@pytest.fixture
def other() -> Iterator[int]:
    """A process of the same user that has nothing to do with the child."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        yield sleeper.pid
        assert sleeper.poll() is None
        sleeper.kill()


@LEVELS
def test_no_file_outside_is_reached(level: Level, room: Room) -> None:
    answers = answers_of(at_level(level), room, "files")
    assert {name: said for name, said in answers.items() if said == "done"} == {}
    assert set(answers.values()) <= {"EACCES", "EPERM", "ENOENT", "EROFS", "EXDEV"}
    assert room.untouched()
    assert list((room.folder / "out").iterdir()) == []


@LEVELS
def test_nobody_is_talked_to(level: Level, room: Room) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        answers = answers_of(at_level(level), room, "network", port=listener.getsockname()[1])
        assert set(answers.values()) == {"EPERM"}
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


@LEVELS
def test_no_other_process_is_started_or_touched(level: Level, room: Room, other: int) -> None:
    answers = answers_of(at_level(level), room, "processes", other=other)
    raised = answers.pop("raise its limits")
    assert raised == "not allowed to raise maximum limit"
    assert {name: said for name, said in answers.items() if said not in {"EPERM", "EINVAL", "ENOTTY"}} == {}


@LEVELS
def test_calls_that_no_child_needs_do_not_reach_the_kernel(level: Level, room: Room) -> None:
    answers = answers_of(at_level(level), room, "raw")
    assert len(answers) > 80
    assert {name: said for name, said in answers.items() if said not in {"EPERM", "ENOSYS"}} == {}
    assert answers["clone3"] == "ENOSYS"  # so that threads are started in the way that can be watched


@LEVELS
def test_a_child_can_do_what_it_is_there_for(level: Level, room: Room) -> None:
    answers = answers_of(at_level(level), room, "needs")
    assert set(answers.values()) == {"done"}, answers


def test_what_is_tried_succeeds_where_nothing_isolates(room: Room) -> None:
    # Else the tests above could not fail.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        network = answers_of(Level.LIMITS, room, "network", port=listener.getsockname()[1])
        assert network["connect"] == network["AF_UNIX"] == network["socketpair"] == "done"
    files = answers_of(Level.LIMITS, room, "files")
    for name in ("read the sibling's secret", "read the accounts", "list the sibling's folder", "leave a pipe"):
        assert files[name] == "done", name
    assert not room.untouched()
    assert answers_of(Level.LIMITS, room, "forks")["fork"] == "done"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x32 is a way to call the system on x86_64")
@LEVELS
def test_a_call_by_another_machines_number_ends_the_process(level: Level, room: Room) -> None:
    assert ended(run_child(at_level(level), room, ["forbidden_number", "{}"]).returncode) == -signal.SIGSYS


@pytest.mark.parametrize("level", list(Level))
def test_a_signal_that_ends_a_child_is_told_at_every_level(level: Level, room: Room) -> None:
    assert ended(run_child(at_level(level), room, ["dies", "{}"]).returncode) == -signal.SIGABRT


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.OFF])
def test_limits_hold_at_every_level(level: Level, room: Room) -> None:
    assert answers_of(at_level(level), room, "memory") == {"fill": "ENOMEM"}
    assert answers_of(level, room, "large_file") == {"write": "EFBIG"}
    spinning = run_child(level, room, ["forever", "{}"], limits=Limits(2**33, 2**20, cpu_seconds=1))
    assert ended(spinning.returncode) == -signal.SIGXCPU


def _status_of(told: str) -> int:
    script = (
        "import os, sys; from pathlib import Path; from service.sandbox import confine\n"
        f"os.environ['TOLD'] = '1'; confine(sys.argv[1:]); Path({told!r}).touch()"
    )
    orders = {
        "level": "landlock",
        "parent": os.getpid(),
        "memory": 2**33,
        "file_size": 0,
        "cpu_seconds": 0,
        "reads": [],
        "writes": [],
    }
    before = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    command = [sys.executable, "-c", before + script, json.dumps(orders)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def test_what_cannot_be_confined_does_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    assert _status_of(str(marker)) == NOT_CONFINED
    assert not marker.exists()


_SERVICE = """
import json, subprocess, sys
from pathlib import Path
from service.sandbox import Level
from tests.service.sandbox.children import Room, start_child
room = Room(Path(sys.argv[1]), Path(sys.argv[2]))
start_child(Level(sys.argv[3]), room, "sleeping").wait()
"""


@pytest.mark.parametrize("level", list(Level))
def test_a_child_dies_with_the_service_and_leaves_nothing(level: Level, room: Room) -> None:
    at_level(level)
    command = [sys.executable, "-c", _SERVICE, str(room.folder), str(room.outside), level.value]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], start_new_session=True) as service:
        try:
            _wait_for((room.folder / "out" / "there").exists)
            family = _descendants(service.pid)
            assert family
            service.kill()
            service.wait()
            _wait_for(lambda: not any(_lives(process) for process in family))
        finally:
            for process in _descendants(service.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("level", list(Level))
def test_killing_the_group_kills_all_of_it(level: Level, room: Room) -> None:
    from service.processes import end_group
    from tests.service.sandbox.children import start_child

    with start_child(at_level(level), room, "sleeping") as child:
        _wait_for((room.folder / "out" / "there").exists)
        family = [child.pid, *_descendants(child.pid)]
        end_group(child.pid)
        child.wait(60)
        _wait_for(lambda: not any(_lives(process) for process in family))


def _descendants(ancestor: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
