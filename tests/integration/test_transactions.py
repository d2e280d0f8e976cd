"""A transaction of the library: all or nothing, and the host's errors pass through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.integration.host_rows import Observer, orders
from tests.integration.library_calls import CALLS, Known

import mindia
from mindia import Library, LocalStorage, MediaKind, Mindia, Tenant
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import (
    AlreadyExistsError,
    DatabaseError,
    MindiaError,
    NotFoundError,
    StagedObjectExpiredError,
)
from mindia.testing import samples


@pytest.fixture(autouse=True)
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


@pytest.fixture
def others(database_url: str, tenant: Tenant) -> Observer:
    return Observer(database_url, tenant)


@pytest.fixture
def webhook(database_url: str, tenant: Tenant) -> None:
    """An endpoint that listens to all that happens to the tenant's images."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into mindia.webhooks (tenant_id, url, events) values (%s, 'https://example.org/', '{image.*}')",
            (tenant.id,),
        )


@pytest.mark.usefixtures("webhook")
def test_item_search_text_tasks_event_and_the_hosts_rows_appear_together_at_the_commit(
    library: Library, others: Observer
) -> None:
    with library.transaction() as tx:
        tx.connection.execute("insert into public.orders values (1)")
        item = tx.media.add(samples.image(), filename="cat.jpg")
        task = tx.tasks.enqueue(GenerateEmbedding(entity_id=item.id, entity_type=item.kind))
        assert others.counts() == {}
        with pytest.raises(NotFoundError):
            library.media.get(item.id)
        assert not library.search("cat")

    assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 2, "webhook_events": 1, "orders": 1}
    assert library.media.get(item.id) == item
    assert [result.media for result in library.search("cat")] == [item]
    assert library.tasks.get(task.id) == task


@pytest.mark.usefixtures("webhook")
def test_an_exception_takes_all_of_it_back_and_leaves_the_bytes_to_the_sweep(
    library: Library, database_url: str, others: Observer
) -> None:
    kept = library.media.add(samples.image(), filename="kept.jpg")
    before = others.counts()
    items = []

    def work() -> None:
        with library.transaction() as tx:
            tx.connection.execute("insert into public.orders values (1)")
            tx.media.delete(kept)
            item = tx.media.add(samples.image(), filename="cat.jpg")
            items.append(item)
            tx.tasks.enqueue(GenerateEmbedding(entity_id=item.id, entity_type=item.kind))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()

    assert others.counts() == before
    assert library.media.read(kept)
    assert not library.search("cat")
    with psycopg.connect(database_url) as connection:
        on_record = connection.execute("select id from mindia.staged_objects where tenant_id = %s", (kept.tenant_id,))
        assert (items[0].id,) in on_record.fetchall()


class HostError(Exception):
    """Something of the host's own."""


def _raise_with_cause(error: BaseException) -> None:
    raise error from KeyError("first")


def _raise_while_handling(error: BaseException) -> None:
    try:
        _raise_first()
    except KeyError:
        raise error  # noqa: B904 - the context without a cause is what is looked at


def _raise_first() -> None:
    raise KeyError("first")


@pytest.mark.parametrize("raising", [_raise_with_cause, _raise_while_handling])
@pytest.mark.parametrize(
    "error",
    [
        HostError("of the host"),
        KeyboardInterrupt(),
        NotFoundError("of ours"),
        psycopg.errors.UniqueViolation("of the driver"),
        psycopg.OperationalError("of the driver, as of a lost connection"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_the_host_passes_through_untouched(
    library: Library, raising: Callable[[BaseException], None], error: BaseException
) -> None:
    expected, thrown = (type(error)(*error.args) for _ in range(2))
    with pytest.raises(type(error)):
        raising(expected)

    def work() -> None:
        with library.transaction() as tx:
            tx.media.find()
            raising(thrown)

    with pytest.raises(type(error)) as caught:
        work()

    assert caught.value is thrown
    assert _links(thrown) == _links(expected)


def _links(error: BaseException) -> tuple[str, str, bool]:
    return repr(error.__cause__), repr(error.__context__), error.__suppress_context__


def test_an_exception_of_the_hosts_own_statement_is_the_drivers_and_rolls_back(
    library: Library, others: Observer
) -> None:
    raised: list[psycopg.Error] = []

    def work() -> None:
        with library.transaction() as tx:
            tx.connection.execute("insert into public.orders values (1)")
            tx.media.add(samples.image())
            try:
                tx.connection.execute("insert into public.orders values (1)")
            except psycopg.Error as error:
                raised.append(error)
                raise

    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        work()

    assert [caught.value] == raised
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert others.counts() == {}


def test_the_drivers_own_rollback_takes_all_of_it_back_without_an_error(library: Library, others: Observer) -> None:
    with library.transaction() as tx:
        tx.media.add(samples.image())
        _roll_back()

    assert others.counts() == {}


def _roll_back() -> None:
    raise psycopg.Rollback


def test_an_error_that_is_caught_inside_leaves_the_transaction_usable(
    app: Mindia, tenant: Tenant, others: Observer
) -> None:
    staged = app.library(tenant).media.stage(samples.image())

    with app.transaction() as tx:
        library = tx.library(tenant)
        tx.connection.execute("insert into public.orders values (1)")
        item = library.media.add(staged)
        with pytest.raises(AlreadyExistsError) as taken:
            tx.tenants.create("Globex", s3_bucket=tenant.s3_bucket)
        with pytest.raises(StagedObjectExpiredError):
            library.media.add(staged)
        with pytest.raises(NotFoundError):
            library.media.get(uuid4())
        with pytest.raises(NotFoundError):
            tx.library(uuid4()).media.find()
        assert library.media.get(item.id) == item
        tx.connection.execute("insert into public.orders values (2)")

    assert isinstance(taken.value.__cause__, psycopg.errors.UniqueViolation)
    assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 1, "orders": 2}


def test_several_calls_can_be_taken_back_together_by_a_savepoint_of_the_host(
    library: Library, others: Observer
) -> None:
    with library.transaction() as tx:
        kept = tx.media.add(samples.image())

        def work() -> None:
            with tx.connection.transaction():
                tx.media.delete(kept)
                tx.media.add(samples.image(color="red"))
                raise HostError

        with pytest.raises(HostError):
            work()
        assert list(tx.media.find()) == [kept]

    assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 1}


def test_a_transaction_reads_what_it_has_written(library: Library) -> None:
    with library.transaction() as tx:
        item = tx.media.add(samples.image(), filename="cat.jpg")
        task = tx.tasks.enqueue(GenerateEmbedding(entity_id=item.id, entity_type=item.kind))
        assert tx.media.get(item.id) == item
        assert list(tx.media.find()) == [item]
        assert tx.media.read(item) == samples.image()
        assert [result.media for result in tx.search("cat")] == [item]
        assert tx.tasks.get(task.id) == task
        tx.index.embed(item.id)
        assert tx.search("cat")[0].similarity is not None
        tx.media.delete(item)
        assert list(tx.media.find()) == []

    assert list(library.media.find()) == []


def test_every_call_of_a_library_works_inside_a_transaction(library: Library) -> None:
    known = Known.of(library)

    with library.transaction() as tx:
        for name, call in CALLS.items():
            call(tx, known)
            assert tx.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS, name


def test_one_transaction_spans_several_tenants_also_those_that_it_makes(app: Mindia, tenant: Tenant) -> None:
    with app.transaction() as tx:
        made = tx.tenants.create("Globex")
        ours = tx.library(tenant).media.add(samples.image())
        theirs = tx.library(made).media.add(samples.image(), filename="cat.jpg")
        assert tx.tenants.get(made.id) == made
        assert made in tx.tenants.list()
        assert list(tx.library(made).media.find()) == [theirs]
        with pytest.raises(NotFoundError):
            app.tenants.get(made.id)

    assert app.tenants.get(made.id) == made
    assert app.library(tenant).media.get(ours.id) == ours
    assert [result.media for result in app.library(made).search("cat")] == [theirs]
    assert app.library(made).media.read(theirs) == samples.image()


def test_what_several_tenants_got_in_one_transaction_is_taken_back_together(
    app: Mindia, tenant: Tenant, others: Observer
) -> None:
    tenants = []

    def work() -> None:
        with app.transaction() as tx:
            tx.tenants.suspend(tenant.id)
            tx.tenants.reactivate(tenant.id)
            tx.tenants.rename(tenant.id, "Renamed")
            made = tx.tenants.create("Globex")
            tenants.append(made)
            tx.library(made).media.add(samples.image())
            tx.library(tenant).media.add(samples.image())
            raise HostError

    with pytest.raises(HostError):
        work()

    assert app.tenants.get(tenant.id) == tenant
    assert others.counts() == {}
    for made in tenants:
        with pytest.raises(NotFoundError):
            app.tenants.get(made.id)
        with pytest.raises(NotFoundError):
            app.library(made).media.find()


def test_tasks_without_a_tenant_are_part_of_a_transaction(app: Mindia) -> None:
    payload = GenerateEmbedding(entity_id=uuid4(), entity_type=MediaKind.IMAGE)

    with app.transaction() as tx:
        lost = tx.tasks.enqueue(payload)
        assert tx.tasks.get(lost.id) == lost
        _roll_back()
    with app.transaction() as tx:
        kept = tx.tasks.enqueue(payload)

    assert app.tasks.get(kept.id).tenant_id is None
    with pytest.raises(NotFoundError):
        app.tasks.get(lost.id)


def test_a_library_in_a_transaction_does_not_find_another_tenants_ids(app: Mindia, tenant: Tenant) -> None:
    known = Known.of(app.library(tenant))
    other = app.tenants.create("Globex")

    with app.transaction() as tx:
        mine, theirs = tx.library(tenant), tx.library(other)
        assert mine.media.get(known.item.id) == known.item
        for call in ("media.get", "media.read", "media.delete", "media.add", "index.embed", "tasks.get"):
            with pytest.raises(NotFoundError):
                CALLS[call](theirs, known)
        assert list(theirs.media.find()) == []
        assert list(theirs.search("harbour")) == []
        assert list(mine.media.find()) == [known.film, known.recording, known.other, known.item]


def test_a_transaction_binds_no_statement_of_the_host_to_a_tenant(app: Mindia, tenant: Tenant) -> None:
    with app.transaction() as tx:
        for tenant_id in (tenant.id, uuid4()):
            with pytest.raises(NotFoundError):
                tx.library(tenant_id).media.get(uuid4())
            setting = tx.connection.execute("select current_setting('mindia.tenant_id', true)").fetchone()
            assert setting in [("",), (None,)]


def test_a_refused_source_leaves_neither_bytes_nor_a_failed_transaction(
    library: Library, storage: LocalStorage, tenant: Tenant, others: Observer
) -> None:
    with library.transaction() as tx:
        for source in (b"", b"no picture", samples.image()[:200]):
            with pytest.raises(MindiaError):
                tx.media.add(source, filename="cat.jpg")
        tx.connection.execute("insert into public.orders values (1)")

    assert others.counts()["orders"] == 1
    assert "images" not in others.counts()
    assert list(storage.list(tenant.s3_bucket)) == []


def test_an_item_that_the_database_refuses_leaves_no_bytes_although_the_transaction_goes_on(
    fresh_database_url: str, storage: LocalStorage
) -> None:
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute("alter table mindia.images add constraint no_towers check (height < 100)")
    with mindia.connect(fresh_database_url, storage=storage) as app:
        tenant = app.tenants.create("Acme")
        with app.library(tenant).transaction() as tx:
            with pytest.raises(DatabaseError) as caught:
                tx.media.add(samples.image(height=100))
            assert list(storage.list(tenant.s3_bucket)) == []
            item = tx.media.add(samples.image(height=99))

        assert isinstance(caught.value.__cause__, psycopg.errors.CheckViolation)
        assert list(app.library(tenant).media.find()) == [item]


def test_two_transactions_at_once_do_not_see_each_other(library: Library) -> None:
    with library.transaction() as one, library.transaction() as two:
        assert one.connection is not two.connection
        first = one.media.add(samples.image())
        second = two.media.add(samples.image())
        assert list(one.media.find()) == [first]
        assert list(two.media.find()) == [second]

    assert set(library.media.find()) == {first, second}


def test_connections_of_the_library_speak_utf_8_whatever_the_connection_string_says(
    database_url: str, storage: LocalStorage, tenant: Tenant
) -> None:
    url = make_conninfo(database_url, client_encoding="latin1")
    with mindia.connect(url, storage=storage) as app, app.transaction() as tx:
        added = tx.library(tenant).media.add(samples.image(), filename="猫.jpg", metadata={"place": "Łódź"})
        assert tx.library(tenant).media.get(added.id) == added
