"""Start the service: ``python -m service``. Everything that can be set stands in ``docs/settings.md``."""

from __future__ import annotations

import compileall
import contextlib
import logging
import os
import signal
import socket
import sys
from importlib.util import find_spec

import uvicorn

from service.app import make_app
from service.settings import Settings, UnusableSettingsError, read_settings, unknown_names
from service.store import StoreInUseError, open_store

__all__ = ["main"]

_BACKLOG = 2048
_LOG = logging.getLogger("service")


def main() -> int:
    """Serve until SIGTERM or Ctrl-C, and return the exit code."""
    try:
        settings = read_settings()
        store = open_store(settings.store)
        listener = _listen(settings)
    except UnusableSettingsError as error:
        return _refuse("settings", str(error), 2)
    except StoreInUseError as error:
        return _refuse("store", str(error), 2)
    except OSError as error:
        return _refuse(
            "start", f"{error}\n  hint: Set BNFOLD_PORT or BNFOLD_STORE to what is free and can be written.", 2
        )
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for said in unknown_names(os.environ):
        _LOG.warning("%s", said)
    config = uvicorn.Config(
        make_app(settings, store),
        log_config=None,
        log_level=settings.log_level,
        access_log=settings.log_level in {"info", "debug"},
        timeout_graceful_shutdown=settings.stop_seconds,
        server_header=False,
        proxy_headers=False,
        ws="none",
    )
    _compile()
    # uvicorn raises the signal that stopped it once more when all is done; that must not look like a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    print(f"bnfold serves on {_address(listener)}", flush=True)  # noqa: T201  (whoever started it with port 0 must learn it)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _compile() -> None:
    """Compile our own modules where that was not done yet: children do not keep it, so each would do it again."""
    for name in ("bnfold", "service"):
        spec = find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            compileall.compile_dir(folder, quiet=2)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol left open, asyncio would not switch Nagle's algorithm off, and answers would wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}"
        ) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refuse(what: str, text: str, code: int) -> int:
    print(f"error[{what}]: {text}", file=sys.stderr)  # noqa: T201  (the service has no log yet)
    return code


if __name__ == "__main__":
    sys.exit(main())
