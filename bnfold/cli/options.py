"""Options that several commands take, and what they mean to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bnfold.cli.base import Nearest, Settings

if TYPE_CHECKING:
    from bnfold.pipeline import Options

__all__ = ["chosen", "folding_options", "framework_options", "naming_options", "path_argument", "proof_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


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
        click.option("--opset", type=click.IntRange(min=1), metavar="N", help="The ONNX opset to convert to."),
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
                metavar="NPZ|DIR",
                help="Inputs to check with, by input name: .npz or a folder of .npy.",
            ),
        )
    )


def chosen(settings: Settings, **told: Any) -> Options:
    """Return what the command line says as the pipeline's options."""
    from bnfold.pipeline import Options

    return Options(seed=settings.seed, **told)
