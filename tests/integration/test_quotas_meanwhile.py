"""Quotas while much happens at the same time, and after whatever has happened: never exceeded, never miscounted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Roles
from tests.integration.counted import IMAGES, Counted, actual, on_record, quick_app
from tests.integration.media_rows import Host, four_kinds, rolled_back, sweep_all
from tests.integration.processes import wait_until

from mindia import Library, LocalStorage, Media, Mindia, Quota
from mindia._ids import uuid7
from mindia.db import _translate
from mindia.errors import (
    MindiaError,
    QuotaExceededError,
    TenantInactiveError,
    TransactionConflictError,
    TransactionError,
)


def objects(library: Library) -> int:
    return len(list(library._context.storage.list(library._context.bucket())))


@pytest.fixture
def quick(application_url: str, roles: Roles, storage: LocalStorage) -> Iterator[Mindia]:
    with quick_app(application_url, roles, storage) as app:
        yield app


@pytest.fixture
def library(quick: Mindia) -> Library:
    """Of a tenant without a quota."""
    return quick.library(quick.tenants.create("Acme"))


@pytest.fixture
def set_quota(quick: Mindia, library: Library) -> Callable[..., None]:
    return lambda **limits: quick.tenants.set_quota(library.tenant_id, Quota(**limits))


def in_threads(number: int, work: Callable[[int], object]) -> list[BaseException | None]:
    """Run the work in threads that begin together, and return their errors."""
    together = threading.Barrier(number)

    def begin(which: int) -> object:
        together.wait(30)
        return work(which)

    with ThreadPoolExecutor(number) as threads:
        futures = [threads.submit(begin, which) for which in range(number)]
        return [future.exception() for future in futures]


def test_eight_threads_never_exceed_a_quota_and_reach_it_exactly(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=37)
    refused = Counter[int]()

    def work(which: int) -> None:
        for _ in range(8):
            try:
                library.media.add(IMAGES[which])
            except QuotaExceededError:
                refused[which] += 1

    assert in_threads(8, work) == [None] * 8
    assert library.media.count() == 37
    assert refused.total() == 8 * 8 - 37
    assert on_record(host, library) == actual(host, library)
    assert objects(library) == 37


def test_eight_threads_around_a_quota_of_bytes_never_exceed_it(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    limit = 5 * max(map(len, IMAGES))
    set_quota(max_total_bytes=limit)

    def work(which: int) -> None:
        for number in range(6):
            try:
                item = library.media.add(IMAGES[(which + number) % 8])
            except QuotaExceededError:
                continue
            counted = on_record_of(host_url, library)
            assert counted.total_bytes <= limit
            if number % 2:
                library.media.delete(item)

    host_url = host.info.dsn
    assert in_threads(8, work) == [None] * 8
    assert on_record(host, library) == actual(host, library)


def on_record_of(dsn: str, library: Library) -> Counted:
    with psycopg.connect(dsn) as connection:
        counted = on_record(connection, library)
    assert counted is not None
    return counted


def _waits(host: Host) -> bool:
    """Tell whether a statement of this database waits for a lock of somebody else."""
    with host.transaction():
        row = host.execute(
            "select count(*) > 0 from pg_stat_activity "
            "where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"
        ).fetchone()
    return bool(row and row[0])


@contextmanager
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def _add_and_delete(tx: Library, item: Media) -> None:
    tx.media.add(IMAGES[1])
    tx.media.delete(item)


Change = Callable[[Library, Media], object]
CHANGES: dict[str, Change] = {
    "add": lambda tx, _: tx.media.add(IMAGES[1]),
    "copy": lambda tx, item: tx.media.copy(item),
    "delete": lambda tx, item: tx.media.delete(item),
    "add and delete": _add_and_delete,
}


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
@pytest.mark.parametrize("had_one", [False, True], ids=["the first quota", "another quota"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_quota_that_is_set_while_something_changes_waits_for_it_and_counts_it(
    library: Library, host: Host, set_quota: Callable[..., None], change: Change, had_one: bool, commits: bool
) -> None:
    if had_one:
        set_quota(max_items=100)
    item = library.media.add(IMAGES[0])

    with beside() as threads:
        with library.transaction() if commits else rolled_back(library) as tx:
            change(tx, item)
            setting = threads.submit(set_quota, max_items=50)
            wait_until(lambda: _waits(host) or setting.done())
            assert not setting.done(), "it has not waited"
        setting.result(30)

    assert on_record(host, library) == actual(host, library)
    assert library.usage().quota == Quota(max_items=50)


def test_an_addition_waits_while_a_quota_is_being_set_and_is_held_to_it(
    quick: Mindia, library: Library, host: Host
) -> None:
    with beside() as threads:
        with quick.transaction() as tx:
            tx.tenants.set_quota(library.tenant_id, Quota(max_items=1))
            first, second = (threads.submit(library.media.add, image) for image in IMAGES[:2])
            wait_until(lambda: _waits(host) or (first.done() and second.done()))
        errors = [first.exception(30), second.exception(30)]

    assert sorted(map(type, errors), key=str) == sorted([type(None), QuotaExceededError], key=str)
    assert on_record(host, library) == actual(host, library)
    assert library.media.count() == 1


def test_a_deletion_that_has_begun_before_a_quota_was_set_is_taken_off_after(
    quick: Mindia, library: Library, host: Host
) -> None:
    """It holds the row of the item, and counts last."""
    item = library.media.add(IMAGES[0])
    with psycopg.connect(host.info.dsn) as blocker, beside() as threads:
        blocker.execute("select * from mindia.images where id = %s for update", (item.id,))
        deleting = threads.submit(library.media.delete, item)
        wait_until(lambda: _waits(host))
        quick.tenants.set_quota(library.tenant_id, Quota(max_items=5))
        assert on_record(host, library) == Counted(1, item.file_size)
        blocker.rollback()
        deleting.result(30)

    assert on_record(host, library) == actual(host, library) == Counted(0, 0)


@pytest.mark.parametrize("had_one", [False, True], ids=["the first quota", "another quota"])
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_transaction_that_has_seen_an_older_state_collides_rather_than_miscounting(
    quick: Mindia, library: Library, host: Host, level: str, had_one: bool
) -> None:
    item, staged = library.media.add(IMAGES[0]), library.media.stage(IMAGES[1])
    changes: list[Callable[[Library], object]] = [
        lambda tx: tx.media.add(staged),
        lambda tx: tx.media.copy(item),
        lambda tx: tx.media.delete(item),
    ]

    def change_what_was_seen(change: Callable[[Library], object], quota: Quota) -> None:
        with quick.transaction() as several:
            several.connection.execute(f"set transaction isolation level {level}".encode())
            tx = several.library(library.tenant_id)
            tx.media.count()
            quick.tenants.set_quota(library.tenant_id, quota)
            change(tx)

    for number, change in enumerate(changes):
        quick.tenants.set_quota(library.tenant_id, Quota(max_items=9) if had_one else Quota())
        with pytest.raises(TransactionConflictError):
            change_what_was_seen(change, Quota(max_items=10 + number))
        assert on_record(host, library) == actual(host, library)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_quota_is_not_set_where_not_all_can_be_counted(
    quick: Mindia, library: Library, host: Host, level: str
) -> None:
    with quick.transaction() as tx:
        tx.connection.execute(f"set transaction isolation level {level}".encode())
        tx.tenants.get(library.tenant_id)
        library.media.add(IMAGES[0])
        with pytest.raises(TransactionError, match=f"isolation level {level}"):
            tx.tenants.set_quota(library.tenant_id, Quota(max_items=1))

    assert on_record(host, library) is None


def test_additions_deletions_and_settings_of_quotas_at_once_neither_miscount_nor_hang(
    quick: Mindia, library: Library, host: Host
) -> None:
    four_kinds(library)

    def work(which: int) -> None:
        for number in range(6):
            if which == 0:
                quick.tenants.set_quota(library.tenant_id, Quota(max_items=1000 + number) if number % 3 else Quota())
                continue
            item = library.media.add(IMAGES[which], on_duplicate="link" if which % 2 else "store")
            copy = library.media.copy(item)
            library.media.delete_many([copy, item] if which % 3 else [item])

    assert in_threads(6, work) == [None] * 6
    quick.tenants.set_quota(library.tenant_id, Quota(max_items=1000))
    for image in IMAGES:
        library.media.add(image)
    assert on_record(host, library) == actual(host, library)


def test_many_who_delete_the_same_items_of_several_kinds_do_not_collide(
    library: Library, host: Host, set_quota: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlocks = []
    translate = _translate.translate

    def noticing(error: psycopg.Error) -> MindiaError:
        if isinstance(error, psycopg.errors.DeadlockDetected):
            deadlocks.append(error)
        return translate(error)

    monkeypatch.setattr(_translate, "translate", noticing)
    set_quota(max_items=1000)
    for _ in range(4):
        items = [*four_kinds(library), *four_kinds(library)]
        items += [library.media.copy(item) for item in items]
        orders = [items, items[::-1], items[::2] + items[1::2], items[1::2] + items[::2]]
        deleted = Counter[UUID]()

        def work(which: int, orders: list[list[Media]] = orders, deleted: Counter[UUID] = deleted) -> None:
            report = library.media.delete_many(orders[which])
            deleted.update(result.media_id for result in report.results if result.error is None)

        assert in_threads(4, work) == [None] * 4
        assert deleted == Counter(item.id for item in items), "each is deleted by one of them"
        assert on_record(host, library) == actual(host, library) == Counted(0, 0)
    assert deadlocks == []


# Whatever happens.

STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 7)),
    st.tuples(st.sampled_from(["link", "return", "copy", "delete", "expire", "add in vain"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["delete_many", "add_many"]), st.integers(0, 255)),
    st.tuples(st.just("set_quota"), st.one_of(st.none(), st.integers(0, 6))),
    st.tuples(st.sampled_from(["remove_expired", "suspend"]), st.just(0)),
)

Step = tuple[str, int | None]


def chosen(library: Library, number: int) -> list[Media]:
    """Return those of the first eight items whose bits are set."""
    items = library.media.find(order="uploaded_at", limit=8).items
    return [item for place, item in enumerate(items) if number >> place & 1]


def take(app: Mindia, library: Library, step: Step) -> None:
    """Take a step; what it refuses must change nothing."""
    what, number = step
    items = library.media.find(order="uploaded_at", limit=8).items
    item = items[(number or 0) % len(items)] if items else None
    match what, number:
        case (("add" | "link" | "return"), int()):
            library.media.add(IMAGES[number], on_duplicate="store" if what == "add" else what)
        case "add in vain", int():
            library.media.add(IMAGES[number][:100])
        case "add_many", int():
            library.media.add_many([image for place, image in enumerate(IMAGES) if number >> place & 1])
        case "copy", _ if item is not None:
            library.media.copy(item)
        case "delete", _ if item is not None:
            library.media.delete(item)
        case "delete_many", int():
            library.media.delete_many([*chosen(library, number), uuid7()])
        case "expire", _ if item is not None:
            library.media.update(item, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        case "remove_expired", _:
            app.maintenance.remove_expired()
        case "set_quota", _:
            app.tenants.set_quota(library.tenant_id, Quota() if number is None else Quota(max_items=number))
        case "suspend", _:
            app.tenants.suspend(library.tenant_id)
            with pytest.raises(TenantInactiveError):
                library.media.add(IMAGES[0])
            app.tenants.reactivate(library.tenant_id)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=st.lists(
        st.tuples(st.sampled_from(["alone", "in a transaction", "rolled back"]), st.lists(STEPS, max_size=6)),
        max_size=6,
    )
)
def test_after_any_history_the_count_is_that_of_what_is_there(
    quick: Mindia, host: Host, histories: list[tuple[str, list[Step]]]
) -> None:
    library = quick.library(quick.tenants.create("Acme"))
    quick.tenants.set_quota(library.tenant_id, Quota(max_items=5))

    def take_all(bound: Library, steps: list[Step], *, tenants: bool) -> None:
        for step in steps:
            if tenants or step[0] not in ("set_quota", "suspend", "remove_expired"):
                with suppress(MindiaError):
                    take(quick, bound, step)

    for how, steps in histories:
        if how == "alone":
            take_all(library, steps, tenants=True)
        else:
            with library.transaction() if how == "in a transaction" else rolled_back(library) as tx:
                take_all(tx, steps, tenants=False)
        counted = on_record(host, library)
        assert counted is None or counted == actual(host, library)
    sweep_all(quick)
