"""Quotas: what a tenant has is counted exactly, whatever happens at the same time, and never exceeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conftest import Roles
from tests.integration.counted import IMAGES, Counted, actual, on_record, quick_app
from tests.integration.media_rows import Host, four_kinds, rolled_back

from mindia import AddResult, Library, LocalStorage, MediaKind, Mindia, Quota
from mindia._ids import uuid7
from mindia.domain.tenants import TypeUsage
from mindia.errors import (
    ConflictError,
    InvalidError,
    MindiaError,
    NotFoundError,
    QuotaExceededError,
)
from mindia.testing import samples


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


# What is refused, and what a tenant is told.


def test_a_tenant_has_no_quota_until_it_is_given_one(library: Library, host: Host) -> None:
    for image in IMAGES:
        library.media.add(image)

    assert on_record(host, library) is None
    assert library.usage().quota == Quota()


def test_items_are_refused_from_the_quota_on_and_leave_neither_rows_nor_bytes(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=2)
    kept = [library.media.add(image) for image in IMAGES[:2]]

    with pytest.raises(QuotaExceededError) as caught:
        library.media.add(IMAGES[2])

    assert str(caught.value) == (
        f"tenant {library.tenant_id} has 2 items, its quota is 2; app.tenants.set_quota() raises it"
    )
    assert isinstance(caught.value, ConflictError)
    assert (caught.value.code, caught.value.http_status, caught.value.retryable) == ("quota_exceeded", 409, False)
    assert set(library.media.find()) == set(kept)
    assert on_record(host, library) == actual(host, library) == Counted(2, sum(map(len, IMAGES[:2])))
    assert objects(library) == 2


def test_bytes_are_refused_that_would_exceed_the_quota_and_smaller_ones_are_not(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    small, large = sorted([samples.image(width=10, height=10), samples.wav(seconds=1)], key=len)
    set_quota(max_total_bytes=len(small) + len(large) - 1)
    library.media.add(small)

    with pytest.raises(QuotaExceededError, match=f"has {len(small)} bytes, .* no room for {len(large)} more"):
        library.media.add(large)

    set_quota(max_total_bytes=len(small) + len(large))
    library.media.add(large)
    with pytest.raises(QuotaExceededError, match="no room for"):
        library.media.add(small)
    assert on_record(host, library) == actual(host, library) == Counted(2, len(small) + len(large))


def test_a_quota_of_nothing_refuses_everything(library: Library, set_quota: Callable[..., None]) -> None:
    for quota in ({"max_items": 0}, {"max_total_bytes": 0}, {"max_items": 0, "max_total_bytes": 0}):
        set_quota(**quota)
        with pytest.raises(QuotaExceededError):
            library.media.add(IMAGES[0])
    assert objects(library) == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", True, 2**63], ids=repr)
@pytest.mark.parametrize("limit", ["max_items", "max_total_bytes"])
def test_a_limit_is_a_whole_number_that_is_not_negative(limit: str, wrong: Any) -> None:
    with pytest.raises(InvalidError, match=limit):
        Quota(**{limit: wrong})


def test_a_quota_is_a_quota_and_of_a_tenant_that_is_there(quick: Mindia, library: Library) -> None:
    nobody = uuid7()
    with pytest.raises(InvalidError, match="quota must be a Quota, not int"):
        quick.tenants.set_quota(library.tenant_id, 5)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(NotFoundError, match=str(nobody)):
        quick.tenants.set_quota(nobody, Quota(max_items=1))


def test_the_quota_of_one_tenant_is_no_other_ones(quick: Mindia, library: Library, host: Host) -> None:
    other = quick.library(quick.tenants.create("Globex"))
    quick.tenants.set_quota(library.tenant_id, Quota(max_items=0))

    other.media.add(IMAGES[0])

    assert on_record(host, other) is None
    with pytest.raises(QuotaExceededError):
        library.media.add(IMAGES[0])


def test_every_kind_counts_and_so_does_each_item_that_shares_bytes(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=7)
    items = four_kinds(library)
    copy = library.media.copy(items[0])
    linked = library.media.add(samples.image(), on_duplicate="link")

    assert library.media.add(samples.image(), on_duplicate="return") in [items[0], copy, linked]
    sizes = sum(item.file_size for item in [*items, copy, linked])
    assert on_record(host, library) == actual(host, library) == Counted(6, sizes)
    library.media.copy(items[1])
    additions: list[Callable[[], object]] = [
        lambda: library.media.copy(items[1]),
        lambda: library.media.add(samples.image(), on_duplicate="link"),
        lambda: library.media.add(IMAGES[3], on_duplicate="link"),
        lambda: library.media.add(IMAGES[3], on_duplicate="return"),
        lambda: library.media.add(library.media.stage(IMAGES[4])),
    ]
    for refused in additions:
        with pytest.raises(QuotaExceededError):
            refused()
    library.media.delete_many(library.media.find())
    assert on_record(host, library) == actual(host, library) == Counted(0, 0)


def test_a_quota_below_what_there_is_refuses_additions_allows_deletions_and_deletes_nothing(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    items = [library.media.add(image) for image in IMAGES[:4]]
    set_quota(max_items=2, max_total_bytes=1)

    assert library.media.count() == 4
    assert on_record(host, library) == actual(host, library)
    library.media.update(items[0], description="a view")
    for _ in range(2):
        with pytest.raises(QuotaExceededError, match="has 4 items, its quota is 2"):
            library.media.add(IMAGES[5])
    library.media.delete(items[0])
    library.media.delete_many(items[1:3])
    with pytest.raises(QuotaExceededError, match="no room for"):
        library.media.add(IMAGES[5])
    set_quota(max_items=2)
    library.media.add(IMAGES[5])
    assert on_record(host, library) == actual(host, library) == Counted(2, len(IMAGES[3]) + len(IMAGES[5]))


def test_a_quota_that_is_taken_away_counts_nothing_and_one_that_is_given_again_counts_anew(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=1)
    library.media.add(IMAGES[0])
    set_quota()
    library.media.add(IMAGES[1])
    assert on_record(host, library) is None

    set_quota(max_items=2)
    assert on_record(host, library) == actual(host, library)
    with pytest.raises(QuotaExceededError):
        library.media.add(IMAGES[2])


def test_what_has_expired_counts_until_it_is_removed(quick: Mindia, library: Library, host: Host) -> None:
    quick.tenants.set_quota(library.tenant_id, Quota(max_items=1))
    library.media.add(IMAGES[0], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert library.media.count() == 0
    with pytest.raises(QuotaExceededError):
        library.media.add(IMAGES[1])

    quick.maintenance.remove_expired()

    assert on_record(host, library) == Counted(0, 0)
    library.media.add(IMAGES[1])


def test_usage_tells_what_there_is_by_type_and_the_quota(library: Library, set_quota: Callable[..., None]) -> None:
    set_quota(max_items=100)
    items = four_kinds(library)
    copy = library.media.copy(items[0])

    usage = library.usage()

    assert usage.quota == Quota(max_items=100)
    assert usage.item_count == 5
    assert usage.total_bytes == sum(item.file_size for item in [*items, copy])
    assert usage.of_kind(MediaKind.IMAGE) == (
        TypeUsage(kind=MediaKind.IMAGE, content_type="image/jpeg", item_count=2, total_bytes=2 * items[0].file_size),
    )
    assert [each.content_type for each in usage.by_type] == ["image/jpeg", "video/mp4", "audio/wav", "application/pdf"]


def test_an_addition_that_is_refused_for_another_reason_counts_nothing(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=10)
    staged = library.media.stage(IMAGES[0])
    library.media.add(staged)

    calls: list[Callable[[], object]] = [
        lambda: library.media.add(b"no picture"),
        lambda: library.media.add(staged),
        lambda: library.media.add(IMAGES[0], on_duplicate="error"),
        lambda: library.media.copy(uuid7()),
        lambda: library.media.delete(uuid7()),
    ]
    for refused in calls:
        with pytest.raises(MindiaError):
            refused()

    assert on_record(host, library) == actual(host, library) == Counted(1, len(IMAGES[0]))


def test_in_a_transaction_an_addition_that_is_refused_leaves_the_others(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=2)

    with library.transaction() as tx:
        for image in IMAGES[:4]:
            if tx.media.count() < 2:
                tx.media.add(image)
            else:
                with pytest.raises(QuotaExceededError):
                    tx.media.add(image)
        tx.media.delete(tx.media.find().items[0])
        tx.media.add(IMAGES[5])

    assert on_record(host, library) == actual(host, library)
    assert library.media.count() == 2


def test_a_transaction_that_is_rolled_back_has_counted_nothing(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=3)
    kept = library.media.add(IMAGES[0])

    with rolled_back(library) as tx:
        tx.media.add(IMAGES[1])
        tx.media.copy(kept)
        tx.media.delete(kept)

    assert on_record(host, library) == actual(host, library) == Counted(1, kept.file_size)


# Many at once.


def _failed(results: Sequence[AddResult]) -> list[int]:
    return [result.position for result in results if isinstance(result.error, QuotaExceededError)]


def test_of_many_those_before_the_quota_are_there_and_each_of_the_others_has_its_error(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    sources = [samples.image(width=10 + number, height=10) for number in range(80)]
    set_quota(max_items=50)

    report = library.media.add_many(sources, concurrency=8)

    assert len(report.results) == 80
    assert len(report.added) == 50
    assert len(_failed(report.results)) == len(report.failed) == 30
    assert (
        on_record(host, library) == actual(host, library) == Counted(50, sum(item.file_size for item in report.added))
    )
    assert objects(library) == 50, "the bytes of those that were refused are gone"


@pytest.mark.parametrize("on_duplicate", ["store", "link", "return"])
def test_staged_ones_that_are_refused_are_kept_for_another_try(
    library: Library, host: Host, set_quota: Callable[..., None], on_duplicate: str
) -> None:
    staged = [library.media.stage(image) for image in IMAGES]
    set_quota(max_items=3)

    report = library.media.add_many(staged, concurrency=1, on_duplicate=on_duplicate)

    assert len(report.added) == 3
    if on_duplicate == "store":
        assert _failed(report.results) == [3, 4, 5, 6, 7]
    assert len(_failed(report.results)) == 5
    set_quota(max_items=8)
    again = library.media.add_many([staged[position] for position in _failed(report.results)])
    assert len(again.added) == 5
    assert on_record(host, library) == actual(host, library) == Counted(8, sum(map(len, IMAGES)))


def test_of_many_in_a_transaction_those_before_the_quota_are_there(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    set_quota(max_items=3)

    with library.transaction() as tx:
        report = tx.media.add_many(IMAGES, concurrency=2)
        assert len(report.added) == tx.media.count() == 3

    assert on_record(host, library) == actual(host, library)
    assert objects(library) == 3


def test_one_too_large_among_many_is_in_nobodys_way(
    library: Library, host: Host, set_quota: Callable[..., None]
) -> None:
    large = samples.wav(seconds=2)
    set_quota(max_total_bytes=sum(map(len, IMAGES)))

    report = library.media.add_many([*IMAGES[:4], large, *IMAGES[4:]], concurrency=2)

    assert _failed(report.results) == [4]
    assert on_record(host, library) == actual(host, library) == Counted(8, sum(map(len, IMAGES)))
