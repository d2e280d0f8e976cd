"""Middleware that logs each request: `RequestLogMiddleware` for WSGI, `AsyncRequestLogMiddleware` for ASGI.

    api.add_middleware(AsyncRequestLogMiddleware, mindia=app, tenant=lambda scope: scope["state"].get("tenant"))
    flask.wsgi_app = RequestLogMiddleware(flask.wsgi_app, mindia=app, tenant=lambda environ: environ.get("tenant"))

Nothing is awaited, and nothing is raised on its behalf: what is logged is written elsewhere, later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from mindia.domain.tenants import Tenant
from mindia.errors import InvalidError
from mindia.library import tenant_id_of
from mindia.repositories.request_log import Entry
from mindia.services.request_paths import masked, route_of, words_of

if TYPE_CHECKING:
    from mindia.app import Mindia

CLIENT_GONE = 499
"""The status of a request whose client went before there was a response; as web servers have it."""

_INTERNAL_ERROR = 500
_MAX_TEXT = 512

_log = logging.getLogger("mindia.request_log")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]
TenantOf = Callable[[Any], Tenant | UUID | None]


class _Exchange:
    """What has been seen of a request and its response."""

    __slots__ = ("began", "began_at", "is_done", "is_gone", "method", "path", "query", "received", "sent", "status")

    def __init__(self, method: str, path: str, query: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.status = self.sent = self.received = 0
        self.is_done = self.is_gone = False
        self.began_at = time.time()
        self.began = time.perf_counter()


class _Logging:
    """What both kinds of middleware have in common."""

    def __init__(
        self,
        app: Any,
        *,
        mindia: Mindia,
        tenant: TenantOf | None = None,
        trusted_proxies: Iterable[str] = (),
        sensitive: Iterable[str] = (),
        ignore: Iterable[str] = (),
    ) -> None:
        if isinstance(trusted_proxies, str) or isinstance(sensitive, str) or isinstance(ignore, str):
            raise InvalidError("trusted_proxies, sensitive and ignore must be several texts, not a single one")
        try:
            self._networks = tuple(ip_network(network) for network in trusted_proxies)
        except ValueError as error:
            raise InvalidError(f"trusted_proxies must be networks such as '10.2.0.0/16': {error}") from error
        self._app = app
        self._put = mindia.request_log._put
        self._tenant = tenant
        self._words = words_of(sensitive)
        self._ignored = frozenset(ignore)
        self._is_trusted = lru_cache(maxsize=4096)(self._is_in_networks)

    def _is_in_networks(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)

    def _client(self, peer: str, forwarded: str) -> str:
        """Return the address of the client: of what stands before trusted proxies, the last one."""
        client = _address(peer)
        if not self._networks or not forwarded or (client and not self._is_trusted(client)):
            return client
        for hop in reversed(forwarded.split(",")):
            address = _address(hop.strip())
            if not address:
                break
            client = address
            if not self._is_trusted(client):
                break
        return client

    def _log(self, seen: _Exchange, request: Any, *, peer: str, forwarded: str, agent: str) -> None:
        took = time.perf_counter() - seen.began
        try:
            tenant_id = ""
            if self._tenant is not None:
                found = self._tenant(request)
                tenant_id = "" if found is None else tenant_id_of(found).hex
            path = f"{seen.path}?{masked(seen.query, self._words)}" if seen.query else seen.path
            self._put(
                Entry(
                    tenant_id,
                    seen.method[:10],
                    path[:_MAX_TEXT],
                    route_of(seen.path)[:_MAX_TEXT],
                    seen.status or (CLIENT_GONE if seen.is_gone else _INTERNAL_ERROR),
                    round(took * 1000),
                    seen.sent,
                    seen.received,
                    self._client(peer, forwarded),
                    agent[:_MAX_TEXT],
                    int(seen.is_gone or (seen.status != 0 and not seen.is_done)),
                    seen.began_at,
                )
            )
        except Exception:  # noqa: BLE001 - whatever the host's callable raises is no matter of the request's
            _log.exception("a request is not logged")


class AsyncRequestLogMiddleware(_Logging):
    """Logs the requests of an ASGI application (FastAPI, Starlette, Django). Anything but HTTP passes untouched.

    Args:
        app: The application.
        mindia: Where requests are logged.
        tenant: Is called with the scope at the end of each request, when the host knows whose it was, and returns a
            tenant, the id of one, or None.
        trusted_proxies: Networks (`10.2.0.0/16`) whose `X-Forwarded-For` is believed. From anybody else it is left out
            of account.
        sensitive: Further words: a query's value is masked where one of them is in its name.
        ignore: Paths that are not logged, such as `/health`.

    Raises:
        InvalidError: A network is none.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"] in self._ignored:
            await self._app(scope, receive, send)
            return
        seen = _Exchange(scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"))

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                seen.received += len(message.get("body", b""))
            elif not seen.is_done:
                seen.is_gone = True
            return message

        async def sending(message: Message) -> None:
            try:
                await send(message)
            except OSError:
                seen.is_gone = True
                raise
            if seen.is_gone:
                return
            if message["type"] == "http.response.body":
                seen.sent += len(message.get("body", b""))
                seen.is_done = not message.get("more_body", False)
            elif message["type"] == "http.response.start":
                seen.status = message["status"]
            elif message["type"] == "http.response.pathsend":
                seen.is_done = True

        try:
            await self._app(scope, receiving, sending)
        except asyncio.CancelledError:
            seen.is_gone = seen.is_gone or not seen.is_done
            raise
        finally:
            forwarded = agent = ""
            for name, value in scope["headers"]:
                if name == b"user-agent":
                    agent = value.decode("latin-1")
                elif name == b"x-forwarded-for":
                    forwarded = f"{forwarded},{value.decode('latin-1')}" if forwarded else value.decode("latin-1")
            client = scope.get("client")
            self._log(seen, scope, peer=client[0] if client else "", forwarded=forwarded, agent=agent)


class RequestLogMiddleware(_Logging):
    """Logs the requests of a WSGI application (Flask, Django).

    Args:
        app: The application.
        mindia: As for `AsyncRequestLogMiddleware`, like all that follow.
        tenant: Is called with the environ.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
        sensitive: Further words of queries' names.
        ignore: Paths that are not logged.

    Raises:
        InvalidError: A network is none.
    """

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path in self._ignored:
            return self._app(environ, start_response)  # type: ignore[no-any-return]  # as untyped as any application
        if not path.isascii():
            path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        seen = _Exchange(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""))
        if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input"] = _Counted(environ["wsgi.input"], seen)

        def starting(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            write = start_response(status, headers, *error)
            seen.status = int(status[:3])

            def writing(chunk: bytes) -> object:
                seen.sent += len(chunk)
                return write(chunk)

            return writing

        try:
            body = self._app(environ, starting)
        except BaseException:
            self._end(seen, environ)
            raise
        if type(body) in (list, tuple):  # is in memory already: servers like to know its length
            seen.sent += sum(map(len, body))
            seen.is_done = True
            self._end(seen, environ)
            return body  # type: ignore[no-any-return]  # as untyped as any application
        return _Body(body, seen, lambda: self._end(seen, environ))

    def _end(self, seen: _Exchange, environ: Environ) -> None:
        if seen.method == "HEAD":
            seen.sent = 0
        self._log(
            seen,
            environ,
            peer=environ.get("REMOTE_ADDR") or "",
            forwarded=environ.get("HTTP_X_FORWARDED_FOR", ""),
            agent=environ.get("HTTP_USER_AGENT", ""),
        )


class _Body:
    """A response that is counted as the server takes it; the server closes it, whatever happens."""

    def __init__(self, body: Iterable[bytes], seen: _Exchange, on_close: Callable[[], None]) -> None:
        self._body = body
        self._chunks = iter(body)
        self._seen = seen
        self._on_close = on_close
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._seen.is_done = True
            raise
        self._seen.sent += len(chunk)
        return chunk

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._on_close()


class _Counted:
    """The body of a request, counted as it is read."""

    def __init__(self, file: Any, seen: _Exchange) -> None:
        self._file = file
        self._seen = seen

    def read(self, *size: int) -> bytes:
        return self._count(self._file.read(*size))

    def readline(self, *size: int) -> bytes:
        return self._count(self._file.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        return [self._count(line) for line in self._file.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._count, self._file)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name == "read1":
            return lambda *size: self._count(found(*size))
        return self._readinto if name == "readinto" else found

    def _readinto(self, buffer: Any) -> int:
        size: int = self._file.readinto(buffer) or 0
        self._seen.received += size
        return size

    def _count(self, data: bytes) -> bytes:
        self._seen.received += len(data)
        return data


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    """Return an address without its port, as it is usually written; empty where there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
