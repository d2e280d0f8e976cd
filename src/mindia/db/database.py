"""The database of an application: its pools, opened at first use and once a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from mindia.db import migrator
from mindia.db._translate import translated
from mindia.db.server import ServerFacts
from mindia.db.session import OpenTransaction, Session, check_joinable
from mindia.errors import ClosedError, InvalidError, SchemaOutOfDateError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

    from mindia.config import Settings

_SIDE_POOL_SIZE = 2


class _FromHost(Exception):  # noqa: N818 - never leaves this module
    """Carries a driver's error of the host's own statement past our translation."""


class Database:
    """Connections to one PostgreSQL database.

    Thread-safe. Nothing is opened before first use. A forked child leaves the connections of its parent alone and opens
    its own.

    Args:
        source: A connection string (URI or key=value), or a pool of the host's, which is left open at close.
        settings: Pool size, time-outs, prepared statements.

    Raises:
        InvalidError: `source` is not a connection string.
    """

    def __init__(self, source: str | ConnectionPool[Any], *, settings: Settings) -> None:
        if isinstance(source, str):
            try:
                conninfo_to_dict(source)
            except psycopg.ProgrammingError as error:
                # The driver's message quotes the string, and with it the password.
                raise InvalidError(
                    "the connection string cannot be parsed: write it as postgresql://user@host:5432/database"
                ) from error.with_traceback(None).__cause__
        self._source = source
        self._settings = settings
        self._made_by = os.getpid()
        self._closed = False
        self._inherited: list[ConnectionPool[Any] | None] = []
        self._pool: ConnectionPool[Any] | None = None
        self._side_pool: ConnectionPool[Any] | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._facts: ServerFacts | None = None
        # Kept, not dropped: the pools of a parent would try to end threads that are not in this process.
        self._inherited += [self._pool, self._side_pool]
        self._pool = self._side_pool = None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Begin a transaction on a connection of the pool, for statements of ours."""
        pool, facts = self._opened()
        with translated(), pool.connection() as connection, connection.transaction():
            yield Session(connection, facts)

    @contextmanager
    def unit_of_work(self) -> Iterator[OpenTransaction]:
        """Begin a transaction that the host's code runs in, whose exceptions pass through untouched."""
        try:
            with self.transaction() as session, OpenTransaction.over(session) as unit:
                try:
                    yield unit
                except psycopg.Error as error:
                    raise _FromHost from error
        except _FromHost as carrier:
            host_error = carrier.__cause__
            assert host_error is not None
            raise host_error from host_error.__cause__

    @contextmanager
    def side_transaction(self) -> Iterator[Session]:
        """Begin a transaction on a connection apart from the pool.

        What is committed beside a transaction that is open (keys of staged objects, heartbeats) must not wait for the
        connections that such transactions hold.
        """
        _, facts = self._opened()
        with self._lock:
            if self._side_pool is None:
                self._side_pool = self._make_pool(_SIDE_POOL_SIZE)
            pool = self._side_pool
        with translated(), pool.connection() as connection, connection.transaction():
            yield Session(connection, facts)

    @contextmanager
    def join(self, connection: Connection[Any]) -> Iterator[OpenTransaction]:
        """Join the transaction that a host has begun on its own connection; begin and commit stay with the host.

        Raises:
            TransactionError: The connection is not psycopg's, is closed, commits each statement by itself, or its
                transaction has failed.
            SchemaOutOfDateError: The connection leads to a database without Mindia's tables.
        """
        self.check_open()
        check_joinable(connection)
        with translated():
            # Also makes psycopg begin the transaction where the host has not sent anything yet.
            facts = ServerFacts.read(connection)
            session = Session(connection, facts)
            if not session.one("select to_regclass('mindia.tenants') is not null", row=bool):
                raise SchemaOutOfDateError(
                    f"the database {facts.database!r} of the connection handed in has no Mindia tables: hand in a "
                    "connection to the database that the application is connected to, or run app.migrate()"
                )
        with OpenTransaction.over(session) as unit:
            yield unit

    def facts(self) -> ServerFacts:
        """Return what the server says about itself, after it was found fit."""
        return self._opened()[1]

    def migrate(self) -> list[migrator.Migration]:
        """Apply the migrations that are missing and return them."""
        self.check_open()
        with self._direct_connection() as connection:
            return migrator.migrate(connection)

    def pending_migrations(self) -> list[migrator.Migration]:
        """Return the migrations that are missing."""
        self.check_open()
        with self._direct_connection() as connection:
            return migrator.pending(connection)

    def drop_lost_connections(self) -> None:
        """Replace the connections of the pools that do not answer any more."""
        for pool in (self._pool, self._side_pool):
            if pool is not None:
                pool.check()

    def check_open(self) -> None:
        """Raise where `close` was called."""
        if self._closed:
            raise ClosedError("this application is closed: make another one with mindia.connect() or mindia.local()")

    def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        self._closed = True
        if self._process != os.getpid():
            return
        with self._lock:
            pools, self._pool, self._side_pool = (self._pool, self._side_pool), None, None
        for pool in pools:
            if pool is not None and pool is not self._source:
                pool.close()

    def _opened(self) -> tuple[ConnectionPool[Any], ServerFacts]:
        self.check_open()
        if self._process != os.getpid():
            self._start_afresh()
        if self._pool is not None and self._facts is not None:
            return self._pool, self._facts
        with self._lock:
            if self._facts is None:
                with self._direct_connection() as connection:
                    facts = ServerFacts.read(connection)
                    facts.check()
                    migrator.check(connection)
                self._facts = facts
            if self._pool is None:
                if isinstance(self._source, str) or self._made_by != os.getpid():
                    self._pool = self._make_pool(self._settings.pool_size)
                else:
                    self._pool = self._source
            return self._pool, self._facts

    @contextmanager
    def _direct_connection(self) -> Iterator[Connection[Any]]:
        """Connect without the pool: an unreachable server is an error at once, where a pool would wait."""
        conninfo, options = self._address()
        with translated(), self._connection_class().connect(conninfo, **options) as connection:
            yield connection

    def _make_pool(self, size: int) -> ConnectionPool[Any]:
        from psycopg_pool import ConnectionPool

        conninfo, options = self._address()
        return ConnectionPool(
            conninfo,
            connection_class=self._connection_class(),
            kwargs=options,
            min_size=0,
            max_size=size,
            timeout=self._settings.pool_timeout_s,
            name="mindia",
            open=True,
        )

    def _connection_class(self) -> type[Connection[Any]]:
        return psycopg.Connection if isinstance(self._source, str) else self._source.connection_class

    def _address(self) -> tuple[str, dict[str, Any]]:
        """Return connection string and options of a connection of ours: each statement commits by itself."""
        if isinstance(self._source, str):
            given = conninfo_to_dict(self._source)
            defaults = {"connect_timeout": 10, "application_name": "mindia"}
            options = {name: value for name, value in defaults.items() if name not in given}
            return self._source, {**options, "autocommit": True, "prepare_threshold": self._settings.prepare_threshold}
        conninfo, kwargs = self._source.conninfo, self._source.kwargs
        return (
            conninfo() if callable(conninfo) else conninfo,
            {**((kwargs() if callable(kwargs) else kwargs) or {}), "autocommit": True},
        )
