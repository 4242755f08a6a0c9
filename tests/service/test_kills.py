"""Children and the service itself are killed and kept waiting: nothing is half-written, the next request works."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import onnx
import pytest

from tests.service.server import Server, conv_model, post, serving, wait_for

if TYPE_CHECKING:
    import httpx

HEAD = "POST /fold HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose children are killed."""
    with serving(tmp_path_factory.mktemp("kills"), jobs="1", queue="1", infer_seconds="3") as server:
        yield server


@pytest.fixture
def crew() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def _whole(server: Server) -> int:
    """Check that every kept model is whole and every kept file is somebody's, and return how many models there are."""
    with server.client() as client:
        models = client.get("/models?limit=1000").json()["models"]
        files = set()
        for listed in models:
            about = client.get(listed["links"]["self"]).json()
            model = client.get(listed["links"]["model"]).content
            assert hashlib.sha256(model).hexdigest() == about["sha256"]
            report = client.get(listed["links"]["report"])
            assert report.json()["schema"] == "bnfold-report/1"
            page = client.get(listed["links"]["page"])
            files |= {hashlib.sha256(content).hexdigest() for content in (model, report.content, page.content)}
    assert files <= {path.name for path in (server.store / "objects").glob("artifacts/*/*")}
    return len(models)


def test_a_conversion_runs_apart_from_the_service(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        answer = crew.submit(post, client, conv_model(20))
        child = own.held_child()
        try:
            about = Path(f"/proc/{child}")
            environment = (about / "environ").read_bytes()
            assert b"A_SECRET" not in environment
            assert b"BNFOLD_" not in environment
            folder = (about / "cwd").resolve()
            assert folder.parent.parent == own.store / "aside"
            assert [path.name for path in folder.iterdir()] == ["network.onnx"]
            assert os.getsid(child) != os.getsid(own.process.pid)
            assert (about / "fd" / "0").resolve() == Path(os.devnull)
            opened = {(about / "fd" / name).resolve() for name in os.listdir(about / "fd")}  # noqa: PTH208
            assert own.store / "lock" not in opened
        finally:
            os.kill(child, signal.SIGCONT)
        assert answer.result().status_code == 200


def test_a_conversion_has_limits(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        answer = crew.submit(post, client, conv_model(21))
        child = own.held_child()
        limits = Path(f"/proc/{child}/limits").read_text()
        os.kill(child, signal.SIGCONT)
        told = {line[:26].strip(): line[26:].split()[1] for line in limits.splitlines()[1:]}
        assert told["Max address space"] == str(16 * 2**30)
        assert told["Max core file size"] == "0"
        assert told["Max file size"] == str(2 * 2**30)
        assert told["Max cpu time"] != "unlimited"
        assert answer.result().status_code == 200


def test_a_conversion_that_is_killed_is_begun_again(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        answer = crew.submit(post, client, conv_model(22))
        os.kill(own.held_child(), signal.SIGKILL)
        told = answer.result()
        assert told.status_code == 200
        assert client.get(told.json()["links"]["job"]).json()["attempt"] == 2
        wait_for(lambda: own.aside() == [])
        assert post(client, conv_model(22)).json()["cached"] is True


def test_a_conversion_that_is_killed_each_time_is_given_up(store: Path, crew: ThreadPoolExecutor) -> None:
    with serving(store, attempts="2") as server, server.client() as client:
        answer = crew.submit(post, client, conv_model(22))
        first = server.held_child()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: server.children("service.child") not in ([], [first]))
        os.kill(server.held_child(), signal.SIGKILL)
        told = answer.result()
        assert (told.status_code, told.json()["code"]) == (500, "killed")
        assert told.json()["detail"] == "the conversion was killed by signal 9 (SIGKILL) before it ended"
        wait_for(lambda: server.aside() == [])
        (job,) = client.get("/jobs?state=failed").json()["jobs"]
        assert (job["attempt"], job["error"]) == (2, told.json())
        # It is a new job: what killed it may be over.
        assert post(client, conv_model(22)).json()["cached"] is False


def test_when_the_queue_is_full_the_next_is_told_to_come_again(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        first = crew.submit(post, client, conv_model(23))
        child = own.held_child()
        second = crew.submit(post, client, conv_model(24))
        wait_for(lambda: client.get("/jobs?state=queued").json()["jobs"])
        third = post(client, conv_model(25))
        assert (third.status_code, third.json()["code"], third.headers["retry-after"]) == (503, "queue-full", "5")
        assert third.json()["detail"] == "2 conversions run or wait, and no more are taken"
        assert own.children("service.child") == [child]
        os.kill(child, signal.SIGCONT)
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert post(client, conv_model(25)).status_code == 200


def test_the_same_twice_at_once_is_one_conversion(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        first = crew.submit(post, client, conv_model(26))
        child = own.held_child()
        second = crew.submit(post, client, conv_model(26))
        time.sleep(0.5)
        assert own.children("service.child") == [child]
        os.kill(child, signal.SIGCONT)
        assert first.result().json() == second.result().json()
        assert own.children("service.child") == []


def _begin(server: Server, content: bytes) -> socket.socket:
    """Post a model by hand, and return the connection without reading the answer."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )
    where = urlsplit(server.url)
    connection = socket.create_connection((where.hostname, where.port))
    connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_what_a_client_that_leaves_has_sent_is_converted(own: Server) -> None:
    connection = _begin(own, conv_model(27))
    child = own.held_child()
    connection.close()
    os.kill(child, signal.SIGCONT)
    with own.client() as client:
        wait_for(lambda: client.get("/jobs?limit=1").json()["jobs"][0]["state"] == "succeeded")
        assert post(client, conv_model(27), "m.onnx").json()["cached"] is True


def test_a_client_that_leaves_while_it_uploads_leaves_nothing(own: Server) -> None:
    where = urlsplit(own.url)
    connection = socket.create_connection((where.hostname, where.port))
    connection.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n--b\r\n".encode())
    wait_for(lambda: len(own.aside()) == 1)
    connection.close()
    wait_for(lambda: own.aside() == [])


def test_a_conversion_that_takes_too_long_is_stopped(store: Path) -> None:
    with serving(store, job_seconds="0.2") as server, server.client() as client:
        answer = post(client, conv_model(1))
        assert (answer.status_code, answer.json()["code"]) == (504, "time-limit")
        assert answer.json()["detail"] == "the conversion took longer than 0.2 s and was stopped"
        assert server.children("service.child") == []
        wait_for(lambda: server.aside() == [])


def test_a_conversion_without_memory_is_told_and_not_kept(store: Path) -> None:
    layer = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n,8192] x) => (float[n,4096] y) <float[8192,4096] w> { y = MatMul(x, w) }"""
    model = onnx.parser.parse_model(layer)
    model.graph.initializer.add(name="w", data_type=1, dims=(8192, 4096), raw_data=bytes(4 * 8192 * 4096))
    with serving(store, job_memory="512MiB") as server, server.client() as client:
        answer = post(client, model.SerializeToString())
        assert (answer.status_code, answer.json()["code"]) == (422, "limit"), answer.text
        assert answer.json()["detail"] == "the conversion takes more memory than the 536870912 bytes it is given"
        assert client.get("/models").json()["models"] == []


def test_when_the_service_is_killed_its_children_die_and_jobs_go_on_after(
    store: Path, crew: ThreadPoolExecutor
) -> None:
    with serving(store) as server, server.client() as client:
        done = post(client, conv_model(30)).json()
        assert client.post(done["links"]["infer"], content=_question()).status_code == 200
        answer = crew.submit(post, client, conv_model(31))
        children = [server.held_child(), *server.children("service.serving.runner")]
        assert len(children) == 2
        (job,) = client.get("/jobs?state=running").json()["jobs"]
        server.kill()
        assert isinstance(answer.exception(), Exception)
        wait_for(lambda: all(_is_gone(child) for child in children))
        assert len(list((store / "aside").iterdir())) > 0
    with serving(store) as server, server.client() as client:
        wait_for(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")
        assert client.get(f"/jobs/{job['id']}").json()["attempt"] == 2
        assert post(client, conv_model(31)).json()["cached"] is True
        assert post(client, conv_model(30)).json() == {**done, "cached": True}
        assert client.post(done["links"]["infer"], content=_question()).status_code == 200
        assert _whole(server) == 2
        wait_for(lambda: server.aside() == [])


def _is_gone(child: int) -> bool:
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_kills_at_any_moment_lose_no_job_and_leave_only_whole_models(store: Path, crew: ThreadPoolExecutor) -> None:
    accepted: set[str] = set()
    prefer = {"Prefer": "respond-async"}
    for number, delay in enumerate((0.02, 0.35, 0.42, 0.5, 0.6, 0.8)):
        with serving(store, jobs="2", sandbox="limits", attempts="10") as server, server.client() as client:
            posts = [
                crew.submit(client.post, "/fold?verify=off", content=conv_model(100 + 2 * number + k), headers=prefer)
                for k in (0, 1)
            ]
            time.sleep(delay)
            server.kill()
            answers = [answer.result() for answer in posts if answer.exception() is None]
            accepted |= {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert accepted
    with serving(store, jobs="2", sandbox="limits", attempts="10") as server, server.client() as client:
        wait_for(lambda: not _unfinished(client), 60)
        jobs = {job["id"]: job for job in client.get("/jobs?limit=1000").json()["jobs"]}
        assert accepted <= jobs.keys()
        assert {job["state"] for job in jobs.values()} == {"succeeded"}
        assert _whole(server) == len(jobs)
        assert post(client, conv_model(100), verify="off").status_code == 200
        wait_for(lambda: server.aside() == [])


def _unfinished(client: httpx.Client) -> list[dict[str, Any]]:
    return [job for job in client.get("/jobs?limit=1000").json()["jobs"] if job["state"] in {"queued", "running"}]


def test_one_store_belongs_to_one_service(own: Server) -> None:
    with pytest.raises(AssertionError), serving(own.store):
        pass


def test_sigterm_lets_a_conversion_end(store: Path, crew: ThreadPoolExecutor) -> None:
    with serving(store, jobs="1") as server, server.client() as client:
        answer = crew.submit(post, client, conv_model(40))
        child = server.held_child()
        waits = client.post("/fold", content=conv_model(42), headers={"Prefer": "respond-async"}).json()["id"]
        server.process.terminate()
        wait_for(lambda: client.get("/readyz").status_code == 503)
        refused = post(client, conv_model(43))
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "draining", "5")
        assert client.get(f"/jobs/{waits}").json()["state"] == "queued"
        os.kill(child, signal.SIGCONT)
        assert answer.result().status_code == 200
        assert server.process.wait(timeout=60) == 0
        assert list((store / "aside").iterdir()) == []
    with serving(store) as server, server.client() as client:
        wait_for(lambda: client.get(f"/jobs/{waits}").json()["state"] == "succeeded")
        assert client.get(f"/jobs/{waits}").json()["attempt"] == 1


def test_sigterm_gives_back_what_does_not_end(store: Path, crew: ThreadPoolExecutor) -> None:
    with serving(store, stop_seconds="1") as server, server.client() as client:
        answer = crew.submit(client.post, "/fold?verify=off", content=conv_model(41), headers={"Prefer": "wait=30"})
        child = server.held_child()
        (job,) = client.get("/jobs?state=running").json()["jobs"]
        server.process.terminate()
        assert server.process.wait(timeout=60) == 0
        assert _is_gone(child)
        assert answer.exception() is not None or answer.result().status_code in {202, 503}
        assert list((store / "aside").iterdir()) == []
    with serving(store) as server, server.client() as client:
        wait_for(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")
        assert client.get(f"/jobs/{job['id']}").json()["attempt"] == 1
        assert _whole(server) == 1


def test_a_second_sigterm_ends_at_once(store: Path, crew: ThreadPoolExecutor) -> None:
    with serving(store) as server, server.client() as client:
        answer = crew.submit(post, client, conv_model(44))
        child = server.held_child()
        server.process.terminate()
        wait_for(lambda: client.get("/readyz").status_code == 503)
        server.process.terminate()
        server.process.terminate()
        server.process.wait(timeout=60)
        assert _is_gone(child)
        assert answer.exception() is not None or answer.result().status_code in {202, 503}


def test_a_job_that_runs_is_cancelled(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        answer = crew.submit(post, client, conv_model(51))
        child = own.held_child()
        (job,) = client.get("/jobs?state=running").json()["jobs"]
        asked = client.delete(f"/jobs/{job['id']}")
        assert (asked.status_code, asked.json()["cancelling"]) == (202, True)
        told = answer.result()
        assert (told.status_code, told.json()["code"]) == (409, "cancelled")
        assert _is_gone(child)
        assert client.get(f"/jobs/{job['id']}").json()["state"] == "cancelled"
        wait_for(lambda: own.aside() == [])
        assert client.delete(f"/jobs/{job['id']}").status_code == 204
        assert client.get(f"/jobs/{job['id']}").status_code == 404
        assert not (own.store / "objects" / "uploads" / job["id"]).exists()


def test_a_job_that_waits_is_cancelled_at_once(own: Server, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        first = crew.submit(post, client, conv_model(52))
        child = own.held_child()
        waits = client.post("/fold", content=conv_model(53), headers={"Prefer": "respond-async"}).json()
        assert (waits["state"], waits["step"]) == ("queued", "wait")
        assert client.delete(waits["links"]["self"]).json()["state"] == "cancelled"
        assert client.delete(waits["links"]["self"]).status_code == 204
        os.kill(child, signal.SIGCONT)
        assert first.result().status_code == 200


def _question() -> str:
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]})


@pytest.fixture(scope="module")
def link(own: Server) -> str:
    with own.client() as client:
        return str(post(client, conv_model(50)).json()["links"]["infer"])


def test_a_runner_that_died_is_started_again(own: Server, link: str) -> None:
    with own.client() as client:
        first = client.post(link, content=_question())
        assert first.status_code == 200
        (runner,) = own.children("service.serving.runner")
        assert client.post(link, content=_question()).json() == first.json()
        assert own.children("service.serving.runner") == [runner]
        os.kill(runner, signal.SIGKILL)
        assert client.post(link, content=_question()).json() == first.json()
        assert own.children("service.serving.runner") not in ([], [runner])


def test_a_runner_that_dies_at_work_is_asked_again(own: Server, link: str, crew: ThreadPoolExecutor) -> None:
    with own.client() as client:
        first = client.post(link, content=_question()).json()
        (runner,) = own.children("service.serving.runner")
        os.kill(runner, signal.SIGSTOP)
        answer = crew.submit(client.post, link, content=_question())
        time.sleep(0.3)
        os.kill(runner, signal.SIGKILL)
        assert answer.result().json() == first


def test_a_runner_that_takes_too_long_is_replaced(own: Server, link: str) -> None:
    with own.client() as client:
        assert client.post(link, content=_question()).status_code == 200
        (runner,) = own.children("service.serving.runner")
        os.kill(runner, signal.SIGSTOP)
        answer = client.post(link, content=_question())
        assert answer.status_code == 504
        assert answer.json()["error"].startswith("the inference took longer than 3 s. ")
        assert client.post(link, content=_question()).status_code == 200
        assert runner not in own.children("service.serving.runner")


def test_only_so_many_models_stay_loaded(store: Path) -> None:
    with serving(store, runners="2") as server, server.client() as client:
        links = [post(client, conv_model(seed), verify="off").json()["links"]["infer"] for seed in (60, 61, 62)]
        for link in (*links, *links):
            assert client.post(link, content=_question()).status_code == 200
            assert len(server.children("service.serving.runner")) <= 2


def test_a_connection_that_sends_nothing_keeps_nobody_waiting(own: Server) -> None:
    where = urlsplit(own.url)
    idle = [socket.create_connection((where.hostname, where.port)) for _ in range(50)]
    connection = http.client.HTTPConnection(where.netloc, timeout=180)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    for one in idle:
        one.close()
