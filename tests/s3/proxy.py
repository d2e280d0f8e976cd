"""A proxy before an S3 server that fails requests in the way that a test names."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import attrs

_ERROR = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code>"
    b"<Message>We encountered an internal error. Please try again.</Message></Error>"
)


class Fault(Enum):
    """What happens to a request."""

    INTERNAL_ERROR = "the server does nothing and says 500"
    SLOW_DOWN = "the server does nothing and says 503"
    SILENCE = "the server does nothing and says nothing for longer than is waited for"
    CUT = "the connection is cut before the server has seen the request"
    CUT_BODY = "the connection is cut in the middle of what the client sends"
    CUT_ANSWER = "the server has done what it was asked for, and the client does not hear of it"
    CUT_CONTENT = "the connection is cut in the middle of what the server sends"
    DROPPED = "the server does nothing and says 200"
    DELAYED = "the server takes a moment"


@attrs.frozen
class Request:
    """What a fault is chosen by.

    Attributes:
        method: `PUT` and the like.
        path: With the query.
        number: Counts the requests, from 0.
    """

    method: str
    path: str
    number: int


def _none(_: Request) -> Fault | None:
    return None


class S3Proxy:
    """Passes requests on to an S3 server. A context manager.

    Args:
        endpoint: The server.
        silence_s: How long `SILENCE` lasts.

    Attributes:
        endpoint: The address of the proxy.
        faults: Tells what happens to a request; may be set at any time.
        seen: The requests so far.
        under_way: How many requests are not answered yet, also those whose client has gone.
    """

    def __init__(self, endpoint: str, *, silence_s: float = 2.0) -> None:
        upstream = urlsplit(endpoint)
        assert upstream.hostname is not None
        self.upstream = (upstream.hostname, upstream.port or 80)
        self.silence_s = silence_s
        self.faults: Callable[[Request], Fault | None] = _none
        self.seen: list[Request] = []
        self.under_way = 0
        self._lock = threading.Lock()
        self.closing = threading.Event()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="s3-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.cut()
        self._server.server_close()
        self._thread.join()

    def begun(self, count: int) -> None:
        """Count a request that begins, or has ended."""
        with self._lock:
            self.under_way += count

    def chosen(self, method: str, path: str) -> Fault | None:
        """Return what happens to a request, and remember it."""
        with self._lock:
            request = Request(method, path, len(self.seen))
            self.seen.append(request)
            return self.faults(request)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.daemon_threads = False
        self._open: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # with a name of its own
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # as above
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients leave."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: S3Proxy

    def _pass_on(self) -> None:
        self.owner.begun(1)
        try:
            self._fail_or_ask()
        finally:
            self.owner.begun(-1)

    def _fail_or_ask(self) -> None:
        fault = self.owner.chosen(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is Fault.CUT_BODY:
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault is Fault.CUT:
            self._cut()
        elif fault is Fault.SILENCE:
            self.owner.closing.wait(self.owner.silence_s)
            self._cut()
        elif fault is Fault.INTERNAL_ERROR:
            self._answer(500, [], _ERROR % b"InternalError")
        elif fault is Fault.SLOW_DOWN:
            self._answer(503, [], _ERROR % b"SlowDown")
        elif fault is Fault.DROPPED:
            self._answer(200, [], b"")
        else:
            if fault is Fault.DELAYED:
                time.sleep(0.02)
            self._ask(body, fault)

    def _ask(self, body: bytes, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection(*self.owner.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            if len(body) < int(self.headers.get("Content-Length") or 0):
                return  # the client has gone in the middle of it: the server sees the same
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if fault is Fault.CUT_ANSWER:
            self._cut()
            return
        hop = ("connection", "transfer-encoding", "content-length", "keep-alive")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in hop]
        length = int(answer.getheader("Content-Length") or len(content))
        self._answer(
            answer.status, headers, content[: len(content) // 2] if fault is Fault.CUT_CONTENT else content, length
        )
        if fault is Fault.CUT_CONTENT:
            self._cut()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - of the base class
