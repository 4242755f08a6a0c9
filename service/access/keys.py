"""The file of keys: of each key its sha256, whose it is, what it may do and how much.

A key itself is nowhere but with whoever uses it. The file is read again when it changes; one that cannot be read leaves
the keys as they were, and that is logged.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError

from service.callers import SCOPES, Caller, Limits

__all__ = ["KeyFile", "UnusableKeysError", "digest", "entry", "is_tenant", "new_key", "read_keys"]

_LOG = logging.getLogger("service.access")
_PREFIX = "bnf_"
_LOOK = 1.0  # seconds between two looks at the file
_LARGEST = 16 * 2**20
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,63}")
_NAMED = 8  # digits of its sha256 that name a key without a name


class UnusableKeysError(Exception):
    """The file of keys cannot be used; the text says why, and what to do."""


def is_tenant(text: str) -> bool:
    """Say whether a text can name a tenant."""
    return _TENANT.fullmatch(text) is not None


def _tenant(text: str) -> str:
    if not is_tenant(text):
        raise ValueError("a tenant has 1 to 64 letters, digits and any of . _ @ : + -")
    return text


Tenant = Annotated[str, AfterValidator(_tenant)]


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    tenant: Tenant
    scopes: tuple[Literal["fold", "infer", "read", "admin"], ...] = Field(min_length=1)
    name: str = Field("", max_length=100, pattern=r"^[A-Za-z0-9._ @:+-]*$")
    expires: datetime | date | None = None
    jobs: int | None = Field(None, ge=0)
    bytes_a_day: ByteSize | None = Field(None, ge=0)
    requests_a_second: float | None = Field(None, ge=0, allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[_Key, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    caller: Caller
    expires: float


def digest(key: bytes) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key).digest()


def new_key() -> str:
    """Return a new key, with 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def entry(key: str, tenant: str, scopes: Sequence[str], name: str) -> str:
    """Return the lines of the file that stand for a key."""
    lines = [
        "[[keys]]",
        f'sha256 = "{digest(key.encode("ascii")).hex()}"',
        f'tenant = "{tenant}"',
        _scopes(scopes),
    ]
    return "\n".join(lines + ([f'name = "{name}"'] if name else [])) + "\n"


def _scopes(scopes: Sequence[str]) -> str:
    quoted = ", ".join(f'"{scope}"' for scope in scopes)
    return f"scopes = [{quoted}]"


def read_keys(path: Path, defaults: Limits) -> Mapping[bytes, _Known]:
    """Read a file of keys.

    Args:
        path: Of the file.
        defaults: The limits of a key that says nothing of them.

    Raises:
        UnusableKeysError: If it cannot be read, or has something in it that means nothing.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST)
        told = _File.model_validate(tomllib.loads(text.decode("utf-8")))
    except OSError as error:
        raise UnusableKeysError(
            f"the file of keys {path} cannot be read: {error.strerror}\n"
            "  hint: Make one with: python -m service key --tenant NAME --scopes fold,infer >> FILE"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableKeysError(
            f"the file of keys {path} is no TOML: {error}\n  hint: docs/operating.md shows how it looks."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step + 1 if isinstance(step, int) else step) for step in first["loc"])
        # What stands there may be a key that somebody put in the wrong place: it is not repeated.
        raise UnusableKeysError(
            f"the file of keys {path} cannot be used: {where}: {first['msg']}\n"
            "  hint: docs/operating.md shows how it looks."
        ) from error
    known: dict[bytes, _Known] = {}
    for number, key in enumerate(told.keys, 1):
        one = bytes.fromhex(key.sha256)
        if one in known:
            raise UnusableKeysError(
                f"the file of keys {path} has the key of entry {number} twice\n  hint: Leave one of the two entries."
            )
        known[one] = _Known(one, _caller(key, defaults), _until(key.expires))
    return known


def _caller(key: _Key, defaults: Limits) -> Caller:
    limits = Limits(
        defaults.jobs if key.jobs is None else key.jobs,
        defaults.bytes_a_day if key.bytes_a_day is None else int(key.bytes_a_day),
        defaults.requests_a_second if key.requests_a_second is None else key.requests_a_second,
    )
    assert set(key.scopes) <= set(SCOPES)
    return Caller(key.tenant, key.name or key.sha256[:_NAMED], frozenset(key.scopes), limits)


def _until(expires: datetime | date | None) -> float:
    if expires is None:
        return float("inf")
    if not isinstance(expires, datetime):
        expires = datetime(expires.year, expires.month, expires.day, tzinfo=UTC)
    return expires.replace(tzinfo=expires.tzinfo or UTC).timestamp()


@dataclass(slots=True)
class KeyFile:
    """The keys of a file, as it is now.

    Attributes:
        path: Of the file.
        defaults: The limits of a key that says nothing of them.
    """

    path: Path
    defaults: Limits
    _known: Mapping[bytes, _Known] = field(default_factory=dict, init=False)
    _seen: tuple[int, int, int] = field(default=(0, 0, 0), init=False)
    _looked: float = field(default=0.0, init=False)

    def open(self) -> None:
        """Read the file for the first time.

        Raises:
            UnusableKeysError: If it cannot be used.
        """
        self._seen = self._stamp()
        self._known = read_keys(self.path, self.defaults)
        if not self._known:
            _LOG.warning("%s has no keys, so nobody is let in", self.path)

    def caller(self, key: bytes) -> Caller | None:
        """Return whose key it is; None where it is nobody's, or no longer."""
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._look()
        told = digest(key)
        known = self._known.get(told)
        if known is None or not hmac.compare_digest(known.digest, told) or time.time() >= known.expires:
            return None
        return known.caller

    def reload(self) -> None:
        """Read the file again, whether it looks changed or not."""
        self._seen = (0, 0, 0)
        self._look()

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            self._known = read_keys(self.path, self.defaults)
        except UnusableKeysError as error:
            _LOG.error("the keys stay as they were: %s", str(error).partition("\n")[0])
            self._seen = stamp
            return
        self._seen = stamp
        _LOG.info("%s was read again: %d keys", self.path, len(self._known))

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)
