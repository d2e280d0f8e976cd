"""Receives webhooks, in a process of its own: `python -m benchmarks._webhook_receiver MILLISECONDS`.

It answers each request after so many milliseconds, those to `/hangs/…` never. It says its port, and for each line that
it reads it answers with the id and the moment of all that has come since.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, after_s: float, came: list[tuple[str, str, float]]) -> None:
        self._after_s = after_s
        self._came = came
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.lower().split(b"\r\n")
        values = dict(line.split(b": ", 1) for line in lines[1:])
        if len(body) < int(values[b"content-length"]):
            return
        self._data = b""
        path = lines[0].split(b" ")[1].decode()
        self._came.append((path, values[b"webhook-id"].decode(), time.monotonic()))
        if not path.startswith("/hangs/"):
            asyncio.get_running_loop().call_later(self._after_s, self._answer)

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve(after_s: float) -> None:
    came: list[tuple[str, str, float]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(after_s, came), "127.0.0.1", 0, backlog=4096)
    _say({"port": server.sockets[0].getsockname()[1]})
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say({"came": came})
        came.clear()


def _say(content: object) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000))
