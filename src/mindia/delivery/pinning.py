"""The guard in aiohttp's place for it: a name is looked up once, and the socket goes to what was checked.

A literal address never comes to the resolver: so each socket is checked, too, before it is made.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from mindia.delivery.addresses import Endpoint, Guard
from mindia.errors import HostNotFoundError

_MAX_LOOKUPS = 64


class PinnedResolver(AbstractResolver):
    """Looks names up in threads of its own, because a look-up cannot be called off: one that hangs is left behind.

    Those who ask for the same name at the same time share one thread, so that a name server that does not answer holds
    up none but its own names.

    Args:
        guard: What may be connected to.
        timeout_s: How long a look-up is waited for.
    """

    def __init__(self, guard: Guard, *, timeout_s: float) -> None:
        self._guard = guard
        self._timeout_s = timeout_s
        self._running: dict[tuple[str, int], asyncio.Future[list[Endpoint]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, all of which were checked.

        Raises:
            ForbiddenAddressError: One of them is forbidden.
            HostNotFoundError: There is none, or not in time.
        """
        looking = self._running.get((host, port)) or self._start(host, port)
        try:
            async with asyncio.timeout(self._timeout_s):
                endpoints = await asyncio.shield(looking)
        except TimeoutError:
            raise HostNotFoundError(f"looking up the name {host!r} took longer than {self._timeout_s:g} s") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(endpoint.address),
                port=endpoint.port,
                family=endpoint.family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for endpoint in endpoints
            if family in (socket.AF_UNSPEC, endpoint.family)
        ]

    async def close(self) -> None:
        """Leave behind the look-ups that still run: their threads do not keep the process alive."""
        self._running.clear()

    def _start(self, host: str, port: int) -> asyncio.Future[list[Endpoint]]:
        if len(self._running) >= _MAX_LOOKUPS:
            raise HostNotFoundError(f"the name {host!r} is not looked up now: {_MAX_LOOKUPS} others are waited for")
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[list[Endpoint]] = loop.create_future()
        self._running[host, port] = looking

        def ended(set_result: Callable[[], None]) -> None:
            if self._running.get((host, port)) is looking:
                del self._running[host, port]
            if not looking.done():
                set_result()
                looking.exception()  # where nobody waits any more, nobody is to be told that nobody did

        def look_up() -> None:
            try:
                endpoints = self._guard.resolve(host, port)
            except Exception as error:  # noqa: BLE001 - handed over to who waits
                tell: Callable[[], None] = _failing(looking, error)
            else:

                def tell() -> None:
                    looking.set_result(endpoints)

            try:
                loop.call_soon_threadsafe(ended, tell)
            except RuntimeError:  # the loop was closed meanwhile
                return

        threading.Thread(target=look_up, name="mindia-lookup", daemon=True).start()
        return looking


def _failing(looking: asyncio.Future[list[Endpoint]], error: Exception) -> Callable[[], None]:
    return lambda: looking.set_exception(error)


def pinned_connector(guard: Guard, *, lookup_timeout_s: float, keepalive_timeout_s: float = 5.0) -> TCPConnector:
    """Return a connector that connects to nothing but what the guard has checked, at the moment of connecting.

    Args:
        guard: What may be connected to.
        lookup_timeout_s: How long a look-up is waited for.
        keepalive_timeout_s: How long a connection is kept for the next request.
    """

    def checked_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        guard.check_address(str(sockaddr[0]))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)  # noqa: FBT003 - its signature
        return made

    return TCPConnector(
        resolver=PinnedResolver(guard, timeout_s=lookup_timeout_s),
        socket_factory=checked_socket,
        use_dns_cache=False,
        keepalive_timeout=keepalive_timeout_s,
        limit=0,  # callers know how many requests they have begun
    )
