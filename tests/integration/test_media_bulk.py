"""Many at once: each has its own result, in its place, and whatever goes wrong leaves nothing that is half an item."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.media_rows import Host, register, rolled_back, rows, sweep_all
from tests.integration.shared_bytes import (
    QUICK,
    check_bytes,
    check_counts,
    check_every_item_reads,
    counted,
    told,
    write_wav,
)

import mindia
from mindia import (
    AddReport,
    Audio,
    Document,
    Image,
    Library,
    LocalStorage,
    Media,
    MediaInput,
    MemoryStorage,
    Mindia,
    Progress,
    Tenant,
)
from mindia.errors import (
    CorruptMediaError,
    DatabaseUnavailableError,
    DuplicateError,
    EmptyFileError,
    InvalidError,
    NotFoundError,
    StagedObjectExpiredError,
    TenantInactiveError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.testing import samples
from mindia.testing.storage import listed

AHEAD = 2 * 32
"""So many sources may wait for their rows, at most: those of one transaction, and those of the next one."""


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def pictures(number: int) -> list[bytes]:
    """Return pictures that are all different."""
    return [samples.image("GIF", width=8 + each, height=8) for each in range(number)]


def objects(storage: LocalStorage, tenant: Tenant) -> set[str]:
    return set(listed(storage, tenant.s3_bucket))


def check_only_items(library: Library, tenant: Tenant, storage: LocalStorage) -> list[Media]:
    """Assert that there are bytes of items alone, without any sweep; return the items."""
    items = check_every_item_reads(library)
    assert objects(storage, tenant) == {item.s3_key for item in items}
    return items


def errors(report: Iterable[mindia.AddResult]) -> list[type[Exception] | None]:
    return [None if result.error is None else type(result.error) for result in report]


# Results


def test_each_source_has_its_result_in_its_place(
    app: Mindia, library: Library, other: Library, tenant: Tenant, storage: LocalStorage, host: Host, tmp_path: Path
) -> None:
    def broken() -> Iterator[bytes]:
        yield samples.image()[:100]
        raise KeyError("of the host")

    path = tmp_path / "bell.wav"
    path.write_bytes(samples.wav(seconds=0.1))
    added_before = library.media.stage(samples.image(color="red"))
    library.media.add(added_before)
    register(host, library, ["*"])
    later = datetime.now(UTC) + timedelta(days=1)
    expected: list[tuple[Any, type[Exception] | None, type[Image | Audio | Document] | None]] = [
        (samples.image(), None, Image),
        (path, None, Audio),
        (b"not media", UnsupportedTypeError, None),
        (str(path), None, Audio),
        (io.BytesIO(samples.pdf()), None, Document),
        (broken(), KeyError, None),
        (iter([samples.image()[:50], samples.image()[50:]]), None, Image),
        (tmp_path / "none.jpg", InvalidError, None),
        (b"", EmptyFileError, None),
        (samples.image()[:200], CorruptMediaError, None),
        (library.media.stage(samples.image(color="plum"), filename="staged.jpg"), None, Image),
        (added_before, StagedObjectExpiredError, None),
        (other.media.stage(samples.image()), NotFoundError, None),
        (7, InvalidError, None),
        (MediaInput(samples.image(), filename="a.png"), TypeMismatchError, None),
        (MediaInput(samples.image(), content_type="image/png"), TypeMismatchError, None),
        (MediaInput(samples.image(), metadata={"a" * 65: 1}), InvalidError, None),
        (MediaInput(samples.image(), description="a" * 65_537), InvalidError, None),
        (MediaInput(samples.image(), expires_at=datetime(2999, 1, 1)), InvalidError, None),  # noqa: DTZ001 - as hosts do
        (
            MediaInput(
                bytearray(samples.image()),
                filename="../cat.jpg",
                content_type="image/jpeg",
                description="on a windowsill",
                metadata={"place": "Lisbon"},
                expires_at=later,
            ),
            None,
            Image,
        ),
        (MediaInput(library.media.stage(samples.wav(seconds=0.1)), metadata={"a": 1}), None, Audio),
    ]

    report = library.media.add_many(source for source, _, _ in expected)

    assert isinstance(report, AddReport)
    assert not report.cancelled
    assert [result.position for result in report] == list(range(len(expected)))
    assert errors(report) == [error for _, error, _ in expected]
    assert [None if result.media is None else type(result.media) for result in report] == [
        kind for *_, kind in expected
    ]
    assert [item.filename for item in report.added] == [
        "unnamed", "bell.wav", "bell.wav", "unnamed", "unnamed", "staged.jpg", "cat.jpg", "unnamed",
    ]  # fmt: skip
    assert report.added == tuple(library.media.get_many(item.id for item in report.added))
    assert report.failed == tuple(result for result in report if result.error is not None)
    full = report[-2].media
    assert full is not None
    assert (full.description, full.metadata, full.expires_at) == ("on a windowsill", {"place": "Lisbon"}, later)
    assert full.original_filename == "../cat.jpg"
    assert library.media.get(report.added[-1].id).metadata == {"a": 1}
    assert [found.media for found in library.search("windowsill")] == [full]
    assert sorted(told(host, library)) == sorted((f"{item.kind}.uploaded", str(item.id)) for item in report.added)
    assert rows(host, library, "tasks", "search_documents") == {"tasks": 9, "search_documents": 9}
    check_only_items(library, tenant, storage)
    app.run_until_idle()
    assert rows(host, library, "embeddings") == {"embeddings": 9}


def test_a_file_that_is_larger_than_it_was_is_in_nobodys_way(
    library: Library, tenant: Tenant, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindia.services.bulk.is_small", lambda *_, **__: True)
    grown = tmp_path / "grown.wav"
    write_wav(grown, 200_000)
    sources: list[Any] = [samples.image(), grown, samples.pdf(), b"not media", iter([samples.image(color="plum")])]

    report = library.media.add_many(sources, concurrency=1)

    assert errors(report) == [None, None, None, UnsupportedTypeError, None]
    assert [type(item) for item in report.added] == [Image, Audio, Document, Image]
    assert len(check_only_items(library, tenant, storage)) == 4


def test_a_report_is_a_sequence(library: Library) -> None:
    report = library.media.add_many([samples.image(), b"not media"])

    assert len(report) == 2
    assert [report[0], report[-1]] == list(report) == list(report[:])
    assert report[1:] == report.failed
    with pytest.raises(IndexError):
        report[2]


def test_nothing_may_be_added(library: Library) -> None:
    report = library.media.add_many([], progress=lambda _: pytest.fail("of what?"))

    assert (list(report), report.cancelled, report.added, report.failed) == ([], False, (), ())


@pytest.mark.parametrize(
    "sources",
    [samples.image(), bytearray(), memoryview(b""), "cat.jpg", Path("cat.jpg"), None, 7, io.BytesIO(samples.image())],
    ids=lambda sources: type(sources).__name__,
)
def test_one_source_is_not_taken_for_many(library: Library, sources: Any) -> None:
    with pytest.raises(InvalidError, match="iterable of sources"):
        library.media.add_many(sources)
    with pytest.raises(InvalidError, match="iterable of sources"):
        library.media.add_many(MediaInput(samples.image()))  # type: ignore[arg-type]  # as hosts do


@pytest.mark.parametrize("concurrency", [0, -1, 65])
def test_how_many_are_worked_on_at_once_has_bounds(library: Library, concurrency: int) -> None:
    with pytest.raises(InvalidError, match="1 to 64"):
        library.media.add_many([], concurrency=concurrency)


def test_a_tenant_that_is_not_served_is_refused_before_anything_is_taken(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    sources = iter([samples.image()])
    app.tenants.suspend(tenant.id)

    with pytest.raises(TenantInactiveError):
        library.media.add_many(sources)

    assert next(sources) == samples.image()


def test_a_tenant_that_is_suspended_meanwhile_has_an_error_for_each_that_is_left(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    def sources() -> Iterator[bytes]:
        for number, picture in enumerate(pictures(120)):
            if number == 100:
                app.tenants.suspend(tenant.id)
            yield picture

    report = library.media.add_many(sources(), concurrency=2)

    app.tenants.reactivate(tenant.id)
    assert 0 < len(report.added) <= 100
    assert set(errors(report)) == {None, TenantInactiveError}
    items = check_only_items(library, tenant, storage)
    assert {item.id for item in items} == {item.id for item in report.added}


# How it goes on


@pytest.mark.parametrize("concurrency", [1, 8])
def test_sources_are_taken_as_they_are_needed(library: Library, concurrency: int) -> None:
    written, most = [0], [0]

    def sources() -> Iterator[bytes]:
        for number, picture in enumerate(pictures(200), start=1):
            most[0] = max(most[0], number - written[0])
            yield picture

    def note(progress: Progress) -> None:
        written[0] = progress.done

    report = library.media.add_many(sources(), concurrency=concurrency, progress=note)

    assert len(report.added) == 200
    assert concurrency < most[0] <= AHEAD + concurrency


@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_are_read_at_once_as_is_said_and_no_more(library: Library, concurrency: int) -> None:
    together = threading.Barrier(concurrency)
    lock = threading.Lock()
    at_once, most = [0], [0]

    def source(picture: bytes, *, wait: bool) -> Iterator[bytes]:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        if wait:
            together.wait(30)
        yield picture
        with lock:
            at_once[0] -= 1

    report = library.media.add_many(
        (source(picture, wait=number < concurrency) for number, picture in enumerate(pictures(20))),
        concurrency=concurrency,
    )

    assert len(report.added) == 20
    assert most[0] == concurrency


@pytest.mark.parametrize(
    ("total", "make"), [(50, list), (50, tuple), (None, iter), (None, lambda sources: (each for each in sources))]
)
def test_progress_is_told_once_for_each_in_the_thread_of_the_caller(
    library: Library, total: int | None, make: Callable[[list[bytes]], Iterable[bytes]]
) -> None:
    sources = pictures(50)
    sources[10] = sources[40] = b"not media"
    threads, found = set(), []
    told: list[Progress] = []

    def note(progress: Progress) -> None:
        told.append(progress)
        threads.add(threading.get_ident())
        found.append(library.media.count() - (progress.done - progress.failed))

    report = library.media.add_many(make(sources), progress=note)

    assert len(report.failed) == 2
    assert threads == {threading.get_ident()}
    assert [progress.done for progress in told] == list(range(1, 51))
    assert {progress.total for progress in told} == {total}
    assert [progress.failed for progress in told] == sorted(progress.failed for progress in told)
    assert told[-1] == Progress(done=50, failed=2, total=total)
    assert min(found) >= 0, "what is said to be done is not there yet"


class OfTheHost(Exception):  # noqa: N818 - what it is
    """An error that Mindia knows nothing of."""


@pytest.mark.parametrize("error", [OfTheHost(), KeyboardInterrupt(), InvalidError("of the host")], ids=repr)
@pytest.mark.parametrize("policy", ["store", "link"])
def test_a_progress_that_raises_ends_the_work_and_leaves_items_alone(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, error: BaseException, policy: str
) -> None:
    begun = count()

    def sources() -> Iterator[bytes]:
        for picture in [*pictures(30), *pictures(30), *pictures(240)]:
            next(begun)
            yield picture

    def note(progress: Progress) -> None:
        if progress.done == 40:
            raise error

    with pytest.raises(type(error)) as raised:
        library.media.add_many(sources(), progress=note, concurrency=4, on_duplicate=policy)

    assert raised.value is error
    assert next(begun) <= 40 + AHEAD + 4
    items = check_every_item_reads(library)
    assert len(items) >= 40
    assert objects(storage, tenant) == {item.s3_key for item in items}
    check_counts(host, library)
    assert threading.active_count() < 20


def test_what_the_iterable_raises_passes_through_and_leaves_items_alone(
    library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    for good in (0, 1, 50):

        def sources(good: int = good) -> Iterator[bytes]:
            yield from pictures(good)
            raise OfTheHost(good)

        with pytest.raises(OfTheHost, match=str(good)):
            library.media.add_many(sources())

        check_only_items(library, tenant, storage)


def test_what_ends_the_work_does_not_wait_for_all_that_were_parsed_together(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, ended = threading.Event(), threading.Event()
    stored = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args: Any, **more: Any) -> None:
            ended.set()
            super().shutdown(*args, **more)

    class Standing(MemoryStorage):
        def put(self, *args: Any, **more: Any) -> None:
            storing.set()
            assert ended.wait(60)
            stored.append(args)
            super().put(*args, **more)

    def sources() -> Iterator[bytes]:
        yield from pictures(16)
        assert storing.wait(60)
        raise KeyError("of the host")

    monkeypatch.setattr("mindia.services.bulk.ThreadPoolExecutor", Pool)
    storage = Standing()
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        tenant = app.tenants.create("Acme")
        with pytest.raises(KeyError, match="of the host"):
            app.library(tenant).media.add_many(sources(), concurrency=1)

    assert len(stored) == 1
    assert list(storage.list(tenant.s3_bucket)) == []


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_a_source_raises_is_its_own_error_whatever_it_is(library: Library, raised: BaseException) -> None:
    def broken() -> Iterator[bytes]:
        yield samples.image()[:50]
        raise raised

    report = library.media.add_many([samples.image(), broken(), samples.image()])

    assert errors(report) == [None, InvalidError, None]
    assert type(raised).__name__ in str(report[1].error)


# Cancelling


def test_once_cancelled_no_further_source_is_begun_and_what_was_begun_is_whole(
    library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    cancel = threading.Event()
    taken: list[bytes] = []

    def sources() -> Iterator[bytes]:
        for picture in pictures(150):
            assert not cancel.is_set()
            taken.append(picture)
            yield picture

    def note(progress: Progress) -> None:
        if progress.done == 20:
            cancel.set()

    report = library.media.add_many(sources(), cancel=cancel, progress=note)

    assert report.cancelled
    assert 20 <= len(report) == len(taken) < 150
    assert not report.failed
    assert [library.media.read(item) for item in report.added] == taken
    assert {item.id for item in check_only_items(library, tenant, storage)} == {item.id for item in report.added}


def test_what_is_cancelled_before_it_begins_takes_nothing(library: Library) -> None:
    cancel = threading.Event()
    cancel.set()
    sources = iter(pictures(3))

    report = library.media.add_many(sources, cancel=cancel)

    assert (len(report), report.cancelled) == (0, True)
    assert len(list(sources)) == 3


def test_what_is_cancelled_after_its_last_source_was_done_is_not_cancelled(library: Library) -> None:
    cancel = threading.Event()

    def note(progress: Progress) -> None:
        if progress.done == 5:
            cancel.set()

    report = library.media.add_many(pictures(5), cancel=cancel, progress=note)

    assert (len(report.added), report.cancelled) == (5, False)


# Rows that are refused


@pytest.mark.parametrize("policy", ["store", "return", "link", "error"])
@pytest.mark.parametrize("in_transaction", [False, True], ids=["", "in a transaction"])
def test_one_row_that_is_refused_is_in_nobodys_way(
    app: Mindia,
    library: Library,
    other: Library,
    tenant: Tenant,
    storage: LocalStorage,
    host: Host,
    policy: str,
    in_transaction: bool,
) -> None:
    swept = library.media.stage(samples.wav(seconds=0.1))
    sweep_all(app)
    theirs = other.media.stage(samples.image())
    good = pictures(20)
    # Staged with another handle, since the sweep has taken the keys that this application has leased ahead.
    with mindia.connect(app._database._source, storage=storage, settings=QUICK) as fresh:
        there = fresh.library(tenant)
        sources: list[Any] = [*good[:7], swept, *good[7:12], theirs, *good[12:]]
        if in_transaction:
            with there.transaction() as tx:
                report = tx.media.add_many(sources, on_duplicate=policy, concurrency=1)
                assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is usable"
        else:
            report = there.media.add_many(sources, on_duplicate=policy, concurrency=1)

    assert [(result.position, type(result.error)) for result in report.failed] == [
        (7, StagedObjectExpiredError),
        (13, NotFoundError),
    ]
    assert [library.media.read(item) for item in report.added] == good
    items = check_only_items(library, tenant, storage)
    assert {item.id for item in items} == {item.id for item in report.added}
    check_counts(host, library)
    assert other.media.add(theirs).id == theirs.id


def test_what_was_staged_by_the_host_is_left_to_it_where_it_was_not_added(library: Library) -> None:
    library.media.add(samples.image())
    staged = library.media.stage(samples.image(), filename="cat.jpg")

    (refused,) = library.media.add_many([staged], on_duplicate="error")
    (broken,) = library.media.add_many([MediaInput(staged, metadata={"": 1})])

    assert isinstance(refused.error, DuplicateError)
    assert isinstance(broken.error, InvalidError)
    assert library.media.read(library.media.add(staged)) == samples.image()


def test_of_the_same_staged_bytes_one_item_is_made_of_the_first(library: Library) -> None:
    first, second = library.media.stage(samples.image(), filename="a.jpg"), library.media.stage(samples.wav())
    sources = [MediaInput(first, description="one"), MediaInput(second), MediaInput(first), MediaInput(second)]

    report = library.media.add_many(sources)

    assert errors(report) == [None, None, StagedObjectExpiredError, StagedObjectExpiredError]
    assert [item.description for item in library.media.iterate(kind="image")] == ["one"]
    assert {item.id for item in library.media.iterate()} == {first.id, second.id}


def test_documents_of_much_text_are_written_a_few_at_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindia.repositories.media_add._CHARS_AT_ONCE", 25)
    texts = ["apple", "banana and cherry", "a date and an elderberry and a fig", "grape", "", "kiwi"]
    sources = [library.media.stage(samples.pdf([text])) for text in texts]

    report = library.media.add_many([*sources, library.media.stage(samples.image())])

    assert errors(report) == [None] * 7
    assert [type(item) for item in report.added] == [Document] * 6 + [Image]
    for word, result in [("cherry", report[1]), ("fig", report[2]), ("grape", report[3]), ("kiwi", report[5])]:
        assert [found.media for found in library.search(word)] == [result.media]


# The same bytes again


@pytest.mark.parametrize("in_transaction", [False, True], ids=["", "in a transaction"])
def test_the_same_bytes_in_one_go_are_treated_as_if_one_came_after_the_other(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, in_transaction: bool
) -> None:
    def add(sources: list[bytes], policy: str) -> AddReport:
        if not in_transaction:
            return library.media.add_many(sources, on_duplicate=policy, concurrency=3)
        with library.transaction() as tx:
            return tx.media.add_many(sources, on_duplicate=policy, concurrency=3)

    one, two, three = pictures(3)
    known = library.media.add(one, filename="known.gif")

    returned = add([two, one, two, one, two], "return")
    assert not returned.failed
    assert [item.id == known.id for item in returned.added] == [False, True, False, True, False]
    assert len({item.id for item in returned.added}) == 2
    assert counted(host, library) == {}

    refused = add([one, three, three, two], "error")
    assert sorted(errors(refused), key=str) == sorted([DuplicateError, None, DuplicateError, DuplicateError], key=str)
    assert refused[0].error is not None
    assert str(known.id) in str(refused[0].error)

    linked = add([three, one, one, three], "link")
    assert not linked.failed
    assert len({item.id for item in linked.added}) == 4
    assert [item.s3_key == known.s3_key for item in linked.added] == [False, True, True, False]
    assert counted(host, library)[known.s3_key] == 3

    stored = add([one, one], "store")
    assert len({item.s3_key for item in stored.added} | {known.s3_key}) == 3
    check_only_items(library, tenant, storage)
    assert len(check_bytes(app, library, storage, host)) == 3 + 4 + 2


def test_several_may_add_the_same_many_at_once(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    sources = pictures(40)
    together = threading.Barrier(4)

    def work(policy: str) -> AddReport:
        together.wait(30)
        order = sources if policy == "link" else sources[::-1]
        return library.media.add_many(order, on_duplicate=policy, concurrency=2)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(work, ["link", "return", "link", "error"]))

    assert [report.failed for report in reports[:3]] == [()] * 3
    assert {type(result.error) for result in reports[3].failed} <= {DuplicateError}
    items = check_bytes(app, library, storage, host)
    assert len({item.s3_key for item in items}) == 40, "each of the bytes is stored once"
    assert 80 <= len(items) <= 120


# Transactions


@pytest.mark.parametrize("joined", [False, True], ids=["own connection", "connection of the host"])
def test_many_are_added_with_the_transaction_or_not_at_all(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, database_url: str, joined: bool
) -> None:
    register(host, library, ["*"])
    sources = [*pictures(70), b"not media"]
    seen: list[int] = []

    if joined:
        with psycopg.connect(database_url) as connection:
            with library.transaction(connection=connection) as tx:
                assert len(tx.media.add_many(sources).added) == 70
            connection.rollback()
    else:
        with rolled_back(library) as tx:
            assert len(tx.media.add_many(sources, progress=lambda _: seen.append(tx.media.count())).added) == 70
            assert tx.media.count() == seen[-1] == 70
    assert rows(host, library) == {}
    app.maintenance.sweep_staged(older_than=timedelta())
    assert objects(storage, tenant) == set()

    with mindia.connect(database_url, storage=storage, settings=QUICK) as fresh:
        there = fresh.library(tenant)
        if joined:
            with psycopg.connect(database_url) as connection, there.transaction(connection=connection) as tx:
                report = tx.media.add_many(sources)
                assert rows(host, library) == {}
        else:
            with there.transaction() as tx:
                report = tx.media.add_many(sources)
                assert rows(host, library) == {}
    assert len(report.added) == 70
    assert {item.id for item in check_bytes(app, library, storage, host)} == {item.id for item in report.added}
    assert len(told(host, library)) == 70


def test_a_progress_that_raises_in_a_transaction_takes_all_of_it_back(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    def note(progress: Progress) -> None:
        if progress.done == 40:
            raise OfTheHost

    with pytest.raises(OfTheHost), library.transaction() as tx:
        tx.media.add_many(pictures(60), progress=note)

    assert rows(host, library) == {}
    sweep_all(app)
    assert objects(storage, tenant) == set()


# Outages


def test_a_database_that_goes_away_is_an_error_for_each_that_is_left_and_leaves_items_alone(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, database_url: str
) -> None:
    patience = attrs.evolve(QUICK, pool_timeout_s=0.2)
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=patience) as behind:

        def sources() -> Iterator[bytes]:
            for number, picture in enumerate(pictures(120)):
                if number == 100:
                    proxy.refuse()
                yield picture

        report = behind.library(tenant).media.add_many(sources(), concurrency=8)

    assert len(report) == 120
    assert all(isinstance(result.error, DatabaseUnavailableError) for result in report.failed)
    assert all((result.media is None) != (result.error is None) for result in report)
    items = check_bytes(app, library, storage, host)
    assert {item.id for item in items} >= {item.id for item in report.added}
    assert 0 < len(report.added) < 120


@pytest.mark.parametrize("policy", ["store", "link"])
def test_a_batch_whose_commit_was_not_acknowledged_is_written_once(
    database_url: str, app: Mindia, storage: LocalStorage, host: Host, policy: str
) -> None:
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=QUICK) as behind:
        for commit in count():
            tenant = app.tenants.create("Acme")
            library = app.library(tenant)
            register(host, library, ["*"])
            sources = [*pictures(6), pictures(1)[0]]
            proxy.cut_at(Words.COMMIT, Moment.ANSWERED, skip=commit)

            report = behind.library(tenant).media.add_many(sources, on_duplicate=policy, concurrency=1)

            assert not report.failed
            assert {item.id for item in report.added} == {item.id for item in check_every_item_reads(library)}
            assert len({item.id for item in report.added}) == len(told(host, library)) == 7
            assert report.added == tuple(library.media.get_many(item.id for item in report.added))
            check_counts(host, library)
            if proxy.cuts_left:
                break
        assert commit > 1


# Many


def test_hundreds_are_added_by_eight_at_once(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    sources = pictures(300)
    sources[100] = b"not media"

    report = library.media.add_many(sources, concurrency=8)

    assert [result.position for result in report.failed] == [100]
    assert [library.media.read(item) for item in report.added[::50]] == [
        source for number, source in enumerate(sources) if number != 100
    ][::50]
    assert len(check_only_items(library, tenant, storage)) == 299
    assert rows(host, library, "images", "search_documents", "tasks") == {
        "images": 299,
        "search_documents": 299,
        "tasks": 299,
    }


SCRIPT = """
import resource, sys
from pathlib import Path

import mindia
from mindia.testing import samples

url, root, source, number = sys.argv[1:]

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; what resource says may be that of the process which started it
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def pieces():
    with open(source, "rb") as file:
        while piece := file.read(100_000):
            yield piece

with mindia.connect(url, storage=mindia.LocalStorage(root)) as app:
    library = app.library(app.tenants.create("Acme"))
    warm = library.media.add_many([samples.wav(seconds=0.1)] * 8, concurrency=8)
    assert not warm.failed
    before = peak()
    report = library.media.add_many((pieces() if each % 2 else source for each in range(int(number))), concurrency=8)
    used = peak() - before
    assert len(report.added) == int(number), report.failed
print(used)
"""


def test_many_large_files_cost_little_memory(database_url: str, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "bell.wav", 4_000_000)
    number = 24

    command = [sys.executable, "-c", SCRIPT, database_url, str(tmp_path / "objects"), str(path), str(number)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) <= 48_000_000, "half of what comes in"
