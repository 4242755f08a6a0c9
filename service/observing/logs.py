"""The log: one line for each thing that happened, with the request, the job and the tenant that it is about.

A line never has what somebody sent, a key, or the values of a query.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings

__all__ = ["about", "begin_about", "set_up_logs"]

_ABOUT: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def begin_about(**what: Any) -> None:
    """Begin something that lines are about, for this task and those that it starts."""
    _ABOUT.set(what)


def about(**what: Any) -> None:
    """Add to what the lines of this request or job are about."""
    found = _ABOUT.get()
    if found is not None:
        found.update(what)


def set_up_logs(settings: Settings) -> None:
    """Write the log to standard error, in the form that is set, in place of whatever wrote it before."""
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(_Json() if settings.log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(settings.log_level.upper())
    # What others say of their own inner life is not ours to pass on, and it may have addresses with passwords in it.
    for name in ("httpx", "httpcore", "urllib3", "asyncio", "python_multipart", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    told = getattr(record, "fields", None)
    found = _ABOUT.get()
    return {**(found if found is not None else {}), **(told or {})}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line for people, and a traceback below it."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(sep=" ", timespec="milliseconds")
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        said = f"{when[:-6]} {record.levelname} {record.name}: {record.getMessage()}"
        line = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
            for c in (f"{said} {fields}" if fields else said)
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
