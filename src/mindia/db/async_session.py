"""Statements on a connection of an event loop: none of them waits in a thread, nor for the interpreter's lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from mindia.db._cursor import own_async_cursor
from mindia.db._translate import translated
from mindia.db.session import ACROSS_TENANTS, Batch, binding, composed
from mindia.errors import ConnectionLostError, TransactionConflictError

if TYPE_CHECKING:
    from psycopg import Connection

    from mindia.db.database import Database
    from mindia.db.server import ServerFacts

T = TypeVar("T")


class AsyncSession:
    """Batches of statements, each a transaction across tenants, on a connection apart from the pools.

    It is for one event loop, and for one batch at a time. It connects when it is first needed, and anew after an error.

    Args:
        database: Where to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._facts: ServerFacts | None = None
        # One and the same connection: made as the host has it made, used as the loop has to.
        self._made: Connection[Any] | None = None
        self._connection: AsyncConnection[Any] | None = None

    async def ask(self, batch: Batch[T], *, repeats: bool = False) -> T:
        """Send all statements at once, and return what is made of their rows.

        Args:
            batch: The statements.
            repeats: Whether they bear to be sent once more after a lost connection or a conflict.

        Raises:
            DatabaseError: The database cannot be reached, or refuses a statement.
        """
        try:
            return await self._once(batch)
        except (ConnectionLostError, TransactionConflictError):
            if not repeats:
                raise
        return await self._once(batch)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
        self._connection = self._made = None

    async def _once(self, batch: Batch[T]) -> T:
        try:
            with translated():
                connection, facts = await self._connected()
                async with AsyncExitStack() as stack:
                    cursors = [
                        await stack.enter_async_context(own_async_cursor(connection, statement.row))
                        for statement in batch.statements
                    ]
                    async with _pipelined(connection):
                        if (bound := binding(ACROSS_TENANTS, facts)) is not None:
                            await own_async_cursor(connection, tuple).execute(*bound)
                        for cursor, statement in zip(cursors, batch.statements, strict=True):
                            await cursor.execute(composed(statement.query, facts), statement.parameters)
                    rows = [[] if cursor.rownumber is None else await cursor.fetchall() for cursor in cursors]
        except BaseException:
            await self.close()
            raise
        return batch.result(rows)

    async def _connected(self) -> tuple[AsyncConnection[Any], ServerFacts]:
        if self._facts is None:
            self._facts = await asyncio.to_thread(self._database.facts)
        if self._connection is None:
            self._made = await asyncio.to_thread(self._database.connect)
            self._connection = AsyncConnection(self._made.pgconn)
            self._connection.prepare_threshold = self._made.prepare_threshold
            await self._connection.set_autocommit(True)
        return self._connection, self._facts


@asynccontextmanager
async def _pipelined(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Send statements without waiting for answers; of their errors, the first is raised."""
    first: psycopg.Error | None = None
    try:
        async with connection.pipeline():
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
