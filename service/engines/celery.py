"""The engine of many machines: Celery with RabbitMQ, which knows within moments that a worker is gone.

A message is a job's id and nothing else. It is acknowledged when the work has ended; a worker that dies leaves it to
another one, who waits until the claim of the dead one has run out, and begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, Reject
from kombu import Exchange, Queue
from sqlalchemy.exc import SQLAlchemyError

from service.database.connecting import UnusableDatabaseError, first_line
from service.engines.engine import EngineAwayError
from service.jobs.work import Workplace, open_workplace, run_job
from service.observing.tracing import Tracing, open_tracing
from service.sandbox import choose
from service.scratch import Scratch, open_scratch
from service.settings import Settings, UnusableSettingsError
from service.storage import UnusableStorageError

__all__ = ["CeleryEngine", "make_celery", "run_delivered", "run_worker"]

_LOG = logging.getLogger("service.engines.celery")
_ID = re.compile("[0-9a-f]{32}")
_NAME = "bnfold.jobs"
_POOL = "pool"
_TASK = "bnfold.run"
_GRACE = 0.1  # seconds that a claim may have run out for before it is looked at again
_CONFIRM = 5.0  # seconds that the broker may take to say that it has a message
_PATIENCE = 3.0  # seconds that somebody who waits for an answer waits for the broker
_SENDERS = 4  # messages that may be on their way at a time
_STUCK = 32  # messages that may wait for that
_LOOK = 0.5  # seconds between two looks at whether the worker has to end
_PAUSE = 1.0  # seconds before a message is given back that nothing could be done about
_REFUSALS = {403, 530}  # AMQP's access-refused and not-allowed
_LAST = 10.0  # seconds that a worker may take to end after everything that it did has ended


def make_celery(settings: Settings) -> Celery:
    """Return Celery's own object, set up so that no accepted message is lost and none runs unseen."""
    celery = Celery("bnfold", broker=settings.broker, set_as_current=False)
    celery.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue=_NAME,
        task_default_delivery_mode="persistent",
        task_queues=[Queue(_NAME, Exchange(_NAME, type="direct", durable=True), routing_key=_NAME, durable=True)],
        task_default_exchange=_NAME,
        task_default_routing_key=_NAME,
        broker_transport_options={"confirm_publish": True},
        broker_heartbeat=10,
        broker_connection_timeout=4,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # RabbitMQ closes the channel of who takes longer than its consumer_timeout
        worker_prefetch_multiplier=1,
        # A message that comes twice because the connection broke is found out by the claim of who works on the job.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
    )
    return celery


@dataclass(frozen=True, slots=True)
class CeleryEngine:
    """Sends a message for each job; workers are processes of their own (``python -m service worker``)."""

    celery: Celery
    _senders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_SENDERS, "broker"))
    _slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_STUCK))

    async def start(self) -> None:
        """Nothing runs here."""

    async def submit(self, job: str) -> None:
        """Send a message.

        Raises:
            EngineAwayError: If the broker did not take it, or says nothing.
        """
        if not self._slots.acquire(blocking=False):
            raise EngineAwayError("the broker does not answer, and messages for it wait already")
        sending = asyncio.get_running_loop().run_in_executor(self._senders, self._send, job)
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.shield(sending)
        except TimeoutError as error:
            sending.add_done_callback(lambda sent: sent.exception())  # whatever comes of it: it is sent again
            raise EngineAwayError("the broker does not answer") from error
        except Exception as error:  # whatever its client raises: it is sent again
            raise EngineAwayError(f"the broker cannot be reached: {error}") from error

    def _send(self, job: str) -> None:
        policy = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
        try:
            self.celery.send_task(_TASK, args=[job], retry=True, retry_policy=policy, confirm_timeout=_CONFIRM)
        finally:
            self._slots.release()

    async def drain(self) -> None:
        """Nothing runs here."""

    async def close(self) -> None:
        """Close the connections to the broker."""
        self._senders.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.celery.close)


async def run_delivered(place: Workplace, job: str, *, again: bool) -> None:
    """Work on a job whose message arrived: now, or when the claim of somebody who died has run out.

    Args:
        place: What a worker needs.
        job: The id.
        again: Whether the message was delivered before, to somebody who may have died.
    """
    while not await run_job(place, job):
        left = await asyncio.to_thread(place.table.lease, job)
        if left is None or (left > 0 and not again):
            return  # it has ended or waits for a message of its own; or it was told of twice
        await asyncio.sleep(max(left, 0.0) + _GRACE)
        left = await asyncio.to_thread(place.table.lease, job)
        if left is None or left > 0:
            return  # whoever works on it is alive: the message was delivered twice


def run_worker(settings: Settings) -> int:
    """Work on jobs until SIGTERM, and return the exit code.

    Raises:
        UnusableSettingsError: If what is set cannot be used.
        UnusableDatabaseError: If the database cannot be used.
        UnusableStorageError: If the storage cannot be used.
        StoreInUseError: If another service or worker uses the folder.
        OSError: If a folder cannot be made.
    """
    celery = make_celery(settings)
    scratch = open_scratch(settings.store)  # its lock is kept for as long as a process of this worker lives
    if choose(settings.sandbox).level is None:  # tried once, before the processes are forked
        raise UnusableSettingsError(
            "no level of the sandbox can be kept on this machine, so no job can be worked on\n"
            "  hint: Look at docs/sandbox.md, or set BNFOLD_SANDBOX=off if every file that is sent is trusted."
        )
    shutil.rmtree(scratch.root / _POOL, ignore_errors=True)
    _meet(celery)
    # What is wrong is told now, and not by each job; connections are not shared with processes that are forked.
    open_workplace(settings, scratch).table.engine.dispose()

    def run(task: Any, job: object) -> None:
        if not isinstance(job, str) or _ID.fullmatch(job) is None:
            _LOG.warning("a message names no job: %.80r", job)
            return
        asyncio.run(_run(settings, scratch, job, again=bool(task.request.delivery_info.get("redelivered"))))

    celery.task(run, name=_TASK, bind=True)
    for name in ("celery.worker.strategy", "celery.app.trace"):  # they would tell each job once more
        logging.getLogger(name).setLevel(logging.ERROR)
    celery.conf.worker_consumer = _careful_consumer()
    worker = celery.Worker(
        pool="prefork",
        concurrency=settings.jobs,
        hostname=f"bnfold-{os.getpid()}@{socket.gethostname()}",
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )

    def ready(**_: Any) -> None:
        warnings.simplefilter("ignore", CPendingDeprecationWarning)  # of a setting that is set above, on purpose
        worker.timer.call_repeatedly(_LOOK, lambda: None)  # between two looks at its timers, Celery sees no signal
        print(f"bnfold works on up to {settings.jobs} jobs at a time", flush=True)  # noqa: T201  (whoever started it waits for it)

    def ends(**_: Any) -> None:
        _LOG.info("the worker ends as soon as the jobs that run have ended")
        threading.Thread(target=_hurry, args=(worker, settings.stop_seconds), daemon=True).start()

    def forked(**_: Any) -> None:
        _own(scratch)

    def leaves(**_: Any) -> None:
        _last_words()

    signals.worker_process_init.connect(forked, weak=False)
    signals.worker_process_shutdown.connect(leaves, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(ends, weak=False)
    worker.start()
    return int(worker.exitcode or 0)


def _meet(celery: Celery) -> None:
    """Look whether the broker lets this worker in; one that is away is waited for.

    Raises:
        UnusableSettingsError: If it does not.
    """
    with celery.connection_for_read() as connection:
        try:
            connection.connect()
        except Exception as error:
            if getattr(error, "code", None) in _REFUSALS:
                raise UnusableSettingsError(
                    f"RabbitMQ refuses what BNFOLD_BROKER says: {error}\n"
                    "  hint: Look at the user, the password and the virtual host in it."
                ) from error
            _LOG.warning("the broker cannot be reached yet: %s", error)


def _careful_consumer() -> type:
    """Return a consumer that a message cannot stop: Celery's own ends its worker at some that it cannot read."""
    from celery.worker.consumer import Consumer

    class Careful(Consumer):  # type: ignore[misc]
        def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
            take = super().create_task_handler(*arguments, **options)

            def careful(message: Any) -> None:
                try:
                    take(message)
                except (ValueError, TypeError, LookupError, AttributeError) as error:
                    _LOG.warning("a message is none of ours and is thrown away: %s", error)
                    if not message.acknowledged:
                        message.reject()

            return careful

    return Careful


async def _run(settings: Settings, scratch: Scratch, job: str, *, again: bool) -> None:
    """Work on a job; SIGTERM gives it back, for another worker to begin.

    Raises:
        Reject: If the message has to be delivered once more.
    """
    working = asyncio.ensure_future(_try(settings, scratch, job, again=again))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        _LOG.info("job %s is given back", job)
        raise Reject("the worker ends", requeue=True) from None
    except (SQLAlchemyError, UnusableDatabaseError, UnusableStorageError) as error:
        said = first_line(error) if isinstance(error, SQLAlchemyError) else str(error).partition("\n")[0]
        _LOG.warning("job %s cannot be worked on: %s", job, said)
        await asyncio.sleep(_PAUSE)
        raise Reject("the database is away", requeue=True) from error


async def _try(settings: Settings, scratch: Scratch, job: str, *, again: bool) -> None:
    await run_delivered(_place(settings, scratch), job, again=again)


@cache
def _place(settings: Settings, scratch: Scratch) -> Workplace:
    """Return the workplace of this process: connections are not shared with the process that it was forked from."""
    return open_workplace(settings, _own(scratch), _tracing())


@cache
def _tracing() -> Tracing:
    """Return what traces in this process: what sends spans is a thread, and does not live on in a fork."""
    return open_tracing(os.environ)


def _last_words() -> None:
    if _tracing.cache_info().currsize:
        _tracing().close()


@cache
def _own(scratch: Scratch) -> Scratch:
    """Make the folder of this process of the pool, and sweep away those of processes that were killed."""
    folders = scratch.root / _POOL
    folders.mkdir(exist_ok=True)
    for left in folders.iterdir():
        if left.name == str(os.getpid()) or not _lives(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    root = folders / str(os.getpid())
    (root / "aside").mkdir(parents=True)
    return Scratch(root, scratch.lock)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _hurry(worker: Any, seconds: float) -> None:
    """Let what still runs after so many seconds be given back, and end this process if it does not end by itself."""
    time.sleep(seconds)
    until = time.monotonic() + _LAST
    while time.monotonic() < until:
        for process in _processes(worker):
            try:
                os.kill(process, signal.SIGTERM)
            except ProcessLookupError:
                continue
        time.sleep(_PAUSE)
    # A broker that says nothing keeps Celery waiting; what it was not told, it finds out when the connection breaks.
    _LOG.warning("the worker did not end by itself within %g s, and is ended", seconds + _LAST)
    os._exit(1)


def _processes(worker: Any) -> list[int]:
    pool = getattr(getattr(worker, "pool", None), "_pool", None)
    return [process.pid for process in getattr(pool, "_pool", ()) if process.pid]
