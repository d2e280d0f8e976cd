"""Media are served and taken wherever hosts mount that: over ASGI, below Starlette, beside Flask and Django."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.integration.library_calls import SETTINGS
from tests.integration.upload_clients import form
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, EnvironBuilder

import mindia
from mindia import Library, MemoryStorage, Mindia, Upload
from mindia.serving import AsyncMediaFiles, MediaFiles
from mindia.testing import samples


@pytest.fixture
def app(application_url: str, roles: Any) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False)
    with mindia.connect(application_url, storage=MemoryStorage(), settings=settings) as app:
        yield app


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    asgi: Any,
    url: str,
    *,
    method: str = "GET",
    pieces: Sequence[bytes] = (b"",),
    headers: dict[str, str] | None = None,
    goes_after: int | None = None,
) -> Answer:
    """Send a request to an ASGI application, its body in pieces; the client may go after some of them."""
    split = urlsplit(url)
    length = str(sum(map(len, pieces)))
    given = {"host": "example.org", "content-length": length} | (headers or {})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": split.path,
        "raw_path": split.path.encode(),
        "query_string": split.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    waiting = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, start=1)
    ][:goes_after]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi(scope, receive, send))
    start, *rest = sent
    assert not rest[-1]["more_body"]
    return Answer(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message["body"] for message in rest),
    )


@pytest.fixture(params=["alone", "mounted"])
def asgi(app: Mindia, request: pytest.FixtureRequest) -> Any:
    files = AsyncMediaFiles(app, allow_origins=["https://app.example"])
    return files if request.param == "alone" else Starlette(routes=[Mount("/media", files)])


@pytest.fixture
def library(app: Mindia) -> Library:
    return app.library(app.tenants.create("Acme"))


def test_media_are_served_over_asgi(asgi: Any, library: Library) -> None:
    content = samples.wav(seconds=4.0)
    url = library.media.url(library.media.add(content, filename="tone über allem.wav"))

    whole = ask(asgi, url)
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = ask(asgi, url, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, content[10:20])
    assert ask(asgi, url, method="HEAD").body == b""
    assert ask(asgi, url[:-1]).status == 403


@pytest.mark.parametrize("count", [1, 2, 50])
def test_uploads_are_taken_over_asgi(asgi: Any, library: Library, count: int) -> None:
    upload = library.media.begin_upload("a.jpg")
    body, headers = form(upload.fields, samples.image())
    size = -(-len(body) // count)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    assert ask(asgi, upload.url or "", method="POST", pieces=pieces, headers=headers).status == 204

    assert library.media.complete_upload(upload).file_size == len(samples.image())


def test_a_client_that_goes_leaves_nothing(asgi: Any, library: Library) -> None:
    upload = library.media.begin_upload("a.jpg")
    body, headers = form(upload.fields, samples.image())

    answer = ask(asgi, upload.url or "", method="POST", pieces=[body[:300], body[300:]], headers=headers, goes_after=1)

    assert answer.status == 409
    assert library.media.get_upload(upload).received_bytes == 0


def test_scripts_may_ask_over_asgi(asgi: Any, library: Library) -> None:
    url = library.media.begin_upload("a.jpg").url or ""
    answer = ask(asgi, url, method="OPTIONS", headers={"Origin": "https://app.example"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "https://app.example")


def test_a_server_that_starts_and_stops_is_answered(app: Mindia) -> None:
    sent: list[str] = []
    waiting = ["lifespan.startup", "lifespan.shutdown"]

    async def receive() -> dict[str, Any]:
        return {"type": waiting.pop(0)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(AsyncMediaFiles(app)({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(AsyncMediaFiles(app)({"type": "websocket"}, receive, send))


def test_it_stands_beside_an_application_of_flask(app: Mindia, library: Library) -> None:
    from flask import Flask

    host = Flask(__name__)
    host.wsgi_app = DispatcherMiddleware(host.wsgi_app, {"/media": MediaFiles(app)})  # type: ignore[method-assign]  # as Flask documents it
    upload: Upload = library.media.begin_upload("a.jpg")
    client = Client(host.wsgi_app)
    answer = client.post(
        urlsplit(upload.url or "").path,
        query_string=urlsplit(upload.url or "").query,
        data={**upload.fields, "file": (io.BytesIO(samples.image()), "a.jpg")},
    )
    assert answer.status_code == 204
    item = library.media.add(library.media.complete_upload(upload))
    url = urlsplit(library.media.url(item))
    environ = EnvironBuilder(path=url.path, query_string=url.query).get_environ()
    with client.open(environ) as served:
        assert served.data == samples.image()
