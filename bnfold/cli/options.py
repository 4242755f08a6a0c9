"""Options that several commands take, and what they mean to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bnfold.cli.base import Nearest, Settings
from bnfold.cli.destination import check_folder

if TYPE_CHECKING:
    from bnfold.pipeline import Options

__all__ = [
    "chosen",
    "comparing_options",
    "folding_options",
    "framework_options",
    "naming_options",
    "path_argument",
    "proof_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_LARGEST_BATCH = 4096


def _names(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> tuple[str, ...]:
    """Split names at commas; the option may also be repeated."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _pairs(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, told = value.partition("=")
        if not name or not equals or not told:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE")
        pairs[name.strip()] = told.strip()
    return pairs


def _sizes(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> tuple[int, ...]:
    """Split sizes at commas; the option may also be repeated."""
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or not 0 < int(word) <= _LARGEST_BATCH:
            raise click.BadParameter(f"{word!r} is no size from 1 to {_LARGEST_BATCH}")
    return tuple(int(word) for word in words)


def _folder(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    check_folder(path)
    return path


def _builder(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not all(value.rpartition(":")[::2]):
        raise click.BadParameter(f"{value!r} is not of the form FILE.py:FUNCTION")
    return value


def _apply(options: Iterable[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        """Give a command these options."""
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


def path_argument(name: str, **attributes: Any) -> Callable[[Command], Command]:
    """Take a path; what stands there is looked at by whoever reads it."""
    return click.argument(name, type=_FILE, metavar=name.upper(), **attributes)


naming_options = _apply(
    (
        click.option("--inputs", multiple=True, callback=_names, metavar="A,B", help="Tensors to feed."),
        click.option("--outputs", multiple=True, callback=_names, metavar="Y", help="Tensors to compute."),
        click.option(
            "--set",
            "set_values",
            multiple=True,
            callback=_pairs,
            metavar="NAME=VALUE",
            help="Pin a mode input, for example phase_train=False.",
        ),
    )
)
"""What to feed and what to compute."""

framework_options = _apply(
    (
        click.option("--signature", metavar="NAME", help="The SavedModel's signature.  [default: its default one]"),
        click.option("--architecture", type=_FILE, metavar="F.json", help="The architecture of a weights-only .h5."),
        click.option(
            "--builder",
            callback=_builder,
            metavar="F.py:FN",
            help="The function that builds the model of a weights-only .h5. It is run.",
        ),
        click.option(
            "--custom",
            type=_FILE,
            metavar="F.py",
            help="The file that defines layers that are not Keras's own. It is run.",
        ),
        click.option("--opset", type=click.IntRange(min=1), metavar="N", help="The ONNX opset to convert to."),
        click.option(
            "--ema",
            type=Nearest(["auto", "yes", "no"]),
            default="auto",
            show_default=True,
            help="Take the moving averages of the weights that a checkpoint holds; auto: what the program restores.",
        ),
        click.option("--trust", is_flag=True, help="Run code that is inside the file (Lambda layers)."),
    )
)
"""What the frontends of frameworks may need to know."""

folding_options = _apply(
    (
        click.option(
            "--fold",
            type=Nearest(["all", "fewest", "none"]),
            default="all",
            show_default=True,
            help="What to fold: all that makes nothing slower, or what leaves the fewest batch norms.",
        ),
        click.option("--keep", multiple=True, metavar="GLOB", help="Leave batch norms of that name as they are."),
        click.option(
            "--freeze-initializers",
            is_flag=True,
            help="Take weights that are also inputs, which a caller could override, as constants.",
        ),
    )
)
"""What to fold."""


def proof_options(levels: Iterable[str]) -> Callable[[Command], Command]:
    """Take how to prove the result."""
    return _apply(
        (
            click.option(
                "--verify",
                type=Nearest(list(levels)),
                help="How much to check.  [default: full, fast above 100 million parameters]",
            ),
            click.option(
                "--data",
                type=_FILE,
                metavar="NPZ|DIR|F.py:FN",
                help="Inputs to check with, by input name: .npz, a folder of .npy (one set) or of .npz (several), "
                "or a function that returns or yields them. It is run.",
            ),
            click.option(
                "--repro",
                type=_FILE,
                callback=_folder,
                metavar="DIR",
                help="Where something fails, write the smallest piece that shows it there, with its inputs.",
            ),
        )
    )


comparing_options = _apply(
    (
        click.option(
            "--batch",
            multiple=True,
            callback=_sizes,
            metavar="1,2,7",
            help="Sizes of the batch to check with.  [default: 1, 2 and 3]",
        ),
        click.option(
            "--metric",
            callback=_builder,
            metavar="F.py:FN",
            help="A function of outputs and inputs that measures how good they are. It is run.",
        ),
        click.option("--layerwise", is_flag=True, help="Show the error of every value that both models compute."),
    )
)
"""What to compare besides the outputs."""


def chosen(settings: Settings, **told: Any) -> Options:
    """Return what the command line says as the pipeline's options."""
    from bnfold.pipeline import Options

    return Options(seed=settings.seed, **told)
