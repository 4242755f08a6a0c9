"""What can go wrong, as a tree: the class says what went wrong, the message which thing, the hint what to do next.

Anything that is not in this tree is a defect of bnfold itself.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BnfoldError",
    "CorruptModelError",
    "InconclusiveError",
    "InferenceModeError",
    "MissingExtraError",
    "ParityError",
    "RemoteError",
    "SignatureError",
    "SourceError",
    "UnknownFormatError",
    "UnsupportedOpError",
]


class BnfoldError(Exception):
    """A refusal that its reader can act on.

    Attributes:
        code: Stable name of the kind of error, one page in ``docs/errors.md``.
        exit_code: What the command line exits with.
        hint: One imperative sentence: the next step. Empty only where there is none.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SourceError(BnfoldError):
    """The artifact cannot be converted."""

    code = "source"
    exit_code = 3


class UnknownFormatError(SourceError):
    """The content is none of the formats that bnfold reads."""

    code = "unknown-format"


class CorruptModelError(SourceError):
    """The format is known, and the file does not hold what that format promises."""

    code = "corrupt"


class UnsupportedOpError(SourceError):
    """The network uses an operation or a layer that cannot be converted."""

    code = "unsupported-op"


class SignatureError(SourceError):
    """Inputs or outputs are ambiguous, or a named one does not exist. The message names the candidates."""

    code = "signature"


class MissingExtraError(SourceError):
    """What was asked for takes an extra that is not installed."""

    code = "missing-extra"


class InferenceModeError(SourceError):
    """The network cannot be put in inference mode, for example because it has no running statistics."""

    code = "inference-mode"


class ParityError(BnfoldError):
    """The result does not compute what the original computes, so it was not written."""

    code = "parity"
    exit_code = 1


class InconclusiveError(BnfoldError):
    """The comparison cannot tell whether the result computes what the original computes."""

    code = "inconclusive"
    exit_code = 4


class RemoteError(BnfoldError):
    """A service that was asked cannot be reached, does not let one in, or could not do the work."""

    code = "server"
