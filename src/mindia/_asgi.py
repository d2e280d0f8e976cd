"""A WSGI application of ours as one for ASGI: the event loop passes on bytes, and threads do what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

Scope = Mapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Wsgi = Callable[[Mapping[str, Any], Callable[[str, list[tuple[str, str]]], object]], Iterable[bytes]]


class AsgiBridge:
    """An ASGI application (specification 3.0) that answers as a WSGI application does, in threads of the event loop.

    Args:
        wsgi: The application.
    """

    def __init__(self, wsgi: Wsgi) -> None:
        self._wsgi = wsgi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; anything else is refused by an exception, as the specification wants it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"this is served over HTTP alone, not {scope['type']}")
        body = _Input(receive, asyncio.get_running_loop())
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            started.append((status, headers))

        chunks = await asyncio.to_thread(self._wsgi, environ_of(scope, body), start_response)
        iterator: Iterator[bytes] = iter(chunks)
        try:
            ((status, headers),) = started
            await send({
                "type": "http.response.start",
                "status": int(status.split(" ", 1)[0]),
                "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            })  # fmt: skip
            while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                await asyncio.shield(asyncio.to_thread(close))


class _Input:
    """Reads the body of a request in a thread, as it comes."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._rest = b""
        self._has_more = True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes; nothing at the end, or where the client has gone."""
        while not self._rest and self._has_more:
            message = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            self._rest = message.get("body", b"")
            self._has_more = message["type"] == "http.request" and message.get("more_body", False)
        if size < 0:
            size = len(self._rest)
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    async def _next(self) -> Message:
        return await self._receive()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def environ_of(scope: Scope, body: object) -> dict[str, Any]:
    """Return what a WSGI application is told of a request, as far as ours want to know (PEP 3333)."""
    raw = scope.get("raw_path") or scope["path"].encode()
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        plain = name.decode("latin-1").upper().replace("-", "_")
        key = plain if plain in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{plain}"
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "wsgi.input": body,
        # One that breaks off is told from one that has ended by its length alone.
        "wsgi.input_terminated": False,
        **headers,
    }
