"""An item whose time has come is not found any more, and is removed soon after, with a word to those who listen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, four_kinds, register, rows
from tests.integration.processes import wait_until
from tests.integration.shared_bytes import check_bytes, multiplied, told, wait_for_a_lock

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Settings, Tenant
from mindia.errors import NotFoundError
from mindia.services import maintenance
from mindia.testing import samples
from mindia.testing.storage import listed

PAST = datetime(2001, 2, 3, tzinfo=UTC)


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with psycopg.connect(database_url) as connection:
        connection.execute("delete from mindia.tasks")  # what other tests have left to be done
    quick = Settings(isolate_parsers=False, public_url=SETTINGS.public_url, secret_key=SETTINGS.secret_key)
    with mindia.connect(database_url, storage=storage, settings=quick) as app:
        app.maintenance.remove_expired()
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def expire(host: Host, *items: Media) -> None:
    with host.transaction():
        for table in ("images", "videos", "audios", "documents"):
            host.execute(
                f"update mindia.{table} set expires_at = now() where id = any(%s)",
                ([item.id for item in items],),
            )


def has_passed(host: Host, moment: datetime) -> bool:
    with host.transaction():
        return host.execute("select clock_timestamp() > %s", (moment,)).fetchall() == [(True,)]


# What is found


@pytest.mark.parametrize("how", ["at its addition", "by a change", "by the clock"])
def test_no_call_finds_an_item_that_has_expired(
    app: Mindia, library: Library, storage: LocalStorage, host: Host, tmp_path: Path, how: str
) -> None:
    content = samples.image()
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    expires_at = {"at its addition": PAST, "by a change": None, "by the clock": soon}[how]
    item = library.media.add(content, filename="windowsill.jpg", metadata={"a": 1}, expires_at=expires_at)
    if how == "by a change":
        library.media.update(item, expires_at=datetime.now(UTC))
    if how == "by the clock":
        wait_until(lambda: has_passed(host, soon))

    by_name: list[Callable[[], object]] = [
        lambda: library.media.get(item.id),
        lambda: library.media.open(item),
        lambda: library.media.read(item),
        lambda: library.media.save_to(item, tmp_path),
        lambda: library.media.url(item),
        lambda: library.media.copy(item),
        lambda: library.media.update(item, filename="a.jpg"),
        lambda: library.media.delete(item),
        lambda: library.index.embed(item.id),
    ]

    def nothing_is_found() -> None:
        for call in by_name:
            with pytest.raises(NotFoundError, match=str(item.id)):
                call()
        assert library.media.get_many([item.id]) == []
        assert not library.media.find(kind="image")
        assert not library.media.find(metadata={"a": 1})
        assert list(library.media.iterate()) == []
        assert library.media.count() == 0
        assert not library.media.exists(sha256=item.sha256)
        assert not library.search("windowsill")
        assert [type(result.error) for result in library.media.delete_many([item])] == [NotFoundError]
        assert library.media.add(content, on_duplicate="return").id != item.id
        with library.transaction() as tx:
            assert tx.media.count() == 1
        library.media.delete(library.media.find()[0])

    nothing_is_found()
    app.maintenance.remove_expired()
    nothing_is_found()
    assert check_bytes(app, library, storage, host) == []


def test_an_item_that_expires_later_is_an_item_like_any_other(app: Mindia, library: Library, host: Host) -> None:
    soon = library.media.add(
        samples.image(), filename="windowsill.jpg", expires_at=datetime.now(UTC) + timedelta(minutes=5)
    )

    assert app.maintenance.remove_expired().removed == 0
    app.run_until_idle()

    assert library.media.get(soon.id) == soon
    assert [found.media for found in library.search("windwosill")] == [soon]
    assert rows(host, library, "embeddings") == {"embeddings": 1}


# What is removed


def test_what_has_expired_is_deleted_with_all_that_hangs_on_it_and_told(
    app: Mindia, library: Library, other: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    items, kept, theirs = four_kinds(library), library.media.add(samples.image()), four_kinds(other)
    app.run_until_idle()
    register(host, library, ["*"])
    expire(host, *items, theirs[0])

    assert app.maintenance.remove_expired().removed == 5
    assert app.maintenance.remove_expired().removed == 0

    assert sorted(told(host, library)) == sorted((f"{item.kind}.deleted", str(item.id)) for item in items)
    assert rows(host, library, "images", "videos", "audios", "documents", "search_documents", "embeddings") == {
        "images": 1,
        "search_documents": 1,
        "embeddings": 1,
    }
    assert rows(host, library, "deleted_objects") == {"deleted_objects": 4}
    app.maintenance.remove_deleted()
    assert set(listed(storage, tenant.s3_bucket)) == {kept.s3_key}
    assert len(other.media.find()) == 3


def test_working_off_what_is_due_includes_what_has_expired(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    library.media.add(samples.image(), expires_at=PAST)

    app.run_until_idle()

    assert rows(host, library, "images", "search_documents", "deleted_objects") == {}
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_worker_removes_what_has_expired(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    library.media.add(samples.image(), expires_at=PAST)
    worker = app.worker(concurrency=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)
        try:
            wait_until(lambda: listed(storage, tenant.s3_bucket) == {})
        finally:
            worker.stop()
        running.result(30)


def test_any_number_is_removed_and_told_once_each_also_by_two_at_once(
    app: Mindia, library: Library, host: Host
) -> None:
    item = library.media.add(samples.image(), expires_at=PAST)
    ids = [item.id, *multiplied(host, item, 349)]
    register(host, library, ["image.deleted"])

    with ThreadPoolExecutor(2) as pool:
        removed = [future.result(60) for future in [pool.submit(app.maintenance.remove_expired) for _ in range(2)]]

    assert sum(report.removed for report in removed) == 350
    assert sorted(told(host, library)) == sorted(("image.deleted", str(media_id)) for media_id in ids)
    assert rows(host, library, "images", "search_documents") == {}


def test_items_of_a_suspended_tenant_stay_until_it_is_reactivated(
    app: Mindia, library: Library, other: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    item = library.media.add(samples.image(), expires_at=PAST)
    other.media.add(samples.image(), expires_at=PAST)
    register(host, library, ["*"])
    app.tenants.suspend(tenant.id)

    assert app.maintenance.remove_expired().removed == 1
    app.run_until_idle()

    assert rows(host, library, "images") == {"images": 1}
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}
    assert rows(host, other, "images") == {}
    assert told(host, library) == []

    app.tenants.reactivate(tenant.id)
    assert app.maintenance.remove_expired().removed == 1
    assert told(host, library) == [("image.deleted", str(item.id))]


def test_items_of_a_suspended_tenant_are_not_in_the_way_of_others_however_many_they_are(
    app: Mindia, library: Library, other: Library, tenant: Tenant, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_MAX_EXPIRED", 3)
    multiplied(host, library.media.add(samples.image(), expires_at=PAST), 9)
    app.tenants.suspend(tenant.id)
    other.media.add(samples.image(), expires_at=PAST)

    assert app.maintenance.remove_expired().removed == 1

    app.tenants.reactivate(tenant.id)
    assert [app.maintenance.remove_expired().removed for _ in range(5)] == [3, 3, 3, 1, 0]


def test_an_item_that_is_given_more_time_at_the_last_moment_stays(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    register(host, library, ["image.deleted"])
    with ThreadPoolExecutor(1) as pool:
        with library.transaction() as tx:
            # For the transaction it is the time of its beginning.
            soon = datetime.now(UTC) + timedelta(seconds=0.1)
            item = library.media.add(samples.image(), expires_at=soon)
            changed = tx.media.update(item, expires_at=datetime.now(UTC) + timedelta(days=1))
            wait_until(lambda: has_passed(host, soon))
            removing = pool.submit(app.maintenance.remove_expired)
            wait_for_a_lock(host)
        assert removing.result(30).removed == 0

    assert check_bytes(app, library, storage, host) == [changed]
    assert told(host, library) == []
