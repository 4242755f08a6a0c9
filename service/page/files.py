"""The files of the page, as they are sent: with their type, a strong tag, and what a browser may do with them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "HEADERS", "PageFile", "files", "tagged"]

FOLDER = Path(__file__).parent / "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Names in models and files come from strangers. They are only ever inserted as text; should that fail somewhere, the
# browser still runs nothing but these files, makes no markup of text, and talks to nobody but this service.
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "frame-src 'self'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(_POLICY),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
"""What goes with every file of the page."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: What is sent.
        kind: Its media type.
        etag: Changes with the content, and only then.
        packed: The same, compressed with gzip.
    """

    content: bytes
    kind: str
    etag: str
    packed: bytes


def tagged(content: bytes, suffix: str) -> PageFile:
    """Return a file of the page with a content."""
    digest = hashlib.sha256(content).hexdigest()[:32]
    return PageFile(content, _TYPES[suffix], f'"{digest}"', gzip.compress(content, mtime=0))


@cache
def files() -> Mapping[str, PageFile]:
    """Return all files of the page by name."""
    return {path.name: tagged(path.read_bytes(), path.suffix) for path in FOLDER.iterdir() if path.suffix in _TYPES}
