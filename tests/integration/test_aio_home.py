"""`mindia.aio.local()`: a home that is opened and closed by asyncio hosts, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, assert_type
from uuid import uuid4

import attrs
import pytest

import mindia
from mindia import Mindia, Tenant, aio
from mindia.aio import AsyncMindia
from mindia.errors import ClosedError, InvalidError
from mindia.testing import samples


def _is_served(home: Path) -> bool:
    return (home / "postgresql" / "data" / "postmaster.pid").exists()


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("mindia-aio"):
            thread.join(60)


@attrs.define
class Held:
    """Holds up what a thread does; `begun` once it is at it, `go_on` to let it."""

    begun: asyncio.Event
    go_on: threading.Event = attrs.field(factory=threading.Event)
    made: list[Mindia] = attrs.field(factory=list)

    @classmethod
    def here(cls) -> Held:
        return cls(asyncio.Event())

    def hold(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self.begun.set)
        assert self.go_on.wait(60)


def test_a_home_is_entered_or_awaited(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def work() -> tuple[Tenant, bytes]:
        async with aio.local(home, threads=2) as app:
            assert_type(app, AsyncMindia)
            tenant = await app.only_tenant()
            assert await app.only_tenant() == tenant
            item = await app.library(tenant).media.add(samples.image(), filename="cat.jpg")
        assert app.closed
        assert not _is_served(home)
        with pytest.raises(ClosedError):
            await app.only_tenant()

        again = await aio.local(home)
        assert_type(again, AsyncMindia)
        try:
            await again.tenants.create("Globex")
            with pytest.raises(InvalidError, match="more than one tenant"):
                await again.only_tenant()
            return tenant, await again.library(tenant).media.read(item)
        finally:
            await again.close()

    tenant, content = asyncio.run(work())
    assert content == samples.image()
    assert not _is_served(home)
    with mindia.local(home) as app:  # the same home
        assert tenant in list(app.tenants.list())


def test_what_is_opened_for_nobody_any_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, real = tmp_path / "home", mindia.app.local

    async def work() -> Held:
        held, loop = Held.here(), asyncio.get_running_loop()

        def local(*arguments: Any, **named: Any) -> Mindia:
            app = real(*arguments, **named)
            held.made.append(app)
            held.hold(loop)
            return app

        monkeypatch.setattr(mindia.app, "local", local)

        async def use() -> None:
            async with aio.local(home):
                raise AssertionError("nobody comes here")

        task = asyncio.create_task(use())
        await held.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _is_served(home)
        held.go_on.set()
        return held

    (app,) = asyncio.run(work()).made
    _join_threads()
    assert app.closed
    assert not _is_served(home)


def test_what_was_not_begun_is_not_opened(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def work() -> None:
        task = asyncio.create_task(_entered(home))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    _join_threads()
    assert not home.exists()


async def _entered(home: Path) -> None:
    async with aio.local(home):
        pass


def test_a_close_that_is_cancelled_is_done_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, real = tmp_path / "home", Mindia.close

    async def work() -> tuple[Mindia, Held]:
        held, loop = Held.here(), asyncio.get_running_loop()

        def close(app: Mindia) -> None:
            held.hold(loop)
            real(app)

        app = await aio.local(home, threads=1)
        monkeypatch.setattr(Mindia, "close", close)
        task = asyncio.create_task(app.close())
        await held.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return app.sync, held

    app, held = asyncio.run(work())
    assert _is_served(home)
    held.go_on.set()  # the loop has gone by now
    _join_threads()
    assert not caplog.records
    assert app.closed
    assert not _is_served(home)


def test_what_cannot_be_opened_is_said_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InvalidError, match="threads must be at least 1"):
        aio.local(tmp_path / "home", threads=0)

    async def work() -> None:
        opening = aio.local(tmp_path / "file")
        with pytest.raises((mindia.MindiaError, OSError)):
            await opening

    asyncio.run(work())


def test_where_there_are_several_tenants_none_is_the_only_one(app: Mindia) -> None:
    async def work() -> None:
        own = AsyncMindia(app)
        for _ in range(2):
            await own.tenants.create(f"One of several {uuid4()}")
        with pytest.raises(InvalidError, match="more than one tenant"):
            await own.only_tenant()
        assert await own.pending_migrations() == []
        assert await own.migration_script() == ""

    asyncio.run(work())
