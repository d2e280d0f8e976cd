"""A server of models, real sockets and all, that behaves as a test says: answers in order, then the last one again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Answer:
    """What the server sends; `declared` is the length that it claims, `hold` an event that it waits for before."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = attrs.field(factory=dict)
    declared: int | None = None
    hold: threading.Event | None = None

    @classmethod
    def of(cls, value: object, **how: Any) -> Answer:
        return cls(body=json.dumps(value).encode(), **how)


@attrs.frozen
class Request:
    """What the server was asked."""

    path: str
    headers: dict[str, str]
    body: Any


Behave = Callable[[Request], Answer]


@attrs.define
class ModelServer:
    """The server, and what it was asked."""

    url: str
    answers: list[Answer | Behave]
    requests: list[Request] = attrs.field(factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [request.body for request in self.requests]


def vectors_of(request: Request, *, dimensions: int = 4) -> Answer:
    """Answer with a vector for each text, the longer the text the larger its first value."""
    return Answer.of(
        {
            "data": [
                {"index": place, "embedding": [float(len(text)), *([1.0] * (dimensions - 1))]}
                for place, text in enumerate(request.body["input"])
            ]
        }
    )


@contextmanager
def model_server(*answers: Answer | Behave) -> Iterator[ModelServer]:
    """Serve on a port of the loopback interface for as long as the block runs."""
    state = ModelServer("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, dict(self.headers.items()), json.loads(content))
            place = min(len(state.requests), len(state.answers) - 1)
            state.requests.append(request)
            chosen = state.answers[place]
            answer = chosen if isinstance(chosen, Answer) else chosen(request)
            if answer.hold is not None:
                answer.hold.wait(20)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(answer.declared or len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            if answer.declared:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the base class
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # who asked has gone
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
