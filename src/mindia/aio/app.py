"""`connect` for asyncio hosts, and what it leads to: `AsyncMindia`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from mindia import app as sync
from mindia._handles import Handle
from mindia.aio._threads import Threads
from mindia.aio.library import AsyncLibrary
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
from mindia.services.context import Scan
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool


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
        if threads is not None and threads < 1:
            raise InvalidError(f"threads must be at least 1, not {threads}")
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

    async def check(self) -> ServerFacts:
        """Connect, and return what the server says about itself: see `Mindia.check`."""
        return await self._threads.run(self.sync.check)

    async def migrate(self) -> list[Migration]:
        """Bring the tables up to date and return the migrations that were applied: see `Mindia.migrate`."""
        return await self._threads.run(self.sync.migrate)

    async def run_until_idle(self) -> WorkReport:
        """Work off what is due, then return: for tests and scripts."""
        return await self._threads.run(self.sync.run_until_idle)

    async def close(self) -> None:
        """Close the connections. Calls that are under way end by themselves. Twice does nothing more."""
        if not self.sync.closed:
            await self._threads.run(self.sync.close)
        self._threads.close()

    async def __aenter__(self) -> Self:
        self.sync.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
