"""From what went wrong to what the user reads and what the shell gets."""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass

import click

from bnfold.errors import BnfoldError

__all__ = ["CODES", "EXITS", "FAILED", "OK", "Failure", "Stopped", "failure", "nearest", "one_line"]

OK, FAILED, USAGE, SOURCE, INCONCLUSIVE, DEFECT = 0, 1, 2, 3, 4, 70

EXITS: dict[int, str] = {
    OK: "Done.",
    FAILED: "Parity failed, two files differ, a file could not be written, or a service could not be asked. "
    "What was there is as it was.",
    USAGE: "The command line is wrong.",
    SOURCE: "The artifact cannot be converted; the message says what is missing.",
    INCONCLUSIVE: "The comparison cannot tell whether the result computes what the original computes.",
    DEFECT: "A defect of bnfold itself.",
    128 + signal.SIGINT: "Stopped by Ctrl-C; stopped by a termination signal it is 143. Nothing half-written is left.",
}
"""What the shell gets, and what it means."""

CODES: dict[str, tuple[int, str]] = {
    "usage": (USAGE, "The command line is wrong: an unknown command, option or value, or something is missing."),
    "file": (FAILED, "A file or folder cannot be read or written: no space, no permission, no such folder."),
    "memory": (FAILED, "The machine has not enough memory for this model."),
    "stopped": (128 + signal.SIGINT, "Ctrl-C or a termination signal stopped the command."),
    "defect": (DEFECT, "Something went wrong inside bnfold that its authors did not foresee."),
}
"""Kinds of failure that only the command line knows: the exit code, and what each means."""

_HINTS = {
    errno.ENOSPC: "Free some space there, or write to another disk.",
    errno.EDQUOT: "Free some space there, or write to another disk.",
    errno.EFBIG: "Raise the limit on the size of files, or write to another disk.",
    errno.EACCES: "Ask for the permission, or use another folder.",
    errno.EPERM: "Ask for the permission, or use another folder.",
    errno.EROFS: "Write to another folder: this one is read-only.",
    errno.ENOENT: "Create the folder first, or check the path for a typing mistake.",
    errno.ENOTDIR: "Check the path for a typing mistake.",
    errno.EISDIR: "Name a file inside the folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit on open files.",
}


_OUT_OF_MEMORY = re.compile(
    r"(?i)bad_alloc|(failed|unable) to allocate|cannot allocate memory|failed to (map segment|serialize proto)"
)
"""How libraries written in C++ say that memory ran out."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop; a base exception, so that no library takes it for one of its own errors.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass(frozen=True, slots=True)
class Failure:
    """What is shown and returned when a command does not end well.

    Attributes:
        code: The stable name of the kind, with a section in ``docs/errors.md``.
        message: One paragraph: which thing, with numbers.
        hint: One imperative sentence; may be empty.
        exit_code: What the shell gets.
    """

    code: str
    message: str
    hint: str
    exit_code: int

    def __str__(self) -> str:
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"error[{self.code}]: {self.message}{hint}"


def failure(error: BaseException, *, stopped: int = 0) -> Failure:
    """Return what to tell about anything that was raised.

    Args:
        error: What was raised.
        stopped: The number of a signal that asked the program to stop, 0 if none did. Then whatever was raised is taken
            for its consequence: libraries answer an interrupt with errors of their own.
    """
    if isinstance(error, KeyboardInterrupt | click.Abort) or stopped:
        # click takes an interrupt for an Abort of its own.
        hints = (getattr(told, "hint", "") for told in (error, error.__cause__))
        return _stopped(stopped or int(signal.SIGINT), next(filter(None, hints), ""))
    match error:
        case BnfoldError():
            return Failure(error.code, one_line(error), one_line(error.hint), error.exit_code)
        case MemoryError() | OSError(errno=errno.ENOMEM):
            return _out_of_memory(error)
        case click.UsageError():
            return Failure("usage", one_line(_usage(error)), _usage_hint(error), USAGE)
        case click.ClickException():
            return Failure("usage", one_line(error.format_message()), "", USAGE)
        case OSError():
            return Failure("file", one_line(_os_message(error)), _HINTS.get(error.errno or 0, ""), FAILED)
    if _OUT_OF_MEMORY.search(str(error)):
        return _out_of_memory(error)
    said = f"{type(error).__name__}{_because(error)}"
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    return Failure(
        "defect",
        one_line(f"this is a defect of bnfold, not of your model: {said}"),
        f"Report it with what the same command prints with -v, the model if you may share it, and: {versions}.",
        DEFECT,
    )


def nearest(word: str, known: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Return the known words that look most like a given one, best first; none where nothing is near."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in reversed(known)}
    found = difflib.get_close_matches(word.lower(), folded, n=count, cutoff=0.6)
    starts = [name for name in folded if len(word) > 1 and name.startswith(word.lower()) and name not in found]
    return tuple(folded[name] for name in [*found, *starts][:count])


def one_line(text: object) -> str:
    """Return text as one paragraph without control characters: names come from files that anybody may have written."""
    paragraph = re.sub(r"\s*\n\s*", " ", str(text).strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in paragraph)


def _stopped(number: int, hint: str) -> Failure:
    said = "stopped by Ctrl-C" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    hint = hint or "Run the command again; an output that was there before is as it was."
    return Failure("stopped", f"{said}; nothing half-written is left behind", one_line(hint), 128 + number)


def _out_of_memory(error: BaseException) -> Failure:
    because = "" if isinstance(error, OSError) else _because(error)
    hint = "Close other programs, or run it on a machine with more memory."
    return Failure("memory", one_line(f"not enough memory{because}"), hint, FAILED)


def _because(error: BaseException) -> str:
    return f": {error}" if str(error) else ""


def _os_message(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    said = _uncapitalised(said)
    name = error.filename2 or error.filename
    return f"{os.fsdecode(name)}: {said}" if isinstance(name, str | bytes | os.PathLike) else said


def _usage(error: click.UsageError) -> str:
    parameter = getattr(error, "param", None)
    if isinstance(error, click.NoSuchOption):
        said = f"no such option: {error.option_name}"
    elif isinstance(error, click.MissingParameter) and parameter is not None:
        said = f"{_label(parameter)} is missing"
    elif isinstance(error, click.BadParameter) and parameter is not None:
        said = f"{_label(parameter)}: {_uncapitalised(error.message)}"
    else:
        said = _uncapitalised(error.message)
    return said.removesuffix(".")


def _label(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _usage_hint(error: click.UsageError) -> str:
    hint = getattr(error, "hint", "")
    if hint:
        return one_line(hint)
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        options = (parameter for parameter in error.ctx.command.get_params(error.ctx) if parameter.opts)
        near = nearest(error.option_name, [name for option in options for name in option.opts if name.startswith("--")])
        if near:
            return f"Did you mean {' or '.join(near[:2])}?"
    command = error.ctx.command_path if error.ctx is not None else "bnfold"
    return f"See: {command} --help"


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata  # a quarter of the start, and needed when something fails

    found = {"bnfold": "", "onnx": "", "onnxruntime": "", "tensorflow": ""}
    for name in found:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if version} | {"Python": platform.python_version()}
