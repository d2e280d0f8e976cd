"""Batches of statements on a connection of an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.integration.queue_jobs import Owner

from mindia import Mindia, Tenant
from mindia.db.async_session import AsyncSession
from mindia.db.session import Batch, Statement
from mindia.errors import ConnectionLostError, InvalidError

_PID = Batch([Statement("select pg_backend_pid()", (), int)], lambda rows: rows[0][0])
_ROLE = Batch([Statement("select current_setting('role')", (), str)], lambda rows: rows[0][0])
_WRONG: Batch[None] = Batch(
    [Statement("select 1", (), int), Statement("select %s::int", ("one",), int), Statement("select 2", (), int)],
    lambda _: None,
)


@pytest.fixture
def run(app: Mindia) -> Callable[[Callable[[AsyncSession], Awaitable[None]]], None]:
    """Run something with a session in an event loop of its own."""

    @asynccontextmanager
    async def session() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(app._database)
        try:
            yield session
        finally:
            await session.close()

    async def work(what: Callable[[AsyncSession], Awaitable[None]]) -> None:
        async with session() as opened:
            await what(opened)

    return lambda what: asyncio.run(work(what))


Run = Callable[[Callable[[AsyncSession], Awaitable[None]]], None]


def test_a_batch_sees_all_tenants_and_is_told_its_rows(run: Run, app: Mindia) -> None:
    made = [app.tenants.create(name) for name in ("Acme", "Globex")]
    names = Statement("select name from mindia.tenants where id = any(%s) order by name", ([t.id for t in made],), str)
    number = Statement("select %(number)s::int", {"number": 7}, int)

    async def work(session: AsyncSession) -> None:
        assert await session.ask(Batch([number, names], lambda rows: rows)) == [[7], ["Acme", "Globex"]]
        assert await session.ask(_ROLE) == app.settings.worker_role
        assert await session.ask(_PID) == await session.ask(_PID), "all are on one connection"

    run(work)


def test_a_refused_statement_is_an_error_of_ours_and_the_next_batch_is_not(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(session: AsyncSession) -> None:
        for _ in range(8):  # so often that a statement would have been prepared
            with pytest.raises(InvalidError, match='"one"'):
                await session.ask(_WRONG, repeats=True)
            assert await session.ask(_PID)

    with caplog.at_level(logging.WARNING):
        run(work)

    assert not caplog.records


def test_nothing_is_kept_of_a_batch_that_was_refused(run: Run, app: Mindia, tenant: Tenant) -> None:
    writes = Statement("update mindia.tenants set name = 'Globex' where id = %s returning name", (tenant.id,), str)

    async def work(session: AsyncSession) -> None:
        with pytest.raises(InvalidError):
            await session.ask(Batch([writes, *_WRONG.statements], lambda _: None))

    run(work)

    assert app.tenants.get(tenant.id) == tenant


@pytest.mark.parametrize("repeats", [True, False])
def test_a_lost_connection_is_replaced(run: Run, owner: Owner, repeats: bool) -> None:
    async def work(session: AsyncSession) -> None:
        lost = await session.ask(_PID)
        owner.execute("select pg_terminate_backend(%s, 10000)", (lost,))
        if not repeats:
            with pytest.raises(ConnectionLostError):
                await session.ask(_PID)
        assert await session.ask(_PID, repeats=repeats) != lost

    run(work)


def test_a_batch_that_is_called_off_leaves_nothing_behind(run: Run, owner: Owner) -> None:
    sleeps = Batch([Statement("select pg_sleep(600)::text", (), str)], lambda _: None)

    async def work(session: AsyncSession) -> None:
        pid = await session.ask(_PID)
        asleep = asyncio.create_task(session.ask(sleeps))
        while not owner.execute(
            "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'", (pid,)
        ).fetchall():
            await asyncio.sleep(0)

        asleep.cancel()
        await asyncio.wait([asleep])

        assert asleep.cancelled()
        assert await session.ask(_PID) != pid

    run(work)
