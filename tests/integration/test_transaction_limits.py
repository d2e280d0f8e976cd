"""Where a transaction of the library ends: nothing is lost without an error, and nothing is done outside of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from tests.integration.host_rows import Observer, orders
from tests.integration.library_calls import CALLS, Known

from mindia import Library, LibraryTransaction, Mindia, Tenant
from mindia.errors import (
    ClosedError,
    ConflictError,
    ConnectionLostError,
    TenantInactiveError,
    TransactionError,
)
from mindia.testing import samples


@pytest.fixture(autouse=True)
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


@pytest.fixture
def others(database_url: str, tenant: Tenant) -> Observer:
    return Observer(database_url, tenant)


def test_a_commit_that_the_database_refuses_is_an_error_of_ours_with_its_cause(
    library: Library, others: Observer
) -> None:
    def work() -> None:
        with library.transaction() as tx:
            tx.media.add(samples.image())
            tx.connection.execute("insert into public.orders values (1, 2)")

    with pytest.raises(ConflictError) as caught:
        work()

    assert isinstance(caught.value.__cause__, psycopg.errors.ForeignKeyViolation)
    assert others.counts() == {}


def test_a_failed_statement_of_the_host_that_is_hushed_up_is_an_error_at_the_end(
    library: Library, others: Observer
) -> None:
    def work() -> None:
        with library.transaction() as tx:
            tx.media.add(samples.image())
            with pytest.raises(psycopg.errors.DivisionByZero):
                tx.connection.execute("select 1 / 0")
            with pytest.raises(TransactionError, match="has failed"):
                tx.media.find()

    with pytest.raises(TransactionError, match="has failed"):
        work()

    assert others.counts() == {}


def test_a_lost_connection_that_is_hushed_up_is_an_error_at_the_end(library: Library, others: Observer) -> None:
    def work() -> None:
        with library.transaction() as tx:
            tx.media.add(samples.image())
            with pytest.raises(psycopg.OperationalError):
                tx.connection.execute("select pg_terminate_backend(pg_backend_pid())")
            with pytest.raises(ConnectionLostError):
                tx.media.find()

    with pytest.raises(ConnectionLostError):
        work()

    assert others.counts() == {}
    assert list(library.media.find()) == []


@pytest.mark.parametrize("statement", ["commit", "rollback"])
def test_a_transaction_that_is_ended_by_hand_takes_no_more_calls_and_says_so_at_the_end(
    library: Library, statement: str
) -> None:
    before = []

    def work() -> None:
        with library.transaction() as tx:
            before.append(tx.media.add(samples.image()))
            tx.connection.execute(statement.encode())
            with pytest.raises(TransactionError, match="was ended"):
                tx.media.add(samples.image())

    with pytest.raises(TransactionError, match="was ended"):
        work()

    assert list(library.media.find()) == (before if statement == "commit" else [])


def test_a_call_in_the_middle_of_a_statement_of_the_host_is_refused_where_it_would_wait_for_ever(
    library: Library,
) -> None:
    with library.transaction() as tx:
        for _ in tx.connection.cursor().stream("select generate_series(1, 3)"):
            with pytest.raises(TransactionError, match="in the middle of a statement"):
                tx.media.find()
        with tx.connection.pipeline(), pytest.raises(TransactionError, match="pipeline"):
            tx.media.find()
        assert list(tx.media.find()) == []


@pytest.mark.parametrize("rolled_back", [False, True])
def test_a_transaction_that_has_ended_is_closed_to_every_call(app: Mindia, tenant: Tenant, rolled_back: bool) -> None:
    known = Known.of(app.library(tenant))
    with app.transaction() as tx:
        library = tx.library(tenant)
        if rolled_back:
            _roll_back()

    for call in CALLS.values():
        with pytest.raises(ClosedError, match="has ended"):
            call(library, known)
    uses: list[Callable[[], object]] = [
        lambda: library.connection,
        lambda: tx.connection,
        lambda: tx.tenants.get(tenant.id),
        lambda: list(tx.tenants.list()),
        lambda: tx.tasks.get(uuid4()),
        lambda: tx.library(tenant).media.find(),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="has ended"):
            use()


def test_a_transaction_is_refused_to_every_other_thread(library: Library) -> None:
    known = Known.of(library)
    refused: list[str] = []

    with library.transaction() as tx:

        def use() -> None:
            for name, call in CALLS.items():
                with pytest.raises(TransactionError, match="thread"):
                    call(tx, known)
                refused.append(name)
            with pytest.raises(TransactionError, match="thread"):
                _ = tx.connection

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert tx.media.get(known.item.id) == known.item

    assert refused == list(CALLS)


def _roll_back() -> None:
    raise psycopg.Rollback


def test_a_transaction_within_a_transaction_rolls_back_alone_and_commits_nothing(
    library: Library, others: Observer
) -> None:
    def fail(tx: LibraryTransaction) -> None:
        with tx.transaction() as inner:
            inner.media.add(samples.image(), filename="gone.jpg")
            inner.connection.execute("insert into public.orders values (1)")
            raise LookupError("of the host")

    with library.transaction() as tx:
        kept = tx.media.add(samples.image(), filename="kept.jpg")
        with pytest.raises(LookupError, match="of the host"):
            fail(tx)
        with tx.transaction() as inner:
            inner.connection.execute("insert into public.orders values (2)")
        assert others.counts() == {}
        assert list(tx.media.find()) == [kept]

    assert others.counts()["orders"] == 1
    assert list(library.media.find()) == [kept]


def test_a_transaction_takes_no_other_connection(
    library: Library, host: psycopg.Connection[tuple[object, ...]]
) -> None:
    with library.transaction() as tx, pytest.raises(TransactionError, match="already"), tx.transaction(connection=host):
        pass


def test_a_connection_that_a_framework_has_not_made_yet_is_no_transaction_of_our_own(library: Library) -> None:
    missing = None
    with pytest.raises(TransactionError, match="ensure_connection"), library.transaction(connection=missing):  # type: ignore[arg-type]  # what untyped hosts do
        pass


def test_a_tenant_that_is_not_served_gets_no_transaction(app: Mindia, library: Library) -> None:
    app.tenants.suspend(library.tenant_id)
    with pytest.raises(TenantInactiveError), library.transaction():
        pass
