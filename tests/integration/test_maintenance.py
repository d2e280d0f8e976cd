"""Bytes that nothing points at do not stay, and bytes that something points at, or is about to, are left alone."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

import mindia
from mindia import Library, LocalStorage, MaintenanceReport, MemoryStorage, Mindia, Settings, Tenant
from mindia._ids import uuid7
from mindia.errors import InvalidError, StagedObjectExpiredError, StorageError, StorageUnavailableError
from mindia.storage.base import Storage
from mindia.testing import samples
from mindia.testing.storage import listed, put

Host = psycopg.Connection[tuple[Any, ...]]

_WAIT_S = 30.0


@pytest.fixture
def idle_database_url(database_url: str) -> str:
    """The shared database without what earlier tests have left to be done: the counts are of one test alone."""
    with psycopg.connect(database_url) as connection:
        for table in ("staged_objects", "deleted_objects", "tasks"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return database_url


@pytest.fixture
def host(idle_database_url: str) -> Iterator[Host]:
    """A connection of the host's own, each of whose statements sees what is committed."""
    with psycopg.connect(idle_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def app(idle_database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(idle_database_url, storage=storage) as app:
        yield app


def age(host: Host, seconds: float, media_id: UUID | None = None) -> None:
    """Have a staged object, or all, been leased so long ago."""
    host.execute(
        """update mindia.staged_objects set leased_at = now() - make_interval(secs => %s)
        where id = coalesce(%s::uuid, id)""",
        (seconds, media_id),
    )


def staged_ids(host: Host) -> set[UUID]:
    return {row[0] for row in host.execute("select id from mindia.staged_objects").fetchall()}


def on_record(host: Host) -> list[tuple[Any, ...]]:
    """What is to be removed: id, attempts, seconds until the next one, and why the last one failed."""
    return host.execute(
        """select id, attempts, extract(epoch from next_attempt_at - now())::float8, last_error
        from mindia.deleted_objects order by id"""
    ).fetchall()


def make_due(host: Host) -> None:
    host.execute("update mindia.deleted_objects set next_attempt_at = now()")


@contextmanager
def failing(storage: LocalStorage, tenant: Tenant) -> Iterator[None]:
    """Have the store refuse a tenant's bucket: it has become a symbolic link, which is not followed."""
    folder = storage.root / tenant.s3_bucket
    away = storage.root / "away"
    folder.rename(away)
    folder.symlink_to(away, target_is_directory=True)
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


# The sweep


def test_what_was_staged_is_kept_for_the_grace_period_and_no_longer(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    young, old = (library.media.stage(samples.image()) for _ in range(2))
    age(host, 3_590, young.id)
    age(host, 3_610, old.id)

    assert app.maintenance.sweep_staged().removed == 1

    assert list(listed(storage, tenant.s3_bucket)) == [f"originals/{young.id}"]
    assert old.id not in staged_ids(host)
    assert library.media.add(young).id == young.id


def test_the_grace_period_is_that_of_the_settings_or_of_the_call(
    idle_database_url: str, storage: LocalStorage, host: Host
) -> None:
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(staging_grace=timedelta(days=1))) as app:
        app.library(app.tenants.create("Acme")).media.stage(samples.image())
        age(host, 7_200)

        assert app.maintenance.sweep_staged().removed == 0
        assert app.maintenance.sweep_staged(older_than=timedelta(hours=3)).removed == 0
        assert app.maintenance.sweep_staged(older_than=timedelta(hours=1)).removed == 1
        assert app.maintenance.sweep_staged(older_than=timedelta()).removed == 0


def test_a_negative_grace_period_is_refused(app: Mindia) -> None:
    with pytest.raises(InvalidError, match="must not be negative"):
        app.maintenance.sweep_staged(older_than=timedelta(seconds=-1))


@pytest.mark.parametrize("joined", [False, True], ids=["own connection", "connection of the host"])
def test_what_an_open_transaction_is_adding_is_left_alone_however_old_it_is(
    app: Mindia, library: Library, idle_database_url: str, host: Host, joined: bool
) -> None:
    staged = library.media.stage(samples.image())
    age(host, 1_000_000)

    with (
        psycopg.connect(idle_database_url) as connection,
        library.transaction(connection=connection) if joined else library.transaction() as tx,
    ):
        item = tx.media.add(staged)
        assert app.maintenance.sweep_staged().removed == 0
        assert app.maintenance.sweep_staged(older_than=timedelta()).removed == 0
        assert tx.media.read(item) == samples.image()

    assert library.media.read(staged.id) == samples.image()
    assert staged_ids(host) == set()


def test_what_a_transaction_has_added_and_rolled_back_is_swept(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, idle_database_url: str, host: Host
) -> None:
    staged = library.media.stage(samples.image())
    age(host, 1_000_000)
    with psycopg.connect(idle_database_url) as connection:
        with library.transaction(connection=connection) as tx:
            tx.media.add(staged)
        assert app.maintenance.sweep_staged().removed == 0
        connection.rollback()

    assert app.maintenance.sweep_staged().removed == 1

    assert listed(storage, tenant.s3_bucket) == {}
    with pytest.raises(StagedObjectExpiredError):
        library.media.add(staged)


def test_what_a_transaction_locks_does_not_hold_up_the_sweep(app: Mindia, library: Library, host: Host) -> None:
    locked, *others = (library.media.stage(samples.image()) for _ in range(4))
    before = staged_ids(host)
    age(host, 7_200)

    with host.transaction():
        host.execute("select from mindia.staged_objects where id = %s for update", (locked.id,))
        assert app.maintenance.sweep_staged().removed == len(before) - 1

    assert staged_ids(host) == {locked.id}
    assert {other.id for other in others}.isdisjoint(staged_ids(host))


def test_the_sweep_takes_what_a_killed_writer_has_left(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    staged = library.media.stage(samples.image())
    whole = storage.root / tenant.s3_bucket / "originals" / str(staged.id)
    whole.rename(whole.with_name(f".{staged.id}.part"))
    age(host, 7_200)

    assert app.maintenance.sweep_staged().removed == 1

    assert [path for path in storage.root.rglob("*") if path.is_file()] == []


def test_what_other_tenants_have_is_left_alone(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    globex = app.tenants.create("Globex")
    theirs = app.library(globex).media.add(samples.image())
    fresh = app.library(globex).media.stage(samples.image())
    old = library.media.stage(samples.image())
    item = library.media.add(samples.image())
    age(host, 7_200, old.id)
    library.media.delete(item)

    assert app.maintenance.sweep_staged().removed == 1
    assert app.maintenance.remove_deleted().removed == 1

    assert listed(storage, tenant.s3_bucket) == {}
    assert set(listed(storage, globex.s3_bucket)) == {theirs.s3_key, f"originals/{fresh.id}"}


@pytest.mark.parametrize("status", ["suspended", "deleted"])
def test_what_an_inactive_tenant_has_left_is_removed_too(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, status: str
) -> None:
    library.media.stage(samples.image())
    library.media.delete(library.media.add(samples.image()))
    age(host, 7_200)
    host.execute("update mindia.tenants set status = %s::mindia.tenant_status where id = %s", (status, tenant.id))

    app.maintenance.sweep_staged()
    app.maintenance.remove_deleted()

    assert listed(storage, tenant.s3_bucket) == {}


def test_what_cannot_be_swept_is_put_on_record_and_removed_later(
    app: Mindia,
    library: Library,
    tenant: Tenant,
    storage: LocalStorage,
    host: Host,
    caplog: pytest.LogCaptureFixture,
) -> None:
    globex = app.tenants.create("Globex")
    app.library(globex).media.stage(samples.image())
    staged = library.media.stage(samples.image())
    age(host, 7_200)

    with failing(storage, tenant), caplog.at_level(logging.WARNING, "mindia.maintenance"):
        assert app.maintenance.sweep_staged().removed == 1, "what fails is not in the way of the rest"
        assert tenant.s3_bucket in caplog.text
        assert app.maintenance.sweep_staged().removed == 0

    assert listed(storage, globex.s3_bucket) == {}
    assert list(listed(storage, tenant.s3_bucket)) == [f"originals/{staged.id}"]
    assert staged_ids(host) == set()
    ((media_id, attempts, wait_s, reason),) = on_record(host)
    assert (media_id, attempts) == (staged.id, 1)
    assert 0 < wait_s <= 10
    assert "symbolic link" in reason
    with pytest.raises(StagedObjectExpiredError):
        library.media.add(staged)

    make_due(host)
    assert app.maintenance.remove_deleted().removed == 1
    assert listed(storage, tenant.s3_bucket) == {}


# Removal


def test_the_bytes_of_a_deleted_item_go_with_all_that_was_made_of_them(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    gone, kept = (library.media.add(samples.image()) for _ in range(2))
    for item in (gone, kept):
        for name in ("thumbnail.webp", "hls/master.m3u8", "hls/720p/segment_000.ts"):
            put(storage, tenant.s3_bucket, f"derived/{item.id}/{name}", b"content")
    library.media.delete(gone)
    assert len(listed(storage, tenant.s3_bucket)) == 8

    assert app.maintenance.remove_deleted().removed == 1

    assert set(listed(storage, tenant.s3_bucket)) == {
        kept.s3_key,
        f"derived/{kept.id}/thumbnail.webp",
        f"derived/{kept.id}/hls/master.m3u8",
        f"derived/{kept.id}/hls/720p/segment_000.ts",
    }
    assert on_record(host) == []
    assert app.maintenance.remove_deleted().removed == 0


def test_bytes_that_are_gone_already_are_no_failure(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    item = library.media.add(samples.image())
    storage.delete(tenant.s3_bucket, [item.s3_key])
    library.media.delete(item)

    assert app.maintenance.remove_deleted().removed == 1
    assert on_record(host) == []


def test_what_a_transaction_is_deleting_is_kept_until_it_commits(
    app: Mindia, library: Library, storage: LocalStorage, tenant: Tenant
) -> None:
    item = library.media.add(samples.image())

    with library.transaction() as tx:
        tx.media.delete(item)
        assert app.maintenance.remove_deleted().removed == 0
        assert library.media.read(item) == samples.image()

    assert app.maintenance.remove_deleted().removed == 1
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_removal_that_fails_is_tried_again_after_growing_waits(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    item = library.media.add(samples.image())
    library.media.delete(item)
    expected = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]

    with failing(storage, tenant), caplog.at_level(logging.WARNING, "mindia.maintenance"):
        for attempt, longest_s in enumerate(expected, start=1):
            assert app.maintenance.remove_deleted().removed == 0
            ((media_id, attempts, wait_s, reason),) = on_record(host)
            assert (media_id, attempts) == (item.id, attempt)
            assert longest_s / 2 < wait_s <= longest_s
            assert "symbolic link" in reason
            assert app.maintenance.remove_deleted().removed == 0, "it is not due"
            assert on_record(host)[0][1] == attempt
            make_due(host)
    assert tenant.s3_bucket in caplog.text
    assert list(listed(storage, tenant.s3_bucket)) == [item.s3_key]

    assert app.maintenance.remove_deleted().removed == 1

    assert listed(storage, tenant.s3_bucket) == {}
    assert on_record(host) == []


def test_a_removal_that_has_failed_very_often_is_tried_all_the_same(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    library.media.delete(library.media.add(samples.image()))
    host.execute("update mindia.deleted_objects set attempts = 2000000")

    with failing(storage, tenant), caplog.at_level(logging.CRITICAL, "mindia.maintenance"):
        assert app.maintenance.remove_deleted().removed == 0
    ((_, attempts, wait_s, _),) = on_record(host)
    assert attempts == 2_000_001
    assert 1_800 < wait_s <= 3_600

    make_due(host)
    assert app.maintenance.remove_deleted().removed == 1


def test_a_removal_that_fails_is_not_in_the_way_of_others(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    globex = app.tenants.create("Globex")
    stuck = library.media.add(samples.image())
    library.media.delete(stuck)
    app.library(globex).media.delete(app.library(globex).media.add(samples.image()))

    with failing(storage, tenant), caplog.at_level(logging.CRITICAL, "mindia.maintenance"):
        assert app.maintenance.remove_deleted().removed == 1

    assert listed(storage, globex.s3_bucket) == {}
    assert [row[0] for row in on_record(host)] == [stuck.id]


class Odd(MemoryStorage):
    """A store of the host's that raises what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        if self.error is not None:
            raise self.error
        super().delete_prefix(bucket, prefix)


@pytest.mark.parametrize("error", [StorageUnavailableError("later"), RuntimeError("nul \0 and half \ud800"), OSError()])
def test_a_removal_is_tried_again_whatever_the_store_has_raised(
    idle_database_url: str, host: Host, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    storage = Odd()
    with mindia.connect(idle_database_url, storage=storage) as app:
        library = app.library(app.tenants.create("Acme"))
        library.media.delete(library.media.add(samples.image()))
        storage.error = error

        with caplog.at_level(logging.WARNING, "mindia.maintenance"):
            assert app.maintenance.remove_deleted().removed == 0
        assert on_record(host)[0][1] == 1

        storage.error = None
        make_due(host)
        assert app.maintenance.remove_deleted().removed == 1


# Many, and at once


def leave_behind(host: Host, tenant: Tenant, storage: Storage, number: int) -> tuple[set[UUID], set[UUID]]:
    """Write staged and deleted objects, with their bytes, as processes that have ended left them."""
    staged, deleted = ({uuid7() for _ in range(number)} for _ in range(2))
    for media_id in staged | deleted:
        put(storage, tenant.s3_bucket, f"originals/{media_id}", b"content")
    host.execute(
        """insert into mindia.staged_objects (tenant_id, id, s3_bucket, leased_at)
        select %s, staged.id, %s, now() - interval '2 hours' from unnest(%s::uuid[]) as staged (id)""",
        (tenant.id, tenant.s3_bucket, list(staged)),
    )
    host.execute(
        """insert into mindia.deleted_objects (tenant_id, id, s3_bucket, s3_keys, s3_prefixes)
        select %s, deleted.id, %s, array['originals/' || deleted.id], array['derived/' || deleted.id || '/']
        from unnest(%s::uuid[]) as deleted (id)""",
        (tenant.id, tenant.s3_bucket, list(deleted)),
    )
    return staged, deleted


class Noting(MemoryStorage):
    """Notes what is deleted; the first delete of a test may stand still in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[tuple[str, str]] = []
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._first = threading.Lock()

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        keys = list(keys)
        self.deleted += [(bucket, key) for key in keys]
        if keys and self._first.acquire(blocking=False):
            self.reached.set()
            assert self.go_on.wait(_WAIT_S)
        super().delete(bucket, keys)


@pytest.mark.parametrize("number", [0, 1, 100, 101, 250])
def test_all_that_is_due_is_removed_in_one_go(idle_database_url: str, host: Host, number: int) -> None:
    storage = MemoryStorage()
    with mindia.connect(idle_database_url, storage=storage) as app:
        tenant = app.tenants.create("Acme")
        leave_behind(host, tenant, storage, number)

        assert app.maintenance.sweep_staged().removed == number
        assert app.maintenance.remove_deleted().removed == number

    assert listed(storage, tenant.s3_bucket) == {}
    assert staged_ids(host) == set()
    assert on_record(host) == []


@pytest.mark.parametrize("what", ["sweep_staged", "remove_deleted"])
def test_two_at_once_share_the_work(idle_database_url: str, host: Host, what: str) -> None:
    storage = Noting()
    with (
        mindia.connect(idle_database_url, storage=storage) as one,
        mindia.connect(idle_database_url, storage=storage) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        tenant = one.tenants.create("Acme")
        staged, deleted = leave_behind(host, tenant, storage, 250)
        first = pool.submit(getattr(one.maintenance, what))
        try:
            assert storage.reached.wait(_WAIT_S)
            by_the_other = getattr(other.maintenance, what)().removed
        finally:
            storage.go_on.set()
        by_the_first = first.result(_WAIT_S).removed

    assert by_the_other == 150, "the first one holds a batch of 100"
    assert by_the_first == 100
    ids = staged if what == "sweep_staged" else deleted
    assert sorted(storage.deleted) == sorted((tenant.s3_bucket, f"originals/{media_id}") for media_id in ids)
    assert len(listed(storage, tenant.s3_bucket)) == 250
    assert staged_ids(host) == (set() if what == "sweep_staged" else staged)


def test_a_maintenance_that_dies_in_the_middle_leaves_the_work_to_the_next(idle_database_url: str, host: Host) -> None:
    class Dying(MemoryStorage):
        dying = True

        def delete(self, bucket: str, keys: Iterable[str]) -> None:
            super().delete(bucket, list(keys)[:1])
            if self.dying:
                raise KeyboardInterrupt
            super().delete(bucket, keys)

    storage = Dying()
    with mindia.connect(idle_database_url, storage=storage) as app:
        tenant = app.tenants.create("Acme")
        leave_behind(host, tenant, storage, 5)
        calls: list[Callable[[], MaintenanceReport]] = [app.maintenance.sweep_staged, app.maintenance.remove_deleted]

        for call in calls:
            with pytest.raises(KeyboardInterrupt):
                call()
        assert len(staged_ids(host)) == len(on_record(host)) == 5
        storage.dying = False

        assert [call().removed for call in calls] == [5, 5]
    assert listed(storage, tenant.s3_bucket) == {}


def test_working_off_what_is_due_includes_maintenance(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    library.media.stage(samples.image())
    item = library.media.add(samples.image())
    age(host, 7_200)
    swept = len(staged_ids(host))
    library.media.delete(item)

    assert app.run_until_idle().objects_removed == swept + 1
    assert listed(storage, tenant.s3_bucket) == {}


# Leases


class Slow(MemoryStorage):
    """Reads its sources in pieces and does something between them, and after the last."""

    def __init__(self, between: Callable[[int], None], after: Callable[[], None]) -> None:
        super().__init__()
        self._between = between
        self._after = after

    def put(self, bucket: str, key: str, source: BinaryIO, *, content_type: str, **rest: Any) -> None:
        pieces = []
        while piece := source.read(300):
            pieces.append(piece)
            self._between(len(pieces))
        super().put(bucket, key, io.BytesIO(b"".join(pieces)), content_type=content_type, **rest)
        self._after()


def let_pass(seconds: float) -> None:
    """Let the clock go on: what is tested is what happens then."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        threading.Event().wait(left)


GRACE = timedelta(seconds=0.3)


def test_the_lease_of_a_long_upload_is_renewed(idle_database_url: str, host: Host) -> None:
    leased: list[Any] = []

    def note(_: int) -> None:
        leased.append(host.execute("select max(leased_at) from mindia.staged_objects").fetchall()[0][0])
        let_pass(0.11)

    storage = Slow(note, lambda: None)
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(staging_grace=GRACE)) as app:
        library = app.library(app.tenants.create("Acme"))
        item = library.media.add(samples.image())

        assert len(leased) == 3
        assert leased[0] < leased[1] < leased[2]
        assert library.media.read(item) == samples.image()


@pytest.mark.parametrize("when", ["between two pieces", "after the last"])
def test_what_is_swept_during_its_upload_leaves_nothing(idle_database_url: str, host: Host, when: str) -> None:
    def sweep() -> None:
        assert host.execute("delete from mindia.staged_objects").rowcount == 1
        let_pass(0.11)

    storage = Slow(
        lambda number: sweep() if number == 1 and when == "between two pieces" else None,
        lambda: sweep() if when == "after the last" else None,
    )
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(staging_grace=GRACE)) as app:
        tenant = app.tenants.create("Acme")

        with pytest.raises(StagedObjectExpiredError, match="longer than Settings"):
            app.library(tenant).media.stage(samples.image())

    assert listed(storage, tenant.s3_bucket) == {}


def test_keys_leased_ahead_are_not_used_when_they_have_become_old(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        library.media.add(samples.image())
    assert len(staged_ids(host)) == 1, "a key is leased ahead"

    # The machine sleeps: the one clock goes on, the other stands still.
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 7_200)
    age(host, 7_200)
    assert app.maintenance.sweep_staged().removed == 1

    assert library.media.read(library.media.add(samples.image())) == samples.image()
    assert len(listed(storage, tenant.s3_bucket)) == 3


# What a step says of itself


def test_a_dry_run_says_what_would_go_and_removes_nothing(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    staged = library.media.stage(samples.image())
    age(host, 7_200, staged.id)
    deleted = library.media.add(samples.image(), filename="deleted.jpg")
    library.media.delete(deleted)
    expired = library.media.add(
        samples.image(), filename="expired.jpg", expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    steps = (app.maintenance.sweep_staged, app.maintenance.remove_deleted, app.maintenance.remove_expired)

    for step, found in zip(steps, (staged, deleted, expired), strict=True):
        before = listed(storage, tenant.s3_bucket)
        looked = step(dry_run=True)
        assert (looked.found, looked.removed, looked.failed, looked.is_dry_run) == (1, 0, 0, True)
        assert [(each.tenant_id, each.id) for each in looked.examples] == [(tenant.id, found.id)]
        assert listed(storage, tenant.s3_bucket) == before
        done = step()
        assert (done.found, done.removed, done.is_dry_run) == (1, 1, False)
        assert done.examples == looked.examples
        assert step(dry_run=True).found == 0


def test_it_is_told_how_far_a_step_is(idle_database_url: str, host: Host) -> None:
    storage = MemoryStorage()
    with mindia.connect(idle_database_url, storage=storage) as app:
        leave_behind(host, app.tenants.create("Acme"), storage, 250)

        for step in (app.maintenance.sweep_staged, app.maintenance.remove_deleted):
            told: list[MaintenanceReport] = []
            report = step(progress=told.append)
            assert [each.removed for each in told] == [100, 200, 250]
            assert (report.found, report.removed, len(report.examples)) == (250, 250, 100)


def test_what_the_store_keeps_is_counted_apart_and_the_error_is_told(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    staged = library.media.stage(samples.image())
    age(host, 7_200, staged.id)

    with failing(storage, tenant):
        report = app.maintenance.sweep_staged()

    assert (report.found, report.removed, report.failed) == (1, 0, 1)
    assert isinstance(report.error, StorageError)
