"""The compose file sets what there is, opens nothing to other machines, and its parts know each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from service.engines.opening import check_engine
from service.settings import read_settings, unknown_names
from tests.service.server import ROOT

FILE = ROOT / "docker-compose.yml"
KNOWN = {
    *(
        "build",
        "cap_drop",
        "command",
        "configs",
        "depends_on",
        "environment",
        "healthcheck",
        "hostname",
        "image",
        "init",
    ),
    *("ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes"),
}
OURS = {"api": [], "worker": ["python", "-m", "service", "worker"], "alone": []}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return found


def environment(compose: dict[str, Any], name: str) -> dict[str, str]:
    """Return what a container is told where nobody set a password."""
    told = compose["services"][name].get("environment", {})
    return {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in told.items()}


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_set_up_with_what_there_is(compose: dict[str, Any], name: str) -> None:
    told = environment(compose, name)
    assert unknown_names(told) == []
    settings = read_settings(told)
    check_engine(settings)
    assert settings.engine == ("local" if name == "alone" else "celery")
    service = compose["services"][name]
    assert service.get("command", []) == OURS[name]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert str(settings.store) in {volume.rpartition(":")[2] for volume in service["volumes"]}
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings.stop_seconds + 10, "it is not killed before it ended by itself"
    assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_services_and_workers_mean_the_same_parts(compose: dict[str, Any]) -> None:
    api, worker = environment(compose, "api"), environment(compose, "worker")
    for name in ("BNFOLD_DATABASE", "BNFOLD_STORAGE", "BNFOLD_BROKER", "AWS_ENDPOINT", "AWS_SECRET_ACCESS_KEY"):
        assert api[name] == worker[name]
    postgres, rabbit, minio = (environment(compose, name) for name in ("postgres", "rabbitmq", "minio"))
    assert api["BNFOLD_DATABASE"] == "postgresql+psycopg://{}:{}@postgres/{}".format(
        *(postgres[f"POSTGRES_{what}"] for what in ("USER", "PASSWORD", "DB"))
    )
    assert api["BNFOLD_BROKER"] == "amqp://{}:{}@rabbitmq".format(
        *(rabbit[f"RABBITMQ_DEFAULT_{what}"] for what in ("USER", "PASS"))
    )
    assert api["AWS_ACCESS_KEY_ID"] == minio["MINIO_ROOT_USER"]
    assert api["AWS_SECRET_ACCESS_KEY"] == minio["MINIO_ROOT_PASSWORD"]
    assert len(minio["MINIO_ROOT_PASSWORD"]) >= 8, "MinIO does not start otherwise"
    assert compose["services"]["bucket"]["command"][-1] == "storage/" + api["BNFOLD_STORAGE"].split("/")[2]


def test_each_worker_has_a_folder_of_its_own(compose: dict[str, Any]) -> None:
    for name in ("api", "worker"):
        assert compose["services"][name]["volumes"] == ["/var/lib/bnfold"], "no name: it is not shared when scaled"


def test_only_this_machine_reaches_anything(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_the_parts_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"api", "worker", "postgres", "rabbitmq", "minio", "bucket", "prometheus", "alone"}
    for name, service in services.items():
        assert set(service) <= KNOWN, name
        assert ":" in service["image"] or service["image"] == "bnfold-service", "what is run does not change by itself"
        for other, how in service.get("depends_on", {}).items():
            condition = "service_healthy" if "healthcheck" in services[other] else "service_completed_successfully"
            assert how == {"condition": condition}, (name, other)
        for volume in service.get("volumes", []):
            assert volume.startswith("/") or volume.partition(":")[0] in compose["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
    told = yaml.safe_load(compose["configs"]["prometheus"]["content"])
    assert told["scrape_configs"][0]["dns_sd_configs"] == [{"names": ["api"], "type": "A", "port": 8080}]
    assert environment(compose, "api")["BNFOLD_OPEN_METRICS"] == "true"


def test_no_password_is_in_the_image() -> None:
    text = (ROOT / "service" / "Dockerfile").read_text("utf-8")
    assert not re.search(r"(?i)password|secret|token|key", text)
    lines = text.splitlines()
    user = lines.index("USER bnfold")
    assert not any(line.startswith(("RUN", "COPY")) for line in lines[user:])
    assert "bubblewrap" in text


def test_the_manifest_of_kserve_sets_what_there_is() -> None:
    manifest = yaml.safe_load((ROOT / "docs" / "kserve.yaml").read_text("utf-8"))
    predictor = manifest["spec"]["predictor"]
    (container,) = predictor["containers"]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert unknown_names(told) == []
    settings = read_settings(told)
    assert container["ports"][0]["containerPort"] == settings.port
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in predictor["volumes"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {str(settings.store), "/tmp"}
    user = container["securityContext"]["runAsUser"]
    assert f"--uid {user} " in (ROOT / "service" / "Dockerfile").read_text("utf-8")


def test_what_the_page_says_is_set_is_a_setting() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    assert unknown_names(dict.fromkeys(re.findall(r"BNFOLD_[A-Z_]+", page), "x")) == []
    for link in re.findall(r"\]\(([\w.]+)\)", page):
        assert (ROOT / "docs" / link).is_file(), link
