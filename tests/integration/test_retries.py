"""What collides or is cut off is tried again: a single call once, a function of the host as often as it allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import attrs
import psycopg
import pytest
from tests.integration.host_rows import orders

import mindia
from mindia import Media, MediaKind, Mindia, Tenant, Transaction
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import ConnectionLostError, InvalidError, MindiaError, TransactionConflictError
from mindia.testing import samples


@pytest.fixture
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


class Rival:
    """Somebody who changes the tenant's name in between."""

    def __init__(self, url: str, tenant: Tenant) -> None:
        self._url = url
        self._tenant = tenant

    def rename(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute("update mindia.tenants set name = name || '!' where id = %s", (self._tenant.id,))


@pytest.fixture
def rival(database_url: str, tenant: Tenant) -> Rival:
    return Rival(database_url, tenant)


def _see_a_snapshot(tx: Transaction, tenant: Tenant) -> None:
    tx.connection.execute("set transaction isolation level repeatable read")
    tx.tenants.get(tenant.id)


def _collide_in_a_call(tx: Transaction, tenant: Tenant) -> None:
    tx.tenants.rename(tenant.id, "Renamed")


def _collide_in_a_statement_of_the_host(tx: Transaction, tenant: Tenant) -> None:
    # As one who may: the role of the application sees no tenant by itself.
    tx.connection.execute("select set_config('role', %s, true)", (tx._app.settings.worker_role,))
    tx.connection.execute("update mindia.tenants set name = 'Renamed' where id = %s", (tenant.id,))


COLLISIONS = {
    _collide_in_a_call: TransactionConflictError,
    _collide_in_a_statement_of_the_host: psycopg.errors.SerializationFailure,
}


@pytest.mark.parametrize("collide", COLLISIONS)
def test_a_function_that_collides_is_run_again_from_its_beginning(
    app: Mindia, tenant: Tenant, rival: Rival, collide: Callable[[Transaction, Tenant], None]
) -> None:
    tries: list[Transaction] = []

    def function(tx: Transaction) -> str:
        tries.append(tx)
        _see_a_snapshot(tx, tenant)
        tx.library(tenant).tasks.enqueue(_payload(), dedup_key=f"try {len(tries)}")
        if len(tries) < 3:
            rival.rename()
        collide(tx, tenant)
        return f"done at try {len(tries)}"

    assert app.run(function) == "done at try 3"

    assert len({id(tx) for tx in tries}) == 3
    assert app.tenants.get(tenant.id).name == "Renamed"


@pytest.mark.parametrize(("collide", "error"), COLLISIONS.items())
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_function_that_goes_on_colliding_is_given_up_with_the_last_error(
    app: Mindia,
    tenant: Tenant,
    rival: Rival,
    collide: Callable[[Transaction, Tenant], None],
    error: type[Exception],
    attempts: int,
) -> None:
    tries = 0

    def function(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        _see_a_snapshot(tx, tenant)
        rival.rename()
        collide(tx, tenant)

    with pytest.raises(error):
        app.run(function, attempts=attempts)

    assert tries == attempts
    assert app.tenants.get(tenant.id).name == tenant.name + "!" * attempts


@pytest.mark.usefixtures("host_table")
def test_a_function_whose_commit_is_refused_as_not_serializable_is_run_again(app: Mindia, database_url: str) -> None:
    tries = 0

    def number_the_next_order(connection: psycopg.Connection[Any], *, offset: int) -> None:
        connection.execute("set transaction isolation level serializable")
        connection.execute("insert into public.orders select %s + count(*) from public.orders", (offset,))

    def function(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        number_the_next_order(tx.connection, offset=0)
        if tries == 1:  # both have read what the other has written: one of them must give way
            with psycopg.connect(database_url) as other:
                number_the_next_order(other, offset=100)

    app.run(function)

    assert tries == 2
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select id from public.orders order by id").fetchall() == [(1,), (100,)]


@pytest.mark.parametrize(
    "error",
    [ValueError("of the host"), InvalidError("of ours"), psycopg.errors.UniqueViolation("of the driver"), KeyError()],
    ids=lambda error: type(error).__name__,
)
def test_a_function_that_fails_for_another_reason_is_not_run_again(app: Mindia, error: Exception) -> None:
    tries = 0

    def function(_: Transaction) -> None:
        nonlocal tries
        tries += 1
        raise error

    with pytest.raises(type(error)) as caught:
        app.run(function)
    assert caught.value is error
    assert tries == 1


@pytest.mark.parametrize("hidden", [False, True], ids=["in the host's statement", "in a call"])
def test_a_function_whose_connection_is_lost_is_run_again(app: Mindia, tenant: Tenant, hidden: bool) -> None:
    tries = 0

    def function(tx: Transaction) -> Media:
        nonlocal tries
        tries += 1
        item = tx.library(tenant).media.add(samples.image())
        if tries == 1:
            try:
                tx.connection.execute("select pg_terminate_backend(pg_backend_pid())")
            except psycopg.OperationalError:
                if not hidden:
                    raise
        return tx.library(tenant).media.get(item.id)

    item = app.run(function)

    assert tries == 2
    assert list(app.library(tenant).media.find()) == [item]


def test_two_functions_in_a_deadlock_both_succeed(app: Mindia) -> None:
    one, two = app.tenants.create("One"), app.tenants.create("Two")
    both_hold_one = threading.Barrier(2)
    tries: list[str] = []
    failures: list[BaseException] = []

    def swap(name: str, first: Tenant, second: Tenant) -> Callable[[Transaction], None]:
        def function(tx: Transaction) -> None:
            tries.append(name)
            tx.tenants.rename(first.id, name)
            if tries.count(name) == 1:
                both_hold_one.wait(30)
            tx.tenants.rename(second.id, name)

        return function

    def run(function: Callable[[Transaction], None]) -> None:
        try:
            app.run(function)
        except BaseException as error:  # noqa: BLE001 - is looked at in the main thread
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(function,)) for function in (swap("a", one, two), swap("b", two, one))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(tries) >= 3
    assert app.tenants.get(one.id).name == app.tenants.get(two.id).name


@attrs.frozen
class Trigger:
    """Makes the first changes of tenants fail inside the server."""

    url: str

    def install(self, *, failures: int, failure: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("create sequence public.tries")
            function = (
                "create function public.fail() returns trigger language plpgsql as $$ begin "
                f"if nextval('public.tries') <= {failures} then {failure}; end if; return new; end $$"
            )
            connection.execute(function.encode())
            connection.execute(
                "create trigger fail before update on mindia.tenants for each row execute function public.fail()"
            )

    def tries(self) -> int:
        with psycopg.connect(self.url) as connection:
            (tries,) = connection.execute("select last_value from public.tries").fetchone() or ()
        return int(tries)


SERVER_FAILURES = {
    "raise exception using errcode = 'serialization_failure'": TransactionConflictError,
    "raise exception using errcode = 'deadlock_detected'": TransactionConflictError,
    "perform pg_terminate_backend(pg_backend_pid())": ConnectionLostError,
}


@pytest.fixture
def fresh_app(fresh_database_url: str) -> Iterator[Mindia]:
    with mindia.connect(fresh_database_url, storage=mindia.MemoryStorage()) as app:
        yield app


@pytest.mark.parametrize("failure", SERVER_FAILURES)
def test_a_single_call_that_fails_for_a_reason_that_passes_is_tried_once_more(
    fresh_app: Mindia, fresh_database_url: str, failure: str
) -> None:
    tenant = fresh_app.tenants.create("Acme")
    trigger = Trigger(fresh_database_url)
    trigger.install(failures=1, failure=failure)

    assert fresh_app.tenants.rename(tenant.id, "Globex").name == "Globex"
    assert trigger.tries() == 2


@pytest.mark.parametrize(("failure", "error"), SERVER_FAILURES.items())
def test_a_single_call_that_fails_twice_is_an_error_of_ours_and_has_done_nothing(
    fresh_app: Mindia, fresh_database_url: str, failure: str, error: type[MindiaError]
) -> None:
    tenant = fresh_app.tenants.create("Acme")
    trigger = Trigger(fresh_database_url)
    trigger.install(failures=2, failure=failure)

    with pytest.raises(error) as caught:
        fresh_app.tenants.rename(tenant.id, "Globex")
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert trigger.tries() == 2
    assert fresh_app.tenants.get(tenant.id) == tenant


def test_a_single_call_inside_a_transaction_is_not_tried_again(fresh_app: Mindia, fresh_database_url: str) -> None:
    tenant = fresh_app.tenants.create("Acme")
    trigger = Trigger(fresh_database_url)
    trigger.install(failures=1, failure="raise exception using errcode = 'serialization_failure'")

    with fresh_app.transaction() as tx, pytest.raises(TransactionConflictError):
        tx.tenants.rename(tenant.id, "Globex")

    assert trigger.tries() == 1


def _payload() -> GenerateEmbedding:
    return GenerateEmbedding(entity_id=uuid4(), entity_type=MediaKind.IMAGE)
