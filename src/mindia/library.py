"""The handles of one tenant and of transactions: `Library`, `LibraryTransaction`, `Transaction`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from mindia._handles import Handle
from mindia.db.units import OpenTransaction
from mindia.domain.tenants import ApiKey, Tenant, Usage, User
from mindia.errors import InvalidError, MindiaError, TransactionError
from mindia.services.context import TenantContext
from mindia.services.task_queue import TaskQueue
from mindia.services.tenants import Tenants

if TYPE_CHECKING:
    from psycopg import Connection

    from mindia.app import Mindia
    from mindia.domain.media import Media
    from mindia.domain.search import SearchOptions, SearchResults
    from mindia.notebook.html import Card


class _Own(Enum):
    """Stands for a connection of our own; None is rather a mistake of the host than that."""

    CONNECTION = "a connection of the pool"


class Library(Handle):
    """All that belongs to one tenant. Thread-safe.

    Attributes:
        tenant_id: The tenant.
        media: Its media.
        index: Finds them.
        tasks: Work in the background.
        webhooks: Tells others what happens.
        users: Who may log in, and with which role.
        api_keys: The same for programs.
        presets: Transformations of images that have a name.
        request_log: Requests that the host has served for the tenant.
        statistics: Storage and tasks over time.
    """

    def __init__(self, app: Mindia, context: TenantContext) -> None:
        from mindia.services.api_keys import ApiKeys
        from mindia.services.media_store import MediaStore
        from mindia.services.presets import Presets
        from mindia.services.request_log import TenantRequestLog
        from mindia.services.search_index import SearchIndex
        from mindia.services.statistics import Statistics
        from mindia.services.users import Users
        from mindia.services.webhook_dispatcher import WebhookDispatcher

        self._app = app
        self._context = context
        self.tenant_id = context.tenant_id
        self.media = MediaStore(context)
        self.index = SearchIndex(context)
        self.tasks = TaskQueue.of_tenant(context)
        self.webhooks = WebhookDispatcher(context)
        self.users = Users(context, app._passwords, app._login_attempts)
        self.api_keys = ApiKeys(context, app._known_keys)
        self.presets = Presets(context)
        self.request_log = TenantRequestLog(context.tenant_id, context.as_admin, app._request_log_writer)
        self.statistics = Statistics(context.as_member, tenant_id=context.tenant_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of tenant {self.tenant_id}>"

    def search(self, query: str, **how: Unpack[SearchOptions]) -> SearchResults:
        """Find items by word and by vector: short for `library.index.search`, with the same arguments."""
        return self.index.search(query, **how)

    def show(self, media: Media | UUID) -> Card:
        """Return an item as a notebook shows it: its picture, or a player where it is small enough, and its facts.

        Args:
            media: The item or its id.

        Raises:
            NotFoundError: There is no such item.
            StorageError: The object store failed.
        """
        from mindia.domain._shown import facts
        from mindia.domain.media import Audio, Video
        from mindia.notebook import html
        from mindia.services.previews import MediaPreviews

        item = self.media.get(media if isinstance(media, UUID) else media.id)
        known = list(facts(item))
        if isinstance(item, Audio | Video) and html.fits(item.file_size):
            seen = html.player(self.media.read(item), item.content_type, item.filename)
        else:
            preview = MediaPreviews(self._context).of(item)
            seen = "" if preview is None else html.picture(preview, item.filename)
        text = "\n".join(f"{name}: {value!r}" for name, value in known)
        return html.Card(text, f"<div>{seen}{html.table(item.filename, known)}</div>")

    def _repr_html_(self) -> str:
        from mindia.notebook import html

        try:
            counted = self.usage()
        except MindiaError as error:
            return html.table(repr(self), [("not available", str(error))])
        rows = [
            (f"{each.kind}, {each.content_type}", f"{each.item_count:,} item(s), {each.total_bytes:,} bytes")
            for each in counted.by_type
        ]
        total = ("all", f"{counted.item_count:,} item(s), {counted.total_bytes:,} bytes")
        return html.table(f"Library of tenant {self.tenant_id}", [*rows, total])

    def usage(self) -> Usage:
        """Return how much there is of each type, and the quota. It is counted: the more there is, the longer it takes.

        Raises:
            PermissionDeniedError: The user is a viewer.
        """
        from mindia.services.usage import usage_of

        return usage_of(self._context)

    @contextmanager
    def transaction(self, *, connection: Connection[Any] | _Own = _Own.CONNECTION) -> Iterator[LibraryTransaction]:
        """Begin a transaction; it is committed at the end, and rolled back by an exception.

        Every call within is a savepoint: an error that is caught leaves the transaction usable.

        Args:
            connection: Join the transaction that the host has begun on its own psycopg connection; the host commits it
                or rolls it back. A connection that commits each statement by itself is refused.

        Raises:
            TransactionError: The connection cannot be joined.
            TenantInactiveError: The tenant is suspended or deleted.
            PermissionDeniedError: The user is not active.
        """
        database = self._app._database
        with database.unit_of_work() if isinstance(connection, _Own) else database.join(connection) as unit:
            library = Transaction(self._app, unit).library(self.tenant_id, user=self._context.initiator)
            library._context.as_viewer.run(lambda _: None)  # refuses a tenant that is not active
            yield library


class LibraryTransaction(Library):
    """A library, bound to one transaction and so to one thread.

    Attributes:
        connection: The connection of the transaction, for the host's own statements.
    """

    def __init__(self, app: Mindia, context: TenantContext, unit: OpenTransaction) -> None:
        super().__init__(app, context)
        self._unit = unit

    @contextmanager
    def transaction(self, *, connection: Connection[Any] | _Own = _Own.CONNECTION) -> Iterator[LibraryTransaction]:
        """Begin a transaction within this one: an exception rolls back to here, and the end commits nothing yet.

        Raises:
            TransactionError: A connection is handed in; this transaction has one.
        """
        if not isinstance(connection, _Own):
            raise TransactionError("this transaction is on a connection already: leave out connection=")
        with self._unit.savepoint():
            yield self

    @property
    def connection(self) -> Connection[Any]:
        """The connection of the transaction, for the host's own statements."""
        return self._unit.connection


class Transaction(Handle):
    """A transaction over any number of tenants, bound to one thread.

    Attributes:
        tenants: Makes and changes tenants.
        tasks: Tasks without a tenant.
    """

    def __init__(self, app: Mindia, unit: OpenTransaction) -> None:
        self._app = app
        self._unit = unit
        self.tenants = Tenants(unit, app.storage, app._known_tenants)
        self.tasks = TaskQueue.of_system(unit, app._registry)

    @property
    def connection(self) -> Connection[Any]:
        """The connection of the transaction, for the host's own statements."""
        return self._unit.connection

    def library(self, tenant: Tenant | UUID, *, user: User | ApiKey | UUID | None = None) -> LibraryTransaction:
        """Return all that belongs to a tenant, within this transaction.

        Args:
            tenant: As for `Mindia.library`.
            user: As for `Mindia.library`.
        """
        context = self._app._context(tenant_id_of(tenant), self._unit.bound_to, initiator=initiator_of(user))
        return LibraryTransaction(self._app, context, self._unit)


def initiator_of(user: User | ApiKey | UUID | None) -> UUID | None:
    """Return the id of a user or an API key, of which it may be one already."""
    if isinstance(user, User | ApiKey):
        return user.id
    if user is not None and not isinstance(user, UUID):
        raise InvalidError(f"user must be a User, an ApiKey or the id of one, not {type(user).__name__}")
    return user


def tenant_id_of(tenant: Tenant | UUID) -> UUID:
    """Return the id of a tenant, of which it may be one already."""
    if isinstance(tenant, Tenant):
        return tenant.id
    if not isinstance(tenant, UUID):
        raise InvalidError(f"tenant must be a Tenant or its UUID, not {type(tenant).__name__}")
    return tenant
