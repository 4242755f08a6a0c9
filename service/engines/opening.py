"""What has to be set, and installed, for an engine; and the engine itself."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from urllib.parse import urlsplit

from service.engines.engine import Engine
from service.jobs.work import Workplace
from service.settings import Settings, UnusableSettingsError

__all__ = ["check_engine", "open_engine"]

_LOG = logging.getLogger("service.engines")
_SHARED = {
    "database": "postgresql+psycopg://USER:PASSWORD@HOST/NAME",
    "storage": "s3://BUCKET/FOLDER, or to file:///FOLDER where all machines have it",
}


def check_engine(settings: Settings) -> None:
    """Look whether what is set can be used by the engine.

    Raises:
        UnusableSettingsError: If it cannot.
    """
    if settings.engine != "celery":
        return
    if find_spec("celery") is None:
        raise UnusableSettingsError(
            "BNFOLD_ENGINE is celery, and Celery is not installed\n  hint: pip install 'bnfold[service,cluster]'"
        )
    if not settings.broker:
        raise UnusableSettingsError(
            "BNFOLD_ENGINE is celery, and BNFOLD_BROKER does not say where RabbitMQ is\n"
            "  hint: Set BNFOLD_BROKER to amqp://USER:PASSWORD@HOST."
        )
    scheme = urlsplit(settings.broker).scheme
    if scheme not in {"amqp", "amqps"}:
        raise UnusableSettingsError(
            f"BNFOLD_BROKER begins with {scheme[:20]!r}, and only RabbitMQ loses nothing when a worker dies\n"
            "  hint: Set it to amqp://USER:PASSWORD@HOST or amqps://USER:PASSWORD@HOST."
        )
    for field, what in _SHARED.items():
        if not getattr(settings, field):
            raise UnusableSettingsError(
                f"BNFOLD_ENGINE is celery, and BNFOLD_{field.upper()} is not set, "
                "so each process would have one of its own\n"
                f"  hint: Set BNFOLD_{field.upper()} to {what}."
            )
    if settings.database.startswith("sqlite"):
        _LOG.warning("BNFOLD_DATABASE is a file of SQLite: services and workers have to run on one machine")


def open_engine(settings: Settings, place: Workplace) -> Engine:
    """Return the engine that is set."""
    if settings.engine == "celery":
        from service.engines.celery import CeleryEngine, make_celery

        return CeleryEngine(make_celery(settings))
    from service.engines.local import LocalEngine

    return LocalEngine(place, settings.jobs)
