"""The metrics say what was done, in a form that Prometheus reads, and count nothing twice."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.database.connecting import open_database, writing
from service.jobs.job import Job, Wanted
from service.jobs.table import JobTable
from service.jobs.tally import leave_kill, steps_of, take_tallies
from service.observing.metrics import Metrics
from service.serving.frames import Answer
from service.serving.statistics import Statistics
from tests.service.server import Server, conv_model, post, serving

Sample = tuple[str, frozenset[tuple[str, str]]]
QUESTION = json.dumps({"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]})


def parsed(text: str) -> dict[Sample, float]:
    """Return every sample, after a look at all that Prometheus would complain of."""
    assert text.endswith("\n")
    found: dict[Sample, float] = {}
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family stands together"
    for family in families:
        assert family.documentation, family.name
        assert family.type in {"counter", "gauge", "histogram"}, family.name
        for sample in family.samples:
            assert re.fullmatch("[a-z_]+", sample.name)
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
            assert (family.type == "counter") == sample.name.endswith("_total")
        if family.type == "histogram":
            _check_histogram(family.name, [(s.name, dict(s.labels), s.value) for s in family.samples])
    return found


def _check_histogram(name: str, samples: list[tuple[str, dict[str, str], float]]) -> None:
    series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for sample, labels, value in samples:
        if sample == f"{name}_bucket":
            bound = float(labels.pop("le").replace("+Inf", "inf"))
            series.setdefault(frozenset(labels.items()), []).append((bound, value))
    assert series
    for own, buckets in series.items():
        bounds, counts = zip(*buckets, strict=True)
        assert list(bounds) == sorted(set(bounds))
        assert bounds[-1] == math.inf
        assert list(counts) == sorted(counts)
        told = {sample: value for sample, labels, value in samples if frozenset(labels.items()) == own}
        assert told[f"{name}_count"] == counts[-1]
        assert f"{name}_sum" in told


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("metrics") / "store", job_memory="1GiB", jobs="1") as server:
        yield server


def test_what_was_done_is_counted(own: Server) -> None:
    with own.client() as client, ThreadPoolExecutor(1) as crew:
        before = parsed(client.get("/metrics").text)
        assert value(before, "bnfold_model_loaded") == 0
        model = post(client, conv_model(1), verify="fast").json()
        assert post(client, conv_model(1), verify="fast").json()["cached"]
        assert post(client, b"nonsense").status_code == 415
        for _ in range(3):
            assert client.post(model["links"]["infer"], content=QUESTION).status_code == 200
        assert client.post(model["links"]["infer"], content="{}").status_code == 400
        assert client.post("/v2/models/of-nobody/infer", content=QUESTION).status_code == 404
        killed = crew.submit(post, client, conv_model(2))
        os.kill(own.held_child(), signal.SIGKILL)
        assert killed.result().status_code == 200
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = parsed(answer.text)
        assert (
            parsed(client.get("/metrics").text).items()
            >= {sample: count for sample, count in found.items() if sample[0].startswith("bnfold_job")}.items()
        ), "nothing is counted again"
    assert value(found, "bnfold_jobs_total", state="succeeded", format="onnx") == 2
    assert value(found, "bnfold_jobs_total", state="failed", format="unknown") == 1
    assert value(found, "bnfold_job_queue_seconds_count") == 3
    for stage, jobs in (("total", 3), ("read", 2), ("fold", 2), ("verify", 2)):
        assert value(found, "bnfold_job_duration_seconds_count", stage=stage) == jobs
    assert 0 < value(found, "bnfold_job_duration_seconds_sum", stage="read") < 600
    assert value(found, "bnfold_sandbox_kills_total", reason="signal") == 1
    version = {"model": model["name"], "version": "1"}
    assert value(found, "bnfold_infer_requests_total", **version, code="ok") == 3
    assert (
        value(found, "bnfold_infer_requests_total", **version, code="tensor")
        + value(found, "bnfold_infer_requests_total", **version, code="malformed")
        == 1
    )
    assert value(found, "bnfold_infer_duration_seconds_count") == 3
    assert value(found, "bnfold_infer_batch_size_count") == 3
    assert value(found, "bnfold_model_loaded") == 1
    assert value(found, "bnfold_jobs_unfinished", state="running") == 0
    assert not [key for key in found if ("model", "of-nobody") in key[1]], "nobody can make up labels"
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with own.client() as client:
        assert client.get("/metrics", headers=accept).text.endswith("# EOF\n")


@pytest.fixture
def table(tmp_path: Path) -> Iterator[JobTable]:
    engine = open_database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    yield JobTable(engine, 60, 3, 1000, 1000)
    engine.dispose()


def begun(table: JobTable, key: str) -> Job:
    wanted = Wanted(key * 32, "t", key, None, "m", {"name": "m", "files": {}}, {}, 5)
    assert table.accept(wanted, 100) is not None
    job = table.claim(wanted.id)
    assert job is not None
    return job


def told(metrics: Metrics) -> dict[Sample, float]:
    return parsed(metrics.told("")[0].decode())


class _Asked:
    """Stands for the runners, as far as metrics look at them."""

    def __init__(self) -> None:
        self.statistics: dict[tuple[str, str, str], Statistics] = {}

    def loaded(self) -> list[str]:
        return []


def metrics_of(table: JobTable, asked: _Asked | None = None) -> Metrics:
    return Metrics(table, asked or _Asked())  # type: ignore[arg-type]


def test_each_job_is_counted_by_one_service_and_by_all_of_them_together(table: JobTable) -> None:
    services = [metrics_of(table) for _ in range(3)]
    for number, key in enumerate("abcdef"):
        job = begun(table, key)
        if number % 3 == 0:
            table.cancel(job.id)
            table.end_cancelled(job)
        else:
            table.fail(job, {"code": ("time-limit", "limit")[number % 3 - 1], "status": 500, "detail": "a larger file"})
        table.purge(job.id)  # it was forgotten before anybody asked
    with ThreadPoolExecutor(3) as crew:
        found = list(crew.map(told, services))

    def total(name: str, **labels: str) -> float:
        return sum(value(one, name, **labels) for one in found)

    assert total("bnfold_jobs_total", state="cancelled", format="unknown") == 2
    assert total("bnfold_jobs_total", state="failed", format="unknown") == 4
    assert total("bnfold_sandbox_kills_total", reason="time") == 2
    assert total("bnfold_sandbox_kills_total", reason="file-size") == 2
    assert total("bnfold_job_queue_seconds_count") == 6
    assert sum(value(one, "bnfold_jobs_total", state="failed", format="unknown") for one in map(told, services)) == 4


def test_a_job_that_is_given_back_unblamed_is_no_kill(table: JobTable) -> None:
    metrics = metrics_of(table)
    job = begun(table, "a")
    assert table.release(job, blameless=True)
    assert take_tallies(table.engine) == ()
    again = table.claim(job.id)
    assert again is not None
    assert table.release(again, blameless=False)
    assert value(told(metrics), "bnfold_sandbox_kills_total", reason="signal") == 1
    assert value(told(metrics), "bnfold_jobs_unfinished", state="queued") == 1
    table.cancel(job.id)
    found = told(metrics)
    assert value(found, "bnfold_jobs_total", state="cancelled", format="unknown") == 1
    assert value(found, "bnfold_job_queue_seconds_count") == 1


def test_more_is_taken_than_fits_at_once(table: JobTable) -> None:
    with writing(table.engine) as connection:
        for _ in range(1234):
            leave_kill(connection)
    assert value(told(metrics_of(table)), "bnfold_sandbox_kills_total", reason="signal") == 1234


def test_what_a_report_says_of_its_steps_is_not_believed() -> None:
    timings = [
        {"step": "read", "seconds": 1},
        {"step": "read", "seconds": 0.5},
        {"step": "fold", "seconds": math.inf},
        {"step": "verify", "seconds": -1},
        {"step": "made up", "seconds": 1},
        {"step": "plan", "seconds": "1"},
        {"step": "plan"},
        7,
    ]
    assert steps_of({"timings": timings}) == {"read": 1.5}
    assert steps_of({}) == {}


def test_models_share_a_label_when_there_are_too_many(table: JobTable) -> None:
    asked = _Asked()
    metrics = metrics_of(table, asked)
    for number in range(700):
        asked.statistics["t", f"m{number}", "1"] = statistics = Statistics()
        statistics.failed("tensor", 1)
    asked.statistics["another tenant", "m0", "1"] = statistics = Statistics()
    statistics.answered(Answer(1, together=3, first=True), 2_000_000, 5)
    statistics.failed("tensor", 1)
    found = told(metrics)
    named = [key for key in found if key[0] == "bnfold_infer_requests_total"]
    assert len(named) == 502
    assert value(found, "bnfold_infer_requests_total", model="(other)", version="", code="tensor") == 200
    assert value(found, "bnfold_infer_requests_total", model="m0", version="1", code="tensor") == 2
    assert value(found, "bnfold_infer_requests_total", model="m0", version="1", code="ok") == 1
    assert value(found, "bnfold_infer_duration_seconds_bucket", le="0.001") == 0
    assert value(found, "bnfold_infer_duration_seconds_bucket", le="0.0025") == 1
    assert value(found, "bnfold_infer_batch_size_sum") == 3
    assert told(metrics).keys() == found.keys()


def test_a_database_that_is_away_leaves_the_rest(table: JobTable, tmp_path: Path) -> None:
    metrics = metrics_of(table)
    assert value(told(metrics), "bnfold_model_loaded") == 0
    table.engine.dispose()
    (tmp_path / "x.sqlite").write_bytes(b"no database any more" * 100)
    for other in ("x.sqlite-wal", "x.sqlite-shm"):
        (tmp_path / other).unlink(missing_ok=True)
    assert value(told(metrics), "bnfold_infer_batch_size_count") == 0
