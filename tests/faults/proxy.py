"""A proxy in front of PostgreSQL that cuts connections at the moment a test names."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

import attrs
import psycopg
from psycopg.conninfo import make_conninfo

_CHUNK = 1 << 16


class Moment(Enum):
    """When a connection is cut: around the first message of a client that holds the words that are looked for."""

    BEFORE = "the server does not see the message"
    SENT = "the server sees the message, and may still be at work on it"
    ANSWERED = "the server has done what the message says, the client does not hear of it"


class Words(Enum):
    """What a message is looked through for, where no words of its own tell it."""

    COMMIT = "the end of a transaction, be it one statement that commits by itself"


_SYNC, _FLUSH = b"S\x00\x00\x00\x04", b"H\x00\x00\x00\x04"
"""The message by which a client ends what belongs together, and one that may follow (PostgreSQL, "Message Formats")."""


@attrs.define
class _Cut:
    words: bytes | Words
    moment: Moment
    skip: int
    left: int


class Proxy:
    """Listens on the loopback and passes on what it reads; a context manager.

    Without rules it changes nothing. Connections are not encrypted, so that it can read along.

    Args:
        upstream: Connection string of the server.

    Attributes:
        url: Connection string that leads through the proxy.
    """

    def __init__(self, upstream: str) -> None:
        with psycopg.connect(upstream) as connection:
            self._host, self._port = connection.info.host, connection.info.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address: tuple[str, int] = self._listener.getsockname()
        self.url = make_conninfo(
            upstream,
            host=self._address[0],
            hostaddr=self._address[0],
            port=self._address[1],
            sslmode="disable",
            gssencmode="disable",
        )
        self._lock = threading.Lock()
        self._cut = _Cut(b"", Moment.BEFORE, 0, 0)
        self._open: list[_Connection] = []
        self._refusing = self._closed = False
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        with suppress(OSError):
            socket.create_connection(self._address).close()  # wakes the acceptor
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for connection in self._open:
            connection.join()

    def cut_at(self, words: bytes | Words, moment: Moment, *, skip: int = 0, times: int = 1) -> None:
        """Cut the connection on which a message comes that has `words` in it; in place of what was asked for before.

        Args:
            words: What is looked for.
            moment: When it is cut.
            skip: How many such messages are let through first.
            times: How many connections are cut, one after the other.
        """
        with self._lock:
            self._cut = _Cut(words, moment, skip, times)

    @property
    def cuts_left(self) -> int:
        """How many of the cuts that were asked for have not been made."""
        with self._lock:
            return self._cut.left

    def cut(self) -> None:
        """Cut all connections that are open; new ones are let through."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.cut()

    def refuse(self) -> None:
        """Cut all connections and let no new one through, as if the server had gone."""
        self._refusing = True
        self.cut()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            connection = _Connection(self, client, server)
            with self._lock:
                self._open.append(connection)
            connection.start()

    def _connect(self) -> socket.socket:
        if self._refusing:
            raise ConnectionRefusedError
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        return socket.create_connection((self._host, self._port))

    def _moment(self, message: bytes, *, commits: bool) -> Moment | None:
        with self._lock:
            cut = self._cut
            if not cut.left or not (commits if isinstance(cut.words, Words) else cut.words in message):
                return None
            if cut.skip:
                cut.skip -= 1
                return None
            cut.left -= 1
            return cut.moment


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._silent = self._in_transaction = False
        self._threads = [
            threading.Thread(target=self._pump, args=(pump,), name="proxy", daemon=True)
            for pump in (self._to_server, self._to_client)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _pump(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        self.cut()

    def _to_server(self) -> None:
        # A message is looked at as it arrives: libpq sends each of these small ones at once.
        while message := self._client.recv(_CHUNK):
            moment = self._proxy._moment(message, commits=self._commits(message))
            if moment is Moment.BEFORE:
                return
            self._silent |= moment is not None
            self._server.sendall(message)
            if moment is Moment.SENT:
                return

    def _commits(self, message: bytes) -> bool:
        if b"BEGIN" in message:
            self._in_transaction = True
        ends = b"COMMIT" in message or (message.removesuffix(_FLUSH).endswith(_SYNC) and not self._in_transaction)
        if b"COMMIT" in message or (b"ROLLBACK" in message and b"ROLLBACK TO" not in message):
            self._in_transaction = False
        return ends

    def _to_client(self) -> None:
        while message := self._server.recv(_CHUNK):
            if self._silent:
                return
            self._client.sendall(message)
