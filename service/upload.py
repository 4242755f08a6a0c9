"""Receive a model file, in a form or bare: streamed to the disk, hashed on the way, with a limit on everything."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.problems import LengthRequiredError, MalformedError, SlowUploadError, TooLargeError, UnsupportedMediaError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["EXAMPLE", "Upload", "receive_upload"]

EXAMPLE = "curl -F model=@network.keras"
_FILES = {"model": "upload", "architecture": "architecture"}  # by field, the folder that takes it
_NAME = "filename"  # in the query, of a bare file
_MOST_PARTS = 200
_LARGEST_FIELD = 64 * 2**10
_BLOCK = 2**20
_SEND = f"Send a form with the file in the field model, for example: {EXAMPLE}"
# What clients send when they were not told to send a file.
_NO_FILE = re.compile(r"application/(json|x-www-form-urlencoded)|multipart/.*|text/.*|image/.*|audio/.*|video/.*")


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived.

    Attributes:
        name: The name of the model's file, made safe; it lies in the folder ``upload``.
        digests: The sha256 of each file, by field.
        fields: The values of each other field, in order.
    """

    name: str
    digests: Mapping[str, str]
    fields: Mapping[str, tuple[str, ...]]

    @property
    def suffix(self) -> str:
        """The suffix of the file name, with its dot."""
        return Path(self.name).suffix

    def path(self, folder: Path, field: str) -> Path:
        """Return where the file of a field lies in the folder that took the upload."""
        return folder / _FILES[field] / (self.name if field == "model" else f"{field}.json")


async def receive_upload(request: Request, folder: Path, limit: int, seconds: float) -> Upload:
    """Receive a form, or a bare file with its options in the query, into a folder.

    Args:
        request: Whose body has not been read yet.
        folder: An empty folder.
        limit: The most bytes that the body may have.
        seconds: How long it may take to arrive.

    Raises:
        ServiceError: If it is too large, too slow, or neither.
        ClientDisconnect: If the client went away.
        OSError: If it cannot be written.
    """
    body = _body_of(request, folder)
    length = request.headers.get("content-length")
    if length is None and request.headers.get("transfer-encoding") is None:
        raise LengthRequiredError("the request has neither Content-Length nor chunks", hint=_SEND)
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            await _feed(request, body, limit)
    except TimeoutError:
        raise SlowUploadError(
            f"the upload did not arrive within {seconds:g} s", hint="Send it again over a faster line."
        ) from None
    finally:
        body.close()
    upload = body.upload()
    asked = {field: tuple(request.query_params.getlist(field)) for field in request.query_params if field != _NAME}
    both = sorted(asked.keys() & upload.fields.keys())
    if both:
        raise MalformedError(f"{both[0][:40]!r} stands in the form and in the query", hint="Send it once.")
    return Upload(upload.name, upload.digests, {**upload.fields, **asked})


class _Body(Protocol):
    """Takes the body of a request as it arrives."""

    def feed(self, content: bytes) -> None:
        """Take the next bytes."""

    def close(self) -> None:
        """Close what is open."""

    def upload(self) -> Upload:
        """Return what arrived."""


def _body_of(request: Request, folder: Path) -> _Body:
    told = request.headers.get("content-type", "")
    kind = told.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _Form(_boundary(told), folder)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if _NO_FILE.fullmatch(kind) or (not kind and request.headers.get("content-length") == "0"):
        raise UnsupportedMediaError(f"the request is {kind[:80] or 'nothing'}, not multipart/form-data", hint=_SEND)
    if encoding != "identity":
        raise UnsupportedMediaError(
            f"the request is encoded as {encoding[:40]}", hint="Send the file as it is, without compression."
        )
    return _Bare(_file_name(request), folder)


def _file_name(request: Request) -> str:
    names = request.query_params.getlist(_NAME)
    if len(names) > 1:
        raise MalformedError(f"{_NAME} came {len(names)} times", hint="Send it once.")
    if names:
        return names[0]
    _, parameters = parse_options_header(request.headers.get("content-disposition", ""))
    return parameters.get(b"filename", b"").decode("utf-8", "replace")


class _Bare:
    """Takes a file that is the whole body."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = _safe(name)
        self._digest = hashlib.sha256()
        (folder / _FILES["model"]).mkdir()
        self._file = (folder / _FILES["model"] / self._name).open("xb")

    def feed(self, content: bytes) -> None:
        """Take the next bytes.

        Raises:
            OSError: If the file cannot be written.
        """
        self._file.write(content)
        self._digest.update(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def upload(self) -> Upload:
        """Return what arrived."""
        return Upload(self._name, {"model": self._digest.hexdigest()}, {})


async def _feed(request: Request, form: _Body, limit: int) -> None:
    received, block = 0, bytearray()
    more, writing = True, None
    try:
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body = message.get("body", b"")
            more = message.get("more_body", False)
            received += len(body)
            if received > limit:
                raise _too_large(limit)
            block += body
            if len(block) >= _BLOCK or not more:
                # A slow disk must not keep everybody waiting, and the next block arrives while this one is written.
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(form.feed, bytes(block)))
                block.clear()
    finally:
        if writing is not None:
            # Also where the request has ended: what is being written to must not be closed.
            await asyncio.shield(writing)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the request is larger than {limit} bytes",
        hint="Set BNFOLD_UPLOAD_SIZE higher, or convert the model with the command line.",
        members={"limit": limit},
    )


def _boundary(content_type: str) -> bytes:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise MalformedError(
            "the form does not say what separates its parts", hint="Give the boundary in Content-Type."
        )
    return boundary


class _Form:
    """Takes the parts of a form as they arrive."""

    def __init__(self, boundary: bytes, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str] = {}
        self._fields: dict[str, tuple[str, ...]] = {}
        self._name = ""
        self._parts = 0
        self._ended = False
        self._header = (bytearray(), bytearray())
        self._field = ""
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda content, start, end: self._header[0].extend(content[start:end]),
            "on_header_value": lambda content, start, end: self._header[1].extend(content[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._starts,
            "on_part_data": self._takes,
            "on_part_end": self._ends,
            "on_end": self._all_ended,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise MalformedError(f"the form cannot be read: {error}", hint=_SEND) from error

    def feed(self, content: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedError: If they do not continue a form.
            OSError: If a file cannot be written.
        """
        try:
            self._parser.write(content)
        except FormParserError as error:
            raise MalformedError(f"the form cannot be read: {error}", hint=_SEND) from error

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()

    def upload(self) -> Upload:
        """Return what arrived.

        Raises:
            MalformedError: If the form broke off, or had no model.
        """
        if not self._ended:
            raise MalformedError("the form breaks off before its end", hint="Send it again, whole.")
        if "model" not in self._digests:
            raise MalformedError("the form has no file in the field model", hint=_SEND)
        return Upload(self._name, self._digests, self._fields)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise MalformedError(f"the form has more than {_MOST_PARTS} parts", hint=_SEND)
        self._field, self._text, self._disposition = "", None, b""

    def _header_ends(self) -> None:
        name, value = (bytes(part) for part in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        for part in self._header:
            part.clear()

    def _starts(self) -> None:
        kind, parameters = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in parameters:
            raise MalformedError("a part of the form has no name", hint=_SEND)
        self._field = parameters[b"name"].decode("utf-8", "replace")
        filename = parameters.get(b"filename")
        if self._field not in _FILES:
            if filename is not None:
                raise MalformedError(f"{self._field[:40]!r} is no field that takes a file", hint=_SEND)
            self._text = bytearray()
            return
        if not filename:
            raise MalformedError(f"the field {self._field} came without a file", hint=_SEND)
        if self._field in self._digests:
            raise MalformedError(
                f"the form has more than one file in the field {self._field}", hint="Send one model at a time."
            )
        name = "architecture.json"
        if self._field == "model":
            name = self._name = _safe(filename.decode("utf-8", "replace"))
        folder = self._folder / _FILES[self._field]
        folder.mkdir(exist_ok=True)
        self._file, self._digest = (folder / name).open("xb"), hashlib.sha256()

    def _takes(self, content: bytes, start: int, end: int) -> None:
        if self._file is not None:
            piece = memoryview(content)[start:end]
            self._file.write(piece)
            self._digest.update(piece)
        elif self._text is not None:
            self._text += content[start:end]
            if len(self._text) > _LARGEST_FIELD:
                raise MalformedError(
                    f"the field {self._field[:40]!r} is longer than {_LARGEST_FIELD} bytes",
                    hint="Send a file as model=@FILE.",
                )

    def _ends(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._digests[self._field] = self._digest.hexdigest()
        elif self._text is not None:
            try:
                text = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise MalformedError(
                    f"the field {self._field[:40]!r} is no UTF-8", hint="Encode text as UTF-8."
                ) from None
            self._fields[self._field] = (*self._fields.get(self._field, ()), text)

    def _all_ended(self) -> None:
        self._ended = True


def _safe(filename: str) -> str:
    """Return a file name of the same look that is no path and has nothing in it that any reader could mistake."""
    last = re.split(r"[/\\]", filename)[-1]
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".-")
    stem, dot, suffix = plain.rpartition(".")
    short = f"{stem[:80]}{dot}{suffix[:20]}" if dot else plain[:100]
    return short or "model"
