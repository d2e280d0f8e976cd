"""Sends one request to a receiver that may mean harm, and tells what came of it: in time, and within bounds.

The status line decides. A receiver that has said 2xx there has the event, whatever it does afterwards: otherwise one
that then drips its headers or its body would be sent the same event again and again.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Self

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from mindia._version import __version__
from mindia.delivery.addresses import Guard
from mindia.delivery.pinning import pinned_connector
from mindia.domain.webhooks import AttemptOutcome
from mindia.errors import ForbiddenAddressError, HostNotFoundError, InvalidError

_MAX_RESPONSE = 4096
_MAX_RECEIVED = 256 * 1024
"""What a receiver may send before we have hung up, in bytes: interim answers, headers, and the start of its body."""

_MAX_LINE = 8190
_MAX_HEADERS = 128
_MAX_OPEN = 256
"""More connections than that are not kept for later: file descriptors are few."""

_MAX_TARGETS = 4096
"""What a URL is found to be, without a look-up, is always the same."""

_KEEP_ALIVE_S = 5.0
_MAX_RETRY_AFTER = timedelta(days=1)

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?", re.ASCII)
_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"Mindia/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}


@attrs.frozen(kw_only=True)
class SendResult:
    """What came of a request.

    Attributes:
        outcome: In one word.
        status_code: Of the answer, where there was one.
        error_code: What went wrong, where the status alone does not say it.
        response: The beginning of the answer's body, at most 4 KiB of it; bytes that are no text are replaced. None
            where there is none, or where it is compressed.
        address: What was connected to.
        retry_after: When the receiver wants to be asked again, at most a day; None where it does not say so, or junk.
        duration_s: From the look-up of the name to the status, or the failure.
    """

    outcome: AttemptOutcome
    status_code: int | None = None
    error_code: str | None = None
    response: str | None = None
    address: str | None = None
    retry_after: timedelta | None = None
    duration_s: float = 0.0


class Sender:
    """Sends requests, any number at once, in one event loop. An async context manager.

    There is no redirect followed, no proxy taken from the environment, no netrc read, and no cookie kept.

    Args:
        guard: What may be connected to.
        timeout_s: For look-up, connecting, sending and the headers of the answer, together.
        connect_timeout_s: For a look-up, and for a connection with its TLS.
        grace_s: How long the beginning of the body is waited for once the status is known.
        ssl_context: Which certificates are trusted; those of the system by default.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        timeout_s: float = 15.0,
        connect_timeout_s: float = 3.0,
        grace_s: float = 1.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._grace_s = grace_s
        self._ssl_context = ssl_context
        self._open = _Open()
        self._target = lru_cache(_MAX_TARGETS)(lambda url: URL(guard.check_url(url).url, encoded=True))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = pinned_connector(
            self._guard, lookup_timeout_s=self._connect_timeout_s, keepalive_timeout_s=_KEEP_ALIVE_S
        )
        factory: Any = partial(_Protocol, self._open, loop=asyncio.get_running_loop())
        connector._factory = factory
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=2 * _MAX_RESPONSE,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()
        self._session = None

    async def send(self, *, url: str, body: bytes, headers: Mapping[str, str]) -> SendResult:
        """Post a body, and return what came of it. Only being cancelled is raised.

        Args:
            url: Where to; checked here once more, and its addresses when they are connected to.
            body: The exact bytes.
            headers: Besides those that each request has.
        """
        begun = asyncio.get_running_loop().time()
        try:
            target = self._target(url)
        except InvalidError as error:
            return SendResult(outcome=AttemptOutcome.FAILED, error_code=error.code)
        seen = _Seen()
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._post(target, body, headers, seen)
                if result is None:  # over a connection that the receiver was about to close: that says nothing
                    seen = _Seen()
                    result = await self._post(target, body, headers, seen)
        except TimeoutError:
            result = None
            seen.error_code = "timeout"
        if result is None:
            seen.hang_up()
            result = seen.failure()
        return attrs.evolve(result, duration_s=(seen.status_at or asyncio.get_running_loop().time()) - begun)

    async def _post(self, target: URL, body: bytes, headers: Mapping[str, str], seen: _Seen) -> SendResult | None:
        """Return what came of it; None where nothing came over a connection that was kept from before."""
        assert self._session is not None
        token = _seen.set(seen)
        try:
            options: dict[str, Any] = {} if self._ssl_context is None else {"ssl": self._ssl_context}
            response = await self._session.post(target, data=body, headers=headers, allow_redirects=False, **options)
        except asyncio.CancelledError:
            seen.hang_up()
            raise
        except Exception as error:  # noqa: BLE001 - whatever a receiver brings about is its outcome
            seen.hang_up()
            if seen.is_reused and not seen.received and not isinstance(error, TimeoutError):
                return None
            seen.error_code = _error_code(error, seen)
            return seen.failure()
        finally:
            _seen.reset(token)
        return await self._answered(response, seen)

    async def _answered(self, response: aiohttp.ClientResponse, seen: _Seen) -> SendResult:
        status = response.status
        if status < 100:
            seen.error_code = "bad_response"
            seen.hang_up()
            response.close()
            return SendResult(outcome=AttemptOutcome.FAILED, error_code="bad_response", address=seen.address)
        seen.status_at = seen.status_at or asyncio.get_running_loop().time()
        try:
            text, is_complete = await self._beginning_of(response)
        except asyncio.CancelledError:
            seen.hang_up()
            raise
        seen.is_over = True
        if is_complete and self._open.count <= _MAX_OPEN:
            response.release()
        else:
            seen.hang_up()
            response.close()
        is_compressed = response.headers.get("Content-Encoding", "identity").lower() != "identity"
        result = SendResult(
            outcome=_outcome_of(status),
            status_code=status,
            error_code="redirect" if 300 <= status < 400 else None,
            response=None if is_compressed or not text else _as_text(text),
            address=seen.address,
        )
        if result.outcome is not AttemptOutcome.DELIVERED:
            result = attrs.evolve(result, retry_after=parse_retry_after(response.headers.get("Retry-After")))
        return result

    async def _beginning_of(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """Return the beginning of a body, and whether that is all of it."""
        taken = bytearray()
        # The status has been said: what comes after it changes nothing.
        with suppress(TimeoutError, aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError):
            if response.content.is_eof():  # as it mostly is: it came with the headers
                whole = response.content.read_nowait(_MAX_RESPONSE + 1)
                return whole[:_MAX_RESPONSE], len(whole) <= _MAX_RESPONSE
            async with asyncio.timeout(self._grace_s):
                while len(taken) <= _MAX_RESPONSE:
                    part = await response.content.read(_MAX_RESPONSE + 1 - len(taken))
                    if not part:
                        return bytes(taken), True
                    taken += part
        return bytes(taken[:_MAX_RESPONSE]), False


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> timedelta | None:
    """Return how long a receiver asks to be left alone, at most a day; None for junk.

    Args:
        value: Of the header: seconds, or a date.
        now: For tests.
    """
    if value is None or len(value) > 64:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=min(int(value), 10**6)), _MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        wait = until - (now or datetime.now(UTC))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait, timedelta()), _MAX_RETRY_AFTER)


class _Open:
    """How many connections there are."""

    def __init__(self) -> None:
        self.count = 0


class _Seen:
    """What was seen of one answer, byte by byte: also where it never becomes a whole one."""

    __slots__ = ("address", "error_code", "is_over", "is_reused", "protocol", "received", "status", "status_at")

    def __init__(self) -> None:
        self.address: str | None = None
        self.error_code: str | None = None
        self.is_over = False
        self.is_reused = False
        self.protocol: _Protocol | None = None
        self.received = 0
        self.status: int | None = None
        self.status_at: float | None = None

    def hang_up(self) -> None:
        """End the connection now, and not when all was sent: a receiver that does not read could keep it for ever.

        One that has gone on to another request, since the answer was whole, is left alone.
        """
        protocol = self.protocol
        if protocol is not None and protocol.of_request is self and protocol.transport is not None:
            protocol.transport.abort()

    def failure(self) -> SendResult:
        """Return what came of a request whose answer is not whole: its status, if there was one, decides."""
        if self.status is not None:
            outcome = _outcome_of(self.status)
        elif self.error_code is not None and self.error_code.endswith("timeout"):
            outcome = AttemptOutcome.TIMED_OUT
        else:
            outcome = AttemptOutcome.FAILED
        return SendResult(outcome=outcome, status_code=self.status, error_code=self.error_code, address=self.address)


_seen: ContextVar[_Seen] = ContextVar("mindia_seen")


class _Protocol(ResponseHandler):
    """Sees the status line as soon as it is there, and ends what sends too much."""

    def __init__(self, open_: _Open, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._counted = open_
        self.of_request = _Seen()
        self._requests = 0
        self._line = b""
        self._in_interim = self._is_known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._counted.count += 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it."""
        self._counted.count -= 1
        super().connection_lost(exc)

    def set_response_params(self, **params: Any) -> None:
        """Begin with the answer to the next request."""
        seen = _seen.get()
        seen.protocol = self
        seen.is_reused = self._requests > 0
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        seen.address = None if peer is None else str(peer[0])
        self._requests += 1
        self.of_request = seen
        self._line = b""
        self._in_interim = self._is_known = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Look for the status line, and let the parser have all."""
        if self.of_request.is_over and self.transport is not None:
            self.transport.abort()  # nobody has asked: it would be taken for the answer to the next request
            return
        self.of_request.received += len(data)
        if not self._is_known:
            self._look_for_status(data)
        super().data_received(data)
        if self.of_request.received > _MAX_RECEIVED and self.transport is not None:
            self.of_request.error_code = "too_much"
            self.transport.abort()

    def _look_for_status(self, data: bytes) -> None:
        data = self._line + data
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line = data[start:end].removesuffix(b"\r")
            start = end + 1
            if self._in_interim:
                self._in_interim = bool(line)
                continue
            match = _STATUS_LINE.fullmatch(line)
            status = int(match[1]) if match is not None else None
            if status is not None and status < 200 and status != 101:
                self._in_interim = True
                continue
            self._is_known = True
            self.of_request.status = status
            self.of_request.status_at = asyncio.get_running_loop().time()
            return
        self._line = data[start:]


def _outcome_of(status: int) -> AttemptOutcome:
    return AttemptOutcome.DELIVERED if 200 <= status < 300 else AttemptOutcome.REJECTED


def _error_code(error: Exception, seen: _Seen) -> str:
    """Return what went wrong, in a word that is documented."""
    cause = error.__cause__
    match error:
        case ForbiddenAddressError():
            return "forbidden_address"
        case aiohttp.ClientConnectorDNSError() | HostNotFoundError():
            return "name_timeout" if "took longer" in str(cause or error) else "name_not_found"
        case aiohttp.ClientConnectorCertificateError():
            return "certificate"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout"
        case TimeoutError():
            return "timeout"
        case _ if seen.error_code is not None:
            return seen.error_code
        case aiohttp.ClientConnectorError():
            return "connect_refused" if isinstance(error.os_error, ConnectionRefusedError) else "connect_failed"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | aiohttp.ClientConnectionError():
            return "disconnected"
        case aiohttp.ClientError() | aiohttp.http.HttpProcessingError():
            return "bad_response"
        case OSError():
            return "connect_failed"
        case _:
            return "bad_response"


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", "")
