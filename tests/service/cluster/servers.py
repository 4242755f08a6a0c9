"""PostgreSQL and RabbitMQ of one's own: started in a temporary folder, without a daemon of the system, and stopped.

``python -m tests.service.cluster.servers`` starts both, says how to reach them, and stops them at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["Broker", "MissingProgramError", "PostgreSQL", "broker", "postgresql"]

_DEBIAN_POSTGRESQL = Path("/usr/lib/postgresql")
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # without the wrapper, which becomes another user
# Whoever starts a server may be killed; the server goes with it.
_TIED = ("setpriv", "--pdeathsig", "KILL")
_SECONDS = 300.0  # what is not there by then is not coming


class MissingProgramError(Exception):
    """A program is not installed; the text says which."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class PostgreSQL:
    """A server of PostgreSQL, and as whom it runs: it refuses to run as root."""

    folder: Path
    binaries: Path
    port: int
    user: Sequence[str]
    _process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "postgres") -> str:
        """Return how the service reaches a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        # What is lost when the machine loses power is not tested here; what is lost when the server dies, is.
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.user, str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        until = time.monotonic() + _SECONDS
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it, and break off whoever is connected; with SIGQUIT it has to recover when it starts again."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_SECONDS)
            self._process = None


@dataclass(slots=True)
class Broker:
    """A server of RabbitMQ, and the daemon by whose help Erlang's nodes find each other."""

    folder: Path
    port: int
    environment: Mapping[str, str]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """How the service reaches it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it with what it kept, and return when it answers."""
        with (self.folder / "out").open("ab") as out:
            self._begin([*_TIED, "epmd", "-address", "127.0.0.1", "-port", self.environment["ERL_EPMD_PORT"]], out)
            server = self._begin([*_TIED, str(_RABBITMQ)], out)
        until = time.monotonic() + _SECONDS
        while not _listens(self.port):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"RabbitMQ did not start:\n{(self.folder / 'out').read_text()[-2000:]}")
            time.sleep(0.05)

    def _begin(self, command: list[str], out: IO[bytes]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.folder,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes: SIGSTOP makes of it one that is there and says nothing."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def stop(self) -> None:
        """Kill it: what was confirmed must be there again when it starts."""
        self.signal(signal.SIGKILL)
        for process in self._processes:
            process.wait(_SECONDS)
        self._processes.clear()


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Make a cluster of databases, start its server, and remove all of it at the end.

    Raises:
        MissingProgramError: If PostgreSQL is not installed.
    """
    # Debian keeps them off the path, so that several versions can be installed.
    found = shutil.which("initdb")
    installed = sorted(_DEBIAN_POSTGRESQL.glob("*/bin")) or ([Path(found).resolve().parent] if found else [])
    if not installed or shutil.which(_TIED[0]) is None:
        raise MissingProgramError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    other = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
    user = [*_TIED, *other]
    folder = Path(tempfile.mkdtemp(prefix="bnfold-postgresql-"))
    try:
        if other:
            shutil.chown(folder, "postgres", "postgres")
        words = ["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [*user, str(installed[-1] / "initdb"), "-D", str(folder / "data"), *words],
            check=False,
            capture_output=True,
            cwd=folder,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stderr.decode()}")
        server = PostgreSQL(folder, installed[-1], free_port(), user)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def broker(settings: Mapping[str, str] | None = None) -> Iterator[Broker]:
    """Start RabbitMQ with nothing in it, and remove all of it at the end.

    Args:
        settings: Lines of its configuration, by name.

    Raises:
        MissingProgramError: If RabbitMQ is not installed.
    """
    if not _RABBITMQ.exists() or shutil.which("epmd") is None or shutil.which(_TIED[0]) is None:
        raise MissingProgramError("RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)")
    folder = Path(tempfile.mkdtemp(prefix="bnfold-rabbitmq-"))
    port = free_port()
    (folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in (settings or {}).items()))
    (folder / "plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RUNNING_UNDER_SYSTEMD": "1",  # then there is no shell between us and it
        "RABBITMQ_NODENAME": f"bnfold{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        # Idle schedulers sleep instead of looking for work: others want the processor.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    server = Broker(folder, port, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Start both and wait."""
    with postgresql() as database, broker() as messages:
        print(f"BNFOLD_DATABASE={database.url()}\nBNFOLD_BROKER={messages.url}", flush=True)  # noqa: T201  (it is a program)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
