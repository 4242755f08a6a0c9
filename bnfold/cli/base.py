"""What all commands share: the options that may stand before or after the command, and the shape of their help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

from bnfold.cli.exits import nearest

__all__ = ["GLOBAL", "Command", "Group", "Nearest", "Settings", "State"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the global options say.

    Attributes:
        format: ``"text"`` or ``"json"``.
        quiet: Only errors are printed.
        verbose: Everything is printed: what was kept and why, every gate, tracebacks of defects.
        color: False without colour.
        progress: False without a progress line.
        seed: What the probes are drawn with.
    """

    format: str = "text"
    quiet: bool = False
    verbose: bool = False
    color: bool = True
    progress: bool = True
    seed: int = 0


@dataclass(slots=True)
class State:
    """What one run of the program carries along: the settings as far as they are known."""

    settings: Settings = field(default_factory=Settings)


class Nearest(click.Choice[str]):
    """A choice that answers a misspelt value with the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or say which ones there are and which is meant."""
        if value in self.choices:
            return str(value)
        error = click.BadParameter(f"{value!r} is none of {', '.join(self.choices)}", ctx=ctx, param=param)
        _hint(error, _did_you_mean(nearest(str(value), self.choices)))
        raise error


def _hint(error: click.UsageError, hint: str) -> None:
    error.hint = hint  # type: ignore[attr-defined]  # read by exits.failure


def _did_you_mean(names: Sequence[str]) -> str:
    return f"Did you mean {' or '.join(names)}?" if names else ""


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if ctx.get_parameter_source(param.name or "") is not click.core.ParameterSource.DEFAULT:
            state = ctx.ensure_object(State)
            told = not value if (param.name or "").startswith("no_") else value
            state.settings = _with(state.settings, name, told)

    return callback


def _with(settings: Settings, name: str, value: Any) -> Settings:
    changed: dict[str, Any] = {name: value}
    return replace(settings, **changed)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from bnfold import __version__

        click.echo(f"bnfold {__version__}")
        ctx.exit()


def _option(*names: str, setting: str, **attributes: Any) -> click.Option:
    return click.Option(names, expose_value=False, is_eager=True, callback=_remember(setting), **attributes)


def _global_options() -> dict[str, click.Option]:
    return {
        "format": _option(
            "--format", setting="format", type=Nearest(["text", "json"]), help="What to print.  [default: text]"
        ),
        "quiet": _option("--quiet", "-q", setting="quiet", is_flag=True, help="Print nothing but errors."),
        "verbose": _option(
            "--verbose", "-v", setting="verbose", is_flag=True, help="Print every detail; a traceback if bnfold fails."
        ),
        "no_color": _option(
            "--no-color",
            setting="color",
            is_flag=True,
            help="No colour. The environment variable NO_COLOR does it too.",
        ),
        "no_progress": _option("--no-progress", setting="progress", is_flag=True, help="No progress line."),
        "seed": _option(
            "--seed",
            setting="seed",
            type=click.IntRange(0, 2**32 - 1),
            metavar="N",
            show_default=False,
            help="Draw the probes with it.  [default: 0]",
        ),
        "version": click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_show_version,
            help="Print the version and stop.",
        ),
    }


GLOBAL = tuple(_global_options())
"""Names of the global options."""


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    shared = {name for option in _global_options().values() for name in option.opts} | {"--help"}
    own: list[tuple[str, str]] = []
    everywhere: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            (everywhere if shared.intersection(parameter.opts) else own).append(record)
    for title, records in (("Options", own), ("Global options, before or after the command", everywhere)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, shared: Sequence[str] = GLOBAL, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        available = _global_options()
        self.params.extend(available[name] for name in shared)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones."""
        _write_options(self, ctx, formatter)


class Group(click.Group):
    """The program: its commands, and the global options in front of them."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.extend(_global_options().values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the global options."""
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's shape
        """Return the commands in the order in which a user meets them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one is meant."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            error = click.UsageError(f"no such command: {name}", ctx=ctx)
            _hint(error, _did_you_mean(nearest(name, self.commands)))
            raise error
        return super().resolve_command(ctx, args)
