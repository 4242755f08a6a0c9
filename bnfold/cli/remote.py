"""``bnfold convert --server``: the work is done by a service, and what comes of it is written here."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from bnfold.cli.accounts import Accounts
from bnfold.cli.destination import STDOUT, usage
from bnfold.cli.remote_service import Service, opened
from bnfold.cli.remote_source import Parcel, packed
from bnfold.cli.screen import Progress, progress_line, to_reader
from bnfold.cli.work import show
from bnfold.errors import RemoteError

if TYPE_CHECKING:
    from bnfold.cli.base import Settings
    from bnfold.report import Report

__all__ = ["Errand", "check_job", "check_local_only", "fields_of", "key_of", "run_errand"]

_KEY = "BNFOLD_API_KEY"
_JOB = re.compile("[0-9a-f]{32}")
_LONGEST_KEY = 8192
_LOOK, _LONGEST_LOOK = 0.1, 1.0  # seconds between two looks at a job
_LOCAL = {
    "builder": "it runs a file of yours",
    "custom": "it runs a file of yours",
    "data": "the service draws its own inputs",
    "trust": "the service runs no code of a file",
    "repro": "the service keeps no model that it refuses",
    "force": "the service keeps no model that it refuses",
}


@dataclass(frozen=True, slots=True)
class Errand:
    """One conversion that a service is asked for.

    Attributes:
        url: Where the service is.
        key: Of its API; empty where it asks for none.
        job: That was begun before, and is only waited for; empty for a new one.
        source: What to send.
        output: What to write; ``-`` is stdout.
        architecture: A file that is sent, too.
        fields: The options, as fields of the service's form.
        accounts: Where to write the report.
    """

    url: str
    key: str
    job: str
    source: Path
    output: Path
    architecture: Path | None
    fields: Mapping[str, Any]
    accounts: Accounts


def check_local_only(told: Mapping[str, Any]) -> None:
    """Refuse options that a service does not take.

    Raises:
        click.UsageError: If there is one.
    """
    for name, why in _LOCAL.items():
        if told.get(name):
            raise usage(f"--{name} cannot be used with --server: {why}", f"Leave out --server, or --{name}.")


def check_job(job: str | None) -> str:
    """Return the name of a job, empty where none was named.

    Raises:
        click.UsageError: If it cannot be one.
    """
    if job is not None and _JOB.fullmatch(job) is None:
        raise usage(f"--job: {job!r} is no job", "Copy the 32 digits that were shown when the wait broke off.")
    return job or ""


def key_of(path: Path | None) -> str:
    """Return the API key: that of a file, or else that of the environment.

    Raises:
        click.UsageError: If it cannot be one.
        OSError: If the file cannot be read.
    """
    if path is None:
        key, where = os.environ.get(_KEY, ""), _KEY
    else:
        with path.open("rb") as file:
            text = file.read(_LONGEST_KEY + 1).decode("utf-8", "replace")
        key, where = text.strip().partition("\n")[0].strip(), f"--api-key-file {path}"
        if not key:
            raise usage(f"{where} has no key", "Put the key into its first line.")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key or len(key) > _LONGEST_KEY:
        raise usage(f"{where} has something that is no key", "A key is one word of ASCII characters.")
    return key


def fields_of(settings: Settings, accounts: Accounts, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the command line as fields of the service's form; what is usual is left out."""
    fields: dict[str, Any] = {
        "inputs": list(told["inputs"]),
        "outputs": list(told["outputs"]),
        "set": [f"{name}={value}" for name, value in told["set_values"].items()],
        "keep": list(told["keep"]),
        "signature": told["signature"],
        "opset": told["opset"],
        "ema": told["ema"] if told["ema"] != "auto" else None,
        "fold": told["fold"] if told["fold"] != "all" else None,
        "freeze_initializers": "yes" if told["freeze_initializers"] else None,
        "verify": told["verify"],
        "seed": settings.seed or None,
        "layerwise": "yes" if accounts.layerwise else None,
    }
    return {
        name: value if isinstance(value, list) else str(value)
        for name, value in fields.items()
        if value not in (None, [])
    }


def run_errand(errand: Errand, settings: Settings) -> None:
    """Send a model to a service, wait, and write what comes back as a local conversion writes it.

    Raises:
        BnfoldError: If the service cannot be asked, or refuses the model.
        OSError: If a file cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_line(settings))
        tell: Progress = progress if progress is not None else lambda _step, _done: None
        service = stack.enter_context(opened(errand.url, errand.key))
        if errand.job:
            model = _waited_for(service, errand.job, tell)
        else:
            service.ask("GET", "/jobs", params={"limit": "1"})  # who is not let in hears of it before the upload
            with packed(errand.source) as parcel:
                model = _asked_for(service, errand, parcel, tell)
        links = model["links"]
        account = service.read(f"{links['report']}.json")
        page = service.read(links["page"]) if errand.accounts.html is not None else b""
        if errand.output == STDOUT:
            content = io.BytesIO()
            _fetch(service, model, content, tell)
        else:
            _write(service, model, errand.output, tell)
    _write_accounts(errand.accounts, account, page)
    _show(account, settings, errand.output)
    if errand.output == STDOUT:
        with to_reader():
            sys.stdout.buffer.write(content.getbuffer())
            sys.stdout.buffer.flush()


def _asked_for(service: Service, errand: Errand, parcel: Parcel, tell: Progress) -> Mapping[str, Any]:
    """Send the model, and return what the service says of it when it is folded."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": f"bnfold-{secrets.token_hex(16)}"}
    with contextlib.ExitStack() as stack:
        more = None
        if errand.architecture is not None:
            more = stack.enter_context(errand.architecture.open("rb"))

        def files() -> dict[str, Any]:
            parcel.file.seek(0)
            sent = {"model": (parcel.name, _Sent(parcel, tell), "application/octet-stream")}
            if more is not None:
                more.seek(0)
                sent["architecture"] = ("architecture.json", cast("Any", more), "application/json")
            return sent

        answer = service.ask("POST", "/fold", files=files, data=dict(errand.fields), headers=headers)
    body: Mapping[str, Any] = _told(answer.json())
    if answer.status_code != 202:
        return body
    return _waited_for(service, str(body["id"]), tell)


def _waited_for(service: Service, job: str, tell: Progress) -> Mapping[str, Any]:
    """Return what a service says of a model when its job has ended."""
    pause = _LOOK
    with _resumable(job):
        while True:
            told = _told(service.ask("GET", f"/jobs/{job}").json())
            match told.get("state"):
                case "succeeded":
                    model = told.get("model", {})
                    if "links" not in model:
                        raise RemoteError(
                            f"the model that came of job {job} was deleted", hint="Send it again, without --job."
                        )
                    return {**model}
                case "failed":
                    error = told.get("error")
                    raise service.refusal(error if isinstance(error, dict) else {}, 500)
                case "cancelled":
                    raise RemoteError(f"job {job} was cancelled", hint="Send the model again if that was a mistake.")
            tell(str(told.get("step", "wait")), told.get("done"))
            time.sleep(pause)
            pause = min(1.3 * pause, _LONGEST_LOOK)


@contextlib.contextmanager
def _resumable(job: str) -> Iterator[None]:
    """Say on whatever breaks off the wait how it can be gone on with."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.hint = _again(job)  # type: ignore[attr-defined]  # read by exits.failure
        raise
    except RemoteError as error:
        if "cannot be asked" in str(error):
            raise RemoteError(str(error), hint=_again(job)) from error
        raise


def _again(job: str) -> str:
    return f"Run the same command with --job {job}: the service goes on with it."


def _told(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise RemoteError("the service answers with something that means nothing", hint="Look at the address.")
    return body


def _fetch(service: Service, model: Mapping[str, Any], file: IO[bytes], tell: Progress) -> None:
    """Write the folded model into a file.

    Raises:
        RemoteError: If it is not what the service says that it is.
    """
    sha256 = service.write(model["links"]["model"], file, lambda done: tell("receive", done))
    if sha256 != model["sha256"]:
        raise RemoteError("what arrived is not what the service sent", hint="Run the command again.")


def _write(service: Service, model: Mapping[str, Any], output: Path, tell: Progress) -> None:
    from bnfold.graph.atomic import is_stream, write_atomically

    if is_stream(output):  # what was written there cannot be taken back when the connection is lost
        content = io.BytesIO()
        _fetch(service, model, content, tell)
        write_atomically(output, content.getvalue())
    else:
        write_atomically(output, lambda file: _fetch(service, model, file, tell))


def _write_accounts(accounts: Accounts, account: bytes, page: bytes) -> None:
    from bnfold.graph.atomic import write_atomically

    if accounts.report is not None:
        write_atomically(accounts.report, account.rstrip(b"\n") + b"\n")
    if accounts.html is not None:
        write_atomically(accounts.html, page)


def _show(account: bytes, settings: Settings, output: Path) -> None:
    """Print the report as a local conversion prints it."""
    to_stderr = output == STDOUT
    try:
        report: Report = _report(account)
    except ValueError as error:
        raise RemoteError(
            f"the model was written, and the service's report cannot be read: {error}",
            hint="Use the same version of bnfold here and there.",
        ) from error
    show(report, settings, to_stderr=to_stderr, written=None if to_stderr else output)


def _report(account: bytes) -> Report:
    from bnfold.report.reading import report_from_json

    return report_from_json(account)


class _Sent:
    """A file that tells how much of it was sent."""

    def __init__(self, parcel: Parcel, tell: Progress) -> None:
        self._parcel, self._tell = parcel, tell

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        content = self._parcel.file.read(size)
        self._tell("send", self._parcel.file.tell() / self._parcel.size if self._parcel.size else None)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._parcel.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._parcel.file.tell()
