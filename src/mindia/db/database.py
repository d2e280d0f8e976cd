"""The database of an application: its pools, opened at first use and once a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict

from mindia.db import migrator
from mindia.db._translate import translate, translated
from mindia.db.server import ServerFacts
from mindia.db.session import Scope, Session
from mindia.db.units import OpenTransaction, check_in_transaction, check_joinable
from mindia.errors import (
    ClosedError,
    ConnectionLostError,
    DatabaseUnavailableError,
    InvalidError,
    RoleError,
    SchemaOutOfDateError,
    TransactionError,
)

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

    from mindia.config import Settings

_SIDE_POOL_SIZE = 2
_SIDE_TIMEOUT_S = 5.0
"""Well below the time after which a silent worker is taken for dead."""


class _FromHost(Exception):  # noqa: N818 - never leaves this module
    """Carries a driver's error of the host's own statement past our translation."""


class _Opened:
    """What one process has opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.facts: ServerFacts | None = None
        self.pool: ConnectionPool[Any] | None = None
        self.side_pool: ConnectionPool[Any] | None = None


# A server that is gone without a word is noticed within half a minute; systems by themselves wait for a quarter of an
# hour, or for two.
_NOTICE_LOSS = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class Database:
    """Connections to one PostgreSQL database.

    Thread-safe. Nothing is opened before first use. A forked child leaves the connections of its parent alone and opens
    its own.

    Args:
        source: A connection string (URI or key=value), or a pool of the host's, which is left open at close.
        settings: Pool size, time-outs, prepared statements.
        owner: A connection string of the role that owns the tables, for migrations; that of `source` by default.
        on_fork: Is called in a forked child before it connects.

    Raises:
        InvalidError: `source` is not a connection string.
    """

    def __init__(
        self,
        source: str | ConnectionPool[Any],
        *,
        settings: Settings,
        owner: str | None = None,
        on_fork: Callable[[], object] | None = None,
    ) -> None:
        if any(isinstance(given, str) and not _is_conninfo(given) for given in (source, owner)):
            # The driver's error quotes the string, and with it the password: it is no part of this one.
            raise InvalidError(
                "the connection string cannot be parsed: write it as postgresql://user@host:5432/database"
            )
        self._source = source
        self._owner = owner
        self._settings = settings
        self._on_fork = on_fork
        self._made_by = os.getpid()
        self._closed = False
        # What a parent opened stays here: its pools would try to end threads that are not in this process.
        self._by_process: dict[int, _Opened] = {}
        self._left_to_parent: list[ExitStack] = []

    @property
    def _here(self) -> _Opened:
        """What this process has opened."""
        process = os.getpid()
        return self._by_process.get(process) or self._by_process.setdefault(process, _Opened())

    @contextmanager
    def transaction(self, scope: Scope | None, *, single: bool = False) -> Iterator[Session]:
        """Begin a transaction on a connection of the pool, for statements of ours.

        Args:
            scope: What it is bound to; None where each of its calls is bound by itself.
            single: Whether it is one statement, which is a transaction without being told so.
        """
        pool, facts = self._opened()
        with self._begun(pool, single=single) as connection:
            yield Session(connection, facts, scope=scope, single=single)

    @contextmanager
    def unit_of_work(self) -> Iterator[OpenTransaction]:
        """Begin a transaction that the host's code runs in, whose exceptions pass through untouched."""
        host_error: psycopg.Error | None = None
        with suppress(_FromHost), self.transaction(None) as session, OpenTransaction.over(session) as unit:
            try:
                yield unit
            except psycopg.Error as error:
                host_error = error
                raise _FromHost from error
            # A commit would not say so: the driver skips it on a lost connection, the server turns it into a rollback.
            check_in_transaction(session.connection)
        if host_error is not None:
            raise host_error

    @contextmanager
    def side_transaction(self, scope: Scope | None, *, single: bool = False) -> Iterator[Session]:
        """Begin a transaction on a connection apart from the pool.

        What is committed beside a transaction that is open (keys of staged objects, heartbeats) must not wait for the
        connections that such transactions hold.
        """
        _, facts = self._opened()
        here = self._here
        with here.lock:
            self.check_open()
            if here.side_pool is None:
                timeout_s = min(_SIDE_TIMEOUT_S, self._settings.pool_timeout_s)
                here.side_pool = self._make_pool(_SIDE_POOL_SIZE, timeout_s=timeout_s)
            pool = here.side_pool
        with self._begun(pool, single=single) as connection:
            yield Session(connection, facts, scope=scope, single=single)

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
            facts = ServerFacts.read(connection, worker_role=None)
            check_in_transaction(connection)
            session = Session(connection, facts)
            if not session.one("select to_regclass('mindia.tenants') is not null", row=bool):
                raise SchemaOutOfDateError(
                    f"the database {facts.database!r} of the connection handed in has no Mindia tables: hand in a "
                    "connection to the database that the application is connected to, or run app.migrate()"
                )
        with OpenTransaction.over(session) as unit:
            yield unit

    @contextmanager
    def listening(self, *channels: LiteralString) -> Iterator[Connection[Any]]:
        """Open a connection of its own that hears what is notified on channels."""
        self.check_open()
        with self._direct_connection() as connection:
            for channel in channels:
                connection.execute(b"listen " + channel.encode())
            yield connection

    def connect(self) -> Connection[Any]:
        """Open a connection apart from the pools, each of whose statements commits by itself; who asked closes it.

        Raises:
            DatabaseUnavailableError: The server cannot be reached.
        """
        self.check_open()
        return self._connect()

    def facts(self) -> ServerFacts:
        """Return what the server says about itself, after it was found fit."""
        return self._opened()[1]

    def migrate(self) -> list[migrator.Migration]:
        """Apply the migrations that are missing and return them."""
        self.check_open()
        with self._direct_connection(as_owner=True) as connection:
            return migrator.migrate(connection)

    @contextmanager
    def as_owner(self) -> Iterator[Session]:
        """Connect as the role that owns the tables, each statement committing by itself.

        Raises:
            RoleError: The role that is at hand does not own them.
        """
        self.check_open()
        with self._direct_connection(as_owner=True) as connection:
            facts = ServerFacts.read(connection, worker_role=None)
            if not (facts.role.owns_tables or facts.role.is_superuser):
                raise RoleError(
                    f"the role {facts.role.name!r} does not own Mindia's tables, which making an index takes: hand "
                    "mindia.connect() the owner's connection string as owner=, or call app.maintenance.index_vectors() "
                    "from where the owner is at hand"
                )
            yield Session(connection, facts)

    def set_up_roles(self, *, application: str, worker: str) -> None:
        """Make the roles of an application that has the server to itself, where they are missing."""
        from mindia.db import roles

        with self._direct_connection(as_owner=True) as connection:
            roles.set_up(connection, application=application, worker=worker)

    def pending_migrations(self) -> list[migrator.Migration]:
        """Return the migrations that are missing."""
        self.check_open()
        with self._direct_connection(as_owner=True) as connection:
            return migrator.pending(connection)

    def migration_script(self) -> str:
        """Return what `migrate` would run, as a script."""
        self.check_open()
        with self._direct_connection(as_owner=True) as connection:
            return migrator.script(connection)

    def drop_lost_connections(self) -> None:
        """Replace the connections of the pools that do not answer any more."""
        for pool in (self._here.pool, self._here.side_pool):
            if pool is not None:
                pool.check()

    def check_open(self) -> None:
        """Raise where `close` was called."""
        if self._closed:
            raise ClosedError("this application is closed: make another one with mindia.connect() or mindia.local()")

    def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        self._closed = True
        here = self._here
        with here.lock:
            pools, here.pool, here.side_pool = (here.pool, here.side_pool), None, None
        for pool in pools:
            if pool is not None and pool is not self._source:
                pool.close()

    def _opened(self) -> tuple[ConnectionPool[Any], ServerFacts]:
        self.check_open()
        here = self._here
        with here.lock:
            self.check_open()
            if here.facts is None:
                with self._direct_connection() as connection:
                    facts = ServerFacts.read(connection, worker_role=self._settings.worker_role)
                    facts.check()
                    migrator.check(connection)
                here.facts = facts
            if here.pool is None:
                if isinstance(self._source, str) or self._made_by != os.getpid():
                    here.pool = self._make_pool(self._settings.pool_size, timeout_s=self._settings.pool_timeout_s)
                else:
                    here.pool = self._source
            return here.pool, here.facts

    @contextmanager
    def _begun(self, pool: ConnectionPool[Any], *, single: bool) -> Iterator[Connection[Any]]:
        process = os.getpid()
        with translated(), ExitStack() as transaction:
            try:
                connection = transaction.enter_context(pool.connection() if single else _begin(pool))
            except psycopg.OperationalError as error:
                if not isinstance(translate(error), ConnectionLostError):
                    raise
                # It broke while it lay in the pool; nothing has been done on it yet.
                self.drop_lost_connections()
                connection = transaction.enter_context(_begin(pool))
            try:
                yield connection
            finally:
                if process != os.getpid():
                    self._left_to_parent.append(transaction.pop_all())
                    _abandon(connection)
            if process != os.getpid():
                raise TransactionError("a transaction belongs to the process that began it, not to its forked child")

    @contextmanager
    def _direct_connection(self, *, as_owner: bool = False) -> Iterator[Connection[Any]]:
        with translated(), self._connect(as_owner=as_owner) as connection:
            yield connection

    def _connect(self, *, as_owner: bool = False) -> Connection[Any]:
        """Connect without the pool: an unreachable server is an error at once, where a pool would wait."""
        if self._on_fork is not None and self._made_by != os.getpid():
            self._on_fork()
        conninfo, options = self._address()
        if as_owner and self._owner is not None:
            conninfo = self._owner
        try:
            return self._connection_class().connect(conninfo, **options)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(f"PostgreSQL cannot be reached: {error}") from error

    def _make_pool(self, size: int, *, timeout_s: float) -> ConnectionPool[Any]:
        from psycopg_pool import ConnectionPool

        conninfo, options = self._address()
        return ConnectionPool(
            conninfo,
            connection_class=self._connection_class(),
            kwargs=options,
            min_size=0,
            max_size=size,
            timeout=timeout_s,
            # The pool waits twice as long before each further attempt to connect: left to itself for its five minutes,
            # it would come back long after the server. After this time it attempts anew when it is asked.
            reconnect_timeout=timeout_s,
            name="mindia",
            open=True,
        )

    def _connection_class(self) -> type[Connection[Any]]:
        return psycopg.Connection if isinstance(self._source, str) else self._source.connection_class

    def _address(self) -> tuple[str, dict[str, Any]]:
        """Return connection string and options of a connection of ours: each statement commits by itself."""
        if isinstance(self._source, str):
            given = conninfo_to_dict(self._source)
            defaults = {"connect_timeout": 10, "application_name": "mindia", **_NOTICE_LOSS}
            options = {name: value for name, value in defaults.items() if name not in given}
            always = {
                "autocommit": True,
                "client_encoding": "utf8",
                "prepare_threshold": self._settings.prepare_threshold,
            }
            return self._source, options | always
        conninfo, kwargs = self._source.conninfo, self._source.kwargs
        return (
            conninfo() if callable(conninfo) else conninfo,
            {**((kwargs() if callable(kwargs) else kwargs) or {}), "autocommit": True},
        )


@contextmanager
def _begin(pool: ConnectionPool[Any]) -> Iterator[Connection[Any]]:
    with pool.connection() as connection, connection.transaction():
        yield connection


def _abandon(connection: Connection[Any]) -> None:
    """Part a forked child from a connection of its parent: what it sends there would end up in the parent's session."""
    with Path(os.devnull).open("r+b", buffering=0) as nowhere:
        os.dup2(nowhere.fileno(), connection.fileno(), inheritable=False)


def _is_conninfo(text: str) -> bool:
    try:
        conninfo_to_dict(text)
    except (psycopg.ProgrammingError, UnicodeError):
        return False
    return True
