"""Clients that upload over HTTP, and a server that takes it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import uuid4
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import attrs
import pytest

import mindia
from mindia import Library, Mindia, Settings
from mindia.domain.uploads import Upload
from mindia.errors import UploadClosedError
from mindia.serving import MediaFiles
from mindia.storage.base import Storage

WAIT_S = 20.0


@attrs.frozen
class Answer:
    """What a server has answered."""

    status: int
    headers: Mapping[str, str]
    text: str


class _Handler(WSGIRequestHandler):
    failures: ClassVar[list[io.StringIO]]

    def log_message(self, *_: Any) -> None:
        pass

    def get_stderr(self) -> Any:
        self.failures.append(io.StringIO())
        return self.failures[-1]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def serving(url: str, storage: Storage, settings: Settings, **arguments: Any) -> Iterator[Mindia]:
    """Open an application that is served, below the path `/media`."""

    class Handler(_Handler):
        failures: ClassVar[list[io.StringIO]] = []

    with Server(("127.0.0.1", 0), Handler) as server:
        here = attrs.evolve(settings, public_url=f"http://127.0.0.1:{server.server_port}/media")
        with mindia.connect(url, storage=storage, settings=here) as app:
            server.set_app(MediaFiles(app, **arguments))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield app
            finally:
                server.shutdown()
                thread.join()
    assert [printed.getvalue() for printed in Handler.failures if printed.getvalue()] == [], "a request has failed"


def send(url: str, *, method: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request."""
    split = urlsplit(url)
    connection = HTTPConnection(split.hostname or "", split.port, timeout=WAIT_S)
    try:
        connection.request(method, f"{split.path}?{split.query}", body=body, headers=dict(headers or {}))
        with connection.getresponse() as response:
            return Answer(response.status, dict(response.headers), response.read().decode())
    finally:
        connection.close()


def form(fields: Mapping[str, str], content: bytes, *, filename: str = "a.bin") -> tuple[bytes, dict[str, str]]:
    """Return the body of a form as a browser makes it, and its headers."""
    boundary = uuid4().hex
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    lines += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode(),
        content,
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    return b"".join(lines), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def post(upload: Upload, content: bytes, **headers: str) -> Answer:
    """Upload a file as a browser's form does."""
    assert upload.url is not None
    body, own = form(upload.fields, content)
    return send(upload.url, method="POST", body=body, headers=own | headers)


def put_parts(upload: Upload, content: bytes, *, numbers: set[int] | None = None) -> list[Answer]:
    """Put the parts that are missing, or some of them."""
    return [
        send(part.url, method="PUT", body=content[part.start : part.start + part.size])
        for part in upload.parts
        if part.url is not None and (numbers is None or part.number in numbers)
    ]


def check_closed_meanwhile(
    library: Library, upload: Upload, storage: Storage, moment: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that an upload which another call ends while it is being completed is closed.

    Args:
        library: Whose it is.
        upload: The upload.
        storage: Where its bytes are.
        moment: When it is ended: `open:3` is before the third time that the object store opens something.
        end: The method that ends it.
        monkeypatch: Undoes what is done to the object store.
    """
    name, _, count = moment.partition(":")
    original = getattr(type(storage), name)
    calls = iter(range(1, int(count) + 1))

    def asked(self: Storage, *arguments: Any, **named: Any) -> Any:
        if next(calls, None) == int(count):
            getattr(library.media, end)(upload)
        return original(self, *arguments, **named)

    monkeypatch.setattr(type(storage), name, asked)
    with pytest.raises(UploadClosedError):
        library.media.complete_upload(upload)
