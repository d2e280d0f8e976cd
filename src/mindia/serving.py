"""Media over HTTP, for whoever has a signed URL: applications that hosts mount.

    library.media.url(item)            # https://example.org/media/<tenant>/<item>/cat.jpg?…
    library.media.begin_upload("cat.jpg").url  # https://example.org/media/<tenant>/<upload>/whole?…
    files = mindia.serving.MediaFiles(app)  # WSGI, mounted at Settings.public_url; AsyncMediaFiles for ASGI

What is served is what somebody has uploaded: it comes with the type that was found from its bytes, and with headers by
which a browser neither guesses another type nor runs anything in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import attrs

from mindia._asgi import AsgiBridge
from mindia._receiving import receive
from mindia.errors import InvalidError, MindiaError
from mindia.media.names import content_disposition
from mindia.services import signed_urls
from mindia.services.stored import StoredFile

if TYPE_CHECKING:
    from mindia.app import Mindia
    from mindia.library import Library

_CHUNK = 1 << 18
_METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS")

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def _origins(origins: Iterable[str]) -> tuple[str, ...]:
    if isinstance(origins, str):
        raise InvalidError(f"allow_origins must be several origins, not a single text: [{origins!r}]")
    return tuple(origin.rstrip("/") for origin in origins)


@attrs.frozen
class MediaFiles:
    """A WSGI application that serves media by signed URLs, whole or in ranges, and takes uploads. Thread-safe.

    The host mounts it where `Settings.public_url` leads to; what stands before the tenant in the path does not matter.

    Args:
        app: Whose media.
        allow_origins: From which sites' pages a script may upload (`["https://example.org"]`), where that is another
            one than this; `["*"]` for all. A form that a page sends by itself needs none.

    Raises:
        InvalidError: The application has no `Settings.secret_key`.
    """

    app: Mindia
    allow_origins: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_origins)

    def __attrs_post_init__(self) -> None:
        if self.app.settings.secret_key is None:
            raise InvalidError("signed URLs need Settings.secret_key: make one with secrets.token_urlsafe(32)")

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        method = environ["REQUEST_METHOD"]
        if method not in _METHODS:
            return _refuse(environ, start_response, HTTPStatus.METHOD_NOT_ALLOWED, "no such method here", allow=True)
        url = f"{quote(environ.get('PATH_INFO', ''), safe='/')}?{environ.get('QUERY_STRING', '')}"
        if method not in ("GET", "HEAD"):
            return self._receive(environ, start_response, url)
        if signed_urls.is_of_stream(environ.get("PATH_INFO", "")):
            return self._stream(environ, start_response)
        try:
            granted = signed_urls.verify(url, settings=self.app.settings)
            library = self.app.library(granted.tenant_id)
            item = _wanted(library, granted)
            headers = _headers(item, granted)
            return _send(environ, start_response, headers, item.file_size, lambda: library.media._open(item.s3_key))
        except MindiaError as error:
            return _refuse(environ, start_response, HTTPStatus(error.http_status), error.code)

    def _stream(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve a file of a stream: players fetch them from pages of other sites, too."""
        shared = [("Vary", "Origin")]
        origin = environ.get("HTTP_ORIGIN", "")
        if origin in self.allow_origins or "*" in self.allow_origins:
            shared += [("Access-Control-Allow-Origin", origin or "*")]
        try:
            granted = signed_urls.verify_stream(environ.get("PATH_INFO", ""), settings=self.app.settings)
            found = self.app.library(granted.tenant_id).media._stream_file(granted)
        except MindiaError as error:
            return _refuse(environ, start_response, HTTPStatus(error.http_status), error.code, more=shared)
        # The files of a stream never change, but for the addresses in its playlists.
        is_playlist = found.name.endswith(".m3u8")
        left = max(0, granted.expires_at - int(time.time()))
        headers = {
            "Content-Type": found.content_type,
            "Content-Disposition": "inline",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache" if is_playlist else f"private, immutable, max-age={left}",
            **dict(shared),
        }
        if not is_playlist:
            headers["ETag"] = f'"{granted.derivative_id}/{found.name}"'
        file: BinaryIO | None = found.file
        try:
            answer = _send(environ, start_response, headers, found.size, lambda: found.file)
            if isinstance(answer, _Body):
                file = None  # which closes it
            return answer
        finally:
            if file is not None:
                file.close()

    def _receive(self, environ: Mapping[str, Any], start_response: StartResponse, url: str) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN", "")
        shared = [("Vary", "Origin")]
        if origin in self.allow_origins or "*" in self.allow_origins:
            shared += [("Access-Control-Allow-Origin", origin or "*")]
        if environ["REQUEST_METHOD"] == "OPTIONS":  # a browser asks before a script uploads
            shared += [
                ("Allow", ", ".join(_METHODS)),
                ("Access-Control-Allow-Methods", "POST, PUT"),
                ("Access-Control-Allow-Headers", "Content-Type"),
                ("Access-Control-Max-Age", "3600"),
            ]
        else:
            try:
                receive(self.app, environ, url)
            except MindiaError as error:
                return _refuse(environ, start_response, HTTPStatus(error.http_status), error.code, more=shared)
        start_response(_status(HTTPStatus.NO_CONTENT), [*shared, ("Cache-Control", "no-store")])
        return []


class AsyncMediaFiles(AsgiBridge):
    """The same as `MediaFiles` for ASGI: what waits for the database or the store does so in threads.

    Args:
        app: Whose media.
        allow_origins: As for `MediaFiles`.

    Raises:
        InvalidError: The application has no `Settings.secret_key`.
    """

    def __init__(self, app: Mindia, *, allow_origins: Iterable[str] = ()) -> None:
        super().__init__(MediaFiles(app, allow_origins=allow_origins))


class _Body:
    """The bytes of a range; the server closes it, whatever happens."""

    def __init__(self, file: BinaryIO, wanted: range) -> None:
        self._file = file
        self._wanted = wanted

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._wanted.start)
        left = len(self._wanted)
        while left and (chunk := self._file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._file.close()


def _wanted(library: Library, granted: signed_urls.SignedUrl) -> StoredFile:
    if granted.operations is None:
        return library.media._stored(granted.media_id)
    return library.media._stored_derivative(granted.media_id, granted.operations)


def _send(
    environ: Mapping[str, Any],
    start_response: StartResponse,
    headers: dict[str, str],
    size: int,
    opened: Callable[[], BinaryIO],
) -> Iterable[bytes]:
    """Answer with a file, a part of it, or that it is known already."""
    etag = headers.get("ETag")
    known = {tag.strip().removeprefix("W/") for tag in environ.get("HTTP_IF_NONE_MATCH", "").split(",")}
    if etag is not None and known & {etag, "*"}:
        # The others are about a body, which does not come (RFC 9110, 15.4.5).
        kept = {"ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin"}.intersection(headers)
        start_response(_status(HTTPStatus.NOT_MODIFIED), [(name, headers[name]) for name in headers if name in kept])
        return []
    part = _part(environ, size, etag)
    if part is not None and not part:
        headers |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        start_response(_status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE), [*headers.items()])
        return []
    wanted = range(size) if part is None else part
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    headers["Content-Length"] = str(len(wanted))
    file = None if environ["REQUEST_METHOD"] == "HEAD" else opened()
    start_response(_status(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT), [*headers.items()])
    return [] if file is None else _Body(file, wanted)


def _headers(item: StoredFile, granted: signed_urls.SignedUrl) -> dict[str, str]:
    return {
        "Content-Type": item.content_type,
        "Content-Disposition": content_disposition(granted.disposition, item.filename),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "script-src 'none'",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Accept-Ranges": "bytes",
        "ETag": _etag(item),
        "Last-Modified": format_datetime(item.stored_at, usegmt=True),
        "Cache-Control": f"private, immutable, max-age={max(0, granted.expires_at - int(time.time()))}",
    }


def _etag(item: StoredFile) -> str:
    return f'"{item.sha256}"'


def _part(environ: Mapping[str, Any], size: int, etag: str | None) -> range | None:
    """Return the bytes that are asked for, which may be none of them, or None for all (RFC 9110, section 14).

    What cannot be understood is left out of account, and so are several ranges at once.
    """
    if environ["REQUEST_METHOD"] != "GET":
        return None
    whole = range(size)
    match = re.fullmatch(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", environ.get("HTTP_RANGE", ""), re.ASCII)
    if match is None or match.groups() == ("", "") or environ.get("HTTP_IF_RANGE", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        return whole[max(0, len(whole) - int(last)) :]
    if last and int(last) < int(first):
        return None
    return whole[int(first) : int(last) + 1 if last else None]


def _status(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"


def _refuse(
    environ: Mapping[str, Any],
    start_response: StartResponse,
    status: HTTPStatus,
    reason: str,
    *,
    allow: bool = False,
    more: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    """Say no without a word of what there is."""
    body = f"{reason}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ]
    start_response(_status(status), [*headers, *more] + [("Allow", ", ".join(_METHODS))] * allow)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
