"""What goes wrong is told in one paragraph, with the exit code that scripts count on."""

from __future__ import annotations

import errno
import signal

import click
import pytest

from bnfold import errors
from bnfold.cli.exits import CODES, EXITS, Stopped, failure, nearest, one_line


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "BnfoldError"])
def test_an_error_of_the_tree_keeps_its_code_and_exit_code(name: str) -> None:
    kind: type[errors.BnfoldError] = getattr(errors, name)
    told = failure(kind("3 tensors are lost", hint="Find them."))
    assert str(told) == f"error[{kind.code}]: 3 tensors are lost\n  hint: Find them."
    assert told.exit_code == kind.exit_code
    assert told.exit_code in EXITS


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device", "out.onnx"),
            "error[file]: out.onnx: no space left on device\n  hint: Free some space there, or write to another disk.",
            id="full disk",
        ),
        pytest.param(
            PermissionError(errno.EACCES, "Permission denied", "out.onnx"),
            "error[file]: out.onnx: permission denied\n  hint: Ask for the permission, or use another folder.",
            id="permission",
        ),
        pytest.param(
            FileNotFoundError(errno.ENOENT, "the folder there does not exist", "there/out.onnx"),
            "error[file]: there/out.onnx: the folder there does not exist\n"
            "  hint: Create the folder first, or check the path for a typing mistake.",
            id="no folder",
        ),
        pytest.param(OSError("something"), "error[file]: something", id="without a number"),
    ],
)
def test_an_error_of_the_system_says_which_file_and_what_to_do(error: OSError, shown: str) -> None:
    told = failure(error)
    assert str(told) == shown
    assert told.exit_code == 1


@pytest.mark.parametrize(
    ("error", "because"),
    [
        (MemoryError("Unable to allocate 3 TiB"), ": Unable to allocate 3 TiB"),
        (MemoryError(), ""),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ""),
        (RuntimeError("std::bad_alloc"), ": std::bad_alloc"),
    ],
)
def test_lack_of_memory_is_no_defect(error: Exception, because: str) -> None:
    told = failure(error)
    assert str(told) == (
        f"error[memory]: not enough memory{because}\n"
        "  hint: Close other programs, or run it on a machine with more memory."
    )
    assert told.exit_code == 1


def test_anything_unforeseen_is_our_defect_and_says_how_to_report_it() -> None:
    told = failure(KeyError("x"))
    assert told.exit_code == 70
    assert told.message == "this is a defect of bnfold, not of your model: KeyError: 'x'"
    assert told.hint.startswith(
        "Report it with what the same command prints with -v, the model if you may share it, and: bnfold 0.1.0, onnx 1."
    )


@pytest.mark.parametrize(
    ("error", "number", "message", "exit_code"),
    [
        (Stopped(signal.SIGINT), signal.SIGINT, "stopped by Ctrl-C", 130),
        (Stopped(signal.SIGTERM), signal.SIGTERM, "stopped by SIGTERM", 143),
        (click.Abort(), 0, "stopped by Ctrl-C", 130),
        (RuntimeError("a library's answer to the interrupt"), signal.SIGINT, "stopped by Ctrl-C", 130),
    ],
)
def test_a_signal_is_no_defect_whatever_a_library_makes_of_it(
    error: BaseException, number: int, message: str, exit_code: int
) -> None:
    told = failure(error, stopped=number)
    assert str(told) == (
        f"error[stopped]: {message}; nothing half-written is left behind\n"
        "  hint: Run the command again; an output that was there before is as it was."
    )
    assert told.exit_code == exit_code


def test_a_message_is_one_paragraph_whatever_is_in_the_names() -> None:
    assert one_line("a\n  b\x1b[31mc\u202ed\t\r\n e") == "a b\\x1b[31mc\\u202ed e"
    told = failure(errors.CorruptModelError("tensor '\x1b]0;owned\x07\n' is\n odd", hint="Look\nat it."))
    assert str(told) == "error[corrupt]: tensor '\\x1b]0;owned\\x07 ' is odd\n  hint: Look at it."


@pytest.mark.parametrize(
    ("word", "expected"),
    [("convret", ("convert",)), ("CONVERT", ("convert",)), ("in", ("inspect",)), ("xyz", ()), ("", ())],
)
def test_the_nearest_words_are_found(word: str, expected: tuple[str, ...]) -> None:
    assert nearest(word, ["convert", "fold", "inspect", "verify"]) == expected


def test_every_kind_of_failure_has_an_exit_code_that_is_documented() -> None:
    assert {exit_code for exit_code, _said in CODES.values()} <= set(EXITS)
    assert set(EXITS) >= {0, 1, 2, 3, 4, 70, 130}
