"""`add` waits for the disk while the server is at work on the rows: they are committed once the bytes are there."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, LiteralString

import psycopg
import pytest
from psycopg import sql
from tests.integration.media_rows import sweep_all
from tests.integration.processes import wait_until
from tests.integration.shared_bytes import QUICK, check_every_item_reads

import mindia
from mindia import Library, LocalStorage, Mindia, Quota, Settings, Tenant
from mindia.db._cursor import OwnCursor
from mindia.errors import QuotaExceededError, StorageUnavailableError
from mindia.storage.base import NewObject
from mindia.testing import samples
from mindia.testing.storage import listed

Host = psycopg.Connection[tuple[object, ...]]

PICTURE = samples.image("GIF", width=30, height=20)


class SlowDisk(LocalStorage):
    """Does what it is told to do before it waits for the disk; a wait that is over is not waited for again."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[], object] = int
        self.settled = 0

    @contextmanager
    def putting(self, bucket: str, objects: Sequence[NewObject], **more: Any) -> Iterator[Callable[[], None]]:
        with super().putting(bucket, objects, **more) as settle:

            def slowly() -> None:
                self.settled += 1
                self.before()
                settle()

            yield slowly


@pytest.fixture
def storage(tmp_path: Path) -> SlowDisk:
    return SlowDisk(tmp_path / "objects")


@pytest.fixture(params=["in children", "in process"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings() if request.param == "in children" else QUICK


@pytest.fixture
def app(database_url: str, storage: SlowDisk, settings: Settings) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    """A connection of the host's own, each of whose statements sees what is committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=["store", "return", "link", "error", "as a user", "in a transaction"])
def way(request: pytest.FixtureRequest, app: Mindia, library: Library, tenant: Tenant) -> Callable[[], object]:
    """One of the ways in which `add` writes its rows."""
    if request.param == "as a user":
        user = library.users.create("a@example.com")
        return lambda: app.library(tenant, user=user).media.add(PICTURE)
    if request.param == "in a transaction":

        def add() -> None:
            with library.transaction() as here:
                here.media.add(PICTURE)

        return add
    return lambda: library.media.add(PICTURE, on_duplicate=request.param)


def backend_of(app: Mindia) -> int:
    with app.transaction() as here:
        return here.connection.info.backend_pid


def fail() -> None:
    raise StorageUnavailableError("the disk is full")


def counted(host: Host, table: LiteralString, tenant: Tenant) -> object:
    query = sql.SQL("select count(*) from mindia.{} where tenant_id = %s").format(sql.Identifier(table))
    (count,) = host.execute(query, (tenant.id,)).fetchone() or (None,)
    return count


def check_nothing_is_left(library: Library, storage: SlowDisk, tenant: Tenant, host: Host) -> None:
    for table in ("images", "search_documents", "tasks", "staged_objects"):
        assert counted(host, table, tenant) == 0, table
    assert listed(storage, tenant.s3_bucket) == {}
    assert library.media.count() == 0


def test_nothing_is_committed_before_the_bytes_are_there_for_good(
    way: Callable[[], object], library: Library, storage: SlowDisk, tenant: Tenant, host: Host
) -> None:
    seen: list[object] = []
    storage.before = lambda: seen.append(counted(host, "images", tenant))

    way()

    assert set(seen) == {0}
    assert counted(host, "images", tenant) == 1
    assert len(check_every_item_reads(library)) == 1


def test_where_the_disk_fails_nothing_is_left(
    way: Callable[[], object], library: Library, storage: SlowDisk, tenant: Tenant, host: Host
) -> None:
    storage.before = fail

    with pytest.raises(StorageUnavailableError, match="the disk is full"):
        way()

    check_nothing_is_left(library, storage, tenant, host)
    storage.before = int
    way()
    assert len(check_every_item_reads(library)) == 1


def test_where_the_disk_fails_the_transaction_of_the_caller_goes_on(
    library: Library, storage: SlowDisk, tenant: Tenant
) -> None:
    with library.transaction() as here:
        first = here.media.add(PICTURE, filename="first.gif")
        storage.before = fail
        with pytest.raises(StorageUnavailableError):
            here.media.add(PICTURE, filename="second.gif")
        storage.before = int
        third = here.media.add(PICTURE, filename="third.gif")

    assert {item.id for item in check_every_item_reads(library)} == {first.id, third.id}
    assert set(listed(storage, tenant.s3_bucket)) == {first.s3_key, third.s3_key}


def test_what_interrupts_the_wait_undoes_all(library: Library, storage: SlowDisk, tenant: Tenant, host: Host) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    storage.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        library.media.add(PICTURE)

    check_nothing_is_left(library, storage, tenant, host)


def test_what_the_server_refuses_meanwhile_is_not_stored(
    app: Mindia, library: Library, storage: SlowDisk, tenant: Tenant, host: Host
) -> None:
    app.tenants.set_quota(tenant.id, Quota(max_items=0))

    with pytest.raises(QuotaExceededError):
        library.media.add(PICTURE)

    assert storage.settled
    check_nothing_is_left(library, storage, tenant, host)


@pytest.mark.parametrize("server_first", [True, False], ids=["the server first", "the disk first"])
def test_where_both_fail_it_is_the_disk_that_is_told_of(
    app: Mindia,
    library: Library,
    storage: SlowDisk,
    tenant: Tenant,
    host: Host,
    caplog: pytest.LogCaptureFixture,
    server_first: bool,
) -> None:
    def has_refused() -> bool:
        waits = "wait_event = 'ClientRead' and query like '%%use_quota%%' and pid = %s"
        return host.execute(f"select from pg_stat_activity where {waits}", (backend,)).rowcount > 0

    def wait_and_fail() -> None:
        if server_first:
            wait_until(has_refused)
        fail()

    app.tenants.set_quota(tenant.id, Quota(max_items=0))
    backend = backend_of(app)
    storage.before = wait_and_fail

    with pytest.raises(StorageUnavailableError):
        library.media.add(PICTURE)

    check_nothing_is_left(library, storage, tenant, host)
    assert [record for record in caplog.records if record.name.startswith("psycopg")] == []
    assert backend_of(app) == backend, "the connection is of use still"


def test_a_connection_that_is_lost_meanwhile_makes_one_item(
    library: Library, storage: SlowDisk, tenant: Tenant, host: Host
) -> None:
    def lose() -> None:
        storage.before = int
        ended = host.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and application_name = 'mindia'"
        ).fetchall()
        assert (True,) in ended

    library.media.count()
    storage.before = lose
    item = library.media.add(PICTURE)

    assert [each.id for each in check_every_item_reads(library)] == [item.id]
    assert list(listed(storage, tenant.s3_bucket)) == [item.s3_key]


@pytest.mark.parametrize("killed_at", [0, 1])
def test_who_is_killed_meanwhile_has_added_nothing(
    app: Mindia,
    library: Library,
    storage: SlowDisk,
    tenant: Tenant,
    host: Host,
    database_url: str,
    tmp_path: Path,
    killed_at: int,
) -> None:
    picture = tmp_path / "picture.gif"
    picture.write_bytes(PICTURE)
    with mindia.connect(database_url, storage=LocalStorage(storage.root)) as other:
        other.library(tenant).media.add(PICTURE)  # makes the folders, which are synced, too

    ended = subprocess.run(
        [sys.executable, "-c", _DYING, database_url, storage.root, str(tenant.id), picture, str(killed_at)],
        check=False,
        timeout=60,
    )

    assert ended.returncode == -9
    (item,) = check_every_item_reads(library)
    assert set(listed(storage, tenant.s3_bucket)) > {item.s3_key}
    sweep_all(app)
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key}
    assert counted(host, "staged_objects", tenant) == 0


_DYING = """
import os, signal, sys, uuid
from pathlib import Path
import mindia
real, calls = os.fsync, iter(range(int(sys.argv[5])))
def dying(file):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)
os.fsync = dying
with mindia.connect(sys.argv[1], storage=mindia.LocalStorage(sys.argv[2])) as app:
    app.library(uuid.UUID(sys.argv[3])).media.add(Path(sys.argv[4]))
"""


class _Upper(LocalStorage):
    """Stores pictures only once they have been seen."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.seen: list[str] = []

    def put(self, bucket: str, key: str, source: BinaryIO, **more: Any) -> None:
        self.seen.append(key)
        super().put(bucket, key, source, **more)


class _Wrapper:
    """Hands on what it does not do itself."""

    def __init__(self, inner: LocalStorage) -> None:
        self._inner = inner
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, bucket: str, key: str, source: BinaryIO, **more: Any) -> None:
        self.seen.append(key)
        self._inner.put(bucket, key, source, **more)


@pytest.mark.parametrize("kind", ["subclass", "wrapper"])
def test_a_store_with_a_put_of_its_own_is_not_passed_by(
    database_url: str, tmp_path: Path, tenant: Tenant, kind: str
) -> None:
    storage: Any = _Upper(tmp_path / "own") if kind == "subclass" else _Wrapper(LocalStorage(tmp_path / "own"))
    with mindia.connect(database_url, storage=storage) as app:
        library = app.library(tenant)
        keys = [library.media.add(PICTURE).s3_key, library.media.add(library.media.stage(PICTURE)).s3_key]
        keys += [result.media.s3_key for result in library.media.add_many([PICTURE] * 3) if result.media is not None]

        assert storage.seen == keys
        assert len(check_every_item_reads(library)) == 5


def test_where_the_statement_cannot_be_taken_back_the_connection_is_closed(
    storage: SlowDisk, tenant: Tenant, host: Host, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(cursor: OwnCursor[Any], query: Any, *arguments: Any) -> Any:
        if query == b"rollback":
            raise TypeError("no memory for that")
        return psycopg.Cursor.execute(cursor, query, *arguments)

    monkeypatch.setattr(OwnCursor, "execute", execute)
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        library = app.library(tenant)
        storage.before = fail
        with pytest.raises(TypeError):
            library.media.add(PICTURE)

        assert counted(host, "images", tenant) == 0
        assert listed(storage, tenant.s3_bucket) == {}
        storage.before = int
        library.media.add(PICTURE)
        assert len(check_every_item_reads(library)) == 1


_SENDING = ("mindia/db/session.py", "contextlib.py")
_ADDING = (*_SENDING, "mindia/services/", "mindia/storage/", "mindia/repositories/media_add.py")


class _Interrupting:
    """Raises KeyboardInterrupt in a step of our code, or counts the steps."""

    def __init__(self, traced: Sequence[str], at: int | None = None) -> None:
        self._traced = traced
        self._at = at
        self.steps = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in self._traced):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.steps += 1
            if self.steps == self._at:
                raise KeyboardInterrupt
        return self

    def run(self, work: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            work()
        finally:
            sys.settrace(before)


def test_an_interrupt_at_any_moment_leaves_no_item_without_its_bytes(database_url: str, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "objects")
    chance = random.Random(20_261_127)
    with mindia.connect(database_url, storage=storage) as app:
        tenant = app.tenants.create("Acme")

    def steps(traced: Sequence[str], at: int | None = None) -> int:
        # An application of its own: what is interrupted within the pool may keep a connection.
        with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
            media = app.library(tenant).media
            media.add(PICTURE)  # connects
            interrupting = _Interrupting(traced, at)
            try:
                interrupting.run(lambda: media.add(PICTURE))
            except KeyboardInterrupt:
                assert interrupting.steps == at
            return interrupting.steps

    for traced in (_ADDING, _SENDING):
        moments = chance.sample(range(1, steps(traced)), 40)
        assert sum(steps(traced, at) == at for at in moments) > 30

    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        library = app.library(tenant)
        items = check_every_item_reads(library)
        sweep_all(app)
        assert check_every_item_reads(library) == items
        assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key for item in items}
