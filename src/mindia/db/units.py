"""A unit of work decides in which transaction a call does its work: in one of its own, or in one that is open."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from psycopg import BaseConnection, Connection
from psycopg.pq import PipelineStatus, TransactionStatus

from mindia.db._translate import translated
from mindia.db.session import ACROSS_TENANTS, Scope, Session
from mindia.errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectionLostError,
    TransactionConflictError,
    TransactionError,
)

if TYPE_CHECKING:
    from mindia.db.database import Database

T = TypeVar("T")


class Unit(Protocol):
    """Where a call does its work: in a transaction of its own, or inside one that is open."""

    def check(self) -> None:
        """Raise where `run` could not be called."""

    def run(self, work: Callable[[Session], T], *, single: bool = False) -> T:
        """Run `work` so that all of it happens or nothing; `single` promises that it is one statement."""


class OwnTransaction:
    """Every call is a transaction of its own, on a connection of the pool.

    A call is run once more after a lost connection or a serialization failure. `work` bears that by ids that were made
    before it, and by looking at `Session.repeated`.

    Args:
        database: Whose pool.
        scope: What the statements may see; None where they are bound to nothing, and so see nothing but what functions
            of ours answer.
        beside: On a connection apart from the pool, see `Database.side_transaction`.
    """

    def __init__(self, database: Database, scope: Scope | None, *, beside: bool = False) -> None:
        self._begin = database.side_transaction if beside else database.transaction
        self._database = database
        self._scope = scope

    def check(self) -> None:
        """Raise where the application was closed."""
        self._database.check_open()

    def run(self, work: Callable[[Session], T], *, single: bool = False) -> T:
        """Run `work`, twice if the first time fails for a reason that passes.

        The second time it may look at what the first has done, with more statements than a `single` one.
        """
        try:
            return self._once(work, single=single)
        except TransactionConflictError:
            repeated = False  # it was rolled back for certain
        except ConnectionLostError:
            self._database.drop_lost_connections()
            repeated = True
        try:
            return self._once(work, repeated=repeated)
        except AlreadyExistsError:
            if not repeated:
                raise
        # The first try was still being committed; now that it has been, `work` finds what it wrote.
        return self._once(work, repeated=True)

    def exhaust(self, work: Callable[[Session], int], *, batch: int) -> int:
        """Run `work`, each time in a transaction of its own, until it does less than a batch; return what it did."""
        done = 0
        while True:
            latest = self.run(work)
            done += latest
            if latest < batch:
                return done

    def _once(self, work: Callable[[Session], T], *, repeated: bool = False, single: bool = False) -> T:
        with self._begin(self._scope, single=single) as session:
            session.repeated = repeated
            result = work(session)
            session.bind()  # refuses a tenant that is not served also where there was no statement
            return result


class _Transaction:
    """What all handles to one open transaction share."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ended = False
        self._thread = threading.get_ident()
        self._process = os.getpid()

    def check(self) -> None:
        """Raise unless the transaction is open and used where it was begun."""
        if self.ended:
            raise ClosedError("this transaction has ended: begin another one with library.transaction()")
        if self._process != os.getpid() or self._thread != threading.get_ident():
            raise TransactionError("a transaction belongs to the thread that began it: begin one in each thread")


class OpenTransaction:
    """A transaction that is open, on our connection or on the host's; each call is a savepoint of it."""

    def __init__(self, transaction: _Transaction, scope: Scope = ACROSS_TENANTS) -> None:
        self._transaction = transaction
        self._scope = scope

    @classmethod
    @contextmanager
    def over(cls, session: Session) -> Iterator[OpenTransaction]:
        """Open a unit of work over a session whose transaction has begun; it refuses every call afterwards."""
        transaction = _Transaction(session)
        try:
            yield cls(transaction)
        finally:
            transaction.ended = True

    @property
    def ended(self) -> bool:
        """Whether it has been left."""
        return self._transaction.ended

    @property
    def connection(self) -> Connection[Any]:
        """The connection that the transaction is on."""
        self._transaction.check()
        return self._transaction.session.connection

    def bound_to(self, scope: Scope) -> OpenTransaction:
        """Return the same transaction, each of whose calls is bound to a scope."""
        return OpenTransaction(self._transaction, scope)

    def check(self) -> None:
        """Raise unless the transaction is open and used where it was begun."""
        self._transaction.check()
        check_in_transaction(self._transaction.session.connection)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Enclose code of the host's: its exceptions roll back to here and pass through untouched."""
        self.check()
        connection = self._transaction.session.connection
        with ExitStack() as block:
            with translated():
                block.enter_context(connection.transaction())
            yield
            check_in_transaction(connection)

    def run(self, work: Callable[[Session], T], *, single: bool = False) -> T:  # noqa: ARG002 - a savepoint is needed
        """Run `work` in a savepoint, so that a caught error leaves the transaction usable."""
        self.check()
        with translated(), self._transaction.session.connection.transaction():
            session = self._transaction.session.bound_to(self._scope)
            result = work(session)
            session.bind()
            session.unbind(self._scope)
            return result


def check_joinable(connection: Connection[Any]) -> None:
    """Raise where a call could not keep its promises in the transaction of this connection."""
    if connection is None:
        raise TransactionError(
            "connection is None: leave it out for a transaction of our own; in Django, connect first "
            "with django.db.connection.ensure_connection()"
        )
    if not isinstance(connection, Connection):
        raise TransactionError(
            f"connection must be a psycopg.Connection, not {type(connection).__module__}.{type(connection).__name__}: "
            "from SQLAlchemy hand in session.connection().connection.driver_connection, "
            "from Django django.db.connection.connection"
        )
    if connection.closed:
        raise TransactionError("the connection handed in is closed")
    if connection.info.encoding != "utf-8":
        raise TransactionError(
            f"the connection handed in speaks {connection.info.parameter_status('client_encoding')}: "
            "set its client_encoding to UTF8"
        )
    if connection.info.transaction_status != TransactionStatus.IDLE:
        check_in_transaction(connection)
    elif connection.autocommit:
        raise TransactionError(
            "the connection handed in commits each statement by itself: begin a transaction on it first, "
            "with connection.transaction() or, in Django, atomic()"
        )


def check_in_transaction(connection: BaseConnection[Any]) -> None:
    """Raise where statements would not be part of the transaction that was begun, or could not be committed with it."""
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        # There, a statement's error comes up in a later one, maybe in the host's.
        raise TransactionError("the connection is in pipeline mode: leave connection.pipeline() first")
    match connection.info.transaction_status:
        case TransactionStatus.INTRANS:
            return
        case TransactionStatus.UNKNOWN:
            raise ConnectionLostError("the connection to PostgreSQL was lost, and the transaction with it")
        case TransactionStatus.INERROR:
            raise TransactionError(
                "the transaction has failed with a statement on its connection: let the exception of that statement "
                "pass, or enclose the statement in `with connection.transaction():`"
            )
        case TransactionStatus.IDLE:
            raise TransactionError(
                "the transaction was ended by a commit or rollback on its connection: leave that to who began it"
            )
        case _:
            raise TransactionError("the connection is in the middle of a statement, as of copy() or stream()")
