"""``bnfold convert --server`` writes what a local conversion writes, and says why where it cannot."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import onnx
import pytest

from bnfold.cli.remote_source import Parcel, packed
from bnfold.errors import CorruptModelError, UnknownFormatError
from service.access.keys import entry, new_key
from tests.cli.program import COMMAND, TWO_BN, Ended, bnfold, environment, files, written
from tests.service.server import Server, conv_model, serving, wait_for

KEY = new_key()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that asks for a key."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "keys.toml").write_text(entry(KEY, "a", ["fold"], ""))
    with serving(folder / "store", keys=str(folder / "keys.toml")) as running:
        yield running


def convert(server: Server, *arguments: str | Path, cwd: Path, key: str = KEY, **more: Any) -> Ended:
    env = {"BNFOLD_API_KEY": key} if key else {}
    return bnfold("convert", *arguments, "--server", server.url, cwd=cwd, env=env, **more)


def started(server: Server, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "convert", *arguments, "--server", server.url],
        cwd=cwd,
        env=environment({"BNFOLD_API_KEY": KEY}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_a_service_sends_back_is_what_a_local_conversion_writes(server: Server, tmp_path: Path) -> None:
    written(tmp_path / "m.onnx", TWO_BN)
    options = ["--keep", "batch*1", "--outputs", "y", "--seed", "7", "--verify", "fast"]
    here, there = (["-o", f"{x}.onnx", "--report", f"{x}.json", "--html", f"{x}.html", *options] for x in "ab")
    own, remote = bnfold("convert", "m.onnx", *here, cwd=tmp_path), convert(server, "m.onnx", *there, cwd=tmp_path)
    assert (own.code, remote.code, remote.err) == (0, 0, "")
    found = files(tmp_path)
    assert found["b.onnx"] == found["a.onnx"]
    reports = [json.loads(found[f"{x}.json"]) for x in "ab"]
    for report in reports:
        del report["timings"], report["parity"]["seconds"], report["layers"]["seconds"]
    assert reports[1] == reports[0]
    assert remote.out == own.out.replace("a.onnx", "b.onnx")
    assert found["b.html"].lower().startswith(b"<!doctype html>")
    assert set(found) == {"m.onnx", *(f"{x}.{kind}" for x in "ab" for kind in ("onnx", "json", "html"))}


def test_a_model_may_go_to_standard_output_and_a_report_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(2))
    there = convert(server, "m.onnx", "-o", "b.onnx", "--format", "json", cwd=tmp_path)
    assert json.loads(there.out)["schema"] == "bnfold-report/1"
    with (tmp_path / "c.onnx").open("wb") as out:
        command = [*COMMAND, "convert", "m.onnx", "-o", "-", "--server", server.url]
        env = environment({"BNFOLD_API_KEY": KEY})
        done = subprocess.run(command, cwd=tmp_path, env=env, stdout=out, stderr=subprocess.PIPE, check=True)
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert b"1 of 1 batch norm" in done.stderr


def test_a_model_that_is_refused_is_refused_as_it_is_here(server: Server, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"nonsense")
    (tmp_path / "half.onnx").write_bytes(conv_model(3)[:500])
    written(tmp_path / "m.onnx")
    for arguments in (["text.onnx"], ["half.onnx"], ["m.onnx", "--outputs", "z"], ["m.onnx", "--keep", "nothing"]):
        here = bnfold("convert", *arguments, "-o", "a.onnx", cwd=tmp_path)
        there = convert(server, *arguments, "-o", "b.onnx", cwd=tmp_path)
        assert here.code in {2, 3}
        assert (there.code, there.err, there.out) == (here.code, here.err, here.out)
    assert set(files(tmp_path)) == {"text.onnx", "half.onnx", "m.onnx"}


def test_a_key_comes_from_the_environment_or_a_file_and_is_never_shown(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(4))
    (tmp_path / "key").write_text(f"{KEY}\n")
    done = convert(server, "m.onnx", "-o", "b.onnx", "--api-key-file", "key", cwd=tmp_path, key="bnf_wrong")
    assert (done.code, done.err) == (0, "")
    hint = "  hint: Set BNFOLD_API_KEY to a key of this service, or name a file that has one with --api-key-file.\n"
    said = f"error[server]: the service at {server.url} answers 401 (unauthorized): "
    done = convert(server, "m.onnx", "-o", "c.onnx", cwd=tmp_path, key="")
    assert (done.code, done.err) == (1, f"{said}nobody said who asks\n{hint}")
    done = convert(server, "m.onnx", "-o", "c.onnx", cwd=tmp_path, key="bnf_wrong")
    assert (done.code, done.err) == (1, f"{said}the key is not known, or no longer valid\n{hint}")
    for wrong, says in (("a b", "BNFOLD_API_KEY has something that is no key"), ("ü", "no key")):
        done = convert(server, "m.onnx", "-o", "c.onnx", cwd=tmp_path, key=wrong)
        assert done.code == 2
        assert says in done.err
        assert wrong not in done.err
    assert not (tmp_path / "c.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trust"], "--trust cannot be used with --server: the service runs no code of a file"),
        (["--custom", "m.py"], "--custom cannot be used with --server: it runs a file of yours"),
        (["--builder", "m.py:f"], "--builder cannot be used with --server: it runs a file of yours"),
        (["--data", "m.npz"], "--data cannot be used with --server: the service draws its own inputs"),
        (["--repro", "r"], "--repro cannot be used with --server: the service keeps no model that it refuses"),
        (["--force"], "--force cannot be used with --server: the service keeps no model that it refuses"),
        (["--job", "x"], "--job: 'x' is no job"),
        (["--server", "localhost:8080"], "--server: localhost:8080 is no address"),
        (["--server", "http://a:b@localhost"], "--server: a name and a password do not belong into the address"),
        (["--api-key-file", "m.onnx"], "--api-key-file m.onnx has no key"),
    ],
)
def test_what_only_goes_here_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\n")
    command = ["convert", "m.onnx", "-o", "b.onnx", "--server", "http://127.0.0.1:9", *arguments]
    done = bnfold(*command, cwd=tmp_path)
    assert (done.code, done.err.partition("\n")[0]) == (2, f"error[usage]: {said}")
    assert "\n  hint: " in done.err


def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(5))
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = bnfold("convert", "m.onnx", "-o", "b.onnx", "--server", url, cwd=tmp_path)
    assert (done.code, done.err) == (
        1,
        (
            f"error[server]: the service at {url} cannot be asked: [Errno 111] Connection refused\n"
            "  hint: Look at the address, and whether the service runs; or try again later.\n"
        ),
    )


def test_without_httpx_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(5))
    code = "import sys; sys.modules['httpx'] = None; from bnfold.cli import main; main()"
    command = (COMMAND[0], "-c", code)
    done = bnfold("convert", "m.onnx", "-o", "b.onnx", "--server", "http://localhost", cwd=tmp_path, code=command)
    assert (done.code, done.err) == (
        3,
        (
            "error[missing-extra]: asking a service takes httpx, which is not installed\n"
            "  hint: Run: pip install 'bnfold[client]'\n"
        ),
    )


def test_a_full_disk_leaves_what_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(6))
    (tmp_path / "b.onnx").write_bytes(b"as it was")

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = convert(server, "m.onnx", "-o", "b.onnx", cwd=tmp_path, before=small)
    assert (done.code, done.err.partition("\n")[0]) == (1, "error[file]: b.onnx: file too large")
    assert files(tmp_path) == {"m.onnx": conv_model(6), "b.onnx": b"as it was"}
    done = convert(server, "m.onnx", "-o", "/dev/full", cwd=tmp_path)
    assert (done.code, done.err.partition("\n")[0]) == (1, "error[file]: /dev/full: no space left on device")
    assert convert(server, "m.onnx", "-o", "b.onnx", cwd=tmp_path).code == 0


def test_ctrl_c_says_how_to_go_on_and_the_job_does(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(7))
    waiting = started(server, "m.onnx", "-o", "b.onnx", cwd=tmp_path)
    child = server.held_child()
    try:
        with server.client() as client:
            client.headers["X-API-Key"] = KEY
            running = wait_for(lambda: client.get("/jobs", params={"state": "running"}).json()["jobs"])
            job = running[0]["id"]
            wait_for(lambda: _looked(server, job))
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    finally:
        os.kill(child, signal.SIGCONT)
    assert (waiting.returncode, out, err) == (
        130,
        "",
        (
            "\nerror[stopped]: stopped by Ctrl-C; nothing half-written is left behind\n"
            f"  hint: Run the same command with --job {job}: the service goes on with it.\n"
        ),
    )
    assert set(files(tmp_path)) == {"m.onnx"}
    (tmp_path / "m.onnx").write_bytes(b"it is not sent again")
    done = convert(server, "m.onnx", "-o", "b.onnx", "--job", job, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    (tmp_path / "m.onnx").write_bytes(conv_model(7))
    assert bnfold("convert", "m.onnx", "-o", "a.onnx", cwd=tmp_path).code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def _looked(server: Server, job: str) -> bool:
    return any(line.get("path") == f"/jobs/{job}" for line in server.logged())


def test_a_service_that_dies_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(8))
    with closing(socket.socket()) as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with serving(tmp_path / "store", port=port) as server:
        waiting = started(server, "m.onnx", "-o", "b.onnx", cwd=tmp_path)
        server.held_child()  # it dies with the service
        server.kill()
    with serving(tmp_path / "store", port=port):
        out, err = waiting.communicate(timeout=300)
    assert (waiting.returncode, err) == (0, "")
    assert "wrote b.onnx" in out
    assert bnfold("convert", "m.onnx", "-o", "a.onnx", cwd=tmp_path).code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@dataclass(slots=True)
class Scripted:
    """Answers as it is told, and remembers what it was asked."""

    url: str = ""
    answers: dict[str, list[tuple[int, dict[str, str], Any]]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)


@contextmanager
def scripted() -> Iterator[Scripted]:
    script = Scripted()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            script.asked.append((self.command, path, self.headers.get("Idempotency-Key", "")))
            told = script.answers.get(path, [(200, {}, {})])
            status, headers, body = told.pop(0) if len(told) > 1 else told[0]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            kind = "application/problem+json" if isinstance(body, dict) and "code" in body else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = "Content-Length" in headers

        do_GET = do_POST = _answer  # noqa: N815  (the names that http.server calls)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _refusing(script: Scripted, code: str, status: int, cwd: Path, **headers: str) -> Ended:
    body = {"code": code, "status": status, "detail": "what is wrong", "hint": "What to do."}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    script.answers["/fold"] = [(status, told, body)]
    return bnfold("convert", "m.onnx", "-o", "b.onnx", "--server", script.url, cwd=cwd)


def test_what_a_service_refuses_ends_as_it_does_here(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(9))
    with scripted() as script:
        for code, status, exit_code in (("parity", 409, 1), ("inconclusive", 409, 4), ("inference-mode", 422, 3)):
            done = _refusing(script, code, status, tmp_path)
            assert (done.code, done.err) == (exit_code, f"error[{code}]: what is wrong\n  hint: What to do.\n")
        for code, status, headers in (
            ("quota", 429, {"Retry_After": "3600"}),
            ("storage", 507, {}),
            ("time-limit", 504, {}),
            ("sandbox", 503, {}),
        ):
            asked = len(script.asked)
            done = _refusing(script, code, status, tmp_path, **headers)
            said = f"error[server]: the service at {script.url} answers {status} ({code}): what is wrong\n"
            assert (done.code, done.err) == (1, f"{said}  hint: What to do.\n")
            assert len(script.asked) == asked + 2, "nothing is asked twice"
        script.answers["/jobs"] = [(404, {}, b"<html>")]
        done = bnfold("convert", "m.onnx", "-o", "b.onnx", "--server", script.url, cwd=tmp_path)
        said = f"error[server]: what answers at {script.url} is no service of bnfold: it says 404\n"
        assert (done.code, done.err) == (1, f"{said}  hint: Look at the address.\n")


def test_who_is_told_to_come_later_does_and_a_lost_connection_is_no_end(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(conv_model(10))
    with server.client() as client:
        client.headers["X-API-Key"] = KEY
        with (tmp_path / "m.onnx").open("rb") as file:
            model = client.post("/fold", files={"model": file}).json()
        content, report = (client.get(model["links"][name]).content for name in ("model", "report"))
    busy = {"code": "queue-full", "status": 503, "detail": "full", "hint": "Later."}
    with scripted() as script:
        job = "1" * 32
        succeeded = {"id": job, "state": "succeeded", "model": model}
        script.answers = {
            "/jobs": [(0, {}, {}), (502, {}, b"bad gateway"), (200, {}, {"jobs": []})],
            "/fold": [(503, {"Retry-After": "0"}, busy), (0, {}, {}), (202, {}, {"id": job})],
            f"/jobs/{job}": [
                (0, {}, {}),
                (200, {}, {"id": job, "state": "running", "step": "x"}),
                (200, {}, succeeded),
            ],
            f"{model['links']['report']}.json": [(429, {"Retry-After": "0"}, busy), (200, {}, report)],
            # It breaks off in the middle, and the second half is not to follow on the first one.
            model["links"]["model"]: [(200, {"Content-Length": "100000"}, content[:100]), (200, {}, content)],
        }
        done = bnfold("convert", "m.onnx", "-o", "b.onnx", "--server", script.url, cwd=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "b.onnx").read_bytes() == content
        keys = {key for method, path, key in script.asked if (method, path) == ("POST", "/fold")}
        assert len(keys) == 1, "all tries are the same request"
        assert keys != {""}
        script.answers[model["links"]["model"]] = [(200, {}, content[:-1] + b"?")]
        done = bnfold("convert", "m.onnx", "-o", "c.onnx", "--server", script.url, "--job", job, cwd=tmp_path)
        assert (done.code, done.err.partition("\n")[0]) == (
            1,
            "error[server]: what arrived is not what the service sent",
        )
        assert not (tmp_path / "c.onnx").exists()


def test_a_folder_travels_as_an_archive_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"program")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "variables" / "linked").symlink_to("variables.index")
    contents = []
    for _ in range(2):
        with packed(folder) as parcel:
            parcel.file.seek(0)
            contents.append(parcel.file.read())
            assert (parcel.name, parcel.size) == ("saved.zip", len(contents[-1]))
            with zipfile.ZipFile(parcel.file) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == {
                    "saved/saved_model.pb": b"program",
                    "saved/variables/variables.index": b"index",
                    "saved/variables/linked": b"index",
                }
        os.utime(folder / "saved_model.pb", (10**9, 10**9))
    assert contents[0] == contents[1]


def test_what_does_not_belong_into_an_archive_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    refused: list[tuple[type[Exception], Callable[[], object], str]] = [
        (UnknownFormatError, lambda: None, "is a folder without saved_model.pb and without a checkpoint"),
        (click.UsageError, lambda: (folder / "x").symlink_to("/etc/passwd"), "is a link to something outside of"),
    ]
    for kind, change, said in refused:
        change()
        with pytest.raises(kind, match=said), packed(folder):
            pass
        (folder / "saved_model.pb").write_bytes(b"program")
    with pytest.raises(click.UsageError, match="is no file and no folder"), packed(Path(os.devnull)):
        pass
    (tmp_path / "own.meta").write_bytes(b"x")
    with packed(tmp_path / "own.meta") as parcel:
        assert (parcel.name, parcel.size) == ("own.meta", 1)


def names_in(parcel: Parcel) -> list[str]:
    with zipfile.ZipFile(parcel.file) as archive:
        return archive.namelist()


@pytest.mark.parametrize(
    ("named", "step"),
    [
        ("run/m-9.meta", 9),
        ("run/m-9", 9),
        ("run/m-10.index", 10),
        ("run/m-10.data-00001-of-00002", 10),
        ("run", 9),
        ("run/checkpoint", 9),
        ("old", 10),
    ],
)
def test_a_checkpoint_travels_as_its_own_files_and_no_others(tmp_path: Path, named: str, step: int) -> None:
    for folder in ("run", "old"):
        (tmp_path / folder).mkdir()
        for number in (9, 10):
            for part in ("meta", "index", "data-00000-of-00002", "data-00001-of-00002"):
                (tmp_path / folder / f"m-{number}.{part}").write_bytes(b"x")
        (tmp_path / folder / "events.out").write_bytes(b"x")
    # What training wrote there is the path on its own machine.
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "/training/run/m-9"\n', "utf-8")
    with packed(tmp_path / named) as parcel:
        assert parcel.name == f"m-{step}.zip"
        parts = ("meta", "index", "data-00000-of-00002", "data-00001-of-00002")
        assert names_in(parcel) == [f"m-{step}/m-{step}.{part}" for part in parts]


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("m-1.meta", "is a checkpoint without its graph: m-1.meta is not there"),
        ("m-1.data-00000-of-00001", "is a checkpoint without its values: m-1.data-00000-of-00001 is not there"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_not_sent(tmp_path: Path, lost: str, said: str) -> None:
    for part in ("meta", "index", "data-00000-of-00001"):
        (tmp_path / f"m-1.{part}").write_bytes(b"x")
    (tmp_path / lost).unlink()
    with pytest.raises(CorruptModelError, match=said), packed(tmp_path / "m-1"):
        pass


def outside_model(folder: Path, location: str) -> Path:
    """Write a model that keeps a weight elsewhere."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }""")
    weight = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_travels_with_the_files_that_it_names_and_no_others(tmp_path: Path) -> None:
    path = outside_model(tmp_path, "weights/w.bin")
    (tmp_path / "weights").mkdir()
    for name in ("w.bin", "other.bin"):
        (tmp_path / "weights" / name).write_bytes(bytes(16))
    with packed(path) as parcel:
        assert parcel.name == "net.zip"
        assert names_in(parcel) == ["net/net.onnx", "net/weights/w.bin"]


def test_a_model_whose_weights_are_not_there_or_elsewhere_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    for location in ("../w.bin", str(tmp_path / "w.bin")):
        path = outside_model(tmp_path / "sub", location)
        with pytest.raises(click.UsageError, match="which is not below its folder"), packed(path):
            pass
    with (
        pytest.raises(CorruptModelError, match=r"keeps weights in gone\.bin, which is not there"),
        packed(outside_model(tmp_path / "sub", "gone.bin")),
    ):
        pass


def test_a_model_with_all_its_weights_travels_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_model(1) + b"")
    with packed(path) as parcel:
        assert (parcel.name, parcel.size) == ("m.onnx", path.stat().st_size)
    path.write_bytes(b"the location of something else")
    with pytest.raises(UnknownFormatError), packed(path):
        pass
