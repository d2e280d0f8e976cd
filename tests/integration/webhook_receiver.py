"""A receiver of webhooks in a thread, which does as a test says and remembers what came."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import attrs


@attrs.frozen
class Received:
    """A request.

    Attributes:
        path: Of its URL: which endpoint it is for.
        headers: In small letters.
        body: Its bytes.
    """

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


@attrs.frozen
class Reply:
    """What a receiver answers.

    Attributes:
        status: The status code.
        after_s: After how long; it hangs where that is None.
        headers: Further lines.
    """

    status: int = 200
    after_s: float | None = 0.0
    headers: tuple[str, ...] = ()


OK = Reply()
HANGS = Reply(after_s=None)


class ReceiverThread:
    """Receives on a port of loopback. A context manager.

    Attributes:
        replies: By path; 200 where there is none. May be called with the request.
        received: All that came, in order.
        most_at_once: How many were under way at once, by path.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[Received], Reply]] = {}
        self.received: list[Received] = []
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._ready = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ids(self, path: str | None = None) -> list[str]:
        """Return the ids of what came, in order."""
        return [each.webhook_id for each in list(self.received) if path in (None, each.path)]

    def wait_for(self, count: int, *, path: str | None = None, timeout_s: float = 60.0) -> None:
        """Wait until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ids(path)) >= count, timeout_s), (
                f"{len(self.ids(path))} of {count} came in {timeout_s:g} s"
            )

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            task.add_done_callback(connections.discard)
            with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                while True:
                    await self._one(reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = first.split(" ")[1]
        request = Received(path, headers, await reader.readexactly(int(headers["content-length"])))
        self._at_once[path] += 1
        self.most_at_once[path] = max(self.most_at_once[path], self._at_once[path])
        try:
            with self._changed:
                self.received.append(request)
                self._changed.notify_all()
            reply = self.replies.get(path, OK)
            if not isinstance(reply, Reply):
                reply = reply(request)
            await asyncio.sleep(3600 if reply.after_s is None else reply.after_s)
        finally:
            self._at_once[path] -= 1
        head = [f"HTTP/1.1 {reply.status} X", "Content-Length: 0", *reply.headers, "", ""]
        writer.write("\r\n".join(head).encode())
        await writer.drain()
