"""Connections that break: a call does its work once all the same, or says so; no exception of the driver comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import kwargs_row
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.library_calls import CALLS, SETTINGS, Known

import mindia
from mindia import Library, LocalStorage, Media, MediaKind, MediaLimits, MemoryStorage, Mindia, Quota, Settings, Tenant
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import ConnectionLostError, DatabaseUnavailableError, MindiaError
from mindia.testing import samples


@attrs.frozen
class Subject:
    """What a call is made on: an application behind the proxy, and what it may name."""

    app: Mindia
    library: Library
    known: Known


def _on_library(call: Callable[[Library, Known], object]) -> Callable[[Subject], object]:
    return lambda subject: call(subject.library, subject.known)


def _read_in_a_transaction(subject: Subject) -> object:
    with subject.library.transaction() as tx:
        return tx.media.get(subject.known.item.id)


def _export(subject: Subject) -> object:
    with TemporaryDirectory() as folder:
        return subject.app.tenants.export(subject.library.tenant_id, Path(folder, "acme.zip"))


def _import(subject: Subject) -> object:
    with TemporaryDirectory() as folder:
        exported = subject.app.tenants.export(subject.library.tenant_id, Path(folder, "acme.zip"))
        return subject.app.tenants.import_archive(exported.path, keep_ids=False)


def _payload() -> GenerateEmbedding:
    return GenerateEmbedding(entity_id=uuid4(), entity_type=MediaKind.IMAGE)


SINGLE_CALLS: dict[str, Callable[[Subject], object]] = {
    **{name: _on_library(call) for name, call in CALLS.items()},
    "api_keys.verify": lambda subject: subject.app.api_keys.verify(subject.known.issued.token),
    "media.add of bytes": lambda subject: subject.library.media.add(samples.image()),
    "request_log.counts of all": lambda subject: subject.app.request_log.counts(),
    "request_log.list of all": lambda subject: subject.app.request_log.list(),
    "request_log.summary of all": lambda subject: subject.app.request_log.summary("tenant"),
    "request_log.total of all": lambda subject: subject.app.request_log.total(),
    "statistics.storage of all": lambda subject: subject.app.statistics.storage(),
    "statistics.tasks of all": lambda subject: subject.app.statistics.tasks("hour"),
    "tenants.create": lambda subject: subject.app.tenants.create("Globex"),
    "tenants.delete": lambda subject: subject.app.tenants.delete(subject.app.tenants.create("Initech").id),
    "tenants.export": _export,
    "tenants.get": lambda subject: subject.app.tenants.get(subject.library.tenant_id),
    "tenants.import_archive": _import,
    "tenants.list": lambda subject: list(subject.app.tenants.list()),
    "tenants.reactivate": lambda subject: subject.app.tenants.reactivate(subject.library.tenant_id),
    "tenants.rename": lambda subject: subject.app.tenants.rename(subject.library.tenant_id, "Renamed"),
    "tenants.set_limits": lambda subject: subject.app.tenants.set_limits(
        subject.library.tenant_id, MediaLimits(max_document_pages=7)
    ),
    "tenants.set_quota": lambda subject: subject.app.tenants.set_quota(
        subject.library.tenant_id, Quota(max_items=1000)
    ),
    "tenants.suspend": lambda subject: subject.app.tenants.suspend(subject.library.tenant_id),
    "tasks.cancel without a tenant": lambda subject: subject.app.tasks.cancel(subject.app.tasks.enqueue(_payload())),
    "tasks.enqueue without a tenant": lambda subject: subject.app.tasks.enqueue(_payload()),
    "tasks.enqueue_many without a tenant": lambda subject: subject.app.tasks.enqueue_many([_payload(), _payload()]),
}
ALL_CALLS: dict[str, Callable[[Subject], object]] = {
    **SINGLE_CALLS,
    "transaction": _read_in_a_transaction,
    "check": lambda subject: subject.app.check(),
    "migrate": lambda subject: subject.app.migrate(),
    "pending_migrations": lambda subject: subject.app.pending_migrations(),
    "migration_script": lambda subject: subject.app.migration_script(),
    "run_until_idle": lambda subject: subject.app.run_until_idle(),
    "maintenance.sweep_staged": lambda subject: subject.app.maintenance.sweep_staged(),
    "maintenance.remove_expired": lambda subject: subject.app.maintenance.remove_expired(),
    "maintenance.remove_login_failures": lambda subject: subject.app.maintenance.remove_login_failures(),
    "maintenance.remove_old_deliveries": lambda subject: subject.app.maintenance.remove_old_deliveries(),
    "maintenance.remove_old_requests": lambda subject: subject.app.maintenance.remove_old_requests(),
    "maintenance.remove_retired_spaces": lambda subject: subject.app.maintenance.remove_retired_spaces(),
    "maintenance.index_vectors": lambda subject: subject.app.maintenance.index_vectors(),
    "maintenance.remove_deleted": lambda subject: subject.app.maintenance.remove_deleted(),
    "maintenance.copy_objects": lambda subject: subject.app.maintenance.copy_objects(
        MemoryStorage(), subject.app.storage, tenant=subject.library.tenant_id
    ),
    "maintenance.remove_uploads": lambda subject: subject.app.maintenance.remove_uploads(),
    "maintenance.verify": lambda subject: subject.app.maintenance.verify(tenant=subject.library.tenant_id),
    "maintenance.remove_deleted_tenants": lambda subject: subject.app.maintenance.remove_deleted_tenants(),
    "run": lambda subject: subject.app.run(lambda tx: tx.tenants.get(subject.library.tenant_id)),
}
DIRECT_CALLS = ("check", "migrate", "pending_migrations", "migration_script", "maintenance.index_vectors")
"""Those on a connection that is not of the pool."""


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: Proxy, storage: LocalStorage) -> Iterator[Mindia]:
    """An application whose connections lead through the proxy."""
    with mindia.connect(proxy.url, storage=storage, settings=SETTINGS) as app:
        yield app


@pytest.fixture
def subject(behind: Mindia, app: Mindia, tenant: Tenant) -> Subject:
    library = behind.library(tenant)
    library.media.stage(samples.image())  # so that connections of both pools are open
    return Subject(behind, library, Known.of(app.library(tenant)))


@attrs.frozen(kw_only=True)
class Rows:
    """How many rows there are, or how many more than before."""

    tenants: int = 0
    images: int = 0
    search_documents: int = 0
    embeddings: int = 0
    tasks: int = 0
    deleted_objects: int = 0
    users: int = 0
    api_keys: int = 0
    webhooks: int = 0
    webhook_events: int = 0
    derivatives: int = 0
    presets: int = 0

    def __sub__(self, before: Rows) -> Rows:
        return Rows(**{table: rows - getattr(before, table) for table, rows in attrs.asdict(self).items()})


def _rows(url: str) -> Rows:
    counts = sql.SQL(", ").join(
        sql.SQL("(select count(*) from mindia.{0}) as {0}").format(sql.Identifier(field.name))
        for field in attrs.fields(Rows)
    )
    with psycopg.connect(url, row_factory=kwargs_row(Rows)) as connection:
        rows = connection.execute(sql.SQL("select {}").format(counts)).fetchone()
    assert rows is not None
    return rows


@pytest.mark.slow
def test_connections_that_broke_while_they_were_idle_are_not_noticed(
    subject: Subject, app: Mindia, tenant: Tenant, proxy: Proxy
) -> None:
    for name in (*SINGLE_CALLS, "transaction", "run"):
        app.tenants.reactivate(tenant.id)
        known = Known.of(app.library(tenant))
        proxy.cut()
        ALL_CALLS[name](attrs.evolve(subject, known=known))


EFFECTS = {
    "api_keys.issue": Rows(api_keys=1),
    "index.embed": Rows(embeddings=1),
    "index.reindex": Rows(tasks=1),
    "media.add": Rows(images=1, search_documents=1, tasks=1),
    "media.add of bytes": Rows(images=1, search_documents=1, tasks=1),
    "media.add_from_url": Rows(images=1, search_documents=1, tasks=1),
    "media.add_many": Rows(images=1, search_documents=1, tasks=1),
    "media.copy": Rows(images=1, search_documents=1, tasks=1),
    "media.derive": Rows(derivatives=1),
    "media.placeholder": Rows(derivatives=1),
    "media.purge_derivatives": Rows(tasks=1),
    "media.regenerate_derivatives": Rows(tasks=1),
    "media.storyboard": Rows(derivatives=1),
    "media.thumbnail": Rows(derivatives=1),
    "presets.create": Rows(presets=1),
    "presets.delete": Rows(presets=-1),
    "media.delete": Rows(images=-1, search_documents=-1, tasks=-2, deleted_objects=1),  # the task that is known, too
    "media.delete_many": Rows(images=-1, search_documents=-1, tasks=-1, deleted_objects=1),
    "media.transcode": Rows(tasks=1),
    "tasks.cancel without a tenant": Rows(tasks=1),  # that it enqueues itself
    "tasks.enqueue": Rows(tasks=1),
    "tasks.enqueue_many": Rows(tasks=2),
    "tasks.enqueue_many without a tenant": Rows(tasks=2),
    "tasks.enqueue without a tenant": Rows(tasks=1),
    "tenants.create": Rows(tenants=1),
    "tenants.delete": Rows(tenants=1),  # that it makes itself; the row stays until it is removed
    "tenants.import_archive": Rows(tenants=1, images=2, search_documents=4, tasks=4, users=1, presets=1),
    "users.create": Rows(users=1),
    "webhooks.delete": Rows(webhooks=-1, webhook_events=-1),
    "webhooks.register": Rows(webhooks=1),
    "webhooks.test": Rows(webhook_events=1),
}
"""What a call that is made once changes; all others change the number of no rows."""

RETURN_NOTHING = {
    "index.embed",
    "index.similar",  # before there is a vector
    "index.similar_to_image",
    "index.set_transcript",
    "media.abort_upload",
    "media.delete",
    "media.delete_many",
    "presets.delete",
    "tenants.delete",
    "tenants.set_quota",
    "webhooks.delete",
}


@pytest.mark.parametrize(
    "moment",
    [pytest.param(Moment.BEFORE, id="BEFORE"), pytest.param(Moment.ANSWERED, id="ANSWERED", marks=pytest.mark.slow)],
)
def test_a_call_that_is_cut_off_at_a_commit_succeeds_and_is_done_once(
    behind: Mindia, app: Mindia, proxy: Proxy, database_url: str, moment: Moment
) -> None:
    for name, call in SINGLE_CALLS.items():
        for commit in count() if moment is Moment.ANSWERED else [0]:
            tenant = app.tenants.create("Acme")  # another one each time, for which no keys are leased yet
            subject = Subject(behind, behind.library(tenant), Known.of(app.library(tenant)))
            before = _rows(database_url)
            proxy.cut_at(Words.COMMIT, moment, skip=commit)

            result = call(subject)

            assert (name, _rows(database_url) - before) == (name, EFFECTS.get(name, Rows()))
            assert (result is None) == (name in RETURN_NOTHING)
            assert commit or not proxy.cuts_left
            if proxy.cuts_left:  # this call has no more commits
                break


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("images", "media.add"),
        ("images", "media.delete"),
        ("tasks", "tasks.enqueue"),
        ("tasks", "tasks.enqueue without a tenant"),
        ("tenants", "tenants.create"),
        ("users", "users.create"),
        ("api_keys", "api_keys.issue"),
    ],
)
def test_a_call_is_done_once_also_where_its_lost_commit_still_goes_on_while_it_is_tried_again(
    fresh_database_url: str, storage: LocalStorage, table: str, name: str
) -> None:
    with Proxy(fresh_database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=SETTINGS) as app:
        library = app.library(app.tenants.create("Acme"))
        subject = Subject(app, library, Known.of(library))
        with psycopg.connect(fresh_database_url) as connection:
            connection.execute(
                "create function public.take_long() returns trigger language plpgsql as "
                "$$ begin perform pg_sleep(0.3); return null; end $$"
            )
            connection.execute(
                sql.SQL(
                    "create constraint trigger slow after insert or delete on mindia.{} "
                    "deferrable initially deferred for each row execute function public.take_long()"
                ).format(sql.Identifier(table))
            )
        before = _rows(fresh_database_url)
        proxy.cut_at(Words.COMMIT, Moment.SENT)

        SINGLE_CALLS[name](subject)

        assert _rows(fresh_database_url) - before == EFFECTS[name]
        assert proxy.cuts_left == 0


def test_an_item_whose_commit_was_not_acknowledged_is_returned_as_it_is_stored(
    subject: Subject, app: Mindia, tenant: Tenant, proxy: Proxy
) -> None:
    proxy.cut_at(Words.COMMIT, Moment.ANSWERED)

    added = subject.library.media.add(subject.known.staged, metadata={"place": "Lisbon"}, description="a harbour")

    assert proxy.cuts_left == 0
    assert app.library(tenant).media.get(added.id) == added
    assert added.id == subject.known.staged.id


@pytest.mark.parametrize(("moment", "kept"), [(Moment.BEFORE, False), (Moment.ANSWERED, True)])
def test_the_body_of_a_transaction_is_never_run_again_and_a_lost_commit_is_an_error(
    subject: Subject, app: Mindia, tenant: Tenant, proxy: Proxy, moment: Moment, kept: bool
) -> None:
    runs = 0
    proxy.cut_at(Words.COMMIT, moment)

    def work() -> None:
        nonlocal runs
        with subject.library.transaction() as tx:
            runs += 1
            tx.media.add(subject.known.staged)

    with pytest.raises(ConnectionLostError) as caught:
        work()

    assert runs == 1
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert app.library(tenant).media.exists(sha256=subject.known.staged.sha256) is kept


def test_a_function_is_not_run_again_after_a_commit_that_may_have_come_through(behind: Mindia, proxy: Proxy) -> None:
    behind.check()
    proxy.cut_at(Words.COMMIT, Moment.ANSWERED)
    runs = []

    with pytest.raises(ConnectionLostError):
        behind.run(lambda _: runs.append(1))

    assert runs == [1]


def test_a_call_that_is_cut_off_again_and_again_is_an_error_of_ours(
    app: Mindia, tenant: Tenant, proxy: Proxy, storage: LocalStorage, database_url: str
) -> None:
    known = Known.of(app.library(tenant))
    before = _rows(database_url)
    for name, call in ALL_CALLS.items():
        proxy.cut_at(b"select" if name in DIRECT_CALLS else Words.COMMIT, Moment.BEFORE, times=100)
        with mindia.connect(proxy.url, storage=storage, settings=SETTINGS) as behind:
            subject = Subject(behind, behind.library(tenant), known)
            _assert_refused(partial(call, subject), ConnectionLostError)
        assert 0 < proxy.cuts_left < 100, name
    assert _rows(database_url) == before


def test_a_call_to_a_server_that_is_not_there_is_an_error_of_ours_at_once(
    app: Mindia, tenant: Tenant, proxy: Proxy, storage: LocalStorage
) -> None:
    known = Known.of(app.library(tenant))
    proxy.refuse()

    with mindia.connect(proxy.url, storage=storage, settings=SETTINGS) as behind:
        subject = Subject(behind, behind.library(tenant), known)
        for call in ALL_CALLS.values():
            _assert_refused(partial(call, subject), DatabaseUnavailableError)


def test_a_server_that_goes_away_is_an_error_of_ours_after_the_time_that_the_settings_allow(
    app: Mindia, tenant: Tenant, proxy: Proxy, storage: LocalStorage
) -> None:
    known = Known.of(app.library(tenant))
    with mindia.connect(proxy.url, storage=storage, settings=Settings(pool_timeout_s=1)) as behind:
        subject = Subject(behind, behind.library(tenant), known)
        subject.library.media.get(known.item.id)
        proxy.refuse()
        _assert_refused(partial(_read_in_a_transaction, subject), DatabaseUnavailableError)


def test_a_call_in_a_transaction_that_is_cut_off_is_an_error_of_ours_and_so_is_the_transaction(
    subject: Subject, proxy: Proxy, database_url: str
) -> None:
    before = _rows(database_url)

    def work(call: Callable[[Library, Known], object]) -> None:
        with subject.library.transaction() as tx:
            tx.media.add(subject.known.staged)
            proxy.cut_at(b"SAVEPOINT", Moment.BEFORE)
            _assert_refused(partial(call, tx, subject.known), ConnectionLostError)

    for call in CALLS.values():
        with pytest.raises(ConnectionLostError):
            work(call)
        assert _rows(database_url) == before


def test_bytes_are_added_to_a_hosts_transaction_although_the_applications_own_connections_broke(
    subject: Subject, app: Mindia, tenant: Tenant, proxy: Proxy, database_url: str
) -> None:
    with closing(psycopg.connect(database_url)) as host:
        for _ in range(2):
            proxy.cut()
            with subject.library.transaction(connection=host) as tx:
                item = tx.media.add(samples.image())
        host.commit()

    assert app.library(tenant).media.read(item) == samples.image()


def test_a_backend_that_an_administrator_ends_in_the_middle_of_a_statement_is_replaced(
    app: Mindia, tenant: Tenant, database_url: str, storage: LocalStorage
) -> None:
    name = f"mindia-{uuid4().hex[:8]}"
    known = Known.of(app.library(tenant))
    added: list[Media] = []
    with (
        mindia.connect(make_conninfo(database_url, application_name=name), storage=storage) as ended,
        psycopg.connect(database_url) as host,
    ):
        host.execute("lock table mindia.images in exclusive mode")
        thread = threading.Thread(target=lambda: added.append(ended.library(tenant).media.add(known.staged)))
        thread.start()
        _end_the_backend_that_waits_for_a_lock(database_url, name)
        host.rollback()
        thread.join(30)

    assert added == [app.library(tenant).media.get(known.staged.id)]


def _end_the_backend_that_waits_for_a_lock(url: str, application_name: str) -> None:
    deadline = time.monotonic() + 30
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where application_name = %s and wait_event_type = 'Lock'",
            (application_name,),
        ).fetchone():
            assert time.monotonic() < deadline, "no statement waits for a lock"
            time.sleep(0.01)


def _assert_refused(call: Callable[[], object], expected: type[MindiaError]) -> None:
    """Assert that a call raises this very class, worth trying again, and with the driver's exception as its cause."""
    with pytest.raises(expected) as caught:
        call()
    assert type(caught.value) is expected
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert "password" not in str(caught.value)
