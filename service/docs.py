"""The pages ``docs/settings.md`` and ``docs/http.md``, made from the code: ``python -m service.docs`` writes them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ByteSize

from service import problems
from service.app import make_app
from service.options import FIELDS
from service.routes.fold import MODEL
from service.scratch import open_scratch
from service.settings import PREFIX, Settings, read_settings
from service.state import make_state

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["HTTP_PAGE", "SETTINGS_PAGE", "http_page", "settings_page"]

_DOCS = Path(__file__).resolve().parents[1] / "docs"
SETTINGS_PAGE = _DOCS / "settings.md"
HTTP_PAGE = _DOCS / "http.md"
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def settings_page() -> str:
    """Return the text of ``docs/settings.md``."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | `{_default(about)}` | {about.description} |"
        for name, about in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings of the service",
            "",
            "`python -m service` reads them from the environment when it starts. Sizes are bytes, or have a",
            "unit: `512MiB`. A variable that begins with `BNFOLD_` and is not here is told in the log and ignored.",
            "Traces are set up by OpenTelemetry's own variables: [operating.md](operating.md) says how.",
            "",
            "| variable | default | what it does |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def http_page() -> str:
    """Return the text of ``docs/http.md``."""
    return "\n".join(
        [_INTRODUCTION, *_endpoints(), "", _FORM, *_fields(), "", _JOBS, "", _INFERENCE, "", _ERRORS, *_problems(), ""]
    )


def _endpoints() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"BNFOLD_SANDBOX": "off"})
        paths = make_app(make_state(settings, open_scratch(Path(folder)))).openapi()["paths"]
    return [
        "| | |",
        "|---|---|",
        *(
            f"| {method.upper()} `{path}` | {' '.join(about['description'].split())} |"
            for path, methods in paths.items()
            for method, about in methods.items()
        ),
    ]


def _fields() -> list[str]:
    return [
        "| field | |",
        "|---|---|",
        f"| `model` | {MODEL} |",
        "| `architecture` | A file: the architecture of a Keras file that holds only weights, as JSON. |",
        *(f"| `{field}` | {says} |" for field, (_, says) in FIELDS.items()),
    ]


def _problems() -> list[str]:
    classes = [getattr(problems, name) for name in problems.__all__ if name.endswith("Error")]
    told = [each for each in classes if each not in {problems.ServiceError, problems.RefusedError}]
    rows = sorted(
        (each.status, each.code, " ".join((each.__doc__ or "").partition("\n\n")[0].split())) for each in told
    )
    return [
        "| status | `code` | |",
        "|---|---|---|",
        *(f"| {status} | `{code}` | {says} |" for status, code, says in rows),
    ]


def _default(about: FieldInfo) -> str:
    value = about.default
    if value is None or value == 0:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else "0"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        size, unit = next((size, unit) for size, unit in _UNITS if value % size == 0)
        return f"{value // size}{unit}"
    return f"{value:g}" if isinstance(value, float) else str(value)


_INTRODUCTION = """# The service over HTTP

```
make serve
curl -F model=@network.keras localhost:8080/fold
curl -F model=@network.keras -H 'Accept: application/octet-stream' -o folded.onnx localhost:8080/fold
```

`make serve` starts it on 127.0.0.1, port 8080; [settings.md](settings.md) lists what can be set. Every conversion runs
in a process of its own that is confined and has limits, and every served model in another.

A folded model is kept as version 1, 2, 3 … of the `name` that the request gives. Without one it gets a name that is
made from the file's and from the content, the options and the versions that folded it, so that it never stands for
anything else. The same again is answered at once.

Where the service asks for a key, it comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`; without one, or with one
that is not known, the answer is 401, and 403 where the key is for something else. What belongs to another tenant is
answered like what is not there. Where it asks for none, pages of other origins are refused with 403.
[operating.md](operating.md) says more, also about limits, metrics and the log. Every answer has an `X-Request-ID`.
"""

_FORM = """## The form that `/fold` takes

`multipart/form-data`. The options mean what they mean on the command line. Or the file is the whole body, of any type
that is not text, with the options and a `filename` in the query:

```
curl -T network.keras -X POST 'localhost:8080/fold?filename=network.keras&verify=fast'
```
"""

_JOBS = """\
## Jobs

A request is a job from the moment on that its upload has arrived, and it goes on when the client goes away, or the
service is killed. `POST /fold` waits 20 seconds for its end (`Prefer: wait=5`, up to 30; `Prefer: respond-async` does
not wait) and then answers 202 with the job:

```
curl -s -T network.keras -X POST -H 'Prefer: respond-async' 'localhost:8080/fold?filename=network.keras'
curl localhost:8080/jobs/JOB           # state: queued, running, succeeded, failed or cancelled
curl -N localhost:8080/jobs/JOB/events # server-sent events: `state` and `step`
curl -X DELETE localhost:8080/jobs/JOB # cancel it; once it has ended: forget it
```

The same content with the same options is the same job while it has not ended, and the same model afterwards. With an
`Idempotency-Key` a request can be sent again whatever became of it, also one that failed: the answer is that of the
first. A conversion that is killed is begun again, up to `BNFOLD_ATTEMPTS` times. `expires_at` says when a job is
forgotten, and `upload_expires_at` when its upload is thrown away; models stay until they are deleted."""

_INFERENCE = """## Running a model

```
curl localhost:8080/v2/models/NAME/infer \\
    -d '{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}'
```

The Open Inference Protocol, version 2, over HTTP and over gRPC (`inference.GRPCInferenceService`, on a port of its own,
`BNFOLD_GRPC_PORT`), with binary tensors, model repository, configuration and statistics; any of its clients will do,
and those of Triton and KServe are tried. `-1` in a shape stands for any size. FP16 and BF16 travel as binary only. A
number that JSON cannot write (NaN, infinity) is an error unless the output is asked for as binary. Requests may be
compressed with gzip or deflate; answers are for whoever names one of the two, alone, in `Accept-Encoding`. Sequences of
requests, shared memory and outputs as classes are not offered.

A model is loaded when it is first asked, run once, and ready then: `GET /v2/models/NAME/ready` waits for that. So many
are kept loaded as `BNFOLD_RUNNERS` says. `POST /v2/repository/models/NAME/unload` unloads a model until it is loaded by
name or the service starts again. Each model runs in a process of its own that reads the requests, too; one that dies or
hangs is replaced, and requests that were not at fault are put to the next one.

Models run in onnxruntime with its own rewriting of graphs switched off, so that what is served is what was proven.
Requests that wait for the same model are run together where nobody can tell: each row must depend on nothing but itself
by the graph, and be computed to the same bits alone and among others, which is tried when the model is loaded."""

_ERRORS = """## Errors

`application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with a `detail` that says what is wrong,
a `hint` that says what to do, and a `code` that stays. Under `/v2` the member `error` repeats both as one string. A
model that is refused gets the code, message and hint that the command line has for it: 415 for `unknown-format`, 409
for `parity` and `inconclusive`, 422 for the rest. The others are:
"""


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page(), "utf-8")
    HTTP_PAGE.write_text(http_page(), "utf-8")
