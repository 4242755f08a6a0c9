"""What can go wrong with a request, and the body that says so: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from bnfold import BnfoldError

if TYPE_CHECKING:
    from starlette.responses import JSONResponse

__all__ = [
    "CancelledError",
    "CrashedError",
    "DatabaseError",
    "DrainingError",
    "ForbiddenError",
    "IdempotencyError",
    "InternalError",
    "IssuerAwayError",
    "KilledError",
    "LengthRequiredError",
    "LimitError",
    "LoadedError",
    "MalformedError",
    "MethodError",
    "NotFoundError",
    "NotReadyError",
    "NotRunnableError",
    "QueueFullError",
    "QuotaError",
    "RateLimitedError",
    "RefusedError",
    "SandboxError",
    "ServiceError",
    "SlowUploadError",
    "StorageError",
    "TensorError",
    "TimeLimitError",
    "TooLargeError",
    "UnauthorizedError",
    "UnsupportedMediaError",
    "answer_with",
    "body_of",
    "no_answer",
    "problem",
    "storage_error",
]

_LOG = logging.getLogger("service.problems")


class ServiceError(BnfoldError):
    """A request that is answered with a problem.

    Attributes:
        status: The HTTP status of the answer.
        members: Members of the body beyond those of every problem, for example the limit that was exceeded.
        headers: Headers of the answer.
    """

    code = "service"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.members = dict(members or {})
        self.headers = dict(headers or {})


class MalformedError(ServiceError):
    """The request is not of the form that the endpoint takes."""

    code = "malformed"
    status = 400


class TensorError(ServiceError):
    """The tensors of an inference request are not those that the model takes."""

    code = "tensor"
    status = 400


class UnauthorizedError(ServiceError):
    """Nobody said who asks, or what was said is not valid, or no longer."""

    code = "unauthorized"
    status = 401


class ForbiddenError(ServiceError):
    """The key does not allow it, or a page of somebody else asks in the name of whoever looks at it."""

    code = "forbidden"
    status = 403


class NotFoundError(ServiceError):
    """There is no such model, or no such page."""

    code = "not-found"
    status = 404


class MethodError(ServiceError):
    """The endpoint exists and does not take this method."""

    code = "method"
    status = 405


class SlowUploadError(ServiceError):
    """The request took too long to arrive."""

    code = "slow-upload"
    status = 408


class LengthRequiredError(ServiceError):
    """The request says neither how long its body is, nor that it comes in chunks."""

    code = "length-required"
    status = 411


class TooLargeError(ServiceError):
    """The request is larger than what is taken; the body names the limit in bytes."""

    code = "too-large"
    status = 413


class UnsupportedMediaError(ServiceError):
    """The request is of another media type than the endpoint takes."""

    code = "unsupported-media"
    status = 415


class LimitError(ServiceError):
    """The conversion took more memory or larger files than a conversion is given."""

    code = "limit"
    status = 422


class NotRunnableError(ServiceError):
    """The model is kept, and onnxruntime cannot run it."""

    code = "not-runnable"
    status = 422


class RateLimitedError(ServiceError):
    """The key was used more often than it may be in a second; the answer says when to try again."""

    code = "rate-limited"
    status = 429


class QuotaError(ServiceError):
    """The tenant has as many unfinished jobs, or has sent as many bytes in a day, as the key allows."""

    code = "quota"
    status = 429


class QueueFullError(ServiceError):
    """As much is waiting as may wait; the answer says when to try again."""

    code = "queue-full"
    status = 503


class IssuerAwayError(ServiceError):
    """Whoever signs tokens cannot be asked for the keys to check them."""

    code = "issuer-away"
    status = 503


class NotReadyError(ServiceError):
    """The model was unloaded, and stays so until it is loaded by name."""

    code = "not-ready"
    status = 503


class SandboxError(ServiceError):
    """The machine cannot keep a foreign file apart from the rest, so none is taken."""

    code = "sandbox"
    status = 503


class DrainingError(ServiceError):
    """The service is about to end, and begins nothing new."""

    code = "draining"
    status = 503


class DatabaseError(ServiceError):
    """The database cannot be reached, or is too busy to answer."""

    code = "database"
    status = 503


class CancelledError(ServiceError):
    """Somebody cancelled the job."""

    code = "cancelled"
    status = 409


class LoadedError(ServiceError):
    """The model is loaded and cannot be deleted unforced."""

    code = "loaded"
    status = 409


class IdempotencyError(ServiceError):
    """The ``Idempotency-Key`` belongs to another request."""

    code = "idempotency"
    status = 422


class CrashedError(ServiceError):
    """The process that did the work died."""

    code = "crashed"
    status = 500


class KilledError(ServiceError):
    """The conversion was killed each time that it was begun: from outside, or by a fault of native code."""

    code = "killed"
    status = 500


class InternalError(ServiceError):
    """A defect of bnfold."""

    code = "internal"
    status = 500


class TimeLimitError(ServiceError):
    """The work took longer than it is given."""

    code = "time-limit"
    status = 504


class StorageError(ServiceError):
    """The store cannot be written, for example because the disk is full."""

    code = "storage"
    status = 507


class RefusedError(ServiceError):
    """The model is refused, with the code, message and hint that the command line has for it."""

    code = "refused"
    status = 422

    _STATUS: ClassVar[Mapping[str, int]] = {"unknown-format": 415, "parity": 409, "inconclusive": 409}

    def __init__(self, message: str, *, hint: str, refusal: str) -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal

    @property
    def answered_with(self) -> int:
        """The HTTP status that goes with what the model was refused for."""
        return self._STATUS.get(self.refusal, self.status)


def body_of(error: ServiceError, *, inference: bool = False) -> dict[str, Any]:
    """Return the body that tells an error.

    Args:
        error: What went wrong.
        inference: Whether the client speaks the Open Inference Protocol, whose clients read only the string ``error``.
    """
    status, code = error.status, error.code
    if isinstance(error, RefusedError):
        status, code = error.answered_with, error.refusal
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": str(error),
        "code": code,
        "hint": error.hint,
        **error.members,
    }
    if inference:
        body["error"] = f"{error}. {error.hint}"
    return body


def problem(error: ServiceError, *, inference: bool = False) -> JSONResponse:
    """Return the answer that tells an error; the arguments are those of ``body_of``."""
    return answer_with(body_of(error, inference=inference), error.headers)


def answer_with(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer whose body ``body_of`` made, here or elsewhere."""
    from starlette.responses import JSONResponse  # children have these errors, too, and answer nobody

    return JSONResponse(dict(body), body["status"], dict(headers or {}), media_type="application/problem+json")


def no_answer() -> DatabaseError:
    """Return the error that tells a client that the database is away."""
    return DatabaseError(
        "the database does not answer", hint="Send it again in a moment.", headers={"Retry-After": "5"}
    )


def storage_error(error: OSError) -> StorageError | InternalError:
    """Return the error that tells a client why the store could not be written or read."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}:
        return StorageError(
            f"the store cannot be written: {error.strerror}", hint="Make room on the disk of BNFOLD_STORE."
        )
    _LOG.error("the store failed", exc_info=error)
    return InternalError("the service met a defect of bnfold", hint="Report this, with what the service logged.")
