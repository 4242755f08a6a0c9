"""Everything that can be set, as one table: environment variables that begin with ``BNFOLD_``."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["PREFIX", "Settings", "UnusableSettingsError", "is_loopback", "is_safe", "read_settings", "unknown_names"]

PREFIX = "BNFOLD_"

_MIB = 2**20
_GIB = 2**30
_LEAST_MEMORY = 512 * _MIB  # below it, the libraries themselves cannot be loaded for sure


class Settings(BaseSettings):
    """The settings of the service, read from the environment. Sizes are bytes, or have a unit: ``512MiB``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 takes a free one and prints it.")
    grpc_port: int = Field(
        8081,
        ge=-1,
        le=65535,
        description="The port for inference over gRPC; 0 takes a free one and prints it, -1 offers none.",
    )
    keys: Path | None = Field(
        None,
        description="The file of API keys; [operating.md](operating.md) says how it looks, and "
        "`python -m service key` makes its entries. It is read again when it changes. Without it, and without "
        "`BNFOLD_OIDC_ISSUER`, nobody is asked for a key, and `BNFOLD_HOST` has to be this machine.",
    )
    expose: bool = Field(
        default=False,
        description="Whether `BNFOLD_HOST` may be an address that other machines reach although nobody is asked for a "
        "key: for a container whose port only its own machine reaches, or behind a proxy that asks who is there.",
    )
    hosts: str = Field(
        "",
        description="Names under which the service may be asked, beside `localhost` and addresses, separated by "
        "commas; `*` for every name. Only looked at where nobody is asked for a key.",
    )
    origins: str = Field(
        "",
        description="Origins of other pages that may use the service from a browser (CORS), separated by commas: "
        "`https://tools.example.org`. With keys, `*` for every page.",
    )
    key_jobs: int = Field(
        0, ge=0, description="How many jobs of a tenant may wait or run, where the key does not say; 0 for no limit."
    )
    key_bytes_a_day: ByteSize = Field(
        ByteSize(0), ge=0, description="How much a tenant may send to be folded in 24 hours, likewise."
    )
    key_requests_a_second: float = Field(
        0,
        ge=0,
        le=1e6,
        description="How often a key may be used in a second, likewise; counted by each service for itself.",
    )
    oidc_issuer: str = Field(
        "",
        description="Whose tokens are taken beside keys (OpenID Connect, RS256 and ES256): the issuer, as `iss` has "
        "it.",
    )
    oidc_audience: str = Field("", description="For whom a token has to be, as `aud` has it.")
    oidc_keys: str = Field(
        "", description="Where the issuer publishes its keys; empty means that its description says so."
    )
    oidc_tenant_claim: str = Field(
        "sub", min_length=1, description="The claim of a token that says whose things are seen."
    )
    oidc_scopes_claim: str = Field(
        "scope", min_length=1, description="The claim that has the scopes, as `fold` or as `bnfold:fold`."
    )
    open_metrics: bool = Field(
        default=False,
        description="Whether `/metrics` takes no key, although others than this machine can reach it.",
    )
    store: Path = Field(
        Path("store"),
        description="The folder of this service: what it works on, and all that it keeps unless the two settings below "
        "say otherwise. One service uses it at a time.",
    )
    database: str = Field(
        "",
        description="Where jobs and versions of models are written down: "
        "`postgresql+psycopg://USER:PASSWORD@HOST/NAME` or `sqlite:///FILE`. Empty means a file of SQLite in "
        "`BNFOLD_STORE`.",
    )
    storage: str = Field(
        "",
        description="Where uploads and folded models lie: `s3://BUCKET/FOLDER`, `gs://…`, `az://…` or "
        "`file:///FOLDER`. Keys and addresses come from the environment, under the names that their own tools have "
        "(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` …). Empty means a folder in `BNFOLD_STORE`.",
    )
    copies_size: ByteSize = Field(
        ByteSize(10 * _GIB), gt=0, description="How much of what lies elsewhere is kept as copies in `BNFOLD_STORE`."
    )
    engine: Literal["local", "celery"] = Field(
        "local",
        description="Who works on jobs: `local`, this process, which must be the only one with its database; `celery`, "
        "workers (`python -m service worker`), on any number of machines, which RabbitMQ brings the jobs to.",
    )
    broker: str = Field("", description="Where RabbitMQ is: `amqp://USER:PASSWORD@HOST`. For `celery`.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged, to standard error."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="`json`: each line an object; `text`: lines for people."
    )
    log_requests: Literal["all", "failed", "none"] = Field(
        "all",
        description="Which requests are logged. Inference that succeeds, and questions after health and metrics, only "
        "are at the level `debug`: the metrics count them.",
    )
    stop_seconds: int = Field(30, ge=0, le=86400, description="How long requests that run may go on after SIGTERM.")

    upload_size: ByteSize = Field(ByteSize(512 * _MIB), gt=0, description="The largest request that `/fold` takes.")
    upload_seconds: float = Field(300, gt=0, le=86400, description="How long an upload may take.")

    wait_seconds: float = Field(
        20, ge=0, le=30, description="How long `/fold` waits for the end of a job before it answers 202."
    )
    jobs: int = Field(2, ge=1, description="How many conversions run at a time, each in a process of its own.")
    queue: int = Field(
        16,
        ge=0,
        description="How many more jobs may wait, and how many uploads may arrive at a time; beyond that the answer is "
        "503 with `Retry-After`.",
    )
    attempts: int = Field(
        3, ge=1, le=10, description="How often a job is begun whose worker or conversion dies, before it is given up."
    )
    lease_seconds: float = Field(
        4,
        ge=0.5,
        le=600,
        description="How long after the last sign of life of its worker a job is begun by another one.",
    )
    keep_job_seconds: float = Field(7 * 86400, gt=0, description="How long a job is remembered after its end.")
    keep_upload_seconds: float = Field(3600, gt=0, description="How long an upload is kept after the end of its job.")
    job_seconds: float = Field(
        300, gt=0, le=86400, description="How long one conversion may take, by the clock and in CPU time per core."
    )
    job_memory: ByteSize = Field(
        ByteSize(16 * _GIB),
        ge=_LEAST_MEMORY,
        description="Address space of one conversion. TensorFlow reserves several times what it uses.",
    )
    job_file_size: ByteSize = Field(
        ByteSize(2 * _GIB), gt=0, description="The largest file that a conversion may write."
    )

    sandbox: Literal["auto", "bubblewrap", "landlock", "limits", "off"] = Field(
        "auto",
        description="How strictly the processes that touch foreign files are confined: `auto` takes the stronger of "
        "`bubblewrap` and `landlock` that this machine can keep, and refuses uploads where it can keep neither. "
        "`limits` and `off` do not isolate; [sandbox.md](sandbox.md) says what that means.",
    )

    infer_size: ByteSize = Field(ByteSize(64 * _MIB), gt=0, description="The largest request that `infer` takes.")
    infer_seconds: float = Field(
        30,
        gt=0,
        le=86400,
        description="How long one inference may take, with waiting; a runner that takes longer is stopped.",
    )
    infer_queue: int = Field(
        64, ge=0, description="How many requests may wait for one model; beyond that the answer is 503."
    )
    infer_batch: int = Field(
        32,
        ge=1,
        le=1024,
        description="How many rows of requests that wait for the same model may be run together, where the "
        "model is proved to compute each row by itself; 1 runs each request by itself.",
    )
    runners: int = Field(4, ge=1, description="How many models are kept loaded, each in a process of its own.")
    load_seconds: float = Field(300, gt=0, le=86400, description="How long loading a model may take.")
    runner_memory: ByteSize = Field(ByteSize(8 * _GIB), ge=_LEAST_MEMORY, description="Address space of one runner.")
    runner_threads: int = Field(0, ge=0, description="Threads that one inference may use; 0 means one for each core.")

    @property
    def asks(self) -> bool:
        """Whether anybody is asked for a key or a token."""
        return self.keys is not None or bool(self.oidc_issuer)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names of the service beside those of this machine."""
        return tuple(name.strip().lower() for name in self.hosts.split(",") if name.strip())

    @property
    def page_origins(self) -> tuple[str, ...]:
        """Origins of pages that may use the service beside its own."""
        return tuple(origin.strip().rstrip("/") for origin in self.origins.split(",") if origin.strip())


class UnusableSettingsError(Exception):
    """What is set cannot be used; the text says which setting, and what to do."""


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        UnusableSettingsError: If a value cannot be used, or would open the service to other machines unasked.
    """
    environment = os.environ if environment is None else environment
    told = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environment.get(PREFIX + name.upper(), "") != ""
    }
    try:
        settings = Settings.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise UnusableSettingsError(
            f"{name} cannot be {first['input']!r}: {first['msg']}\n  hint: docs/settings.md lists what can be set."
        ) from error
    _check_access(settings)
    return settings


def _check_access(settings: Settings) -> None:
    """Refuse settings that would open the service to more people than whoever set them may think.

    Raises:
        UnusableSettingsError: If they do.
    """
    if not is_loopback(settings.host) and not settings.asks and not settings.expose:
        raise UnusableSettingsError(
            f"{PREFIX}HOST is {settings.host}, which other machines can reach, and nobody would be asked for a key\n"
            f"  hint: Make a key with python -m service key and set {PREFIX}KEYS to its file, or set "
            f"{PREFIX}EXPOSE=true where something in front asks who is there."
        )
    if "*" in settings.page_origins and not settings.asks:
        raise UnusableSettingsError(
            f"{PREFIX}ORIGINS is *, and nobody would be asked for a key: every page could use the service\n"
            f"  hint: Name the origins, or set {PREFIX}KEYS."
        )
    for origin in settings.page_origins:
        address = urlsplit(origin)
        if origin != "*" and (address.scheme not in {"http", "https"} or not address.netloc or address.path):
            raise UnusableSettingsError(
                f"{PREFIX}ORIGINS has {origin!r}, which is no origin\n"
                "  hint: Write scheme, host and port: https://tools.example.org"
            )
    if settings.oidc_issuer and not settings.oidc_audience:
        raise UnusableSettingsError(
            f"{PREFIX}OIDC_ISSUER is set and {PREFIX}OIDC_AUDIENCE is not: tokens for others would be taken\n"
            f"  hint: Set {PREFIX}OIDC_AUDIENCE to what tokens for this service have as aud."
        )
    for name in ("oidc_issuer", "oidc_keys"):
        url = getattr(settings, name)
        if url and not is_safe(url):
            raise UnusableSettingsError(
                f"{PREFIX}{name.upper()} is {url}, where anybody on the way could sign tokens\n"
                "  hint: Take an address that begins with https://"
            )


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence about each variable that looks like a setting and is none."""
    bare = [name.upper() for name in Settings.model_fields]
    said = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in bare:
            close = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
            said.append(
                f"{name} is no setting and is ignored" + (f": did you mean {PREFIX}{close[0]}?" if close else "")
            )
    return said


def is_safe(url: str) -> bool:
    """Say whether what comes from an address is what whoever is there sent: by TLS, or on this machine."""
    address = urlsplit(url)
    return address.scheme == "https" or (address.scheme == "http" and is_loopback(address.hostname or ""))


def is_loopback(host: str) -> bool:
    """Say whether only programs on this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
