"""The handles of one tenant for asyncio hosts: `AsyncLibrary`, `AsyncLibraryTransaction`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from uuid import UUID

from mindia._handles import Handle
from mindia.aio._threads import Lane, OneThread, Threads, entered
from mindia.aio.services.api_keys import AsyncApiKeys
from mindia.aio.services.media_store import AsyncMediaStore
from mindia.aio.services.presets import AsyncPresets
from mindia.aio.services.request_log import AsyncTenantRequestLog
from mindia.aio.services.search_index import AsyncSearchIndex
from mindia.aio.services.statistics import AsyncStatistics
from mindia.aio.services.task_queue import AsyncTaskQueue
from mindia.aio.services.tenants import AsyncTenants
from mindia.aio.services.users import AsyncUsers
from mindia.aio.services.webhook_dispatcher import AsyncWebhookDispatcher
from mindia.db.borrowed import borrowed
from mindia.db.units import check_in_transaction
from mindia.domain.tenants import ApiKey, Tenant, Usage, User
from mindia.library import Library, LibraryTransaction, Transaction

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from mindia.domain.search import SearchOptions, SearchResults

T = TypeVar("T")


class _Own(Enum):
    """Stands for a connection of our own; None is rather a mistake of the host than that."""

    CONNECTION = "a connection of the pool"


class _Services(Handle):
    """What a library has, in a transaction or not."""

    def __init__(self, library: Library, lane: Lane) -> None:
        self._sync = library
        self._lane = lane
        self.tenant_id = library.tenant_id
        self.media = AsyncMediaStore(library.media, lane)
        self.index = AsyncSearchIndex(library.index, lane)
        self.tasks = AsyncTaskQueue(library.tasks, lane)
        self.webhooks = AsyncWebhookDispatcher(library.webhooks, lane)
        self.users = AsyncUsers(library.users, lane)
        self.api_keys = AsyncApiKeys(library.api_keys, lane)
        self.presets = AsyncPresets(library.presets, lane)
        self.request_log = AsyncTenantRequestLog(library.request_log, lane)
        self.statistics = AsyncStatistics(library.statistics, lane)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of tenant {self.tenant_id}>"

    async def search(self, query: str, **how: Unpack[SearchOptions]) -> SearchResults:
        """Find items by word and by vector: short for `library.index.search`, with the same arguments."""
        return await self._lane.run(lambda: self._sync.search(query, **how))

    async def usage(self) -> Usage:
        """Return how much there is of each type, and the quota. It is counted: the more there is, the longer it takes.

        Raises:
            PermissionDeniedError: The user is a viewer.
        """
        return await self._lane.run(self._sync.usage)


class AsyncLibrary(_Services):
    """All that belongs to one tenant, for asyncio hosts; the same attributes as `Library` has."""

    def __init__(self, library: Library, threads: Threads) -> None:
        super().__init__(library, threads)
        self._threads = threads

    @asynccontextmanager
    async def transaction(
        self, *, connection: AsyncConnection[Any] | _Own = _Own.CONNECTION
    ) -> AsyncIterator[AsyncLibraryTransaction]:
        """Begin a transaction; it is committed at the end, and rolled back by an exception or where it is cancelled.

        Every call within is a savepoint: an error that is caught leaves the transaction usable. One call or statement
        at a time.

        Args:
            connection: Join the transaction that the host has begun on its own `psycopg.AsyncConnection`; the host
                commits it or rolls it back. What the host sends on it waits for a call that is under way.

        Raises:
            TransactionError: The connection is another driver's, or cannot be joined.
            TenantInactiveError: The tenant is suspended or deleted.
            PermissionDeniedError: The user is not active.
        """
        thread = self._threads.one()
        try:
            if isinstance(connection, _Own):
                manager = self._sync.transaction()
            else:
                ours = await borrowed(connection)
                thread.take(connection.lock, before=lambda: check_in_transaction(connection))
                manager = self._sync.transaction(connection=ours)
            async with entered(thread, manager) as library:
                yield AsyncLibraryTransaction(library, thread)
        finally:
            thread.close()


class AsyncLibraryTransaction(_Services):
    """A library, bound to one transaction."""

    _sync: LibraryTransaction

    def __init__(self, library: LibraryTransaction, thread: OneThread) -> None:
        super().__init__(library, thread)
        self._thread = thread

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncLibraryTransaction]:
        """Begin a transaction within this one: an exception rolls back to here, and the end commits nothing yet."""
        async with entered(self._thread, self._sync.transaction()):
            yield self

    async def run(self, function: Callable[[LibraryTransaction], T]) -> T:
        """Run a function in the transaction's thread, and return what it returns.

        Args:
            function: Is called with the synchronous handle of this transaction: `connection` there is the psycopg
                connection for statements of the host's own.
        """
        return await self._lane.run(lambda: function(self._sync))


class AsyncTransaction(Handle):
    """A transaction over any number of tenants.

    Attributes:
        tenants: Makes and changes tenants.
        tasks: Tasks without a tenant.
    """

    def __init__(self, transaction: Transaction, thread: OneThread) -> None:
        self._sync = transaction
        self._thread = thread
        self.tenants = AsyncTenants(transaction.tenants, thread)
        self.tasks = AsyncTaskQueue(transaction.tasks, thread)

    def library(self, tenant: Tenant | UUID, *, user: User | ApiKey | UUID | None = None) -> AsyncLibraryTransaction:
        """Return all that belongs to a tenant, within this transaction.

        Args:
            tenant: As for `Mindia.library`.
            user: As for `Mindia.library`.
        """
        return AsyncLibraryTransaction(self._sync.library(tenant, user=user), self._thread)

    async def run(self, function: Callable[[Transaction], T]) -> T:
        """Run a function in the transaction's thread, and return what it returns.

        Args:
            function: Is called with the synchronous handle of this transaction: `connection` there is the psycopg
                connection for statements of the host's own.
        """
        return await self._thread.run(lambda: function(self._sync))
