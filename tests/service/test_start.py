"""The service starts with what is set, and says what is wrong with it where it cannot."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import _listen
from service.docs import HTTP_PAGE, SETTINGS_PAGE, http_page, settings_page
from service.settings import UnusableSettingsError, is_loopback, read_settings, unknown_names
from tests.service.server import serving


def test_the_service_says_why_it_does_not_start(store: Path, tmp_path: Path) -> None:
    def start(**settings: str) -> tuple[int, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BNFOLD_")}
        environment = {**clean, "BNFOLD_STORE": str(store), "BNFOLD_PORT": "0", **settings}
        done = subprocess.run(
            [sys.executable, "-m", "service"], env=environment, check=False, capture_output=True, text=True, timeout=180
        )
        return done.returncode, done.stderr

    code, said = start(BNFOLD_HOST="0.0.0.0")
    assert code == 2
    assert said == (
        "error[settings]: BNFOLD_HOST is 0.0.0.0, which other machines can reach, and nobody would be asked for a key\n"
        "  hint: Make a key with python -m service key and set BNFOLD_KEYS to its file, or set BNFOLD_EXPOSE=true "
        "where something in front asks who is there.\n"
    )
    code, said = start(BNFOLD_PORT="x")
    assert (code, said.splitlines()[1]) == (2, "  hint: docs/settings.md lists what can be set.")
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = start(BNFOLD_PORT=str(port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in said
    (tmp_path / "file").write_bytes(b"")
    code, said = start(BNFOLD_STORE=str(tmp_path / "file"))
    assert (code, said.startswith("error[start]: ")) == (2, True)
    with serving(store):
        code, said = start()
        assert code == 2
        assert said == (
            f"error[store]: another service uses the store {store}\n"
            "  hint: Stop it, or give this one a store of its own with BNFOLD_STORE.\n"
        )


def test_settings_come_from_the_environment() -> None:
    settings = read_settings({"BNFOLD_UPLOAD_SIZE": "3MiB", "BNFOLD_JOBS": "7", "BNFOLD_QUEUE": "", "OTHER": "x"})
    assert (settings.upload_size, settings.jobs, settings.queue, settings.host) == (3 * 2**20, 7, 16, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BNFOLD_PORT", "70000", "BNFOLD_PORT cannot be '70000': Input should be less than or equal to 65535"),
        ("BNFOLD_JOBS", "0", "BNFOLD_JOBS cannot be '0': Input should be greater than or equal to 1"),
        (
            "BNFOLD_LOG_LEVEL",
            "loud",
            "BNFOLD_LOG_LEVEL cannot be 'loud': Input should be 'debug', 'info', 'warning' or 'error'",
        ),
        ("BNFOLD_UPLOAD_SIZE", "-1", "BNFOLD_UPLOAD_SIZE cannot be '-1': "),
        ("BNFOLD_JOB_SECONDS", "nan", "BNFOLD_JOB_SECONDS cannot be 'nan': "),
        ("BNFOLD_INFER_SECONDS", "inf", "BNFOLD_INFER_SECONDS cannot be 'inf': "),
    ],
)
def test_a_value_that_cannot_be_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(
        UnusableSettingsError, match=f"^{re.escape(said)}.*\n  hint: docs/settings.md lists what can be set.$"
    ):
        read_settings({name: value})


def test_a_misspelt_setting_is_told() -> None:
    assert unknown_names({"BNFOLD_JOB": "1", "BNFOLD_PORT": "1", "PATH": "x", "BNFOLD_X_Y_Z": "1"}) == [
        "BNFOLD_JOB is no setting and is ignored: did you mean BNFOLD_JOBS?",
        "BNFOLD_X_Y_Z is no setting and is ignored",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_what_others_reach_is_not_taken_for_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_is_known(host: str) -> None:
    assert is_loopback(host)


def test_being_open_to_others_takes_two_settings() -> None:
    assert read_settings({"BNFOLD_HOST": "0.0.0.0", "BNFOLD_EXPOSE": "true"}).host == "0.0.0.0"


def test_the_pages_are_those_of_the_code() -> None:
    again = "write it again with: .venv/bin/python -m service.docs"
    assert SETTINGS_PAGE.read_text("utf-8") == settings_page(), again
    assert HTTP_PAGE.read_text("utf-8") == http_page(), again


def test_answers_do_not_wait_for_more() -> None:
    # asyncio switches Nagle's algorithm off only where the socket says that it is TCP; else each answer takes 40 ms.
    with contextlib.closing(_listen(read_settings({"BNFOLD_PORT": "0"}))) as listener:
        assert listener.proto == socket.IPPROTO_TCP
