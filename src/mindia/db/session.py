"""A session runs statements in one transaction, which is bound to what it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, LiteralString, TypeVar
from uuid import UUID

import attrs
import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from mindia.db._cursor import OwnCursor, own_cursor

if TYPE_CHECKING:
    from mindia.db.server import ServerFacts

T = TypeVar("T")
Parameters = Mapping[str, object] | Sequence[object]

_SET_TENANT: LiteralString = "select mindia.set_tenant(%s)"
_SET_INITIATOR: LiteralString = "select mindia.set_initiator(%s, %s, %s::mindia.user_role)"
_SET_TENANT_ID: LiteralString = "select set_config('mindia.tenant_id', %s::text, true)"
_SET_ROLE: LiteralString = "select set_config('role', %s, true)"
# A plan for any parameters must not be one for a table that is mostly theirs, whatever tenants there are.
_PLAN_ONCE: LiteralString = """
set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)
"""


@attrs.frozen(kw_only=True)
class Scope:
    """Whose rows a transaction is about, and on whose behalf. Row-level security holds the application role to it.

    Attributes:
        tenant_id: The one tenant, or None for all of them: that is for workers and for who makes tenants, and takes
            the role that `Settings.worker_role` names.
        initiator: The user or API key on whose behalf; None for the host itself, which may do everything.
        least_role: The role that the initiator must have at least.
        is_served: Whether a tenant that is suspended or deleted is refused.
    """

    tenant_id: UUID | None = None
    initiator: UUID | None = None
    least_role: str = "viewer"
    is_served: bool = True


ACROSS_TENANTS = Scope()


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


@attrs.frozen
class Batch(Generic[T]):
    """Statements that are sent at once.

    Attributes:
        statements: In their order.
        result: What is made of their rows: a list for each statement.
    """

    statements: Sequence[Statement[Any]]
    result: Callable[[list[list[Any]]], T]


class Session:
    """Statements on one connection, inside a transaction that somebody else begins and ends.

    Args:
        connection: The connection.
        facts: What its server says about itself.
        scope: What the transaction is bound to, together with its first statement: one way there and back for both.
            None where it has been bound before.
        single: Whether nothing else than one statement may come: it is a transaction of its own, without words for
            beginning and committing it.

    Attributes:
        connection: The connection.
        repeated: Whether the same work may have been committed before, by a try whose end was not seen.
    """

    def __init__(
        self, connection: Connection[Any], facts: ServerFacts, *, scope: Scope | None = None, single: bool = False
    ) -> None:
        self.connection = connection
        self.repeated = False
        self._facts = facts
        self._binding = None if scope is None else binding(scope, facts)
        self._statements_left = 1 if single else None

    def all(self, query: LiteralString, parameters: Parameters = (), *, row: Callable[..., T]) -> list[T]:
        """Return all rows, each as `row(*columns)`. `{vector}` in a query stands for the schema of pgvector."""
        with own_cursor(self.connection, row) as cursor:
            self._run(cursor, query, parameters)
            return cursor.fetchall()

    def one(
        self,
        query: LiteralString,
        parameters: Parameters = (),
        *,
        row: Callable[..., T],
        meanwhile: Callable[[], None] | None = None,
    ) -> T | None:
        """Return the first row as `row(*columns)`, or None; `meanwhile` is called while the server is at work."""
        with own_cursor(self.connection, row) as cursor:
            self._run(cursor, query, parameters, meanwhile)
            return cursor.fetchone()

    @property
    def has_trigrams(self) -> bool:
        """Whether the functions of pg_trgm are there: `{trigrams}` in a query stands for their schema then."""
        return self._facts.trigram_schema is not None

    def execute(self, query: LiteralString, parameters: Parameters = ()) -> int:
        """Return the number of rows that the statement touched."""
        with own_cursor(self.connection, tuple) as cursor:
            self._run(cursor, query, parameters)
            return cursor.rowcount

    def bound_to(self, scope: Scope) -> Session:
        """Return a session in the same transaction that binds it to a scope with its first statement."""
        return Session(self.connection, self._facts, scope=scope)

    def unbind(self, scope: Scope) -> None:
        """Undo what binding the transaction to a scope has set."""
        if scope.tenant_id is not None:
            self.execute(_SET_TENANT_ID, ("",))
        elif self._facts.role.worker_role is not None:
            self.execute(_SET_ROLE, (self._facts.role.role_setting,))

    def batch(
        self, statements: Sequence[Statement[T]], *, meanwhile: Callable[[], None] | None = None
    ) -> list[list[T]]:
        """Send all statements at once, and return the rows of each; `meanwhile` as for `one`."""
        if len(statements) == 1 and self._binding is None:
            (only,) = statements
            with own_cursor(self.connection, only.row) as cursor:
                self._run(cursor, only.query, only.parameters, meanwhile)
                return [[] if cursor.rownumber is None else cursor.fetchall()]
        with ExitStack() as stack:
            cursors = [stack.enter_context(own_cursor(self.connection, statement.row)) for statement in statements]

            def send() -> None:
                for cursor, statement in zip(cursors, statements, strict=True):
                    cursor.execute(self._compose(statement.query), statement.parameters)

            self._send(send, meanwhile)
            return [[] if cursor.rownumber is None else cursor.fetchall() for cursor in cursors]

    def ask(self, batch: Batch[T]) -> T:
        """Send all statements at once, and return what is made of their rows."""
        return batch.result(self.batch(batch.statements))

    def hand_over_binding(self) -> bool:
        """Have the statement that comes bind the transaction to its tenant by itself, if nothing more is to be bound.

        Returns:
            Whether it must; where not, the transaction has been bound before, or is bound along with the statement.
        """
        if self._binding is None or self._binding[0] is not _SET_TENANT:
            return False
        self._binding = None
        return True

    def set_along(self, settings: LiteralString, parameters: tuple[object, ...] = ()) -> None:
        """Have calls of `set_config` go along with what binds the transaction, before its first statement."""
        if self._binding is None:
            self._binding = "select " + settings, parameters
        else:
            query, bound = self._binding
            self._binding = query + ", " + settings, (*bound, *parameters)

    def plan_once(self) -> None:
        """Have the statement that comes use a plan that was made once a connection, and that goes by indexes.

        It is for what finds few rows by its keys, for which a plan takes longer than running it. Nothing happens where
        others might follow in the same transaction.
        """
        if self._statements_left is not None:
            self.set_along(_PLAN_ONCE)

    def bind(self) -> None:
        """Bind the transaction to its scope now, if that has not been done with a statement."""
        if self._binding is not None:
            (query, parameters), self._binding = self._binding, None
            with own_cursor(self.connection, tuple) as cursor:
                cursor.execute(query, parameters)

    def _run(
        self,
        cursor: OwnCursor[Any],
        query: LiteralString,
        parameters: Parameters,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        if self._statements_left is not None:
            assert self._statements_left, "one statement was announced, and another one comes"
            self._statements_left -= 1
        if self._binding is None and meanwhile is None:
            cursor.execute(self._compose(query), parameters)
            return
        self._send(lambda: cursor.execute(self._compose(query), parameters), meanwhile)

    def _send(self, send: Callable[[], object], meanwhile: Callable[[], None] | None) -> None:
        """Bind the transaction, send statements, and do something else while the server is at work.

        All of it is undone where anything raises.
        """
        with _pipelined(self.connection):
            try:
                self.bind()
                send()
                if meanwhile is not None:
                    meanwhile()
            except BaseException:
                if self._statements_left is not None:
                    self._undo()  # no one else does: the end of the pipeline commits
                raise

    def _undo(self) -> None:
        try:
            # An error of the driver is that of a statement before, which the server has undone with all others, or
            # that of a connection that is gone, which undoes them.
            with suppress(psycopg.Error), own_cursor(self.connection, tuple) as cursor:
                cursor.execute(b"rollback")
        except BaseException:
            self.connection.close()  # so that they cannot be committed
            raise

    def _compose(self, query: LiteralString) -> bytes:
        return composed(query, self._facts)


def composed(query: LiteralString, facts: ServerFacts) -> bytes:
    """Return a query as it is sent to a server; `{vector}` and `{trigrams}` stand for the schemas of the extensions."""
    return _composed(query, facts.vector_schema or "public", facts.trigram_schema or "public")


@lru_cache(maxsize=256)  # as one object each time: the driver looks up by its hash, which is kept, what it knows of it
def _composed(query: LiteralString, vector_schema: str, trigram_schema: str) -> bytes:
    for name, schema in (("{vector}", vector_schema), ("{trigrams}", trigram_schema)):
        # A percent sign of its name would be taken for a placeholder.
        query = query.replace(name, schema.replace("%", "%%"))
    return query.encode()


def binding(scope: Scope, facts: ServerFacts) -> tuple[LiteralString, tuple[object, ...]] | None:
    """Return the statement that binds a transaction to a scope, if that takes one."""
    if scope.tenant_id is None:
        facts.role.check_across_tenants()
        return None if facts.role.worker_role is None else (_SET_ROLE, (facts.role.worker_role,))
    if scope.initiator is not None:
        return _SET_INITIATOR, (scope.tenant_id, scope.initiator, scope.least_role)
    return _SET_TENANT if scope.is_served else _SET_TENANT_ID, (scope.tenant_id,)


@contextmanager
def _pipelined(connection: Connection[Any]) -> Iterator[None]:
    """Send statements without waiting for answers; of their errors and that of the block, the first is raised.

    Left to itself, psycopg logs a warning where a statement's error is noticed once the block has raised.
    """
    first: Exception | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below
                first = error
    except psycopg.Error as error:
        _forget_prepared(connection)
        if first is None:
            raise
        raise first from error
    if first is not None:
        _forget_prepared(connection)
        raise first


def _forget_prepared(connection: Connection[Any]) -> None:
    """Have all statements prepared anew, after an error in a pipeline that was a transaction without words for it.

    One that was to be prepared behind the error was not, and yet psycopg would go on using it. At the end of a
    transaction that is rolled back, be it an empty one, psycopg forgets what it has prepared.
    """
    if connection.info.transaction_status == TransactionStatus.IDLE and connection.prepare_threshold is not None:
        with suppress(psycopg.Error), connection.transaction(force_rollback=True):
            pass
