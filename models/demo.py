"""Show it all: convert every trained model, serve one of them, and compare both with the originals.

Run ``make demo``, or ``python models/demo.py NAME ...`` for some models of ``zoo.toml``. It writes into a temporary
folder that is gone afterwards, and exits with 1 if anything disagrees.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Read by TensorFlow when it is first imported: the CPU is enough, and its log lines are not what this is about.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Read by onnxruntime when it is first imported: it would report to its maker and leave an identifier on the disk.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import digits
import numpy as np
import zoo
from served import Service, ServiceFailedError

import bnfold

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import Console

SERVED = "keras-depthwise"
PASSED = {"pass": "passed", "pass-more-accurate": "passed, more accurate"}


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one model."""

    model: zoo.Model
    batch_norms: str
    verdict: str
    correct: int | None
    seconds: float
    kept: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether it was proven, and gets exactly as many digits right as the original does."""
        return self.verdict in PASSED and self.correct == self.model.correct


def options(model: zoo.Model) -> bnfold.Options:
    """Return what ``bnfold convert`` has to be told about a model: nothing, for most."""
    hints = model.hints
    return bnfold.Options(
        outputs=tuple(filter(None, hints.get("outputs", "").split(","))),
        architecture=zoo.HERE / hints["architecture"] if "architecture" in hints else None,
        builder=str(zoo.HERE / hints["builder"]) if "builder" in hints else None,
    )


def feed(model: zoo.Model, split: digits.Split) -> npt.NDArray[np.floating]:
    """Return digits in the shape and type in which a model takes them."""
    pixels = split.pixels if model.layout == "flat" else split.images(channels_last=model.layout == "channels-last")
    return pixels.astype(model.dtype)


def answers(path: Path, pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Run a folded model on digits with onnxruntime, as it was written."""
    import onnxruntime

    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), plain, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def converted(model: zoo.Model, folder: Path, split: digits.Split) -> Row:
    """Convert one model and count the digits that the result gets right."""
    start = time.perf_counter()
    try:
        conversion = bnfold.convert(zoo.HERE / model.path, options(model))
        path = conversion.save(folder / f"{model.name}.onnx")
    except bnfold.BnfoldError as error:
        return Row(model, "", f"{error.code}: {error}", None, time.perf_counter() - start)
    except Exception as error:  # a defect of bnfold: the other models are still worth seeing
        return Row(model, "", f"{type(error).__name__}: {error}", None, time.perf_counter() - start)
    report, seconds = conversion.report, time.perf_counter() - start
    correct = digits.correct(answers(path, feed(model, split)), split)
    kept = tuple(f"{row.name}: {row.kept.says}" for row in report.batch_norms if row.kept is not None)
    counted = f"{len(report.folded)} of {len(report.batch_norms)}"
    return Row(model, counted, report.verdict, correct, seconds, kept)


def convert_all(console: Console, models: Sequence[zoo.Model], folder: Path, split: digits.Split) -> list[Row]:
    """Convert the models, with a line for each as soon as it is done."""
    console.print("\n[bold]1  Convert trained models to ONNX, with their batch norms folded[/bold]\n")
    console.print(f"   {'':24}{'':24}{'batch norms':>12}  {'digits right':>13}", style="dim")
    console.print(f"   {'model':24}{'what it is':24}{'folded':>12}  {'before, after':>13}  verified", style="dim")
    rows = []
    for model in models:
        with waiting(console, model.name):
            row = converted(model, folder, split)
        rows.append(row)
        mark = "[green]✓[/green]" if row.agrees else "[red]✗[/red]"
        right = f"{model.correct}, {'-' if row.correct is None else row.correct}"
        verdict = PASSED.get(row.verdict, row.verdict)
        console.print(
            f" {mark} {model.name:24}{model.kind:24}{row.batch_norms:>12}  {right:>13}  "
            f"{verdict:26}{row.seconds:5.1f}s",
            highlight=False,
        )
    stays = [(row.model.name, line) for row in rows for line in row.kept]
    if stays:
        console.print("\n   What stays, and why", style="dim")
    for name, line in stays:
        console.print(f"   {name:24}{line}", highlight=False)
    return rows


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Turn a spinner meanwhile, where somebody looks at a terminal."""
    with console.status(f"   {what}") if console.is_terminal else nullcontext():
        yield


def serve_one(console: Console, model: zoo.Model, folder: Path, split: digits.Split) -> bool:
    """Start the service, fold a model by HTTP, ask it about the test digits, and say whether it is right."""
    pixels = feed(model, split)
    console.print(
        f"\n[bold]2  Serve one of them[/bold]   python -m service, and models/{model.path}\n", highlight=False
    )
    with Service(folder / "store") as service:
        console.print(f"   listening at {service.url}", highlight=False)
        start = time.perf_counter()
        with waiting(console, "folding in a process of its own"):
            card = service.fold(zoo.HERE / model.path)
        verdict = PASSED.get(card["verdict"], card["verdict"])
        console.print(
            f"   POST /fold   the folded model after {time.perf_counter() - start:.1f} s, verified: {verdict}",
            highlight=False,
        )
        start = time.perf_counter()
        scores = service.infer(card["links"]["infer"], card["inputs"][0]["name"], pixels)
        seconds = time.perf_counter() - start
    correct = digits.correct(scores, split)
    agrees = correct == model.correct and card["verdict"] in PASSED
    mark = "[green]✓[/green]" if agrees else "[red]✗[/red]"
    console.print(
        f"   POST /v2/models/{card['name'][:12]}…/infer   {len(pixels)} digits answered after {seconds:.2f} s\n"
        f" {mark} {correct} of {model.total} digits right; the original network gets {model.correct} right\n"
        "   stopped",
        highlight=False,
    )
    return agrees


def chosen(names: Sequence[str]) -> tuple[list[zoo.Model], zoo.Model]:
    """Return the models of those names, or all; and the one to serve, which must be one file.

    Raises:
        ValueError: If there is no such model, or none to serve.
    """
    models = [model for model in zoo.read() if not names or model.name in names]
    unknown = set(names) - {model.name for model in models}
    single = [model for model in models if (zoo.HERE / model.path).is_file() and not model.hints]
    if unknown or not single:
        known = ", ".join(model.name for model in zoo.read())
        raise ValueError(f"{', '.join(sorted(unknown)) or 'nothing to serve'}: name some of {known}")
    return models, next((model for model in single if model.name == SERVED), single[0])


def goodbye(console: Console) -> None:
    """Say what to type next."""
    console.print("\n[bold]Next[/bold]\n")
    for line, meaning in (
        ("bnfold convert models/keras_depthwise/depthwise.keras -o digits.onnx", "the same by hand"),
        ("bnfold inspect models/torch_conv/digits.onnx", "every batch norm, and what would become of it"),
        ("bnfold explain padded-shift", "why one of them stays"),
        ("make serve", "the service on port 8080"),
    ):
        console.print(f"   .venv/bin/{line}" if line.startswith("bnfold") else f"   {line}", highlight=False)
        console.print(f"      {meaning}", style="dim")
    console.print()


def _interrupted(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration and return its exit code."""
    from rich.console import Console

    signal.signal(signal.SIGTERM, _interrupted)
    console = Console(soft_wrap=True)
    try:
        models, served = chosen(sys.argv[1:])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="bnfold-demo-") as folder:
            split = digits.load().test
            rows = convert_all(console, models, Path(folder), split)
            wrong = [row.model.name for row in rows if not row.agrees]
            if not serve_one(console, served, Path(folder), split):
                wrong.append("the served model")
    except ServiceFailedError as error:
        console.print(f"\n[red]The service failed.[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped; nothing was left behind.")
        return 130
    if wrong:
        console.print(f"\n[red]These disagree with their originals:[/red] {', '.join(wrong)}", highlight=False)
        return 1
    console.print(f"\n[green]All {len(rows)} models compute what their originals compute.[/green]", highlight=False)
    goodbye(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
