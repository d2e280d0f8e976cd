"""`local` and `connect` for asyncio hosts, and what they lead to: `AsyncMindia`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from mindia import app as sync
from mindia._handles import Handle
from mindia.aio._threads import Threads, entered, opened, to_the_end
from mindia.aio.library import AsyncLibrary, AsyncTransaction
from mindia.aio.services.api_keys import AsyncApiKeyVerifier
from mindia.aio.services.maintenance import AsyncMaintenance
from mindia.aio.services.movable_tenants import AsyncMovableTenants
from mindia.aio.services.request_log import AsyncAllRequests
from mindia.aio.services.statistics import AsyncStatistics
from mindia.aio.services.task_queue import AsyncTaskQueue
from mindia.app import Mindia
from mindia.config import Settings
from mindia.db.migrator import Migration
from mindia.db.server import ServerFacts
from mindia.describing.base import Describer
from mindia.domain.tasks import WorkReport
from mindia.domain.tenants import ApiKey, Tenant, User
from mindia.embedding.base import Embedder
from mindia.errors import InvalidError
from mindia.library import Transaction
from mindia.services.context import Scan
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

T = TypeVar("T")


def local(
    home: str | os.PathLike[str],
    *,
    storage: Storage | None = None,
    embedder: Embedder | None = None,
    former_embedders: Sequence[Embedder] = (),
    describer: Describer | None = None,
    scan: Scan | None = None,
    settings: Settings | None = None,
    threads: int | None = None,
) -> Opening:
    """Open a home on this machine, with an embedded PostgreSQL server: `mindia.local` for asyncio hosts.

    It is opened by `async with aio.local(…) as app`, or by `app = await aio.local(…)`, in a thread. Who is cancelled
    meanwhile returns at once, and what was opened is closed again.

    Args:
        home: As for `mindia.local`.
        storage: As for `mindia.local`.
        embedder: As for `mindia.local`.
        former_embedders: As for `mindia.local`.
        describer: As for `mindia.local`.
        scan: As for `mindia.local`.
        settings: As for `mindia.local`.
        threads: As for `AsyncMindia`.

    Raises:
        InvalidError: `threads` is less than 1. All else is raised when it is opened, as by `mindia.local`.
    """
    _check_threads(threads)
    return Opening(
        lambda: sync.local(
            home,
            storage=storage,
            embedder=embedder,
            former_embedders=former_embedders,
            describer=describer,
            scan=scan,
            settings=settings,
        ),
        threads=threads,
    )


class Opening(Handle):
    """A home that is about to be opened: await it, or enter it; each opens it once more."""

    def __init__(self, make: Callable[[], Mindia], *, threads: int | None) -> None:
        self._make = make
        self._threads = threads
        self._entered: list[AsyncMindia] = []

    def __await__(self) -> Generator[Any, None, AsyncMindia]:
        return self._opened().__await__()

    async def __aenter__(self) -> AsyncMindia:
        app = await self._opened()
        self._entered.append(app)
        return app

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._entered.pop().close()

    async def _opened(self) -> AsyncMindia:
        return AsyncMindia(await opened(self._make, Mindia.close), threads=self._threads)


def connect(
    database: str | ConnectionPool[Any],
    *,
    storage: Storage,
    embedder: Embedder | None = None,
    former_embedders: Sequence[Embedder] = (),
    describer: Describer | None = None,
    scan: Scan | None = None,
    secret_key: str | None = None,
    owner: str | None = None,
    settings: Settings | None = None,
    threads: int | None = None,
) -> AsyncMindia:
    """Use a PostgreSQL server and an object store of your own: `mindia.connect` for asyncio hosts.

    Nothing is opened before first use.

    Args:
        database: As for `mindia.connect`.
        storage: As for `mindia.connect`.
        embedder: As for `mindia.connect`.
        former_embedders: As for `mindia.connect`.
        describer: As for `mindia.connect`.
        scan: As for `mindia.connect`.
        secret_key: As for `mindia.connect`.
        owner: As for `mindia.connect`.
        settings: As for `mindia.connect`.
        threads: As for `AsyncMindia`.

    Raises:
        InvalidError: An argument is not what it should be.
    """
    app = sync.connect(
        database,
        storage=storage,
        embedder=embedder,
        former_embedders=former_embedders,
        describer=describer,
        scan=scan,
        secret_key=secret_key,
        owner=owner,
        settings=settings,
    )
    return AsyncMindia(app, threads=threads)


class AsyncMindia(Handle):
    """An application's media layer for asyncio hosts; an asynchronous context manager.

    Calls run in threads of its own, in any event loop; who is cancelled returns at once, and the call ends by itself.

    Args:
        app: The synchronous application, which is closed together with this.
        threads: How many calls run at once, outside of transactions; `Settings.pool_size` by default.

    Attributes:
        sync: The synchronous application, for types of tasks, schedules and workers.
        events: As `Mindia.events`: what webhooks can be told of.
        tenants: As `Mindia.tenants`.
        tasks: As `Mindia.tasks`.
        api_keys: As `Mindia.api_keys`.
        request_log: As `Mindia.request_log`.
        statistics: As `Mindia.statistics`.
        maintenance: As `Mindia.maintenance`.
    """

    def __init__(self, app: Mindia, *, threads: int | None = None) -> None:
        _check_threads(threads)
        self.sync = app
        self.settings = app.settings
        self.storage = app.storage
        self.events = app.events
        self._threads = lane = Threads(threads or app.settings.pool_size)
        self.tenants = AsyncMovableTenants(app.tenants, lane)
        self.tasks = AsyncTaskQueue(app.tasks, lane)
        self.api_keys = AsyncApiKeyVerifier(app.api_keys, lane)
        self.request_log = AsyncAllRequests(app.request_log, lane)
        self.statistics = AsyncStatistics(app.statistics, lane)
        self.maintenance = AsyncMaintenance(app.maintenance, lane)

    def __repr__(self) -> str:
        return f"<AsyncMindia {'closed' if self.sync.closed else 'open'}, storage {self.storage!r}>"

    def library(self, tenant: Tenant | UUID, *, user: User | ApiKey | UUID | None = None) -> AsyncLibrary:
        """Return all that belongs to a tenant, and nothing else: see `Mindia.library`."""
        return AsyncLibrary(self.sync.library(tenant, user=user), self._threads)

    async def only_tenant(self) -> Tenant:
        """Return the only tenant that there is; a home that has none gets one. `Mindia.library()` asks for it itself.

        Raises:
            InvalidError: There is more than one.
            NotFoundError: There is none.
        """
        return await self._threads.run(self.sync._only_tenant)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncTransaction]:
        """Begin a transaction over any number of tenants.

        It is committed at the end, and rolled back by an exception or where it is cancelled. Every call within is a
        savepoint: an error that is caught leaves the transaction usable. One call at a time.
        """
        thread = self._threads.one()
        try:
            async with entered(thread, self.sync.transaction()) as transaction:
                yield AsyncTransaction(transaction, thread)
        finally:
            thread.close()

    async def run(self, function: Callable[[Transaction], T], *, attempts: int = 3) -> T:
        """Run a function in a transaction, in a thread, again where that collides or is cut off: see `Mindia.run`.

        Args:
            function: Is called with the synchronous transaction; must bear being called again.
            attempts: How often it is tried, at most.

        Raises:
            TransactionConflictError: The last try collided, too.
            ConnectionLostError: The last try was cut off, too, or the commit was.
        """
        return await self._threads.run(lambda: self.sync.run(function, attempts=attempts))

    async def check(self) -> ServerFacts:
        """Connect, and return what the server says about itself: see `Mindia.check`."""
        return await self._threads.run(self.sync.check)

    async def migrate(self) -> list[Migration]:
        """Bring the tables up to date and return the migrations that were applied: see `Mindia.migrate`."""
        return await self._threads.run(self.sync.migrate)

    async def pending_migrations(self) -> list[Migration]:
        """Return the migrations that `migrate` would apply."""
        return await self._threads.run(self.sync.pending_migrations)

    async def migration_script(self) -> str:
        """Return what `migrate` would run, as a script: see `Mindia.migration_script`."""
        return await self._threads.run(self.sync.migration_script)

    async def run_until_idle(self) -> WorkReport:
        """Work off what is due, then return: for tests and scripts."""
        return await self._threads.run(self.sync.run_until_idle)

    async def close(self) -> None:
        """Close the connections, and stop the embedded server where nobody else uses it. Twice does nothing more.

        Calls that are under way end by themselves; those that wait for a thread are not begun, and get a `ClosedError`.
        It is done to its end, also where its caller is cancelled.
        """
        self._threads.close()
        if not self.sync.closed:
            await to_the_end(self.sync.close)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.sync.closed

    async def __aenter__(self) -> Self:
        self.sync.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise InvalidError(f"threads must be at least 1, not {threads}")
