"""The service as a child process, and the few requests that the demonstration makes."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Service", "ServiceFailedError"]

ROOT = Path(__file__).parents[1]
_START_SECONDS = 60
_STOP_SECONDS = 15
_ANSWER_SECONDS = 300


class ServiceFailedError(Exception):
    """The service did not start, did not answer, or refused; the text holds what it said."""


class Service:
    """``python -m service`` on a free port of this machine, from ``with`` to the end of its block."""

    def __init__(self, store: Path) -> None:
        """Prepare it; nothing runs yet.

        Args:
            store: Where it keeps folded models. Its parent folder must exist and also takes the log.
        """
        self._store = store
        self._log = store.with_name("service.log")
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ServiceFailedError: If it ends, or is not ready within a minute.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BNFOLD_")}
        environment |= {"BNFOLD_PORT": "0", "BNFOLD_STORE": str(self._store)}
        with self._log.open("wb") as log:
            # In a session of its own: Ctrl-C reaches this program alone, which then stops the service in good order.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, whatever happened."""
        self._stop()

    def fold(self, path: Path) -> dict[str, Any]:
        """Post a model file to ``/fold`` and return what the service says of the folded model.

        Raises:
            ServiceFailedError: If it refuses.
        """
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="model"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self._post("/fold", body, f"multipart/form-data; boundary={boundary}")

    def infer(self, path: str, name: str, array: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Ask a served model by the Open Inference Protocol and return its first output.

        Raises:
            ServiceFailedError: If it refuses.
        """
        tensor = {
            "name": name,
            "shape": list(array.shape),
            "datatype": {"float32": "FP32", "float64": "FP64"}[array.dtype.name],
            "data": array.ravel().tolist(),
        }
        answer = self._post(path, json.dumps({"inputs": [tensor]}).encode(), "application/json")["outputs"][0]
        return np.asarray(answer["data"], array.dtype).reshape(answer["shape"])

    def _post(self, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310  the address is our own
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as reply:  # noqa: S310  as above
                found: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise ServiceFailedError(f"POST {path} was answered with {error.code}: {said}") from error
        except OSError as error:
            raise ServiceFailedError(f"POST {path} was not answered: {error}\n{self._said()}") from error
        return found

    def _wait(self) -> None:
        assert self._child is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise ServiceFailedError(f"It ended with {self._child.returncode}:\n{self._said()}")
            # It takes a free port, and the line that says which is the first that it prints.
            found = re.search(r"^bnfold serves on (http://\S+)\n", self._said(), re.MULTILINE)
            if found is not None:
                self.url = found[1]
                if self._ready():
                    return
            time.sleep(0.1)
        raise ServiceFailedError(f"It was not ready within {_START_SECONDS} seconds:\n{self._said()}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):  # noqa: S310  as above
                return True
        except OSError:
            return False

    def _said(self) -> str:
        return self._log.read_text("utf-8", "replace")[-2000:]

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None
