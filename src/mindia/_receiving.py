"""Uploads over HTTP, for whoever has a URL of one: what `mindia.serving` does with POST and PUT."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mindia.errors import InvalidError, MindiaError, MissingExtraError, UploadIncompleteError
from mindia.services import upload_urls

if TYPE_CHECKING:
    from mindia.app import Mindia

_CHUNK = 1 << 16
_MAX_DRAINED = 16 << 20
_MAX_FIELDS = 20
_MAX_FIELDS_BYTES = 1 << 16
"""Of what a form has besides the file, which nobody reads."""


def receive(app: Mindia, environ: Mapping[str, Any], url: str) -> None:
    """Take the bytes of an upload from a request: a form, or the bytes as they are.

    Raises:
        SignatureError: The URL allows nothing.
        MindiaError: The bytes are not taken; nothing is kept of them.
    """
    body = _Body(environ)
    try:
        _receive(app, environ, url, body)
    except MindiaError:
        body.drain()
        raise


def _receive(app: Mindia, environ: Mapping[str, Any], url: str, body: _Body) -> None:
    ticket = upload_urls.verify(url, settings=app.settings)
    media = app.library(ticket.tenant_id).media
    if environ["REQUEST_METHOD"] == "PUT":
        media._receive(ticket, cast("BinaryIO", body), length=body.length)
        return
    if ticket.part is not None:
        raise InvalidError("a part of an upload is put, not posted")
    media._receive(ticket, cast("BinaryIO", FormFile(body, environ.get("CONTENT_TYPE", ""))), length=None)


class _Body:
    """The body of a request, which is read up to its length and no further: the server would wait for more."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._input: BinaryIO = environ["wsgi.input"]
        stated = environ.get("CONTENT_LENGTH") or ""
        self.length = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 16 else None
        if self.length is None and not environ.get("wsgi.input_terminated"):
            raise InvalidError("the request does not say how long it is (Content-Length)")
        self._left = self.length

    def read(self, size: int = -1) -> bytes:
        """Read some; nothing at the end."""
        wanted = _CHUNK if size < 0 else min(size, _CHUNK)
        if self._left is not None:
            wanted = min(wanted, self._left)
        content = self._input.read(wanted) if wanted else b""
        if self._left is not None:
            self._left -= len(content)
            if not content and self._left:
                raise UploadIncompleteError(f"the request broke off: {self._left} bytes of it are missing")
        return content

    def drain(self) -> None:
        """Read some of what is left: a client that is still sending does not see an answer."""
        left = _MAX_DRAINED
        with suppress(MindiaError, OSError):
            while left > 0 and (content := self.read(_CHUNK)):
                left -= len(content)


class FormFile:
    """Reads the field `file` of a form as it comes (RFC 7578).

    Args:
        body: The form.
        content_type: Its type, with the boundary.

    Raises:
        InvalidError: It is none.
        MissingExtraError: The library that reads forms is not installed.
    """

    def __init__(self, body: _Body, content_type: str) -> None:
        try:
            from python_multipart.exceptions import FormParserError
            from python_multipart.multipart import MultipartParser, parse_options_header
        except ImportError:
            raise MissingExtraError("taking uploads by a form", extra="uploads") from None
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
            raise InvalidError("an upload is posted as multipart/form-data")
        self._body = body
        self._error = FormParserError
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )
        self._parse_header = parse_options_header
        self._chunks: deque[bytes] = deque()
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._fields = self._others = 0
        self._is_file = self._has_file = self._ended = False

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002 - as much as has come
        """Read some of the file; nothing at the end of the form.

        Raises:
            InvalidError: The form is not one, has no file, several, or too much else.
            UploadIncompleteError: It breaks off.
        """
        while not self._chunks:
            content = self._body.read(_CHUNK)
            if not content:
                break
            if self._ended:
                continue  # what comes behind the form
            try:
                self._parser.write(content)
            except self._error as error:
                raise InvalidError(f"the form cannot be read: {error}") from error
        if self._chunks:
            return self._chunks.popleft()
        if not self._ended:
            raise UploadIncompleteError("the form broke off before its end")
        if not self._has_file:
            raise InvalidError('the form has no file: a field with name="file", behind all others')
        return b""

    def _begin(self) -> None:
        self._headers = []
        self._is_file = False
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise InvalidError(f"the form has more than {_MAX_FIELDS} fields")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        if not self._headers or self._headers[-1][1]:
            self._headers.append((bytearray(), bytearray()))
        self._headers[-1][0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if self._headers:
            self._headers[-1][1].extend(data[start:end])

    def _headers_end(self) -> None:
        for name, value in self._headers:
            if bytes(name).lower() == b"content-disposition":
                _, options = self._parse_header(bytes(value).decode("latin-1"))
                self._is_file = options.get(b"name") == b"file"
        if self._is_file:
            if self._has_file:
                raise InvalidError("the form has several files; an upload is one")
            self._has_file = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._chunks.append(bytes(data[start:end]))
            return
        self._others += end - start
        if self._others > _MAX_FIELDS_BYTES:
            raise InvalidError("the form has too much besides the file")

    def _part_end(self) -> None:
        self._is_file = False

    def _end(self) -> None:
        self._ended = True
