"""A session runs statements in one transaction; a unit of work decides which transaction that is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Generic, LiteralString, Protocol, TypeVar
from uuid import UUID

import attrs
import psycopg
from psycopg import Connection
from psycopg.pq import PipelineStatus, TransactionStatus

from mindia.db._cursor import OwnCursor, own_cursor
from mindia.db._translate import translated
from mindia.errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectionLostError,
    TransactionConflictError,
    TransactionError,
)

if TYPE_CHECKING:
    from mindia.db.database import Database
    from mindia.db.server import ServerFacts

T = TypeVar("T")
Parameters = Mapping[str, object] | Sequence[object]

_SET_TENANT = "select mindia.set_tenant(%s)"
_CLEAR_TENANT = "select set_config('mindia.tenant_id', '', true)"


@attrs.frozen
class Statement(Generic[T]):
    """A statement of a batch.

    Attributes:
        query: As for `Session.one`.
        parameters: As for `Session.one`.
        row: As for `Session.one`.
    """

    query: LiteralString
    parameters: Parameters
    row: Callable[..., T]


class Session:
    """Statements on one connection, inside a transaction that somebody else begins and ends.

    Args:
        connection: The connection.
        facts: What its server says about itself.
        tenant_id: The tenant that the transaction is bound to, together with its first statement: one way there and
            back for both.
        single: Whether nothing else than one statement may come: it is a transaction of its own, without words for
            beginning and committing it.

    Attributes:
        connection: The connection.
        repeated: Whether the same work may have been committed before, by a try whose end was not seen.
    """

    def __init__(
        self, connection: Connection[Any], facts: ServerFacts, *, tenant_id: UUID | None = None, single: bool = False
    ) -> None:
        self.connection = connection
        self.repeated = False
        self._facts = facts
        self._tenant_id = tenant_id
        self._statements_left = 1 if single else None
        # A percent sign of its name would be taken for a placeholder.
        self._vector_schema = (facts.vector_schema or "public").replace("%", "%%")

    def all(self, query: LiteralString, parameters: Parameters = (), *, row: Callable[..., T]) -> list[T]:
        """Return all rows, each as `row(*columns)`. `{vector}` in a query stands for the schema of pgvector."""
        with own_cursor(self.connection, row) as cursor:
            self._run(cursor, query, parameters)
            return cursor.fetchall()

    def one(self, query: LiteralString, parameters: Parameters = (), *, row: Callable[..., T]) -> T | None:
        """Return the first row as `row(*columns)`, or None."""
        with own_cursor(self.connection, row) as cursor:
            self._run(cursor, query, parameters)
            return cursor.fetchone()

    def execute(self, query: LiteralString, parameters: Parameters = ()) -> int:
        """Return the number of rows that the statement touched."""
        with own_cursor(self.connection, tuple) as cursor:
            self._run(cursor, query, parameters)
            return cursor.rowcount

    def bound_to(self, tenant_id: UUID | None) -> Session:
        """Return a session in the same transaction that binds it to a tenant with its first statement."""
        return Session(self.connection, self._facts, tenant_id=tenant_id)

    def batch(self, statements: Sequence[Statement[T]]) -> list[T | None]:
        """Send all statements at once, and return the first row of each, or None."""
        with ExitStack() as stack:
            cursors = [stack.enter_context(own_cursor(self.connection, statement.row)) for statement in statements]
            with _pipelined(self.connection):
                self.bind()
                for cursor, statement in zip(cursors, statements, strict=True):
                    cursor.execute(self._compose(statement.query), statement.parameters)
            return [cursor.fetchone() for cursor in cursors]

    def bind(self) -> None:
        """Bind the transaction to its tenant now, if that has not been done with a statement."""
        if self._tenant_id is not None:
            tenant_id, self._tenant_id = self._tenant_id, None
            with own_cursor(self.connection, tuple) as cursor:
                cursor.execute(_SET_TENANT, (tenant_id,))

    def _run(self, cursor: OwnCursor[Any], query: LiteralString, parameters: Parameters) -> None:
        if self._statements_left is not None:
            assert self._statements_left, "one statement was announced, and another one comes"
            self._statements_left -= 1
        if self._tenant_id is None:
            cursor.execute(self._compose(query), parameters)
            return
        with _pipelined(self.connection):
            self.bind()
            cursor.execute(self._compose(query), parameters)

    def _compose(self, query: LiteralString) -> bytes:
        return query.replace("{vector}", self._vector_schema).encode()


@contextmanager
def _pipelined(connection: Connection[Any]) -> Iterator[None]:
    """Send statements without waiting for answers; of their errors, the first is raised.

    Left to itself, psycopg logs a warning where a statement's error is noticed while a later one is being sent.
    """
    first: psycopg.Error | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:
                first = error
    except psycopg.Error as error:
        if first is None:
            raise
        raise first from error
    if first is not None:
        raise first


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
        tenant_id: The tenant that the statements are for.
        beside: On a connection apart from the pool, see `Database.side_transaction`.
    """

    def __init__(self, database: Database, tenant_id: UUID | None, *, beside: bool = False) -> None:
        self._begin = database.side_transaction if beside else database.transaction
        self._database = database
        self._tenant_id = tenant_id

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

    def _once(self, work: Callable[[Session], T], *, repeated: bool = False, single: bool = False) -> T:
        with self._begin(tenant_id=self._tenant_id, single=single) as session:
            session.repeated = repeated
            result = work(session)
            session.bind()  # refuses a tenant that is not served also where there was no statement
            return result


class _Scope:
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

    def __init__(self, scope: _Scope, tenant_id: UUID | None = None) -> None:
        self._scope = scope
        self._tenant_id = tenant_id

    @classmethod
    @contextmanager
    def over(cls, session: Session) -> Iterator[OpenTransaction]:
        """Open a unit of work over a session whose transaction has begun; it refuses every call afterwards."""
        scope = _Scope(session)
        try:
            yield cls(scope)
        finally:
            scope.ended = True

    @property
    def ended(self) -> bool:
        """Whether it has been left."""
        return self._scope.ended

    @property
    def connection(self) -> Connection[Any]:
        """The connection that the transaction is on."""
        self._scope.check()
        return self._scope.session.connection

    def for_tenant(self, tenant_id: UUID) -> OpenTransaction:
        """Return the same transaction, bound to a tenant."""
        return OpenTransaction(self._scope, tenant_id)

    def check(self) -> None:
        """Raise unless the transaction is open and used where it was begun."""
        self._scope.check()
        check_in_transaction(self._scope.session.connection)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Enclose code of the host's: its exceptions roll back to here and pass through untouched."""
        self.check()
        connection = self._scope.session.connection
        with ExitStack() as block:
            with translated():
                block.enter_context(connection.transaction())
            yield
            check_in_transaction(connection)

    def run(self, work: Callable[[Session], T], *, single: bool = False) -> T:  # noqa: ARG002 - a savepoint is needed
        """Run `work` in a savepoint, so that a caught error leaves the transaction usable."""
        self.check()
        with translated(), self._scope.session.connection.transaction():
            session = self._scope.session.bound_to(self._tenant_id)
            result = work(session)
            session.bind()
            if self._tenant_id is not None:
                session.execute(_CLEAR_TENANT)
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


def check_in_transaction(connection: Connection[Any]) -> None:
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
