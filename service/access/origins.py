"""Keep other people's pages from using a service that asks nobody for a key.

A browser lets any page send requests to a service on the same machine. It says which page did: a request that another
page sends is refused, and so is one under a name that is not this service's, because whoever owns a name can let it
point to this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from service.problems import ForbiddenError

__all__ = ["Origins"]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HINT = "Open the service's own page, or give the service keys: docs/operating.md."


@dataclass(frozen=True, slots=True)
class Origins:
    """Where requests may come from.

    Attributes:
        hosts: Names of the service beside those of this machine; ``*`` stands for every name.
        origins: Pages of other origins that may use it.
    """

    hosts: tuple[str, ...]
    origins: Sequence[str]

    def check(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Refuse what another page sends.

        Raises:
            ForbiddenError: If it does.
        """
        host = origin = site = mode = ""
        for name, value in headers:
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                site = value.decode("latin-1")
            elif name == b"sec-fetch-mode":
                mode = value.decode("latin-1")
        if host and not _is_ours(host, self.hosts):
            raise ForbiddenError(
                f"the request is for {host[:100]!r}, which is no name of this service",
                hint="Ask for localhost, or set BNFOLD_HOSTS to the names that it has.",
            )
        if origin:
            if origin in self.origins or origin.partition("://")[2] == host:
                return
            raise ForbiddenError(f"a page of {origin[:100]!r} may not use this service", hint=_HINT)
        # A link from elsewhere to one of its pages is no harm; anything else that a page elsewhere asks for is.
        elsewhere = site in {"cross-site", "same-site"}
        if elsewhere and (method not in _SAFE or mode != "navigate"):
            raise ForbiddenError("a page from elsewhere may not use this service", hint=_HINT)


@lru_cache(maxsize=256)
def _is_ours(host: str, hosts: tuple[str, ...]) -> bool:
    name = _name(host)
    return name in hosts or "*" in hosts or name.endswith(".localhost") or _is_number(name)


def _is_number(name: str) -> bool:
    """Say whether a name is an address, which nobody can let point elsewhere, or stands for this machine."""
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _name(host: str) -> str:
    """Return the name in a ``Host`` header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
