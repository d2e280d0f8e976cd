"""Middleware logs the requests of FastAPI, Starlette, Flask and Django as they were, however they end."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from fastapi import FastAPI, Request
from flask import Flask, request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from werkzeug.test import Client, run_wsgi_app
from werkzeug.test import create_environ as environ_of

from mindia import Library, Mindia, RequestLog
from mindia.errors import InvalidError
from mindia.request_logging import AsyncRequestLogMiddleware, RequestLogMiddleware

PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.fixture
def logged(app: Mindia, library: Library) -> Callable[[], RequestLog]:
    """Return what gives the one request that was logged."""

    def one() -> RequestLog:
        app.request_log.flush()
        (found,) = library.request_log.list()
        return found

    return one


@pytest.fixture
def options(app: Mindia, library: Library) -> dict[str, Any]:
    return {"mindia": app, "tenant": lambda _: library.tenant_id, "trusted_proxies": PROXIES}


def ask(
    asgi: Any,
    path: str = "/",
    *,
    method: str = "GET",
    query: str = "",
    body: list[bytes] | None = None,
    headers: dict[str, str] | None = None,
    peer: str = "203.0.113.9",
    sends: Callable[[Any], None] | None = None,
    goes: bool = False,
) -> list[Any]:
    """Send a request and return what came; the client may go once it has sent its body."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "client": (peer, 5000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    pieces = [b""] if body is None else body
    waiting = [{"type": "http.request", "body": each, "more_body": each is not pieces[-1]} for each in pieces]
    sent: list[Any] = []
    finished = asyncio.Event()

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        if not goes:
            await finished.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if sends is not None:
            sends(message)
        sent.append(message)

    asyncio.run(asgi(scope, receive, send))
    return sent


def test_requests_of_fastapi_are_logged(options: dict[str, Any], library: Library, logged: Any) -> None:
    api = FastAPI()
    options["tenant"] = lambda scope: scope["state"]["tenant"]
    api.add_middleware(AsyncRequestLogMiddleware, **options)

    @api.post("/media/{number}")
    async def media(number: int, asked: Request) -> dict[str, int]:
        asked.state.tenant = library.tenant_id
        return {"number": number, "size": len(await asked.body())}

    sent = ask(
        api, "/media/17", method="POST", query="q=cat&token=hunter2", body=[b"ab", b"cde"],
        headers={"User-Agent": "curl/8"},
    )  # fmt: skip

    row = logged()
    assert (row.method, row.path, row.route) == ("POST", "/media/17?q=cat&token=***", "/media/{id}")
    assert (row.status_code, row.bytes_received, row.bytes_sent) == (200, 5, sum(len(m.get("body", b"")) for m in sent))
    assert (row.ip_address, row.user_agent, row.is_aborted) == ("203.0.113.9", "curl/8", False)


async def _stream(_: Any) -> StreamingResponse:
    async def chunks() -> Any:
        for _ in range(5):
            yield b"x" * 1000

    return StreamingResponse(chunks())


async def _fail(_: Any) -> PlainTextResponse:
    raise KeyError("of the host")


async def _wait(_: Any) -> PlainTextResponse:
    raise asyncio.CancelledError


def starlette(endpoint: Callable[[Any], Awaitable[Any]], options: dict[str, Any]) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(AsyncRequestLogMiddleware, **options)])


def test_a_stream_of_starlette_is_counted_whole(options: dict[str, Any], logged: Any) -> None:
    ask(starlette(_stream, options))
    row = logged()
    assert (row.status_code, row.bytes_sent, row.is_aborted) == (200, 5000, False)


def test_a_client_that_goes_amid_a_stream_is_told_from_one_that_stays(options: dict[str, Any], logged: Any) -> None:
    passed: list[Any] = []

    def sends(message: Any) -> None:
        passed.append(message)
        if len(passed) == 3:
            raise OSError("gone")

    with pytest.raises(BaseException):  # noqa: B017, PT011 - which one is Starlette's matter
        ask(starlette(_stream, options), sends=sends)
    row = logged()
    assert (row.status_code, row.bytes_sent, row.is_aborted) == (200, 1000, True)


@pytest.mark.parametrize(
    ("endpoint", "error", "status", "is_aborted"),
    [(_fail, KeyError, 500, False), (_wait, asyncio.CancelledError, 499, True)],
    ids=["fails", "is cut off"],
)
def test_a_request_that_ends_in_an_exception_is_logged(
    options: dict[str, Any], logged: Any, endpoint: Any, error: type[BaseException], status: int, is_aborted: bool
) -> None:
    with pytest.raises(error):
        ask(starlette(endpoint, options))
    row = logged()
    assert (row.status_code, row.is_aborted) == (status, is_aborted)


def test_a_client_that_goes_before_the_response_is_told(options: dict[str, Any], logged: Any) -> None:
    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"too late"})

    ask(AsyncRequestLogMiddleware(app, **options), goes=True)
    row = logged()
    assert (row.status_code, row.bytes_sent, row.is_aborted) == (499, 0, True)


def test_what_is_no_request_passes_untouched(options: dict[str, Any], app: Mindia, library: Library) -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], receive, send))

    async def nothing() -> Any: ...

    outer = AsyncRequestLogMiddleware(inner, ignore=["/health"], **options)
    asyncio.run(outer({"type": "lifespan"}, nothing, nothing))  # type: ignore[arg-type]  # stands for the server's
    asyncio.run(outer({"type": "http", "path": "/health"}, nothing, nothing))  # type: ignore[arg-type]  # as above
    assert seen == [("lifespan", nothing, nothing), ("http", nothing, nothing)]
    app.request_log.flush()
    assert library.request_log.list() == []


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # who is not trusted is not believed
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),  # what stands before it may be made up
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("fd00::1", "[2001:db8::7]:80", "2001:db8::7"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "<script>", "10.0.0.1"),
        ("testclient", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", "198.51.100.1"),  # over a socket of this machine
    ],
)
def test_the_address_of_the_client_is_the_last_one_that_a_trusted_proxy_tells(
    options: dict[str, Any], peer: str, forwarded: str | None, client: str
) -> None:
    middleware = RequestLogMiddleware(None, **options)
    assert middleware._client(peer, forwarded or "") == client


def test_without_trusted_proxies_nobody_is_believed(options: dict[str, Any], logged: Any) -> None:
    del options["trusted_proxies"]
    ask(starlette(_stream, options), headers={"X-Forwarded-For": "198.51.100.1"})
    assert logged().ip_address == "203.0.113.9"


def test_a_tenant_that_cannot_be_told_is_no_matter_of_the_requests(
    options: dict[str, Any], app: Mindia, caplog: pytest.LogCaptureFixture
) -> None:
    def of_nobody(_: Any) -> Any:
        raise LookupError("no such host")

    options["tenant"] = of_nobody
    sent = ask(starlette(_stream, options))
    assert sent[0]["status"] == 200
    assert "a request is not logged" in caplog.text
    app.request_log.flush()


def test_wrong_networks_are_refused(app: Mindia) -> None:
    for wrong in (["10.0.0.300/8"], "10.0.0.0/8"):
        with pytest.raises(InvalidError, match="trusted_proxies"):
            RequestLogMiddleware(None, mindia=app, trusted_proxies=wrong)


def test_requests_of_flask_are_logged(options: dict[str, Any], logged: Any) -> None:
    host = Flask(__name__)

    @host.post("/media/<int:number>")
    def media(number: int) -> dict[str, int]:
        return {"number": number, "size": len(request.get_data())}

    host.wsgi_app = RequestLogMiddleware(host.wsgi_app, **options)  # type: ignore[method-assign]  # as Flask documents it
    answer = Client(host.wsgi_app).post(
        "/media/17?page=2&api_key=hunter2", data=b"abcde", headers={"User-Agent": "curl/8"},
        environ_base={"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.1"},
    )  # fmt: skip
    size = len(answer.data)
    answer.close()

    row = logged()
    assert (row.method, row.path, row.route) == ("POST", "/media/17?page=2&api_key=***", "/media/{id}")
    assert (row.status_code, row.bytes_received, row.bytes_sent) == (200, 5, size)
    assert (row.ip_address, row.user_agent, row.is_aborted) == ("198.51.100.1", "curl/8", False)


_DJANGO = """
import io, sys
from uuid import UUID
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse
from django.urls import path
from werkzeug.test import Client
import django, mindia
from mindia.request_logging import RequestLogMiddleware

def file(request, number, name):
    return FileResponse(io.BytesIO(b"a file"))

urlpatterns = [path("files/<int:number>/<str:name>", file)]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
django.setup()
with mindia.connect(sys.argv[1], storage=mindia.MemoryStorage()) as app:
    wsgi = RequestLogMiddleware(WSGIHandler(), mindia=app, tenant=lambda environ: UUID(sys.argv[2]))
    with Client(wsgi).get("/files/7/\u00fc") as answer:
        assert answer.data == b"a file"
"""


def test_requests_of_django_are_logged(database_url: str, library: Library, logged: Any) -> None:
    # In a process of its own: Django's settings are those of a process, and another test has some.
    code = [sys.executable, "-c", _DJANGO, database_url, str(library.tenant_id)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    row = logged()
    assert (row.path, row.route, row.status_code, row.bytes_sent) == ("/files/7/ü", "/files/{id}/ü", 200, 6)


def served(wsgi: Any, *, method: str = "GET", body: bytes = b"", stops_after: int | None = None) -> None:
    """Serve as a server does; the client may go after some chunks."""
    environ = environ_of(method=method, data=body)
    chunks = wsgi(environ, lambda *_: io.BytesIO().write)
    try:
        for number, _ in enumerate(chunks, start=1):
            if number == stops_after:
                break
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


def _chunks(_: Any, start: Any) -> Iterator[bytes]:
    start("206 Partial Content", [])
    for _ in range(4):
        yield b"x" * 10


def test_a_stream_over_wsgi_is_counted_and_one_that_is_cut_off_is_told(
    options: dict[str, Any], app: Mindia, library: Library
) -> None:
    wsgi = RequestLogMiddleware(_chunks, **options)
    served(wsgi)
    served(wsgi, stops_after=2)
    served(RequestLogMiddleware(lambda _, start: start("200 OK", []) and [b"ab", b"c"], **options))
    served(RequestLogMiddleware(_file_of, **options), method="HEAD")
    app.request_log.flush()

    rows = reversed(library.request_log.list())
    assert [(row.status_code, row.bytes_sent, row.is_aborted) for row in rows] == [
        (206, 40, False), (206, 20, True), (200, 3, False), (200, 0, False),
    ]  # fmt: skip


def _file_of(_: Any, start: Any) -> Any:
    start("200 OK", [])
    return FileWrapper(io.BytesIO(b"a file"))


def test_an_exception_over_wsgi_is_logged_and_passes(options: dict[str, Any], logged: Any) -> None:
    def fails(_: Any, __: Any) -> Any:
        raise KeyError("of the host")

    with pytest.raises(KeyError):
        served(RequestLogMiddleware(fails, **options))
    assert (logged().status_code, logged().is_aborted) == (500, False)


@pytest.mark.parametrize("way", ["read", "readline", "readlines", "iterate"])
def test_a_body_is_counted_however_it_is_read(options: dict[str, Any], logged: Any, way: str) -> None:
    def reads(environ: Any, start: Any) -> list[bytes]:
        file = environ["wsgi.input"]
        lines = {"read": lambda: [file.read()], "readline": lambda: [file.readline(), file.readline()],
                 "readlines": file.readlines, "iterate": lambda: list(file)}[way]()  # fmt: skip
        assert b"".join(lines) == b"ab\ncd\n"
        start("204 No Content", [])
        return []

    run_wsgi_app(RequestLogMiddleware(reads, **options), environ_of(method="POST", data=b"ab\ncd\n"))
    assert logged().bytes_received == 6
