"""The engine of many machines: Celery with RabbitMQ, which knows within moments that a worker is gone.

A message is a job's id and nothing else. It is acknowledged when the work has ended; a worker that dies leaves it to
another one, who waits until the claim of the dead one has run out, and begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from functools import cache

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from service.engines.engine import EngineAwayError
from service.jobs.work import Workplace, open_workplace, run_job
from service.sandbox import choose
from service.scratch import Scratch, open_scratch
from service.settings import Settings

__all__ = ["CeleryEngine", "make_celery", "run_delivered", "run_worker"]

_LOG = logging.getLogger("service.engines.celery")
_NAME = "bnfold.jobs"
_TASK = "bnfold.run"
_GRACE = 0.1  # seconds that a claim may have run out for before it is looked at again


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
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_soft_shutdown_timeout=float(settings.stop_seconds),
    )
    return celery


@dataclass(frozen=True, slots=True)
class CeleryEngine:
    """Sends a message for each job; workers are processes of their own (``python -m service worker``)."""

    celery: Celery

    async def start(self) -> None:
        """Nothing runs here."""

    async def submit(self, job: str) -> None:
        """Send a message.

        Raises:
            EngineAwayError: If the broker did not take it.
        """
        try:
            await asyncio.to_thread(self._send, job)
        except (OperationalError, OSError) as error:
            raise EngineAwayError(f"the broker cannot be reached: {error}") from error

    def _send(self, job: str) -> None:
        policy = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
        self.celery.send_task(_TASK, args=[job], task_id=None, retry=True, retry_policy=policy)

    async def drain(self) -> None:
        """Nothing runs here."""

    async def close(self) -> None:
        """Close the connections to the broker."""
        await asyncio.to_thread(self.celery.close)


async def run_delivered(place: Workplace, job: str) -> None:
    """Work on a job whose message arrived: now, or when the claim of somebody who died has run out."""
    while not await run_job(place, job):
        left = await asyncio.to_thread(place.table.lease, job)
        if left is None:
            return  # it has ended, or is gone
        await asyncio.sleep(max(left, 0.0) + _GRACE)
        again = await asyncio.to_thread(place.table.lease, job)
        if again is not None and again > 0:
            return  # whoever works on it is alive: the message was delivered twice


def run_worker(settings: Settings) -> int:
    """Work on jobs until SIGTERM, and return the exit code."""
    # SIGTERM has to end a worker within the time it is given: what runs longer is begun anew by another one.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    celery = make_celery(settings)
    scratch = open_scratch(settings.store)  # its lock is kept for as long as a process of this worker lives

    def run(job: str) -> None:
        asyncio.run(run_delivered(_place(settings, scratch), job))

    celery.task(run, name=_TASK)
    choose(settings.sandbox)  # tried once, before the processes are forked
    worker = celery.Worker(
        pool="prefork",
        concurrency=settings.jobs,
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


@cache
def _place(settings: Settings, scratch: Scratch) -> Workplace:
    """Return the workplace of this process: connections are not shared with the process that it was forked from."""
    return open_workplace(settings, scratch)
