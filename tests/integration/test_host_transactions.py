"""Inside a transaction that the host has begun on its own connection, however that connection is set."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.adapt import PyFormat
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb, set_json_dumps, set_json_loads
from psycopg.types.string import TextLoader
from tests.integration.host_rows import Observer, orders
from tests.integration.library_calls import (
    CALLS,
    FILM,
    Known,
    new_preset,
    new_user,
    new_webhook,
    task_of_nothing,
    uploaded,
)

from mindia import Library, Mindia, Tenant
from mindia.domain.media import Metadata
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import (
    ClosedError,
    ConnectionLostError,
    NotFoundError,
    SchemaOutOfDateError,
    StagedObjectExpiredError,
    TenantInactiveError,
    TransactionError,
)
from mindia.testing import samples

Host = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


@pytest.fixture
def others(database_url: str, tenant: Tenant) -> Observer:
    return Observer(database_url, tenant)


def test_what_the_host_commits_appears_with_its_own_rows_and_not_before(
    library: Library, host: Host, others: Observer
) -> None:
    host.execute("insert into public.orders values (1)")
    with library.transaction(connection=host) as tx:
        assert tx.connection is host
        item = tx.media.add(samples.image(), filename="cat.jpg")
        assert [result.media for result in tx.search("cat")] == [item]
    assert host.info.transaction_status == TransactionStatus.INTRANS
    assert others.counts() == {}

    host.commit()

    assert others.counts() == {"orders": 1, "images": 1, "search_documents": 1, "tasks": 1}
    assert library.media.get(item.id) == item


def test_what_the_host_rolls_back_is_gone_with_its_own_rows(library: Library, host: Host, others: Observer) -> None:
    kept = library.media.add(samples.image())
    before = others.counts()
    host.execute("insert into public.orders values (1)")
    with library.transaction(connection=host) as tx:
        tx.media.add(samples.image())
        tx.media.delete(kept)

    host.rollback()

    assert others.counts() == before
    assert library.media.read(kept)


def test_a_host_that_has_sent_nothing_yet_still_ends_the_transaction(
    library: Library, host: Host, others: Observer
) -> None:
    with library.transaction(connection=host) as tx:
        tx.media.add(samples.image())
    assert others.counts() == {}
    host.rollback()
    assert others.counts() == {}


def test_a_host_in_autocommit_may_begin_by_a_transaction_block(
    library: Library, database_url: str, others: Observer
) -> None:
    with psycopg.connect(database_url, autocommit=True) as host:
        with host.transaction(), library.transaction(connection=host) as tx:
            tx.media.add(samples.image())
            assert others.counts() == {}
        assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 1}
        assert host.info.transaction_status == TransactionStatus.IDLE


def test_an_exception_passes_through_and_the_host_decides_what_becomes_of_the_rest(
    library: Library, host: Host, others: Observer
) -> None:
    thrown = RuntimeError("of the host")

    def work() -> None:
        with library.transaction(connection=host) as tx:
            tx.media.add(samples.image())
            raise thrown

    with pytest.raises(RuntimeError) as caught:
        work()
    assert caught.value is thrown
    assert host.info.transaction_status == TransactionStatus.INTRANS

    host.commit()

    assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 1}


def test_an_exception_of_the_hosts_own_statement_is_the_drivers(library: Library, host: Host) -> None:
    raised: list[psycopg.Error] = []

    def work() -> None:
        with library.transaction(connection=host) as tx:
            try:
                tx.connection.execute("select from there_is_no_such_table")
            except psycopg.Error as error:
                raised.append(error)
                raise

    with pytest.raises(psycopg.errors.UndefinedTable) as caught:
        work()

    assert [caught.value] == raised
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_error_that_is_caught_leaves_the_hosts_transaction_usable(
    app: Mindia, library: Library, host: Host, others: Observer
) -> None:
    staged = library.media.stage(samples.image())
    suspended = app.tenants.create("Suspended")
    app.tenants.suspend(suspended.id)
    host.execute("insert into public.orders values (1)")

    # The database itself raises the first two: without a savepoint nothing would be left of the host's transaction.
    with pytest.raises(NotFoundError), app.library(uuid4()).transaction(connection=host):
        pass
    with pytest.raises(TenantInactiveError), app.library(suspended).transaction(connection=host):
        pass
    with library.transaction(connection=host) as tx:
        tx.media.add(staged)
        with pytest.raises(StagedObjectExpiredError):
            tx.media.add(staged)
        with pytest.raises(NotFoundError):
            tx.media.get(uuid4())
    host.execute("insert into public.orders values (2)")
    host.commit()

    assert others.counts() == {"orders": 2, "images": 1, "search_documents": 1, "tasks": 1}


def test_a_savepoint_of_the_host_takes_back_what_was_done_inside_and_no_more(
    library: Library, host: Host, others: Observer
) -> None:
    with library.transaction(connection=host) as tx:
        kept = tx.media.add(samples.image())
    host.execute("savepoint before")
    with library.transaction(connection=host) as tx:
        tx.media.delete(kept)
        tx.media.add(samples.image())
        tx.media.add(samples.image())
    host.execute("rollback to savepoint before")
    with host.transaction(force_rollback=True), library.transaction(connection=host) as tx:
        tx.media.delete(kept)
    host.commit()

    assert list(library.media.find()) == [kept]
    assert others.counts() == {"images": 1, "search_documents": 1, "tasks": 1}


def test_several_tenants_can_join_one_transaction_of_the_host(app: Mindia, tenant: Tenant, host: Host) -> None:
    other = app.tenants.create("Globex")

    with (
        app.library(tenant).transaction(connection=host) as mine,
        app.library(other).transaction(connection=host) as theirs,
    ):
        ours = mine.media.add(samples.image())
        item = theirs.media.add(samples.image())
        assert list(mine.media.find()) == [ours]
        assert list(theirs.media.find()) == [item]
        for library, foreign in ((mine, item), (theirs, ours)):
            with pytest.raises(NotFoundError):
                library.media.get(foreign.id)
    host.commit()

    assert app.library(other).media.get(item.id) == item


def _as_psycopg_comes(host: Host) -> None:
    """Change nothing."""


def _with_rows_as_dicts(host: Host) -> None:
    host.row_factory = dict_row


def _as_django_adapts(host: Host) -> None:
    host.adapters.register_loader("jsonb", TextLoader)
    host.adapters.register_loader("timestamptz", TextLoader)


def _with_odd_loaders_of_all_types(host: Host) -> None:
    for name in ("uuid", "text", "int4", "int8", "float8", "bytea", "bool", "varchar", "timestamptz", "jsonb"):
        host.adapters.register_loader(name, type("Loader", (TextLoader,), {"load": lambda *_: "odd"}))
        host.adapters.register_loader(
            name, type("BinaryLoader", (TextLoader,), {"format": Format.BINARY, "load": lambda *_: "odd"})
        )


def _with_cursors_that_bind_in_the_client(host: Host) -> None:
    host.cursor_factory = psycopg.ClientCursor


def _with_every_statement_prepared(host: Host) -> None:
    host.prepare_threshold = 0


def _with_no_statement_prepared(host: Host) -> None:
    host.prepare_threshold = None


def _serializable(host: Host) -> None:
    host.isolation_level = psycopg.IsolationLevel.SERIALIZABLE


def _set(*statements: str) -> Callable[[Host], None]:
    def configure(host: Host) -> None:
        for statement in statements:
            host.execute(statement.encode())
        host.commit()

    return configure


CONFIGURATIONS: dict[str, Callable[[Host], None]] = {
    "as psycopg comes": _as_psycopg_comes,
    "rows as dicts": _with_rows_as_dicts,
    "adapters as Django's": _as_django_adapts,
    "odd loaders": _with_odd_loaders_of_all_types,
    "client cursors": _with_cursors_that_bind_in_the_client,
    "all prepared": _with_every_statement_prepared,
    "none prepared": _with_no_statement_prepared,
    "serializable": _serializable,
    "DateStyle German": _set("set datestyle = 'German'"),
    "Tokyo": _set("set timezone = 'Asia/Tokyo'"),
    "IntervalStyle": _set("set intervalstyle = 'sql_standard'"),
    "empty search_path": _set("set search_path = ''"),
    "bytea_output escape": _set("set bytea_output = 'escape'"),
    "few digits": _set("set extra_float_digits = -15"),
    "all at once": _set(
        "set datestyle = 'German'", "set timezone = 'Asia/Tokyo'", "set search_path = ''", "set bytea_output = 'escape'"
    ),
}


@pytest.fixture(params=CONFIGURATIONS)
def configured_host(request: pytest.FixtureRequest, database_url: str) -> Iterator[Host]:
    with psycopg.connect(database_url) as host:
        CONFIGURATIONS[request.param](host)
        yield host


def test_the_library_reads_and_writes_the_same_on_every_connection(library: Library, configured_host: Host) -> None:
    metadata: Metadata = {"place": "Łódź", "year": 2024, "rating": 0.1, "tags": ["猫", None, True], "nested": {"a": {}}}
    expires_at = datetime.now(UTC) + timedelta(days=30, microseconds=1)
    picture = library.media.stage(samples.image(width=7, height=5), filename="猫 cat.jpg")
    tone = library.media.stage(samples.wav(seconds=0.125), filename="purr.wav")
    another = library.media.stage(samples.image())
    more = [library.media.stage(samples.image(color=color)) for color in ("plum", "gold", "navy")]
    film = library.media.stage(FILM, filename="film.mp4")
    library.media.stage(
        samples.image(color="ivory")
    )  # so that the keys that are leased already are enough for the rest
    with library.transaction(connection=configured_host) as tx:
        added = tx.media.add(picture, metadata=metadata, expires_at=expires_at)
        sound = tx.media.add(tone)
        task = tx.tasks.enqueue(
            GenerateEmbedding(entity_id=added.id, entity_type=added.kind), run_at=expires_at, dedup_key="straße"
        )
        tx.index.embed(added.id)
        inside = tx.media.get(added.id), tx.media.get(sound.id), tx.tasks.get(task.id), tx.search("cat")
        pages = [*(page := tx.media.find(limit=1)), *tx.media.find(limit=1, after=page.next)]
        known = Known(
            staged=another,
            staged_too=more[0],
            item=tx.media.add(more[2]),
            other=tx.media.add(more[1]),
            recording=sound,
            film=tx.media.add(film),
            task=task,
            waiting=task_of_nothing(tx),
            cancelled=tx.tasks.cancel(task_of_nothing(tx)),
            ended=tx.tasks.cancel(task_of_nothing(tx)),
            preset=new_preset(tx),
            user=new_user(tx),
            issued=tx.api_keys.issue("robot", role="viewer"),
            webhook=(webhook := new_webhook(tx)),
            delivery=tx.webhooks.test(webhook),
            uploaded=uploaded(tx),
            uploading=uploaded(tx),
        )
        tx.webhooks.pause(webhook)
        sees_all = configured_host.isolation_level in (None, psycopg.IsolationLevel.READ_COMMITTED)
        for name, call in CALLS.items():
            made = ("media.derive", "media.placeholder", "media.storyboard", "media.thumbnail")
            if name in made and not sees_all:
                with pytest.raises(StagedObjectExpiredError, match="make it before that begins"):
                    call(tx, known)
            else:
                call(tx, known)
    configured_host.commit()

    assert inside[:3] == (added, sound, task)
    assert sorted(pages, key=lambda item: item.id) == [added, sound]
    assert added.metadata == metadata
    assert added.expires_at == expires_at
    assert added.uploaded_at.tzinfo is UTC
    assert task.scheduled_for == expires_at
    assert library.media.get(added.id) == added
    assert library.tasks.get(task.id) == task
    assert list(library.search("cat")) == list(inside[3])


@pytest.mark.parametrize(
    "configured_host", ["as psycopg comes", "adapters as Django's", "all prepared", "all at once"], indirect=True
)
def test_the_hosts_connection_is_left_as_it_was(library: Library, configured_host: Host) -> None:
    known = Known.of(library)
    configured_host.execute("select set_config('mindia.tenant_id', '', true)")
    before = _state(configured_host)

    with library.transaction(connection=configured_host) as tx:
        for call in CALLS.values():
            call(tx, known)
            assert not _is_bound_to_a_tenant(configured_host)
        with pytest.raises(NotFoundError):
            tx.media.get(uuid4())
        assert _state(configured_host) == before
    assert _state(configured_host) == before

    configured_host.commit()
    assert not _is_bound_to_a_tenant(configured_host)


def _state(host: Host) -> dict[str, object]:
    with psycopg.Cursor(host, row_factory=psycopg.rows.tuple_row) as cursor:
        # Without those of extensions, which appear when an extension is first used.
        settings = cursor.execute("select name, setting from pg_settings where name not like '%.%'").fetchall()
    return {
        "settings": settings,
        "attributes": (
            host.autocommit,
            host.isolation_level,
            host.read_only,
            host.prepare_threshold,
            host.row_factory,
            host.cursor_factory,
            host.info.transaction_status,
        ),
        "loaders": [host.adapters.get_loader(info.oid, form) for info in host.adapters.types for form in Format],
        "dumpers": [host.adapters.get_dumper(cls, PyFormat.AUTO) for cls in (str, UUID, datetime, bytes, Jsonb)],
    }


def _is_bound_to_a_tenant(host: Host) -> bool:
    with psycopg.Cursor(host) as cursor:
        cursor.execute("select 1 where current_setting('mindia.tenant_id', true) <> ''")
        return cursor.fetchone() is not None


def test_the_hosts_own_results_keep_their_types(library: Library, host: Host) -> None:
    host.row_factory = dict_row
    _as_django_adapts(host)
    with library.transaction(connection=host) as tx:
        item = tx.media.add(samples.image(), metadata={"place": "Lisbon"})
        row = host.execute("select id, metadata from mindia.images where id = %s", (item.id,)).fetchone()
    assert row == {"id": item.id, "metadata": '{"place": "Lisbon"}'}
    host.rollback()


def test_a_host_may_have_changed_the_drivers_json_for_the_whole_process(library: Library, host: Host) -> None:
    metadata: Metadata = {"rating": 0.5, "place": "Łódź"}
    set_json_dumps(lambda _: '"odd"')
    set_json_loads(lambda _: "odd")
    try:
        assert host.execute("select '1'::jsonb").fetchone() == ("odd",)
        item = library.media.add(samples.image(), metadata=metadata)
        assert library.media.get(item.id).metadata == metadata
    finally:
        set_json_dumps(json.dumps)
        set_json_loads(json.loads)
    assert library.media.get(item.id).metadata == metadata


def test_a_connection_can_be_used_over_and_over_between_commits_and_rollbacks(
    library: Library, host: Host, others: Observer
) -> None:
    kept = []
    for number in range(12):
        with library.transaction(connection=host) as tx:
            item = tx.media.add(samples.image())
            assert tx.media.get(item.id) == item
            with pytest.raises(NotFoundError):
                tx.media.get(uuid4())
        if number % 2:
            host.rollback()
        else:
            host.commit()
            kept.append(item)
        if number % 3 == 0:
            host.autocommit = True
            host.execute("deallocate all")
            host.autocommit = False

    assert set(library.media.find()) == set(kept)
    assert others.counts()["images"] == len(kept)


def test_a_transaction_of_the_host_is_closed_to_the_library_when_the_block_ends(library: Library, host: Host) -> None:
    with library.transaction(connection=host) as tx:
        tx.media.find()
    with pytest.raises(ClosedError):
        tx.media.find()
    host.rollback()


def test_a_transaction_of_the_host_is_refused_to_every_other_thread(library: Library, host: Host) -> None:
    refused = []
    with library.transaction(connection=host) as tx:

        def use() -> None:
            with pytest.raises(TransactionError, match="thread"):
                tx.media.find()
            refused.append(True)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    host.rollback()
    assert refused


@pytest.mark.parametrize("end", [psycopg.Connection.commit, psycopg.Connection.rollback])
def test_what_comes_after_the_hosts_commit_or_rollback_is_refused_and_not_committed_by_itself(
    library: Library, host: Host, others: Observer, end: Callable[[Host], None]
) -> None:
    with library.transaction(connection=host) as tx:
        end(host)
        with pytest.raises(TransactionError, match="was ended"):
            tx.media.add(samples.image())

    assert others.counts() == {}


def test_a_lost_connection_of_the_host_is_an_error_of_ours_in_our_calls(library: Library, database_url: str) -> None:
    host = psycopg.connect(database_url)
    with closing(host), library.transaction(connection=host) as tx:
        with psycopg.connect(database_url, autocommit=True) as killer:
            killer.execute("select pg_terminate_backend(%s, 10000)", (host.info.backend_pid,))
        with pytest.raises(ConnectionLostError) as caught:
            tx.media.find()
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        with pytest.raises(ConnectionLostError):
            tx.media.find()


@contextmanager
def _in_autocommit(url: str) -> Iterator[Host]:
    with psycopg.connect(url, autocommit=True) as host:
        yield host


@contextmanager
def _in_a_failed_transaction(url: str) -> Iterator[Host]:
    with psycopg.connect(url) as host:
        with pytest.raises(psycopg.errors.DivisionByZero):
            host.execute("select 1 / 0")
        yield host
        host.rollback()


@contextmanager
def _closed(url: str) -> Iterator[Host]:
    host = psycopg.connect(url)
    host.close()
    yield host


@contextmanager
def _lost(url: str) -> Iterator[Host]:
    with psycopg.connect(url) as host:
        with pytest.raises(psycopg.OperationalError):
            host.execute("select pg_terminate_backend(pg_backend_pid())")
        yield host


@contextmanager
def _in_another_encoding(url: str) -> Iterator[Host]:
    with psycopg.connect(url, client_encoding="latin1") as host:
        yield host


@contextmanager
def _in_the_middle_of_a_stream(url: str) -> Iterator[Host]:
    with psycopg.connect(url) as host:
        stream = host.cursor().stream("select generate_series(1, 3)")
        next(stream)
        yield host
        assert [row for (row,) in stream] == [2, 3]


@contextmanager
def _in_a_pipeline(url: str) -> Iterator[Host]:
    with psycopg.connect(url) as host, host.pipeline():
        yield host


@contextmanager
def _of_another_driver(_: str) -> Iterator[Any]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@contextmanager
def _of_an_event_loop(url: str) -> Iterator[Any]:
    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(url)

    with asyncio.Runner() as runner:
        connection = runner.run(connect())
        yield connection
        runner.run(connection.close())


@contextmanager
def _no_connection_at_all(url: str) -> Iterator[Any]:
    yield url


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (_in_autocommit, r"commits each statement by itself.*connection\.transaction\(\)"),
        (_in_a_failed_transaction, "has failed"),
        (_closed, "is closed"),
        (_lost, "is closed"),
        (_in_another_encoding, "LATIN1"),
        (_in_the_middle_of_a_stream, "in the middle of a statement"),
        (_in_a_pipeline, "pipeline"),
        (_of_another_driver, r"not sqlite3\.Connection.*driver_connection"),
        (_of_an_event_loop, r"not psycopg\.AsyncConnection"),
        (_no_connection_at_all, r"not builtins\.str"),
    ],
)
def test_a_connection_that_could_not_keep_the_promise_is_refused(
    library: Library, database_url: str, refused: Callable[[str], Any], message: str
) -> None:
    entered = False
    with refused(database_url) as connection:
        with pytest.raises(TransactionError, match=message), library.transaction(connection=connection):
            entered = True
        assert not entered


def test_refusing_a_connection_in_autocommit_sends_nothing_on_it(library: Library, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as host:
        with pytest.raises(TransactionError), library.transaction(connection=host):
            pass
        assert host.info.transaction_status == TransactionStatus.IDLE


def test_a_connection_to_a_database_without_mindia_is_refused_with_its_name(
    library: Library, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url) as host:
        with pytest.raises(SchemaOutOfDateError, match=host.info.dbname), library.transaction(connection=host):
            pass
        assert host.execute("select 1").fetchone() == (1,)


def test_a_closed_application_joins_no_transaction(app: Mindia, library: Library, host: Host) -> None:
    app.close()
    with pytest.raises(ClosedError), library.transaction(connection=host):
        pass
    assert host.info.transaction_status == TransactionStatus.IDLE
