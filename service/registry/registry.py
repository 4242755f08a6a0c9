"""Versions of models: a name and a number for each content, with its files in the storage.

A version is kept in one transaction with the end of its job, after its files are there. Names and numbers belong to a
tenant; a number is never given twice, also where its version was deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.database.connecting import reading, writing
from service.database.schema import models, now
from service.jobs.job import Job
from service.jobs.table import JobTable
from service.jobs.tally import steps_of
from service.registry.cards import Card, TensorCard, summary_of
from service.storage import Storage, artifact

__all__ = ["LATEST", "Registry", "is_name", "name_for"]

LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHUNK = 2**20
_LARGEST_REPORT = 64 * 2**20
_KEY_SHOWN = 12


def is_name(name: str) -> bool:
    """Say whether a text can be the name of a model; nothing else ever becomes part of an address."""
    return _NAME.fullmatch(name) is not None


def name_for(upload: str, key: str) -> str:
    """Return the name of a model that nobody named: after its file, and different for each content.

    Args:
        upload: The name of the uploaded file.
        key: The hash of the content, the options and the versions.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", upload.partition(".")[0]).strip("-_")[:60]
    return f"{stem or 'model'}-{key[:_KEY_SHOWN]}"


@dataclass(slots=True)
class Changes:
    """Counts what was kept and deleted here, so that whoever remembers a model knows when to look again."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Registry:
    """All kept models.

    Attributes:
        engine: The database.
        storage: Has their files.
        changes: Counted here, and only here.
    """

    engine: Engine
    storage: Storage
    changes: Changes = field(default_factory=Changes)

    def card(self, tenant: str, name: str, version: str) -> Card | None:
        """Return a version of a model; None where there is none.

        Args:
            tenant: Whose.
            name: Of the model.
            version: A number, or ``latest``.
        """
        query = select(models.c.card).where(_there(tenant, name)).order_by(models.c.version.desc()).limit(1)
        if version != LATEST:
            if not (version.isascii() and version.isdigit() and len(version) <= 9):
                return None
            query = query.where(models.c.version == int(version))
        with reading(self.engine) as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else Card.model_validate_json(found)

    def made_by(self, tenant: str, key: str) -> Card | None:
        """Return what came of the same work before; None where nothing did, or where it was deleted.

        Args:
            tenant: Whose.
            key: The hash of the content, the options and the versions.
        """
        with reading(self.engine) as connection:
            found = connection.scalars(_made_by(tenant, key)).one_or_none()
        return None if found is None else Card.model_validate_json(found)

    def versions(self, tenant: str, name: str) -> list[int]:
        """Return the versions of a model, ascending."""
        query = select(models.c.version).where(_there(tenant, name)).order_by(models.c.version)
        with reading(self.engine) as connection:
            return list(connection.execute(query).scalars())

    def latest(self, tenant: str, most: int, after: str) -> Sequence[Card]:
        """Return the latest version of each model, by name.

        Args:
            tenant: Whose.
            most: How many.
            after: The last name of the page before.
        """
        newest = (
            select(models.c.name, func.max(models.c.version).label("version"))
            .where(models.c.tenant == tenant, models.c.deleted.is_(None), models.c.name > after)
            .group_by(models.c.name)
            .order_by(models.c.name)
            .limit(most)
            .subquery()
        )
        query = (
            select(models.c.card)
            .join(newest, (models.c.name == newest.c.name) & (models.c.version == newest.c.version))
            .where(models.c.tenant == tenant)
            .order_by(models.c.name)
        )
        with reading(self.engine) as connection:
            return [Card.model_validate_json(card) for card in connection.execute(query).scalars()]

    async def keep(self, table: JobTable, job: Job, folder: Path, outcome: dict[str, Any], sandbox: str) -> Card | None:
        """Keep what a conversion wrote, and end its job, in one step that happens or does not.

        The files are copied, not moved: what a conversion had open it cannot change any more.

        Args:
            table: Of the jobs.
            job: That was claimed for it.
            folder: Of the job; ``out`` has ``model.onnx``, ``report.json`` and ``report.html``.
            outcome: What the child said about the model.
            sandbox: How the child was confined.

        Returns:
            The new version; None where the claim was lost, and somebody else is going to make one.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If the results are not what a conversion writes.
        """
        results, copies = folder / "out", folder / "copies"
        digest, size = await asyncio.to_thread(_copied, results, copies, "model.onnx", None)
        report, _ = await asyncio.to_thread(_copied, results, copies, "report.json", _LARGEST_REPORT)
        page, _ = await asyncio.to_thread(_copied, results, copies, "report.html", _LARGEST_REPORT)
        files = {"model.onnx": digest, "report.json": report, "report.html": page}
        try:
            text = json.loads((copies / "report.json").read_bytes())
            card = Card(
                name=job.name,
                version=0,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                upload=job.upload["name"],
                sha256=digest,
                bytes=size,
                report=report,
                page=page,
                job=job.id,
                sandbox=sandbox,
                unrunnable=outcome["unrunnable"],
                inputs=tuple(TensorCard.model_validate(item) for item in outcome["inputs"]),
                outputs=tuple(TensorCard.model_validate(item) for item in outcome["outputs"]),
                summary=summary_of(text),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a report that lacks {error}") from error
        for name, sha256 in files.items():
            await self.storage.take(copies / name, artifact(sha256))
        there = {sha256: copies / name for name, sha256 in files.items()}
        kept = await asyncio.to_thread(self._insert, table, job, card, steps_of(text), there)
        self.changes.number += 1
        return kept

    def _insert(
        self, table: JobTable, job: Job, card: Card, steps: Mapping[str, float], files: Mapping[str, Path]
    ) -> Card | None:
        while True:
            try:
                with writing(self.engine) as connection:
                    _alone_with(connection, *files)
                    # The same work may have ended between the moment that it was looked for and that this job was made.
                    kept = self._same(connection, job) or self._next(connection, job, card)
                    about = {"format": card.summary["source"]["format"], "sandbox": card.sandbox}
                    if not table.succeed(connection, job, kept.version, steps=steps, **about):
                        connection.rollback()
                        return None
                    # Somebody may have removed a file before, because nothing named it yet.
                    for sha256, path in files.items():
                        self.storage.take_now(path, artifact(sha256), unless_there=True)
                    return kept
            except IntegrityError:
                continue  # somebody else took the number

    def _same(self, connection: Connection, job: Job) -> Card | None:
        found = connection.scalars(_made_by(job.tenant, job.key).where(models.c.name == job.name)).one_or_none()
        return None if found is None else Card.model_validate_json(found)

    def _next(self, connection: Connection, job: Job, card: Card) -> Card:
        last = select(func.max(models.c.version)).where(models.c.tenant == job.tenant, models.c.name == job.name)
        version = (connection.execute(last).scalar_one() or 0) + 1
        kept = card.model_copy(update={"version": version})
        connection.execute(
            insert(models).values(
                tenant=job.tenant,
                name=job.name,
                version=version,
                key=job.key,
                job=job.id,
                sha256=card.sha256,
                report=card.report,
                page=card.page,
                card=kept.model_dump_json(),
                created=now(),
            )
        )
        return kept

    async def delete(self, tenant: str, card: Card) -> None:
        """Forget a version of a model, and remove those of its files that no other version has.

        Raises:
            OSError: If a file cannot be removed.
        """
        await asyncio.to_thread(self._delete, tenant, card)
        self.changes.number += 1
        for sha256 in {card.sha256, card.report, card.page}:
            await self.drop(sha256)

    def _delete(self, tenant: str, card: Card) -> None:
        with writing(self.engine) as connection:
            connection.execute(
                update(models).where(_there(tenant, card.name), models.c.version == card.version).values(deleted=now())
            )

    async def drop(self, sha256: str) -> bool:
        """Remove a file unless some version of a model has it, and say whether it was removed.

        Raises:
            OSError: If it cannot be removed.
        """
        return await asyncio.to_thread(self._drop, sha256)

    def _drop(self, sha256: str) -> bool:
        named = (models.c.sha256 == sha256) | (models.c.report == sha256) | (models.c.page == sha256)
        with writing(self.engine) as connection:
            _alone_with(connection, sha256)
            found = connection.execute(select(models.c.name).where(named, models.c.deleted.is_(None)).limit(1))
            if found.first() is not None:
                return False
            self.storage.drop_now(artifact(sha256))
            return True


def _alone_with(connection: Connection, *sha256: str) -> None:
    """Keep others from naming or removing files of these contents until the transaction ends."""
    if connection.dialect.name != "postgresql":
        return  # who writes to SQLite is alone anyway
    for lock in sorted(int(one[:15], 16) for one in set(sha256)):
        connection.execute(select(func.pg_advisory_xact_lock(lock)))


def _made_by(tenant: str, key: str) -> Select[str]:
    return (
        select(models.c.card)
        .where(models.c.tenant == tenant, models.c.key == key, models.c.deleted.is_(None))
        .order_by(models.c.created.desc(), models.c.version.desc())
        .limit(1)
    )


def _there(tenant: str, name: str) -> Any:
    return (models.c.tenant == tenant) & (models.c.name == name) & models.c.deleted.is_(None)


def _copied(results: Path, copies: Path, name: str, most: int | None) -> tuple[str, int]:
    """Copy a regular file, links not followed, and return the sha256 and the size of what was written."""
    copies.mkdir(exist_ok=True)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(results / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    (copies / name).unlink(
        missing_ok=True
    )  # what is kept may be the same file under another name: it is not written to
    with os.fdopen(descriptor, "rb") as reader, (copies / name).open("xb") as writer:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{name} is no file")
        while chunk := reader.read(_CHUNK):
            size += len(chunk)
            if most is not None and size > most:
                raise ValueError(f"{name} is larger than {most} bytes")
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest(), size
