"""A host's asynchronous connection, as one that our statements can be sent on from a thread."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection, AsyncCursor, Connection
from psycopg.pq import TransactionStatus

from mindia.db.units import check_in_transaction
from mindia.errors import TransactionError

_WAY = "hand in a psycopg.AsyncConnection; from SQLAlchemy, with postgresql+psycopg://, "
_WAY += "(await (await session.connection()).get_raw_connection()).driver_connection"


class BorrowedConnection(Connection[Any]):
    """The same session of PostgreSQL as the host's connection, for as long as the host leaves it alone.

    It prepares no statements: their names are the host's to give.
    """

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        pgconn = connection.pgconn
        notice, notify = pgconn.notice_handler, pgconn.notify_handler
        super().__init__(pgconn)
        pgconn.notice_handler, pgconn.notify_handler = notice, notify
        self.prepare_threshold = None

    def __del__(self, *_: object) -> None:
        # The host closes its connection.
        return

    def close(self) -> None:
        """Refuse: it is not ours."""
        raise TransactionError("the connection is the host's: leave closing it to who opened it")


async def borrowed(connection: object) -> BorrowedConnection:
    """Begin the host's transaction where that has not been done yet, and return its connection for our statements.

    Raises:
        TransactionError: It is none of psycopg's asynchronous connections, or cannot be joined.
    """
    if not isinstance(connection, AsyncConnection):
        kind = type(connection)
        raise TransactionError(f"{kind.__module__}.{kind.__name__} cannot be joined: {_WAY}")
    if connection.closed:
        raise TransactionError("the connection handed in is closed")
    if connection.info.transaction_status == TransactionStatus.IDLE:
        if connection.autocommit:
            raise TransactionError(
                "the connection handed in commits each statement by itself: begin a transaction on it first, "
                "with connection.transaction()"
            )
        async with AsyncCursor(connection) as cursor:
            await cursor.execute(b"select 1")  # psycopg begins the transaction with its first statement
    check_in_transaction(connection)
    return BorrowedConnection(connection)
