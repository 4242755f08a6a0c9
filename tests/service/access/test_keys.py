"""The file of keys, and the command that makes its entries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access.keys import KeyFile, UnusableKeysError, digest, entry, new_key
from service.callers import Caller, Limits
from tests.service.server import ROOT

NONE = Limits()


def written(path: Path, *entries: str) -> KeyFile:
    path.write_text("\n".join(entries), "utf-8")
    opened = KeyFile(path, Limits(3, 4, 5.0))
    opened.open()
    return opened


def test_a_key_of_the_file_is_its_tenant(tmp_path: Path) -> None:
    key, other = new_key(), new_key()
    text = entry(key, "team-a", ["fold", "infer"], "ci") + 'jobs = 0\nbytes_a_day = "2MiB"\nrequests_a_second = 0.5\n'
    keys = written(tmp_path / "keys.toml", text, entry(other, "b@example.org", ["admin"], ""))
    assert keys.caller(key.encode()) == Caller("team-a", "ci", frozenset({"fold", "infer"}), Limits(0, 2 * 2**20, 0.5))
    name = digest(other.encode()).hex()[:8]
    assert keys.caller(other.encode()) == Caller("b@example.org", name, frozenset({"admin"}), Limits(3, 4, 5.0))
    for wrong in (b"", key.encode()[:-1], key.encode() + b" ", b"\xff", digest(key.encode()).hex().encode()):
        assert keys.caller(wrong) is None
    assert key not in (tmp_path / "keys.toml").read_text()


def test_a_key_ends_when_the_file_says_so(tmp_path: Path) -> None:
    soon, gone = new_key(), new_key()
    today = datetime.now(UTC)
    keys = written(
        tmp_path / "keys.toml",
        entry(soon, "a", ["read"], "") + f"expires = {(today + timedelta(hours=1)).isoformat(timespec='seconds')}\n",
        entry(gone, "a", ["read"], "") + f"expires = {today.date()}\n",
    )
    assert keys.caller(soon.encode()) is not None
    assert keys.caller(gone.encode()) is None


def test_the_file_is_read_again_when_it_changes_and_kept_when_it_is_spoilt(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    keys = written(tmp_path / "keys.toml", entry(first, "a", ["read"], ""))
    assert keys.caller(second.encode()) is None
    (tmp_path / "keys.toml").write_text("spoilt")
    keys.reload()
    assert keys.caller(first.encode()) is not None
    (tmp_path / "keys.toml").unlink()
    keys.reload()
    assert keys.caller(first.encode()) is not None
    (tmp_path / "keys.toml").write_text(entry(second, "a", ["read"], ""))
    deadline = time.monotonic() + 60
    while keys.caller(second.encode()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert keys.caller(first.encode()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[keys]", r"the file of keys PATH is no TOML: .*"),
        ("keys = 3", r"the file of keys PATH cannot be used: keys: Input should be a valid .*"),
        (
            "[[keys]]\ntenant = 'a'\nscopes = ['read']",
            r"the file of keys PATH cannot be used: keys\.1\.sha256: Field required",
        ),
        (
            "[[keys]]\nsha256 = 'bnf_secret'\ntenant = 'a'\nscopes = ['read']",
            r"the file of keys PATH cannot be used: keys\.1\.sha256: String should match pattern .*",
        ),
        (
            entry("k", "a b", ["read"], ""),
            r"the file of keys PATH cannot be used: keys\.1\.tenant: Value error, a tenant .*",
        ),
        (
            entry("k", "a", ["write"], ""),
            r"the file of keys PATH cannot be used: keys\.1\.scopes\.1: Input should be .*",
        ),
        (entry("k", "a", [], ""), r"the file of keys PATH cannot be used: keys\.1\.scopes: .*"),
        (
            entry("k", "a", ["read"], "") + "scope = 'x'",
            r"the file of keys PATH cannot be used: keys\.1\.scope: Extra .*",
        ),
        (entry("k", "a", ["read"], "") * 2, r"the file of keys PATH has the key of entry 2 twice"),
    ],
)
def test_a_file_that_means_nothing_is_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(UnusableKeysError) as told:
        written(path, text)
    assert re.fullmatch(said.replace("PATH", re.escape(str(path))), str(told.value).partition("\n")[0])
    assert "\n  hint: " in str(told.value)
    assert "bnf_secret" not in str(told.value), "it may be a key in the wrong place"


def test_a_file_that_is_not_there_keeps_the_service_from_starting(tmp_path: Path) -> None:
    environment = {**os.environ, "BNFOLD_STORE": str(tmp_path / "store"), "BNFOLD_KEYS": str(tmp_path / "none.toml")}
    done = subprocess.run(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-2:] == [
        f"error[settings]: the file of keys {tmp_path / 'none.toml'} cannot be read: No such file or directory",
        "  hint: Make one with: python -m service key --tenant NAME --scopes fold,infer >> FILE",
    ]


def test_the_command_shows_a_key_once_and_writes_what_stands_for_it(tmp_path: Path) -> None:
    def key(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", "key", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
        )

    done = key("--tenant", "team-a", "--scopes", "fold, read", "--name", "a laptop")
    assert done.returncode == 0
    told = re.fullmatch(r"The key, which is shown only now: (bnf_[A-Za-z0-9_-]{43})\n", done.stderr)
    assert told is not None
    assert told[1] not in done.stdout
    keys = written(tmp_path / "keys.toml", done.stdout)
    assert keys.caller(told[1].encode()) == Caller("team-a", "a laptop", frozenset({"fold", "read"}), Limits(3, 4, 5.0))
    for wrong in (["--tenant", "a b"], [], ["--tenant", "a", "--scopes", "all"], ["--tenant", "a", "--name", '"']):
        done = key(*wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "error: " in done.stderr
