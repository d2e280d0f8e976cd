"""`mindia.aio`: the services for asyncio hosts, their transactions, and calls that are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type
from uuid import uuid4

import attrs
import psycopg
import pytest
import sqlalchemy
from psycopg.pq import TransactionStatus
from tests.integration.host_rows import Observer, orders

from mindia import Image, Library, Media, Mindia, SearchResults, Tenant
from mindia.aio import AsyncFile, AsyncLibrary, AsyncLibraryTransaction, AsyncMindia, AsyncTransaction
from mindia.errors import ClosedError, NotFoundError, TransactionConflictError, TransactionError
from mindia.library import Transaction
from mindia.testing import samples

ONE_OF_EACH = {"images": 1, "search_documents": 1, "tasks": 1}


@pytest.fixture(autouse=True)
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


@pytest.fixture
def others(database_url: str, tenant: Tenant) -> Observer:
    return Observer(database_url, tenant)


@attrs.frozen
class Running:
    """Runs coroutines that use a library."""

    app: Mindia
    tenant: Tenant

    def __call__(self, work: Callable[[AsyncLibrary], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await work(AsyncMindia(self.app, threads=4).library(self.tenant))

        asyncio.run(main())


@pytest.fixture
def running(app: Mindia, tenant: Tenant) -> Running:
    return Running(app, tenant)


def test_what_is_added_is_found_read_and_iterated(running: Running) -> None:
    async def work(library: AsyncLibrary) -> None:
        item = await library.media.add(samples.image(), filename="cat.jpg")
        found = await library.media.get(item.id)
        assert_type(found, Media)
        image = await library.media.get(item.id, type=Image)
        assert_type(image, Image)
        results = await library.search("cat")
        assert_type(results, SearchResults)
        assert found == image == item
        assert [result.media for result in results] == [item]
        assert [each async for each in library.media.iterate()] == [item]
        async with await library.media.open(item) as file:
            assert_type(file, AsyncFile)
            pieces = [piece async for piece in file]
            await file.seek(1)
            rest = await file.read(3)
        content = await library.media.read(item)
        assert b"".join(pieces) == content
        assert rest == content[1:4]

    running(work)


def test_a_source_may_yield_asynchronously(running: Running) -> None:
    content = samples.image()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            await asyncio.sleep(0)
            yield content[start : start + 1000]

    async def work(library: AsyncLibrary) -> None:
        item = await library.media.add(pieces(), filename="cat.jpg")
        assert await library.media.read(item) == content

    running(work)


def test_more_items_than_are_read_at_once_come_all_in_their_order(app: Mindia, tenant: Tenant) -> None:
    users = [app.library(tenant).users.create(f"user-{number}@example.org") for number in range(203)]

    async def work() -> None:
        library = AsyncMindia(app).library(tenant)
        assert {user.id async for user in library.users.list()} == {user.id for user in users}

    asyncio.run(work())


def test_a_transaction_commits_all_or_nothing(running: Running, others: Observer) -> None:
    async def fail(library: AsyncLibrary) -> None:
        async with library.transaction() as tx:
            await tx.media.add(samples.image())
            raise RuntimeError("of the host")

    async def work(library: AsyncLibrary) -> None:
        async with library.transaction() as tx:
            await tx.media.add(samples.image())
            with pytest.raises(NotFoundError):
                await tx.media.get(tx.tenant_id)
            await tx.run(lambda sync: sync.connection.execute("insert into public.orders values (1)"))
            assert others.counts() == {}
        assert others.counts() == ONE_OF_EACH | {"orders": 1}
        with pytest.raises(RuntimeError, match="of the host"):
            await fail(library)
        with pytest.raises(ClosedError):
            await tx.media.find()

    running(work)
    assert others.counts() == ONE_OF_EACH | {"orders": 1}


@pytest.mark.parametrize("commits", [True, False])
def test_a_hosts_own_transaction_decides_over_both(
    running: Running, others: Observer, database_url: str, commits: bool
) -> None:
    async def work(library: AsyncLibrary) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as host:
            await host.execute("insert into public.orders values (1)")
            async with library.transaction(connection=host) as tx:
                item = await tx.media.add(samples.image(), filename="cat.jpg")
                with pytest.raises(NotFoundError):
                    await tx.media.get(tx.tenant_id)
                await host.execute("insert into public.orders values (2)")
                assert await tx.media.get(item.id) == item
            assert host.info.transaction_status == TransactionStatus.INTRANS
            assert others.counts() == {}
            await (host.commit() if commits else host.rollback())

    running(work)
    assert others.counts() == (ONE_OF_EACH | {"orders": 2} if commits else {})


def test_a_host_that_has_sent_nothing_keeps_its_isolation_level(running: Running, database_url: str) -> None:
    async def work(library: AsyncLibrary) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as host:
            await host.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
            async with library.transaction(connection=host) as tx:
                assert not await tx.media.find()
            cursor = await host.execute("show transaction_isolation")
            assert await cursor.fetchone() == ("serializable",)
            await host.rollback()

    running(work)


def test_a_session_of_sqlalchemy_is_joined_by_the_drivers_connection(
    running: Running, others: Observer, database_url: str
) -> None:
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine("postgresql+psycopg://", connect_args=conninfo_to_dict(database_url))

    async def work(library: AsyncLibrary) -> None:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(sqlalchemy.text("insert into public.orders values (1)"))
            with pytest.raises(TransactionError, match="driver_connection"):
                await library.transaction(connection=session).__aenter__()  # type: ignore[arg-type]  # what is refused
            connection: Any = (await (await session.connection()).get_raw_connection()).driver_connection
            async with library.transaction(connection=connection) as tx:
                await tx.media.add(samples.image())
        await engine.dispose()

    running(work)
    assert others.counts() == ONE_OF_EACH | {"orders": 1}


def test_connections_that_cannot_be_joined_are_named(running: Running, database_url: str) -> None:
    async def work(library: AsyncLibrary) -> None:
        with psycopg.connect(database_url) as plain:
            wrong: list[Any] = [None, plain, object()]
            for connection in wrong:
                with pytest.raises(TransactionError, match=r"psycopg\.AsyncConnection"):
                    await library.transaction(connection=connection).__aenter__()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as host:
            with pytest.raises(TransactionError, match="by itself"):
                await library.transaction(connection=host).__aenter__()

    running(work)


def test_a_transaction_over_several_tenants_commits_all_or_nothing(
    app: Mindia, tenant: Tenant, others: Observer
) -> None:
    rolled_back: list[Tenant] = []

    async def fail(own: AsyncMindia) -> None:
        async with own.transaction() as tx:
            await tx.library(tenant).media.add(samples.image())
            rolled_back.append(await tx.tenants.create(f"Other {uuid4()}"))
            raise RuntimeError("of the host")

    async def work() -> None:
        own = AsyncMindia(app, threads=4)
        library = own.library(tenant)
        with pytest.raises(RuntimeError, match="of the host"):
            await fail(own)
        assert await library.media.count() == 0
        with pytest.raises(NotFoundError):
            await own.tenants.get(rolled_back[0].id)

        async with own.transaction() as tx:
            assert_type(tx, AsyncTransaction)
            made = await tx.tenants.create(f"Other {uuid4()}")
            item = await tx.library(made).media.add(samples.image())
            await tx.library(tenant).media.add(samples.image())
            with pytest.raises(NotFoundError):  # which leaves the transaction usable
                await tx.library(tenant).media.get(item.id)
            await tx.run(lambda sync: sync.connection.execute("insert into public.orders values (1)"))
            assert await library.media.count() == 0
        assert await library.media.count() == await own.library(made).media.count() == 1
        with pytest.raises(ClosedError):
            await tx.library(tenant).media.count()

    asyncio.run(work())
    assert others.counts() == {**ONE_OF_EACH, "orders": 1}


def test_a_transaction_within_one_is_rolled_back_by_itself(running: Running, others: Observer) -> None:
    async def fail(tx: AsyncLibraryTransaction) -> None:
        async with tx.transaction() as inner:
            await inner.media.add(samples.image())
            raise RuntimeError("of the host")

    async def work(library: AsyncLibrary) -> None:
        async with library.transaction() as tx:
            await tx.media.add(samples.image())
            with pytest.raises(RuntimeError, match="of the host"):
                await fail(tx)
            async with tx.transaction() as inner:
                assert await inner.media.count() == 1

    running(work)
    assert others.counts() == ONE_OF_EACH


def test_a_function_is_run_again_where_its_transaction_collides(app: Mindia, tenant: Tenant) -> None:
    tries: list[int] = []

    def work(tx: Transaction) -> int:
        tries.append(1)
        tx.library(tenant).media.add(samples.image())
        if len(tries) < 3:
            raise TransactionConflictError("said so")
        return len(tries)

    async def main() -> None:
        own = AsyncMindia(app, threads=1)
        assert_type(await own.run(work), int)
        assert await own.library(tenant).media.count() == 1

    asyncio.run(main())
    assert len(tries) == 3


@pytest.mark.parametrize("steps", range(0, 24, 6))
def test_a_transaction_of_the_application_that_is_cancelled_gives_its_connection_back(
    app: Mindia, library: Library, tenant: Tenant, others: Observer, steps: int
) -> None:
    async def use(own: AsyncMindia) -> None:
        async with own.transaction() as tx, tx.library(tenant).transaction() as inner:
            await inner.media.add(samples.image())
            await asyncio.Event().wait()

    async def work() -> None:
        own = AsyncMindia(app, threads=2)
        for _ in range(12):  # more than there are connections
            task = asyncio.create_task(use(own))
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(work())
    assert library.media.count() == 0
    assert others.counts() == {}


@pytest.mark.parametrize("steps", range(0, 24, 3))
def test_a_transaction_that_is_cancelled_gives_its_connection_back(
    running: Running, library: Library, others: Observer, steps: int
) -> None:
    async def use(library: AsyncLibrary) -> None:
        async with library.transaction() as tx:
            await tx.media.add(samples.image())
            await tx.media.find()
            await asyncio.Event().wait()

    async def work(library: AsyncLibrary) -> None:
        for _ in range(12):  # more than there are connections
            task = asyncio.create_task(use(library))
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    running(work)
    assert library.media.count() == 0
    assert others.counts() == {}


def test_a_call_that_is_cancelled_in_a_hosts_transaction_leaves_it_usable(
    running: Running, others: Observer, database_url: str
) -> None:
    async def work(library: AsyncLibrary) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as host:
            async with library.transaction(connection=host) as tx:
                task = asyncio.create_task(tx.media.add(samples.image()))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await host.execute("insert into public.orders values (1)")
            await host.rollback()

    running(work)
    assert others.counts() == {}


def test_a_closed_application_says_so(application_url: str, app: Mindia) -> None:
    from mindia import aio

    async def work() -> None:
        async with aio.connect(application_url, storage=app.storage) as other:
            await other.check()
        await other.close()
        with pytest.raises(ClosedError):
            await other.check()

    asyncio.run(work())
