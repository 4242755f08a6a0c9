"""Start the service: ``python -m service``, or a worker of a cluster: ``python -m service worker``.

``python -m service key`` makes a key for somebody who may use it. Everything that can be set stands in
``docs/settings.md``.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType

import uvicorn

from service.access.issuing import issue
from service.access.keys import UnusableKeysError
from service.app import make_app
from service.database.connecting import UnusableDatabaseError
from service.engines.opening import check_engine
from service.memory import take_little
from service.observing.logs import set_up_logs
from service.scratch import StoreInUseError, open_scratch
from service.serving.rpc import check_port
from service.settings import Settings, UnusableSettingsError, read_settings, unknown_names
from service.state import State, make_state
from service.storage import UnusableStorageError

__all__ = ["main"]

_BACKLOG = 2048
_LAST_ANSWERS = 10  # seconds that requests have to end in, once the jobs have
_LOG = logging.getLogger("service")
_USAGE = "python -m service [worker | key --tenant T]"


def main(arguments: Sequence[str]) -> int:
    """Serve, or work, until SIGTERM or Ctrl-C, and return the exit code."""
    if arguments[:1] == ["key"]:
        return issue(arguments[1:])
    if list(arguments) not in ([], ["worker"]):
        return _refuse(
            "usage", f"{_USAGE}\n  hint: Settings come from the environment; docs/settings.md lists them.", 2
        )
    try:
        settings = read_settings()
        take_little()
        set_up_logs(settings)
        for said in unknown_names(os.environ):
            _LOG.warning("%s", said)
        _compile()
        return _work(settings) if arguments else _serve(settings)
    except (UnusableSettingsError, UnusableKeysError, UnusableDatabaseError, UnusableStorageError) as error:
        return _refuse("settings", str(error), 2)
    except StoreInUseError as error:
        return _refuse("store", str(error), 2)
    except OSError as error:
        return _refuse(
            "start", f"{error}\n  hint: Set BNFOLD_PORT, BNFOLD_GRPC_PORT or BNFOLD_STORE to what is free.", 2
        )


def _work(settings: Settings) -> int:
    if settings.engine != "celery":
        raise UnusableSettingsError(
            f"a worker has nobody to work for: BNFOLD_ENGINE is {settings.engine}\n"
            "  hint: Set BNFOLD_ENGINE=celery, or start the service alone: it works on jobs itself."
        )
    check_engine(settings)
    from service.engines.celery import run_worker

    return run_worker(settings)


def _serve(settings: Settings) -> int:
    scratch = open_scratch(settings.store)
    listener = _listen(settings)
    check_port(settings)
    state = make_state(settings, scratch)
    config = uvicorn.Config(
        make_app(state),
        log_config=None,
        log_level=settings.log_level,
        access_log=False,  # requests are logged with what they are about, by Watch
        timeout_graceful_shutdown=min(settings.stop_seconds, _LAST_ANSWERS),
        server_header=False,
        proxy_headers=False,
        ws="none",
    )
    # uvicorn raises the signal that stopped it once more when all is done; that must not look like a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    print(f"bnfold serves on {_address(listener)}", flush=True)  # noqa: T201  (whoever started it with port 0 must learn it)
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, state).run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Ends in two steps: it begins nothing new while jobs that run may end, and only then stops to answer."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self._drained: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, read the keys again at SIGHUP, and start."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, self._state.access.reload)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, and end at once at the second."""
        if self._state.draining.begun or self._loop is None:
            self._state.draining.over = True
            super().handle_exit(sig, frame)
            return
        self._state.draining.begun = True
        self._loop.call_soon_threadsafe(self._drain, sig)

    def _drain(self, sig: int) -> None:
        async def drain() -> None:
            _LOG.info("the service ends as soon as the jobs that run have ended")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._state.settings.stop_seconds):
                    await self._state.engine.drain()
            self._state.draining.over = True
            super(_Server, self).handle_exit(sig, None)

        self._drained = asyncio.create_task(drain())


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
    sys.exit(main(sys.argv[1:]))
