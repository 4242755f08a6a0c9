"""Uploads and models lie in S3: nothing is taken for whole that is not, and a storage that fails says why."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer

from service.database.connecting import open_database
from service.jobs.table import JobTable
from service.registry.registry import Registry
from service.retention import sweep, throw_away
from service.storage import Storage, UnusableStorageError, artifact, digest_of, open_storage
from tests.service.cluster.servers import free_port
from tests.service.registry.test_keeping import REPORT, Place
from tests.service.server import conv_model, post, serving, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server of S3 that knows one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    assert httpx.put(f"{url}/models", headers=SIGNED, timeout=60, trust_env=False).status_code == 200
    yield url
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The address of a folder of its own in the bucket."""
    for name, value in (KEYS | {"AWS_ENDPOINT": s3, "AWS_ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(name, value)
    return f"s3://models/{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"


@pytest.fixture
def storage(bucket: str, tmp_path: Path) -> Storage:
    return open_storage(bucket, tmp_path, 1000)


def keys(storage: Storage) -> set[str]:
    async def listed() -> set[str]:
        return {key async for key, _ in storage.listed("")}

    return asyncio.run(listed())


def kept(storage: Storage, content: bytes) -> str:
    path = storage.copies.parent / "new"
    path.write_bytes(content)
    digest = digest_of(path)
    asyncio.run(storage.take(path, artifact(digest)))
    path.unlink()
    return digest


def test_what_is_kept_is_there_and_gone_when_it_is_removed(storage: Storage) -> None:
    digest = kept(storage, b"model")
    assert kept(storage, b"model") == digest
    assert keys(storage) == {artifact(digest)}
    assert asyncio.run(storage.local(digest)).read_bytes() == b"model"
    asyncio.run(storage.check())
    for _ in range(2):
        asyncio.run(storage.drop(artifact(digest)))
    assert keys(storage) == set()


def test_a_large_file_goes_there_and_back_in_parts(bucket: str, tmp_path: Path) -> None:
    storage = open_storage(bucket, tmp_path, 10**9)
    content = os.urandom(20 * 2**20)
    digest = kept(storage, content)
    assert asyncio.run(storage.local(digest)).read_bytes() == content


def test_a_copy_is_fetched_once_and_the_oldest_make_room(storage: Storage) -> None:
    digests = [kept(storage, bytes([number]) * 400) for number in range(4)]
    for number, digest in enumerate(digests):
        path = asyncio.run(storage.local(digest))
        os.utime(path, (1000 + number, 1000 + number))
    assert {path.name for path in storage.copies.iterdir()} == set(digests[2:]), "the limit is 1000 bytes"
    asyncio.run(storage.drop(artifact(digests[3])))
    assert asyncio.run(storage.local(digests[3])).read_bytes() == b"\3" * 400, "it is not asked for again"
    large = kept(storage, b"x" * 5000)
    assert asyncio.run(storage.local(large)).stat().st_size == 5000
    assert [path.name for path in storage.copies.iterdir()] == [large]


def test_many_who_want_a_file_at_once_fetch_it_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, fetched = kept(storage, b"model"), []
    fetch = Storage.fetch

    async def counted(self: Storage, key: str, path: Path) -> None:
        fetched.append(key)
        await fetch(self, key, path)

    monkeypatch.setattr(Storage, "fetch", counted)

    async def many() -> set[Path]:
        return set(await asyncio.gather(*(storage.local(digest) for _ in range(8))))

    assert asyncio.run(many()) == {storage.copies / digest}
    assert len(fetched) == 1


def test_something_else_under_the_name_of_a_file_is_not_served(storage: Storage) -> None:
    digest = kept(storage, b"model")
    obstore.put(storage.store, artifact(digest), b"damaged")
    with pytest.raises(OSError, match=f"^the storage has something else under {artifact(digest)}$"):
        asyncio.run(storage.local(digest))
    assert list(storage.copies.iterdir()) == []


def test_what_is_not_there_is_told_as_such(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^the storage has no uploads/x/model$"):
        asyncio.run(storage.fetch("uploads/x/model", tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError):
        asyncio.run(storage.local("0" * 64))


def test_a_copy_that_nobody_finished_is_removed_after_a_while(storage: Storage) -> None:
    left, fresh = storage.copies / ".left", storage.copies / ".fresh"
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - 10**6, time.time() - 10**6))
    asyncio.run(storage.local(kept(storage, b"model")))
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_bucket_that_is_not_there_is_told_at_the_start(bucket: str, tmp_path: Path) -> None:
    del bucket
    with pytest.raises(UnusableStorageError) as told:
        open_storage("s3://none/folder", tmp_path, 1000)
    said, hint = str(told.value).splitlines()
    assert said.startswith("BNFOLD_STORAGE cannot be used: the storage cannot write checks/")
    assert said.endswith(": NoSuchBucket: The specified bucket does not exist")
    assert (
        hint == "  hint: Look at BNFOLD_STORAGE, and at the keys and the address in the environment (AWS_… for s3://)."
    )


def test_a_storage_that_does_not_answer_is_told_at_the_start(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnusableStorageError, match=r"^BNFOLD_STORAGE cannot be used: the storage cannot write checks/"):
        open_storage(bucket, tmp_path, 1000)


@pytest.mark.parametrize("url", ["ftp://host/folder", "nothing", "s3://"])
def test_an_address_of_something_else_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableStorageError, match=r"hint: (Set it to s3://BUCKET/FOLDER|Look at BNFOLD_STORAGE)"):
        open_storage(url, tmp_path, 1000)


def test_what_has_had_its_time_goes_and_the_rest_stays(storage: Storage, tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'service.sqlite'}")
    place = Place(JobTable(engine, 10, 3, 1000, -1), Registry(engine, storage), storage, tmp_path)
    job = place.job()
    results = tmp_path / "results"
    (results / "out").mkdir(parents=True)
    (results / "out" / "model.onnx").write_bytes(b"model")
    (results / "out" / "report.json").write_text(json.dumps(REPORT))
    (results / "out" / "report.html").write_text("<html>")
    assert job.upload["files"]["model"] in keys(storage)
    card = place.keep(job, results)
    assert card is not None
    stray = kept(storage, b"of nobody")
    asyncio.run(throw_away(place.table, storage))
    assert asyncio.run(sweep(place.table, place.registry, storage, 3600)) == 0
    assert asyncio.run(sweep(place.table, place.registry, storage, -10)) == 1
    assert keys(storage) == {artifact(digest) for digest in (card.sha256, card.report, card.page)}
    assert artifact(stray) not in keys(storage)
    asyncio.run(place.registry.delete("t", card))
    assert keys(storage) == set()
    engine.dispose()


def test_a_service_folds_serves_and_deletes_what_lies_elsewhere(bucket: str, store: Path) -> None:
    with serving(store, storage=bucket, sandbox="limits", grpc_port="-1") as server, server.client() as client:
        body = post(client, conv_model(900), verify="off").json()
        model = client.get(body["links"]["model"])
        assert hashlib.sha256(model.content).hexdigest() == body["sha256"]
        assert client.get(body["links"]["report"]).json()["schema"].startswith("bnfold-report/")
        part = client.get(body["links"]["model"], headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, model.content[2:6])
        question = {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}
        assert client.post(body["links"]["infer"], json=question).status_code == 200
        storage = open_storage(bucket, store.parent / "other", 10**9)
        assert artifact(body["sha256"]) in keys(storage)
        assert not (store / "objects").exists()
        # What was damaged elsewhere is not served, and what is gone is told.
        (store / "copies" / body["sha256"]).unlink()
        obstore.put(storage.store, artifact(body["sha256"]), b"damaged")
        assert client.get(body["links"]["model"]).status_code == 500
        asyncio.run(storage.drop(artifact(body["sha256"])))
        assert client.get(body["links"]["model"]).status_code == 404
        assert client.get("/readyz").status_code == 200
        wait_for(lambda: server.aside() == [])
