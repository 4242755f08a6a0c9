"""A service, as the command line speaks to it: each question is asked again where an answer may still come."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from bnfold import errors
from bnfold.cli.destination import usage
from bnfold.cli.exits import one_line
from bnfold.cli.signals import raise_if_stopped
from bnfold.errors import BnfoldError, MissingExtraError, RemoteError

if TYPE_CHECKING:
    import httpx

__all__ = ["Later", "Service", "opened"]

Answer = TypeVar("Answer")

_PATIENCE = 300.0  # seconds without any answer, or with nothing but "later", until a service is given up
_FIRST = 15.0  # the same for a service that never answered: most likely it is not there at all
_CHUNK = 2**20
_LONGEST = 8.0  # seconds between two tries
_REFUSALS: Mapping[str, type[BnfoldError]] = {
    kind.code: kind
    for name in errors.__all__
    if (kind := getattr(errors, name)).code not in {"error", "server", "missing-extra"}
}
_HINTS = {
    401: "Set BNFOLD_API_KEY to a key of this service, or name a file that has one with --api-key-file.",
    403: "Use a key with the scope fold.",
}


class Later(Exception):  # noqa: N818  (it is no error)
    """The service says that it can do it later."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(slots=True)
class Service:
    """A service that answers at an address.

    Attributes:
        url: Where it is.
        client: Of httpx.
        answered: When it answered for the last time; 0 while it never did.
    """

    url: str
    client: httpx.Client
    answered: float = 0.0

    def ask(self, method: str, path: str, **told: Any) -> httpx.Response:
        """Ask once, or again where no answer came; what is sent has to be such that twice does no harm.

        Args:
            method: Of HTTP.
            path: On the service.
            told: What httpx takes; a function as ``files`` is called for each try.

        Raises:
            RemoteError: If no answer came in a while, or one that refuses.
            BnfoldError: If the answer is that the model is refused.
        """
        return self.insisting(lambda: self._once(method, path, told))

    def insisting(self, step: Callable[[], Answer]) -> Answer:
        """Do a step that asks the service, again and again until it succeeds.

        Raises:
            RemoteError: If it does not succeed in a while.
        """
        import httpx

        began, pause = time.monotonic(), 0.25
        while True:
            raise_if_stopped()
            try:
                return step()
            except httpx.TransportError as error:
                wait, why = pause, one_line(error) or type(error).__name__
                patience, since = (_PATIENCE, max(began, self.answered)) if self.answered else (_FIRST, began)
            except Later as later:
                wait, why = max(later.seconds, pause), "it has no room for more at the moment"
                patience, since = _PATIENCE, began
            if time.monotonic() - since + wait > patience:
                raise RemoteError(
                    f"the service at {self.url} cannot be asked: {why}",
                    hint="Look at the address, and whether the service runs; or try again later.",
                )
            time.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  (so that not all come back at once)
            pause = min(2 * pause, _LONGEST)

    def _once(self, method: str, path: str, told: Mapping[str, Any]) -> httpx.Response:
        files = told.get("files")
        arguments = {**told, "files": files()} if callable(files) else dict(told)
        return self.looked_at(self.client.request(method, path, **arguments))

    def looked_at(self, answer: httpx.Response) -> httpx.Response:
        """Return an answer that is none of an error.

        Raises:
            Later: If the service says when to ask again.
            BnfoldError: If the answer is an error; its content has been read.
        """
        self.answered = time.monotonic()
        status = answer.status_code
        if status < 300:
            return answer
        answer.read()
        body = _problem(answer)
        told = answer.headers.get("retry-after", "")
        if status in {429, 503} and told.isascii() and told.isdigit():
            if int(told) <= _PATIENCE:
                raise Later(float(told))
        elif status in {502, 503, 504} and "code" not in body:
            raise Later(1.0)  # something in front of a service that is about to be back
        raise self.refusal(body, status)

    def refusal(self, body: Mapping[str, Any], status: int) -> BnfoldError:
        """Return the error that a problem of the service stands for, the one that a local run would have met."""
        detail, hint, code = (one_line(body.get(name, "")) for name in ("detail", "hint", "code"))
        kind = _REFUSALS.get(code)
        if kind is not None:
            return kind(detail, hint=hint)
        if not code:
            return RemoteError(
                f"what answers at {self.url} is no service of bnfold: it says {status}",
                hint="Look at the address.",
            )
        return RemoteError(
            f"the service at {self.url} answers {status} ({code}): {detail}", hint=_HINTS.get(status, hint)
        )

    def read(self, path: str) -> bytes:
        """Return the content of a path."""
        content: bytes = self.ask("GET", path).content
        return content

    def write(self, path: str, file: IO[bytes], tell: Callable[[float | None], None]) -> str:
        """Write the content of a path into a file, from its beginning again where the connection is lost.

        Returns:
            The sha256 of what was written.

        Raises:
            OSError: If it cannot be written.
        """

        def step() -> str:
            file.seek(0)
            file.truncate()
            digest, done = hashlib.sha256(), 0
            with self.client.stream("GET", path) as answer:
                self.looked_at(answer)
                size = int(answer.headers.get("content-length", 0))
                for chunk in answer.iter_bytes(_CHUNK):
                    raise_if_stopped()
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    tell(done / size if size else None)
            return digest.hexdigest()

        return self.insisting(step)


@contextmanager
def opened(url: str, key: str) -> Iterator[Service]:
    """Open a service.

    Args:
        url: Where it is.
        key: Of its API; empty where it asks for none.

    Raises:
        MissingExtraError: If httpx is not installed.
        click.UsageError: If the address is none.
    """
    address = _address(url)
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            "asking a service takes httpx, which is not installed", hint="Run: pip install 'bnfold[client]'"
        ) from error
    from bnfold import __version__

    headers = {"User-Agent": f"bnfold/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})}
    # A proxy of the environment is for what is elsewhere.
    local = address.hostname in {"localhost", "127.0.0.1", "::1"}
    timeout = httpx.Timeout(60.0, connect=10.0)
    with httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout, trust_env=not local) as client:
        yield Service(url.rstrip("/"), client)


def _address(url: str) -> Any:
    try:
        address = urlsplit(url)
        if address.scheme in {"http", "https"} and address.hostname and not address.query and not address.fragment:
            _ = address.port
            if not address.username and not address.password:
                return address
            said = "--server: a name and a password do not belong into the address"
            raise usage(said, "Set BNFOLD_API_KEY, or name a file with --api-key-file.")
    except ValueError:
        pass
    raise usage(f"--server: {url} is no address", "Write it as http://HOST:PORT or https://HOST.")


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
