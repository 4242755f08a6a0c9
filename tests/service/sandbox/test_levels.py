"""The strongest level that is proven to work is taken, and none where none isolates."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.problems import SandboxError
from service.sandbox import Choice, Level, Limits, bubblewrap, child_command, choose, ended, landlock, levels, seccomp
from service.sandbox.levels import level_for, tried
from service.sandbox.reach import CODE, libraries, outermost
from tests.service.sandbox.children import ISOLATING, at_level


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    choose.cache_clear()
    yield
    choose.cache_clear()


def test_the_strongest_comes_first() -> None:
    assert [level.value for level in Level] == ["bubblewrap", "landlock", "limits", "off"]
    assert [level.isolates for level in Level] == [True, True, False, False]


def test_auto_takes_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: dict[Level, str] = {}
    monkeypatch.setattr(levels, "tried", lambda level: broken.get(level, ""))
    assert choose("auto") == Choice(Level.BUBBLEWRAP, ())
    choose.cache_clear()
    broken[Level.BUBBLEWRAP] = "no namespaces"
    assert choose("auto") == Choice(Level.LANDLOCK, ("bubblewrap: no namespaces",))
    choose.cache_clear()
    broken[Level.LANDLOCK] = "no Landlock"
    assert choose("auto") == Choice(None, ("bubblewrap: no namespaces", "landlock: no Landlock"))
    assert choose("auto").name == "none"


def test_what_is_set_is_taken_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "tried", lambda level: f"no {level}")
    assert choose("bubblewrap") == Choice(None, ("bubblewrap: no bubblewrap",))
    assert choose("landlock").level is None
    assert choose("limits") == Choice(Level.LIMITS, ())
    assert choose("off") == Choice(Level.OFF, ())
    with pytest.raises(SandboxError) as caught:
        level_for("auto")
    assert str(caught.value) == "this machine cannot keep foreign files apart from all else, so none are taken"
    assert caught.value.hint == (
        "Look at docs/sandbox.md, or set BNFOLD_SANDBOX=off if every file that is sent is trusted."
    )
    assert level_for("off") is Level.OFF


def test_a_level_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Level] = []

    def ask(level: Level) -> str:
        asked.append(level)
        return ""

    monkeypatch.setattr(levels, "tried", ask)
    assert choose("auto") == choose("auto")
    assert asked == [Level.BUBBLEWRAP]


@pytest.mark.parametrize("level", ISOLATING)
def test_what_the_machine_lacks_is_said(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "available", lambda: False)
    assert tried(level) == "seccomp is missing in the kernel, or not known for this machine"
    monkeypatch.setattr(seccomp, "available", lambda: True)
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(bubblewrap, "installed", lambda: None)
    assert tried(level) == {
        Level.LANDLOCK: "Landlock is missing in the kernel, or switched off",
        Level.BUBBLEWRAP: "the program bwrap is not installed",
    }.get(level)


def _instead(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Have the probe started by another command."""
    from service.sandbox import starting

    ours = starting.child_command
    monkeypatch.setattr(starting, "child_command", lambda *args, **kwargs: change(ours(*args, **kwargs)))


@pytest.mark.parametrize("level", ISOLATING)
def test_a_level_that_only_claims_to_hold_is_seen_through(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    at_level(level)
    _instead(monkeypatch, lambda command: [word.replace(f'"{level}"', '"limits"') for word in command])
    monkeypatch.setattr(bubblewrap, "_APART", ())
    said = tried(level)
    assert said, "it would be taken for a sandbox"
    if level is Level.LANDLOCK:
        assert said == "the child could run a program" or said.startswith("a file outside")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these means")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('bwrap: no permission')", "bwrap: no permission"),
        ("import sys; sys.exit(3)", "the child that tries it ended with status 3"),
        ('print(\'["read", "write"]\')', "the child could read, write"),
        ("print('hello')", "the child could run a program"),
        ("print('[]')", ""),
    ],
)
def test_what_the_probe_says_counts(script: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "available", lambda: True)
    monkeypatch.setattr(landlock, "version", lambda: 1)
    _instead(monkeypatch, lambda _: [sys.executable, "-c", script])
    assert tried(Level.LANDLOCK) == said


def test_a_probe_that_does_not_end_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "available", lambda: True)
    monkeypatch.setattr(landlock, "version", lambda: 1)
    monkeypatch.setattr(levels, "_SECONDS", 0.5)
    _instead(monkeypatch, lambda _: [sys.executable, "-c", "import time; time.sleep(600)"])
    assert tried(Level.LANDLOCK) == "the child that tries it did not end within 0.5 s"


def test_the_probe_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for level in ISOLATING:
        tried(level)
    assert list(tmp_path.iterdir()) == []


def test_a_store_beside_the_code_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.home()))
    libraries.cache_clear()
    try:
        found = libraries()
    finally:
        libraries.cache_clear()
    assert CODE / "service" in found
    for private in (CODE, Path.cwd(), Path.home(), Path("/"), Path("/etc")):
        assert private not in found
    assert not any(path in (CODE / "store").parents for path in found)


def test_only_the_outermost_folders_count(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert outermost([inner, tmp_path / "a", tmp_path / "gone", inner]) == [tmp_path / "a"]


@pytest.mark.parametrize(("status", "told"), [(0, 0), (1, 1), (121, 121), (-9, -9), (137, -9), (152, -24), (255, 255)])
def test_how_a_child_ended_is_told_in_one_way(status: int, told: int) -> None:
    assert ended(status) == told


def test_a_child_is_started_by_this_interpreter() -> None:
    command = child_command("service.child", Limits(1, 2, 3), ["folder"], level=Level.OFF)
    assert command[:5] == [sys.executable, "-P", "-s", "-m", "service.child"]
    assert command[-1] == "folder"
    told = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.argv[1])", command[5]], capture_output=True, check=True, text=True
    )
    assert '"memory": 1' in told.stdout
