"""Uploads, transactions, tasks and other removals that are under way while a tenant is deleted: nothing stays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.conftest import Roles
from tests.integration.deleted_tenants import AT_ONCE, any_payload, contents, delete_whole, fill, remove
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, sweep_all
from tests.integration.shared_bytes import multiplied, wait_for_a_lock
from tests.integration.tenant_rows import TenantRows

import mindia
from mindia import (
    Library,
    LocalStorage,
    MemoryStorage,
    Mindia,
    Settings,
    TaskContext,
    Tenant,
    TenantDeletionProgress,
    TenantDeletionReport,
)
from mindia.errors import (
    NotFoundError,
    StagedObjectExpiredError,
    TenantInactiveError,
)
from mindia.services import tenant_deletion as service
from mindia.storage.base import StoredObject
from mindia.testing import samples
from mindia.testing.storage import listed, put

_WAIT_S = 30.0


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    """A connection of the host's own, each of whose statements sees what is committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


# Uploads that are under way


def test_young_uploads_are_waited_for_and_everything_else_goes_at_once(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    library.media.add(samples.image())
    young, old = (library.media.stage(samples.image()) for _ in range(2))
    host.execute("update mindia.staged_objects set leased_at = now() - interval '2 hours' where id = %s", (old.id,))
    on_record = host.execute(
        "select count(*), max(leased_at) + interval '1 hour' from mindia.staged_objects where tenant_id = %s "
        "and id <> %s",
        (tenant.id, old.id),
    ).fetchone()
    app.tenants.delete(tenant.id)

    report = remove(app, tenant)

    assert not report.is_complete
    assert (report.uploads_left, report.waits_until) == on_record
    assert report.tables_left == ("staged_objects",)
    assert listed(storage, tenant.s3_bucket) == {}
    with pytest.raises(TenantInactiveError):
        library.media.add(young)
    assert {table for table, _ in TenantRows(host).of(tenant.id)} == {"staged_objects", "tenants"}
    assert {each.table: each.count for each in report.rows}["images"] == 1

    host.execute(
        "update mindia.staged_objects set leased_at = now() - interval '2 hours' where tenant_id = %s", (tenant.id,)
    )
    assert remove(app, tenant).is_complete
    assert TenantRows(host).of(tenant.id) == []


def test_the_grace_of_uploads_is_that_of_the_settings_or_of_the_call(
    application_url: str, roles: Roles, storage: LocalStorage, host: Host
) -> None:
    settings = Settings(staging_grace=timedelta(days=1), worker_role=roles.worker)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        tenant = app.tenants.create("Acme")
        app.library(tenant).media.stage(samples.image())
        host.execute(
            "update mindia.staged_objects set leased_at = now() - interval '2 hours' where tenant_id = %s", (tenant.id,)
        )
        app.tenants.delete(tenant.id)

        assert not remove(app, tenant).is_complete
        assert not remove(app, tenant, staged_older_than=timedelta(hours=3)).is_complete
        assert remove(app, tenant, staged_older_than=timedelta(hours=1)).is_complete


class Interrupted(MemoryStorage):
    """Does something else when bytes are about to be stored, or listed; once."""

    def __init__(self) -> None:
        super().__init__()
        self.before_put: Callable[[], object] | None = None
        self.before_list: Callable[[], object] | None = None

    def put(self, bucket: str, key: str, source: BinaryIO, *, content_type: str, **rest: Any) -> None:
        before, self.before_put = self.before_put, None
        if before is not None:
            before()
        super().put(bucket, key, source, content_type=content_type, **rest)

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        before, self.before_list = self.before_list, None
        if before is not None:
            before()
        yield from super().list(bucket, prefix=prefix, after=after)


def test_bytes_that_are_stored_after_the_bucket_was_emptied_are_discarded(
    app: Mindia, application_url: str, roles: Roles
) -> None:
    storage = Interrupted()
    reports: list[TenantDeletionReport] = []
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with (
        mindia.connect(application_url, storage=storage, settings=settings) as uploading,
        mindia.connect(application_url, storage=storage, settings=settings) as removing,
    ):
        tenant = app.tenants.create("Acme")

        def delete() -> None:
            removing.tenants.delete(tenant.id)
            reports.append(remove(removing, tenant))

        storage.before_put = delete
        with pytest.raises(TenantInactiveError):
            uploading.library(tenant).media.add(samples.image())

        assert [(report.is_complete, report.uploads_left) for report in reports] == [(False, 1)]
        assert listed(storage, tenant.s3_bucket) == {}
        assert remove(removing, tenant).is_complete  # what was discarded is on record no more


@pytest.mark.parametrize("single", [True, False], ids=["add", "add_many"])
def test_bytes_that_are_stored_after_the_tenant_is_gone_are_discarded(
    app: Mindia, application_url: str, roles: Roles, host: Host, single: bool
) -> None:
    storage = Interrupted()
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with (
        mindia.connect(application_url, storage=storage, settings=settings) as uploading,
        mindia.connect(application_url, storage=storage, settings=settings) as removing,
    ):
        tenant = app.tenants.create("Acme")
        library = uploading.library(tenant)
        reports: list[TenantDeletionReport] = []
        storage.before_put = lambda: reports.append(delete_whole(removing, tenant))

        if single:
            with pytest.raises(NotFoundError, match=str(tenant.id)):
                library.media.add(samples.image())
        else:
            (result,) = library.media.add_many([samples.image()])
            assert isinstance(result.error, NotFoundError)

        assert [report.is_complete for report in reports] == [True]
        assert listed(storage, tenant.s3_bucket) == {}
        assert TenantRows(host).of(tenant.id) == []


def test_no_key_is_leased_once_the_tenant_is_deleted(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    def slowly() -> Iterator[bytes]:
        content = samples.image()
        yield content[:100]
        app.tenants.delete(tenant.id)
        yield content[100:]

    with pytest.raises(TenantInactiveError, match=str(tenant.id)):
        library.media.add(slowly())

    assert listed(storage, tenant.s3_bucket) == {}
    assert [table for table, _ in TenantRows(host).of(tenant.id)] == ["tenants"]
    assert remove(app, tenant).is_complete


def test_no_lease_is_renewed_once_the_tenant_is_deleted(
    application_url: str, roles: Roles, app: Mindia, host: Host
) -> None:
    storage = Interrupted()
    settings = Settings(staging_grace=timedelta(microseconds=3), worker_role=roles.worker)
    with mindia.connect(application_url, storage=storage, settings=settings) as uploading:
        tenant = app.tenants.create("Acme")
        storage.before_put = lambda: app.tenants.delete(tenant.id)  # by then the lease is due to be renewed

        with pytest.raises(StagedObjectExpiredError, match="the tenant was deleted"):
            uploading.library(tenant).media.stage(samples.image())

        assert listed(storage, tenant.s3_bucket) == {}
        assert remove(app, tenant, staged_older_than=AT_ONCE).is_complete
        assert TenantRows(host).of(tenant.id) == []


def test_a_tenant_that_is_made_and_filled_in_one_transaction_is_leased_keys(app: Mindia) -> None:
    with app.transaction() as tx:
        tenant = tx.tenants.create("Acme")
        item = tx.library(tenant).media.add(samples.image())

    assert app.library(tenant).media.read(item) == samples.image()


# What else is under way


def test_an_open_transaction_is_not_waited_for_and_what_it_commits_goes_later(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    gone, held = (library.media.add(samples.image()) for _ in range(2))
    with library.transaction() as tx:
        tx.media.update(held, description="held")
        added = tx.media.add(samples.image())
        app.tenants.delete(tenant.id)

        report = remove(app, tenant, staged_older_than=AT_ONCE)

        assert not report.is_complete
        assert "images" in report.tables_left
        assert report.uploads_left == 1
        found = {
            media_id for (media_id,) in host.execute("select id from mindia.images where tenant_id = %s", (tenant.id,))
        }
        assert found == {held.id}
        assert gone.id not in found
    assert host.execute("select id from mindia.images where id = %s", (added.id,)).fetchone() == (added.id,)

    assert remove(app, tenant).is_complete
    assert TenantRows(host).of(tenant.id) == []
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_transaction_that_only_refers_to_the_tenant_keeps_the_tenant_alone(
    app: Mindia, library: Library, tenant: Tenant, host: Host
) -> None:
    with library.transaction() as tx:
        task = tx.tasks.enqueue(any_payload())
        app.tenants.delete(tenant.id)
        report = remove(app, tenant, staged_older_than=AT_ONCE)
        assert (report.is_complete, report.tables_left) == (False, ())

    assert host.execute("select id from mindia.tasks where id = %s", (task.id,)).fetchone() == (task.id,)
    report = remove(app, tenant)
    assert report.is_complete
    assert {each.table: each.count for each in report.rows} == {"tasks": 1, "tenants": 1}


@pytest.mark.parametrize(
    "table",
    ["webhook_attempts", "webhook_events", "task_errors", "task_dependencies", "tasks", "embeddings", "quotas"],
)
def test_a_row_that_another_one_holds_is_left_with_all_that_it_refers_to(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, database_url: str, table: str
) -> None:
    fill(host, library, storage, tenant)
    app.tenants.delete(tenant.id)
    held_with = {
        "webhook_attempts": {"webhook_attempts", "webhook_events", "webhooks"},
        "webhook_events": {"webhook_events", "webhooks"},
        "task_errors": {"task_errors", "tasks"},
        "task_dependencies": {"task_dependencies", "tasks"},
        "tasks": {"tasks"},
        "embeddings": {"embeddings", "embedding_spaces", "search_documents"},
        "quotas": {"quotas"},
    }
    with psycopg.connect(database_url) as other:
        query = sql.SQL("select from mindia.{} where tenant_id = {} for update")
        other.execute(query.format(sql.Identifier(table), tenant.id))

        report = remove(app, tenant, staged_older_than=AT_ONCE)

        assert not report.is_complete
        assert set(report.tables_left) == held_with[table]
    assert remove(app, tenant, staged_older_than=AT_ONCE).is_complete


@attrs.frozen
class Ending:
    """A task that deletes its own tenant."""

    looks_again: bool


def test_a_task_whose_tenant_is_removed_while_it_runs_ends_without_a_trace(
    app: Mindia, library: Library, tenant: Tenant, host: Host
) -> None:
    reports: list[TenantDeletionReport] = []

    def end(context: TaskContext, payload: Ending) -> None:
        if not reports:
            reports.append(delete_whole(app, tenant))
        if payload.looks_again:
            context.library.media.find()

    app.register_task("ending", Ending, end)
    tasks = [library.tasks.enqueue(Ending(looks_again=looks_again)) for looks_again in (False, True)]
    tasks += [library.tasks.enqueue(Ending(looks_again=False), run_at=datetime.now(UTC) + timedelta(days=1))]

    app.run_until_idle()

    assert [report.is_complete for report in reports] == [True]
    assert {each.table: each.count for each in reports[0].rows} == {"tasks": 3, "tenants": 1}
    ids = [task.id for task in tasks]
    assert host.execute("select from mindia.tasks where id = any(%s)", (ids,)).fetchall() == []
    assert host.execute("select from mindia.task_errors where task_id = any(%s)", (ids,)).fetchall() == []


def test_what_is_on_record_for_removal_may_be_removed_at_the_same_time(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, database_url: str
) -> None:
    library.media.delete(library.media.add(samples.image()))
    app.tenants.delete(tenant.id)
    with psycopg.connect(database_url) as other:  # as `remove_deleted` of another process
        other.execute("select from mindia.deleted_objects where tenant_id = %s for update", (tenant.id,))
        report = remove(app, tenant, staged_older_than=AT_ONCE)
        assert report.tables_left == ("deleted_objects",)
        assert listed(storage, tenant.s3_bucket) == {}

    sweep_all(app)
    assert remove(app, tenant).is_complete


# At once, and in parts


def test_several_that_remove_a_tenant_share_the_work(
    app: Mindia,
    library: Library,
    tenant: Tenant,
    storage: LocalStorage,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(host, library, storage, tenant)
    multiplied(host, library.media.add(samples.image()), 200)
    for number in range(60):
        put(storage, tenant.s3_bucket, f"derived/{number}", b"content")
    monkeypatch.setattr(service, "ROWS", 10)
    monkeypatch.setattr(service, "OBJECTS", 5)
    rows = Counter(table for table, _ in TenantRows(host).of(tenant.id))
    objects = len(contents(storage, tenant))
    app.tenants.delete(tenant.id)
    threads = 4
    together = threading.Barrier(threads)

    def work() -> TenantDeletionReport:
        has_waited = False

        def wait(progress: TenantDeletionProgress) -> None:
            nonlocal has_waited
            if progress.tenant_id == tenant.id and not has_waited:
                has_waited = True
                together.wait(_WAIT_S)  # until each has removed something

        return remove(app, tenant, staged_older_than=AT_ONCE, progress=wait)

    with ThreadPoolExecutor(threads) as pool:
        reports = [future.result(_WAIT_S) for future in [pool.submit(work) for _ in range(threads)]]

    assert all(report.is_complete for report in reports)
    assert all(report.rows for report in reports)
    assert sum((Counter({row.table: row.count for row in each.rows}) for each in reports), Counter()) == rows
    assert sum(report.objects_removed for report in reports) == objects
    assert TenantRows(host).of(tenant.id) == []
    assert not (storage.root / tenant.s3_bucket).exists()


def test_a_limited_call_removes_a_part_and_waits_for_nobody(
    app: Mindia,
    library: Library,
    tenant: Tenant,
    host: Host,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app.maintenance.remove_deleted_tenants(staged_older_than=AT_ONCE)
    item = library.media.add(samples.image())
    multiplied(host, item, 20)
    monkeypatch.setattr(service, "ROWS", 10)
    app.tenants.delete(tenant.id)
    with psycopg.connect(database_url) as other:  # as another one that is at work on it
        other.execute("select from mindia.tenants where id = %s for no key update", (tenant.id,))
        report = remove(app, tenant, staged_older_than=AT_ONCE, max_batches=3)
        assert (report.rows_removed, report.objects_removed, report.is_complete) == (0, 0, False)

    parts: list[TenantDeletionReport] = []
    while not (parts and parts[-1].is_complete):
        assert len(parts) < 20
        parts.append(remove(app, tenant, staged_older_than=AT_ONCE, max_batches=1))

    assert [part.rows_removed for part in parts[:4]] == [10] * 4
    assert all(part.rows_removed <= 10 and not (part.rows and part.objects_removed) for part in parts)
    assert sum(part.objects_removed for part in parts) == 1
    assert {each.table: each.count for each in parts[-1].rows} == {"tenants": 1}


def test_a_call_without_a_limit_waits_for_who_is_at_work(
    app: Mindia, library: Library, tenant: Tenant, host: Host, database_url: str
) -> None:
    library.media.add(samples.image())
    app.tenants.delete(tenant.id)
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(database_url) as other:
            other.execute("select from mindia.tenants where id = %s for no key update", (tenant.id,))
            removing = pool.submit(remove, app, tenant, staged_older_than=AT_ONCE)
            wait_for_a_lock(host)
        assert removing.result(_WAIT_S).is_complete


def test_deleting_again_does_not_wait_for_the_removal(app: Mindia, tenant: Tenant, database_url: str) -> None:
    app.tenants.delete(tenant.id)
    with psycopg.connect(database_url) as other:
        other.execute("select from mindia.tenants where id = %s for update", (tenant.id,))
        app.tenants.delete(tenant.id)


def test_a_removal_that_stood_still_does_not_touch_a_new_tenant_with_the_same_bucket(
    app: Mindia, application_url: str, roles: Roles, host: Host
) -> None:
    storage = Interrupted()
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    tenant = app.tenants.create("Acme")
    name = f"mindia-{tenant.id.hex[-12:]}"
    made: list[Tenant] = []
    with (
        mindia.connect(
            make_conninfo(application_url, application_name=name), storage=storage, settings=settings
        ) as slow,
        mindia.connect(application_url, storage=storage, settings=settings) as quick,
    ):
        quick.library(tenant).media.add(samples.image())
        quick.tenants.delete(tenant.id)

        def overtake() -> None:
            host.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (name,))
            assert remove(quick, tenant, staged_older_than=AT_ONCE).is_complete
            made.append(quick.tenants.create("Acme again", s3_bucket=tenant.s3_bucket))
            put(storage, tenant.s3_bucket, "originals/new", b"content")

        storage.before_list = overtake
        report = remove(slow, tenant, staged_older_than=AT_ONCE)

    assert made
    assert (report.is_complete, report.objects_removed) == (True, 0)
    assert contents(storage, tenant) == {"originals/new": b"content"}
