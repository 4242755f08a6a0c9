"""The models that are loaded, each in a runner: a process of its own that is started when it is first needed.

A runner that dies is started again for the next request, and one that takes too long is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.problems import (
    CrashedError,
    NotRunnableError,
    QueueFullError,
    TensorError,
    TimeLimitError,
    storage_error,
)
from service.processes import end_group
from service.sandbox import Limits, child_command, child_environment
from service.serving.frames import FrameError, pack, read_async
from service.serving.tensors import Tensor
from service.settings import Settings
from service.store import Store

__all__ = ["Runners"]

_LOG = logging.getLogger("service.runners")
_BROKEN = (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError, FrameError)


@dataclass(slots=True)
class _Model:
    """A model that somebody asked for: its runner, where it has one, and who waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    used: float = 0.0
    runner: asyncio.subprocess.Process | None = None
    folder: Path | None = None
    starting: bool = False


@dataclass(slots=True)
class Runners:
    """All loaded models of a service."""

    settings: Settings
    store: Store
    _models: dict[str, _Model] = field(default_factory=dict, init=False)

    async def infer(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Run a model and return the outputs that are asked for, in that order.

        Args:
            name: Of a kept model.
            inputs: Checked against what the model takes.
            outputs: Names of the model's outputs.

        Raises:
            ServiceError: If there is no answer.
        """
        model = self._models.setdefault(name, _Model())
        if model.waiting > self.settings.infer_queue:
            raise QueueFullError(
                f"{model.waiting} requests wait for this model, and no more are taken",
                hint="Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        model.waiting += 1
        try:
            async with asyncio.timeout(self.settings.infer_seconds), model.lock:
                return await self._infer(name, model, inputs, outputs)
        except TimeoutError:
            raise TimeLimitError(
                f"the inference took longer than {self.settings.infer_seconds:g} s",
                hint="Send fewer rows at a time, or set BNFOLD_INFER_SECONDS higher.",
            ) from None
        finally:
            model.waiting -= 1
            model.used = time.monotonic()
            if model.runner is None and not model.waiting:
                self._models.pop(name, None)

    async def close(self) -> None:
        """Stop every runner."""
        await asyncio.gather(*(self._stop(model) for model in self._models.values()))

    async def _infer(self, name: str, model: _Model, inputs: Sequence[Tensor], outputs: Sequence[str]) -> list[Tensor]:
        question = pack({"outputs": list(outputs)}, inputs)
        # A runner may have died since it was last asked, so the question is put twice before it is blamed.
        for _ in range(2):
            runner = model.runner if model.runner is not None and model.runner.returncode is None else None
            if runner is None:
                await self._stop(model)
                runner = await self._start(name, model)
            try:
                header, answer = await _ask(runner, question, int(self.settings.runner_memory))
            except _BROKEN as error:
                _LOG.warning("the runner of %s died: %r", name, error)
                await self._stop(model)
                continue
            except BaseException:
                # Out of time, or nobody waits any more: its answer would be taken for that to the next question.
                await self._stop(model)
                raise
            if "error" in header:
                raise TensorError(
                    f"onnxruntime cannot run the model on this: {header['error']}", hint="Send other shapes or values."
                )
            return answer
        raise CrashedError(
            "the runner of the model died twice on this request", hint="Report this, with the model and the request."
        )

    async def _start(self, name: str, model: _Model) -> asyncio.subprocess.Process:
        await self._make_room()
        settings = self.settings
        model.starting = True
        try:
            model.folder = self.store.aside()
            arguments = [str(self.store.model(name)), str(settings.runner_threads or os.cpu_count() or 1)]
            limits = Limits(memory=int(settings.runner_memory), file_size=int(settings.job_file_size), cpu_seconds=0)
            model.runner = await asyncio.create_subprocess_exec(
                *child_command("service.serving.runner", limits, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=model.folder,
                env=child_environment(model.folder),
                start_new_session=True,
                limit=2**20,
            )
            assert model.runner.stdout is not None
            header, _ = await read_async(model.runner.stdout, 0)
        except _BROKEN as error:
            await self._stop(model)
            raise CrashedError(
                "the runner of the model died while it started", hint="Try again; if it stays, report it."
            ) from error
        except OSError as error:
            await self._stop(model)
            raise storage_error(error) from error
        except BaseException:
            await self._stop(model)
            raise
        finally:
            model.starting = False
        if "unrunnable" in header:
            await self._stop(model)
            raise NotRunnableError(str(header["unrunnable"]), hint="Download the model and run it elsewhere.")
        return model.runner

    async def _make_room(self) -> None:
        """Stop the runner that was not used for the longest time, where there are as many as there may be.

        Raises:
            QueueFullError: If all of them are at work.
        """
        loaded = [model for model in self._models.values() if model.runner is not None or model.starting]
        if len(loaded) < self.settings.runners:
            return
        idle = [model for model in loaded if not model.waiting and not model.starting]
        if not idle:
            raise QueueFullError(
                f"{len(loaded)} models are loaded and at work, and no more are loaded",
                hint="Try again in a moment, or set BNFOLD_RUNNERS higher.",
                headers={"Retry-After": "1"},
            )
        await self._stop(min(idle, key=lambda model: model.used))

    async def _stop(self, model: _Model) -> None:
        runner, folder = model.runner, model.folder
        model.runner = model.folder = None
        if runner is not None and runner.returncode is None:
            # Once it has been waited for, its number may be that of somebody else's group.
            end_group(runner.pid)
            await asyncio.shield(runner.wait())
        if folder is not None:
            self.store.discard(folder)


async def _ask(
    runner: asyncio.subprocess.Process, question: list[bytes], most: int
) -> tuple[dict[str, object], list[Tensor]]:
    assert runner.stdin is not None
    assert runner.stdout is not None
    for piece in question:
        runner.stdin.write(piece)
    await runner.stdin.drain()
    return await read_async(runner.stdout, most)
