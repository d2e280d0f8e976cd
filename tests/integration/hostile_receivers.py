"""Receivers of webhooks that mean harm, or are broken, each with what is to come of a request to it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import attrs

from mindia.domain.webhooks import AttemptOutcome

Behaviour = Callable[[asyncio.StreamReader, "Answer"], Awaitable[None]]

DELIVERED, REJECTED = AttemptOutcome.DELIVERED, AttemptOutcome.REJECTED
TIMED_OUT, FAILED = AttemptOutcome.TIMED_OUT, AttemptOutcome.FAILED

_TEN_GB = 10 * 1000**3


class Answer:
    """What a receiver writes to; counts what the sender has let it get rid of."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.written = 0

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self.written += len(data)

    async def drip(self, data: bytes) -> None:
        """Say one byte after the other, for ever."""
        while True:
            for byte in data:
                await self.say(bytes([byte]))
                await asyncio.sleep(0.01)

    async def flood(self, data: bytes) -> None:
        """Say the same for ever, as fast as it is taken."""
        block = data * (1 + 65536 // len(data))
        while True:
            await self.say(block)

    async def reset(self) -> None:
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Receiver:
    """A receiver on a port of its own.

    Attributes:
        url: Where it is.
        requests: The head of each request that has come.
        written: The bytes that it got rid of.
    """

    def __init__(self, behaviour: Behaviour, *, reads: bool) -> None:
        self._behaviour = behaviour
        self._reads = reads
        self.url = ""
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers: list[Answer] = []

    @property
    def written(self) -> int:
        return sum(answer.written for answer in self._answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answer = Answer(writer)
        self._answers.append(answer)
        try:
            if self._reads:
                while head := await self._request(reader):
                    self.requests.append(head)
                    await self._behaviour(reader, answer)
                    if not self.url.endswith("/keep"):
                        break
            else:
                await self._behaviour(reader, answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        return head


@asynccontextmanager
async def running(behaviour: Behaviour, *, reads: bool = True, path: str = "hook") -> AsyncIterator[Receiver]:
    """Run a receiver for as long as the block runs. With `keep` for a path it takes more than one request."""
    receiver = Receiver(behaviour, reads=reads)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await receiver.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{path}"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(data: bytes) -> Behaviour:
    """Return a receiver that says something and hangs up."""

    async def behaviour(_: asyncio.StreamReader, answer: Answer) -> None:
        await answer.say(data)

    return behaviour


def says_and_hangs(data: bytes) -> Behaviour:
    async def behaviour(_: asyncio.StreamReader, answer: Answer) -> None:
        await answer.say(data)
        await asyncio.sleep(3600)

    return behaviour


def drips(first: bytes, then: bytes) -> Behaviour:
    async def behaviour(_: asyncio.StreamReader, answer: Answer) -> None:
        await answer.say(first)
        await answer.drip(then)

    return behaviour


def floods(first: bytes, then: bytes) -> Behaviour:
    async def behaviour(_: asyncio.StreamReader, answer: Answer) -> None:
        await answer.say(first)
        await answer.flood(then)

    return behaviour


def resets_after(data: bytes) -> Behaviour:
    async def behaviour(_: asyncio.StreamReader, answer: Answer) -> None:
        if data:
            await answer.say(data)
            await asyncio.sleep(0.05)
        await answer.reset()

    return behaviour


async def _never_reads(_: asyncio.StreamReader, __: Answer) -> None:
    await asyncio.sleep(3600)


async def _resets_at_once(_: asyncio.StreamReader, answer: Answer) -> None:
    await answer.reset()


async def _hangs_up_at_once(_: asyncio.StreamReader, __: Answer) -> None:
    return


_BOMB = gzip.compress(bytes(50_000_000))


def _with(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


@attrs.frozen
class Case:
    """A receiver, and what is to come of a request to it."""

    name: str
    behaviour: Behaviour
    outcome: AttemptOutcome
    status_code: int | None = None
    error_code: str | None = None
    response: str | None = None
    reads: bool = True


CASES = [
    Case("never answers", says_and_hangs(b""), TIMED_OUT, None, "timeout"),
    Case("never reads", _never_reads, TIMED_OUT, None, "timeout", reads=False),
    Case("drips its status line", drips(b"HTTP/1.1 200 ", b"x"), TIMED_OUT, None, "timeout"),
    Case("says 200 and drips headers", drips(_with("200 OK")[:-2], b"a: b\r\n"), DELIVERED, 200, "timeout"),
    Case("says 503 and drips headers", drips(_with("503 No")[:-2], b"a: b\r\n"), REJECTED, 503, "timeout"),
    Case("says 200 and drips its body", drips(_with("200 OK", "Content-Length: 9999"), b"x"), DELIVERED, 200),
    Case("says 200 and never ends", says_and_hangs(_with("200 OK", "Content-Length: 5", body=b"ab")), DELIVERED, 200,
         None, "ab"),
    Case("says 500 and drips its body", drips(_with("500 No", "Content-Length: 9999"), b"x"), REJECTED, 500),
    Case("says 200 and sends endless headers", floods(_with("200 OK")[:-2], b"a: b\r\n"), DELIVERED, 200,
         "bad_response"),
    Case("says 503 and sends endless headers", floods(_with("503 No")[:-2], b"a: b\r\n"), REJECTED, 503,
         "bad_response"),
    Case("sends one endless header", floods(_with("503 No")[:-2] + b"a: ", b"b"), REJECTED, 503, "bad_response"),
    Case("sends an endless status line", floods(b"HTTP/1.1 200 ", b"x"), FAILED, None, "bad_response"),
    Case("sends 10 GB with 200", floods(_with("200 OK", f"Content-Length: {_TEN_GB}"), b"x"), DELIVERED, 200, None,
         "x" * 4096),
    Case("sends 10 GB with 500", floods(_with("500 No", f"Content-Length: {_TEN_GB}"), b"x"), REJECTED, 500, None,
         "x" * 4096),
    Case("sends endless chunks", floods(_with("400 No", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"), REJECTED, 400,
         None, "x" * 4096),
    Case("sends junk for chunks", says(_with("400 No", "Transfer-Encoding: chunked", body=b"zz\r\n")), REJECTED, 400,
         "bad_response"),
    Case("sends a body without a length", floods(_with("200 OK"), b"y"), DELIVERED, 200, None, "y" * 4096),
    Case("sends a compression bomb with 200",
         says(_with("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(_BOMB)}", body=_BOMB)), DELIVERED, 200),
    Case("sends a compression bomb with 400",
         says(_with("400 No", "Content-Encoding: gzip", f"Content-Length: {len(_BOMB)}", body=_BOMB)), REJECTED, 400),
    Case("says 200 with two lengths", says(_with("200 OK", "Content-Length: 1", "Content-Length: 2", body=b"ab")),
         DELIVERED, 200, "bad_response"),
    Case("says 500 with two lengths", says(_with("500 No", "Content-Length: 1", "Content-Length: 2", body=b"ab")),
         REJECTED, 500, "bad_response"),
    Case("has a length below nothing", says(_with("500 No", "Content-Length: -1")), REJECTED, 500, "bad_response"),
    Case("has a length and chunks",
         says(_with("500 No", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")), REJECTED, 500,
         "bad_response"),
    Case("is no HTTP server", says(b"SSH-2.0-OpenSSH_9.2\r\n"), FAILED, None, "bad_response"),
    Case("speaks HTTP/0.9", says(b"<html>200 OK</html>"), FAILED, None, "bad_response"),
    Case("speaks HTTP/2", says(b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x64"), FAILED, None, "bad_response"),
    Case("speaks TLS", says(b"\x15\x03\x03\0\2\2\x28"), FAILED, None, "bad_response"),
    Case("has no number for a status", says(b"HTTP/1.1 OK\r\n\r\n"), FAILED, None, "bad_response"),
    Case("has a status of four digits", says(b"HTTP/1.1 2000 OK\r\n\r\n"), FAILED, None, "bad_response"),
    Case("has a status below 100", says(b"HTTP/1.1 099 OK\r\n\r\n"), FAILED, None, "bad_response"),
    Case("says 100 for ever", drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TIMED_OUT, None, "timeout"),
    Case("floods with 102", floods(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), FAILED, None, "too_much"),
    Case("says 100, then 200", says(_with("100 Continue") + _with("200 OK", "Content-Length: 2", body=b"ok")),
         DELIVERED, 200, None, "ok"),
    Case("says 103, then 503", says(_with("103 Hints", "Link: </a>") + _with("503 No", "Content-Length: 0")), REJECTED,
         503),
    Case("switches protocols", says(_with("101 Switching", "Upgrade: x", "Connection: Upgrade")), REJECTED, 101),
    Case("sends elsewhere",
         says(_with("302 Found", "Location: http://169.254.169.254/latest/", "Content-Length: 0")), REJECTED, 302,
         "redirect"),
    Case("sends to itself", says(_with("308 There", "Location: /again", "Content-Length: 0")), REJECTED, 308,
         "redirect"),
    Case("resets at once", _resets_at_once, FAILED, None, "disconnected", reads=False),
    Case("hangs up at once", _hangs_up_at_once, FAILED, None, "disconnected", reads=False),
    Case("hangs up without an answer", says(b""), FAILED, None, "disconnected"),
    Case("resets without an answer", resets_after(b""), FAILED, None, "disconnected"),
    Case("hangs up in its status line", says(b"HTTP/1.1 20"), FAILED, None, "disconnected"),
    Case("says 200 and resets", resets_after(b"HTTP/1.1 200 OK\r\nContent-"), DELIVERED, 200, "disconnected"),
    Case("says 204 and hangs up in its headers", says(b"HTTP/1.1 204 None\r\nDat"), DELIVERED, 204, "disconnected"),
    Case("says 200 and too little", says(_with("200 OK", "Content-Length: 99", body=b"ab")), DELIVERED, 200, None,
         "ab"),
    Case("has lines without carriage returns", says(b"HTTP/1.1 200 OK\n\n"), DELIVERED, 200),
    Case("sends NUL and what is no UTF-8",
         says(_with("500 No", "Content-Length: 9", body=b"a\0b\xff\xc3\xe2\x82zz")), REJECTED, 500, None,
         "ab\ufffd\ufffd\ufffdzz"),
    Case("has NUL in a header", says(_with("500 No", "X: a\0b", "Content-Length: 0")), REJECTED, 500, "bad_response"),
    Case("has a header without a colon", says(_with("500 No", "nonsense", "Content-Length: 0")), REJECTED, 500,
         "bad_response"),
    Case("says more than it was asked", says(_with("204 None") + b"HTTP/1.1 500 No\r\n\r\n" * 2000), DELIVERED, 204),
    Case("is gone", says(_with("410 Gone", "Content-Length: 4", body=b"gone")), REJECTED, 410, None, "gone"),
    Case("has a status that nobody knows", says(_with("299 Fine", "Content-Length: 0")), DELIVERED, 299),
    Case("has a status of its own", says(_with("999 Denied", "Content-Length: 0")), REJECTED, 999),
]  # fmt: skip
