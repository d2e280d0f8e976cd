"""The life of a handle: closed, forgotten, pickled, forked."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool
from tests.integration.library_calls import CALLS, SETTINGS, Known
from tests.integration.processes import forked, read_all, reap, wait_until

import mindia
from mindia import Library, LocalStorage, MediaKind, MediaLimits, MemoryStorage, Mindia, Quota, Settings, Tenant, errors
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import ClosedError, DatabaseUnavailableError, NotPicklableError, TransactionError
from mindia.testing import samples

_ID = uuid.uuid4()
_PAYLOAD = GenerateEmbedding(entity_id=_ID, entity_type=MediaKind.IMAGE)

CALLS_OF_THE_APPLICATION: dict[str, Callable[[Mindia], object]] = {
    "__enter__": lambda app: app.__enter__(),
    "api_keys.verify": lambda app: app.api_keys.verify(""),
    "check": lambda app: app.check(),
    "maintenance.copy_objects": lambda app: app.maintenance.copy_objects(MemoryStorage(), MemoryStorage()),
    "maintenance.remove_deleted": lambda app: app.maintenance.remove_deleted(),
    "maintenance.remove_deleted_tenants": lambda app: app.maintenance.remove_deleted_tenants(),
    "maintenance.remove_expired": lambda app: app.maintenance.remove_expired(),
    "maintenance.remove_login_failures": lambda app: app.maintenance.remove_login_failures(),
    "maintenance.remove_old_deliveries": lambda app: app.maintenance.remove_old_deliveries(),
    "maintenance.renew_webhook_secrets": lambda app: app.maintenance.renew_webhook_secrets(),
    "maintenance.remove_old_requests": lambda app: app.maintenance.remove_old_requests(),
    "maintenance.remove_uploads": lambda app: app.maintenance.remove_uploads(),
    "maintenance.index_vectors": lambda app: app.maintenance.index_vectors(),
    "maintenance.remove_retired_spaces": lambda app: app.maintenance.remove_retired_spaces(),
    "maintenance.sweep_staged": lambda app: app.maintenance.sweep_staged(),
    "maintenance.verify": lambda app: app.maintenance.verify(),
    "migrate": lambda app: app.migrate(),
    "migration_script": lambda app: app.migration_script(),
    "pending_migrations": lambda app: app.pending_migrations(),
    "request_log.counts": lambda app: app.request_log.counts(),
    "request_log.flush": lambda app: app.request_log.flush(),
    "request_log.list": lambda app: app.request_log.list(),
    "request_log.record": lambda app: app.request_log.record("GET", "/", 200, response_time_ms=1),
    "request_log.summary": lambda app: app.request_log.summary(),
    "request_log.total": lambda app: app.request_log.total(),
    "run": lambda app: app.run(lambda _: None),
    "run_until_idle": lambda app: app.run_until_idle(),
    "statistics.storage": lambda app: app.statistics.storage(),
    "statistics.tasks": lambda app: app.statistics.tasks(),
    "tasks.cancel": lambda app: app.tasks.cancel(_ID),
    "tasks.counts": lambda app: app.tasks.counts(),
    "tasks.enqueue": lambda app: app.tasks.enqueue(_PAYLOAD),
    "tasks.enqueue_many": lambda app: app.tasks.enqueue_many([_PAYLOAD]),
    "tasks.errors": lambda app: app.tasks.errors(_ID),
    "tasks.get": lambda app: app.tasks.get(_ID),
    "tasks.list": lambda app: list(app.tasks.list()),
    "tasks.reschedule": lambda app: app.tasks.reschedule(_ID, datetime.now(UTC)),
    "tasks.retry": lambda app: app.tasks.retry(_ID),
    "tasks.wait": lambda app: app.tasks.wait(_ID),
    "tenants.create": lambda app: app.tenants.create("Acme"),
    "tenants.delete": lambda app: app.tenants.delete(_ID),
    "tenants.export": lambda app: app.tenants.export(_ID, "acme.zip"),
    "tenants.get": lambda app: app.tenants.get(_ID),
    "tenants.import_archive": lambda app: app.tenants.import_archive("acme.zip"),
    "tenants.list": lambda app: list(app.tenants.list()),
    "tenants.reactivate": lambda app: app.tenants.reactivate(_ID),
    "tenants.rename": lambda app: app.tenants.rename(_ID, "Acme"),
    "tenants.set_limits": lambda app: app.tenants.set_limits(_ID, MediaLimits()),
    "tenants.set_quota": lambda app: app.tenants.set_quota(_ID, Quota()),
    "tenants.suspend": lambda app: app.tenants.suspend(_ID),
    "transaction": lambda app: app.transaction().__enter__(),
    "worker": lambda app: app.worker(),
}
_OPENS_NOTHING = {
    "close", "events.checked", "events.declare", "events.encoded", "library", "register_task", "schedule",
}  # fmt: skip

# Of Python 3.12 and newer; the tests are about just this.
_forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def closed(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Mindia, Library, Known]:
    """An application that was used and then closed."""
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    with mindia.connect(database_url, storage=storage, settings=SETTINGS) as app:
        library = app.library(app.tenants.create("Acme"))
        known = Known.of(library)
    return app, library, known


@pytest.mark.parametrize("call", CALLS_OF_THE_APPLICATION.values(), ids=CALLS_OF_THE_APPLICATION)
def test_every_call_of_a_closed_application_is_refused(
    call: Callable[[Mindia], object], closed: tuple[Mindia, Library, Known]
) -> None:
    with pytest.raises(ClosedError, match=r"mindia\.connect\(\) or mindia\.local\(\)"):
        call(closed[0])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_of_a_library_is_refused_when_its_application_is_closed(
    call: Callable[[Library, Known], object], closed: tuple[Mindia, Library, Known]
) -> None:
    _, library, known = closed
    with pytest.raises(ClosedError, match=r"mindia\.connect\(\) or mindia\.local\(\)"):
        call(library, known)


def test_no_transaction_begins_when_the_application_is_closed(
    closed: tuple[Mindia, Library, Known], host: psycopg.Connection[Any]
) -> None:
    _, library, _ = closed
    for transaction in (library.transaction(), library.transaction(connection=host)):
        with pytest.raises(ClosedError), transaction:
            pass
    assert host.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_no_public_call_of_an_application_is_missing_above(app: Mindia) -> None:
    handles = {"": app} | {f"{name}.": service for name, service in _services(app).items()}
    there = {
        prefix + name
        for prefix, handle in handles.items()
        for name, _ in inspect.getmembers(type(handle), inspect.isfunction)
        if not name.startswith("_")
    }
    assert there - _OPENS_NOTHING == CALLS_OF_THE_APPLICATION.keys() - {"__enter__"}


def test_closing_twice_does_nothing_more_and_the_application_says_that_it_is_closed(
    database_url: str, storage: LocalStorage
) -> None:
    app = mindia.connect(database_url, storage=storage)
    app.check()
    said = [app.closed, "open" in repr(app)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: app.close(), range(4)))
    app.close()

    assert said == [False, True]
    assert app.closed
    assert "closed" in repr(app)


def test_an_application_is_closed_at_the_end_of_its_block_also_by_an_exception(
    database_url: str, storage: LocalStorage
) -> None:
    app = mindia.connect(database_url, storage=storage)
    with suppress(KeyError), app as entered:
        assert entered is app
        app.check()
        raise KeyError("of the host")
    assert app.closed


def test_an_application_that_was_never_used_can_be_closed(storage: LocalStorage) -> None:
    app = mindia.connect("postgresql://nobody.invalid/", storage=storage)
    app.close()
    with pytest.raises(ClosedError):
        app.check()


def test_an_application_that_is_forgotten_closes_its_connections(database_url: str, storage: LocalStorage) -> None:
    url, name = _named(database_url)
    app = mindia.connect(url, storage=storage)
    library = app.library(app.tenants.create("Acme"))
    assert _backends(database_url, name)

    del app
    gc.collect()
    assert library.media.find().items == ()  # a library keeps its application

    del library
    gc.collect()
    wait_until(lambda: not _backends(database_url, name))


def test_handles_do_not_pickle_and_say_so(app: Mindia, library: Library) -> None:
    with app.transaction() as everything, library.transaction() as transaction:
        handles = [app, app.worker(), *_services(app).values(), library, *_services(library).values()]
        handles += [everything, everything.tenants, everything.tasks, transaction, transaction.media]
        for handle in handles:
            for move in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(NotPicklableError, match=rf"a {type(handle).__name__} .*cannot be pickled"):
                    move(handle)


def test_values_pickle_and_compare(app: Mindia, library: Library, tenant: Tenant) -> None:
    added = [
        library.media.add(samples.image(), filename="cat.jpg", metadata={"place": "Lisbon", "tags": ["a", 1, None]}),
        library.media.add(samples.wav(), filename="cat.wav"),
        library.media.add(samples.video(), filename="cat.mp4"),
        library.media.add(samples.pdf(), filename="paper.pdf", description="a cat"),
    ]
    values = [
        *added,
        tenant,
        library.media.stage(samples.image(), filename="staged.jpg"),
        library.media.find(),
        library.search("cat"),
        library.tasks.enqueue(GenerateEmbedding(entity_id=added[0].id, entity_type=added[0].kind)),
        app.run_until_idle(),
        app.check(),
        Settings(),
    ]
    for value in values:
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(value, protocol)) == value

    again = [library.media.get(item.id) for item in added]
    assert again == added
    assert len({*again, *added}) == len(added)


def test_errors_pickle_as_they_must_to_leave_a_process_pool() -> None:
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.MindiaError)]
    of_arguments: dict[type[errors.MindiaError], Callable[[], errors.MindiaError]] = {
        errors.MissingExtraError: lambda: errors.MissingExtraError("probing video", "video"),
        errors.RetryTask: lambda: errors.RetryTask("busy", after=timedelta(minutes=5)),
        errors.SnoozeTask: lambda: errors.SnoozeTask(timedelta(minutes=5)),
    }
    for kind in kinds:
        error = of_arguments[kind]() if kind in of_arguments else kind("what was wrong")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is kind
        assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))


@_forks
def test_a_forked_child_works_on_connections_of_its_own_while_its_parent_goes_on(
    database_url: str, storage: LocalStorage
) -> None:
    url, name = _named(database_url)
    with mindia.connect(url, storage=storage) as app:
        library = app.library(app.tenants.create("Acme"))
        library.media.add(samples.image(), filename="before.jpg")
        of_parent = _backends(database_url, name)

        def work() -> tuple[set[int], set[str]]:
            pids = set()
            for number in range(20):
                library.media.add(samples.image(), filename=f"child{number}.jpg")
                with library.transaction() as tx:
                    pids.add(tx.connection.info.backend_pid)
            return pids, {item.filename for item in library.media.find(limit=1000)}

        with forked(work) as result:
            for number in range(20):
                library.media.add(samples.image(), filename=f"parent{number}.jpg")
            of_child, seen_by_child = result()

        assert of_parent
        assert of_child.isdisjoint(of_parent)
        assert {"before.jpg", "child0.jpg", "child19.jpg"} <= seen_by_child
        assert of_parent <= _backends(database_url, name)  # the end of the child has not closed them
        assert len(library.media.find(limit=1000)) == 41


@_forks
@pytest.mark.parametrize("leave_by", [None, KeyError("of the host")], ids=["its end", "an exception"])
def test_a_child_that_leaves_its_parents_transaction_neither_commits_it_nor_rolls_it_back(
    leave_by: Exception | None, database_url: str, library: Library
) -> None:
    parent = os.getpid()
    read, write = os.pipe()
    try:
        with library.transaction() as tx:
            first = tx.media.add(samples.image(), filename="first.jpg")
            if child := os.fork():
                os.close(write)
                said_by_child = read_all(read).decode()
                os.close(read)
                reap(child)
                second = tx.media.add(samples.image(), filename="second.jpg")
                with psycopg.connect(database_url) as other:
                    query = "select count(*) from mindia.images where id = any(%s)"
                    assert other.execute(query, ([first.id, second.id],)).fetchone() == (0,)
            else:
                with pytest.raises(TransactionError):
                    tx.media.find()
                own = library.media.add(samples.image(), filename="child.jpg")
                assert library.media.find().items == (own,)
                _raise(leave_by)
    except BaseException as error:
        if os.getpid() == parent:
            raise
        os.write(write, repr(error).encode())
        os._exit(0)
    if os.getpid() != parent:
        os.write(write, b"nothing was raised")
        os._exit(0)

    assert said_by_child.startswith("TransactionError('a transaction belongs" if leave_by is None else "KeyError")
    assert {item.filename for item in library.media.find()} == {"first.jpg", "second.jpg", "child.jpg"}


@_forks
def test_a_child_does_not_use_the_connections_of_a_pool_that_was_handed_in(
    database_url: str, storage: LocalStorage
) -> None:
    url, name = _named(database_url)
    with (
        ConnectionPool(url, min_size=0, max_size=2, open=True) as pool,
        mindia.connect(pool, storage=storage) as app,
    ):
        library = app.library(app.tenants.create("Acme"))
        library.media.add(samples.image(), filename="before.jpg")
        of_parent = _backends(database_url, name)

        def work() -> int:
            with library.transaction() as tx:
                tx.media.add(samples.image(), filename="child.jpg")
                return tx.connection.info.backend_pid

        with library.transaction() as tx, forked(work) as result:
            tx.media.add(samples.image(), filename="parent.jpg")
            assert result() not in of_parent

        assert of_parent <= _backends(database_url, name)
        assert len(library.media.find()) == 3
        with pool.connection() as connection:
            assert connection.execute("select 1").fetchone() == (1,)


_made_before: Library | None = None
"""As a module of a host keeps it that makes its application and then forks."""


def _add_in_child(number: int) -> tuple[int, mindia.Media]:
    assert _made_before is not None
    return os.getpid(), _made_before.media.add(samples.image(), filename=f"{number}.jpg")


@_forks
def test_the_processes_of_a_forking_pool_share_an_application_that_was_made_before(library: Library) -> None:
    global _made_before
    library.media.find()
    _made_before = library
    try:
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as processes:
            added = list(processes.map(_add_in_child, range(8)))
    finally:
        _made_before = None

    assert os.getpid() not in {pid for pid, _ in added}
    assert {item for _, item in added} == set(library.media.find())


@_forks
def test_a_fork_while_another_thread_connects_leaves_no_lock_behind(storage: LocalStorage) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, ".s.PGSQL.5432")
        listener.bind(str(path))
        listener.listen()
        with mindia.connect(make_conninfo(host=folder), storage=storage) as app:

            def check() -> str:
                with pytest.raises(DatabaseUnavailableError) as raised:
                    app.check()
                return str(raised.value)

            def work() -> str:
                path.unlink()  # so that its own attempt fails at once
                return check()

            stuck = threading.Thread(target=check)
            stuck.start()
            server_side, _ = listener.accept()  # by now the other thread waits for an answer
            with forked(work) as result:
                assert "cannot be reached" in result()
            server_side.close()
            stuck.join()


@_forks
def test_a_child_may_close_what_it_inherited_without_an_effect_on_its_parent(
    database_url: str, storage: LocalStorage
) -> None:
    url, name = _named(database_url)
    with mindia.connect(url, storage=storage) as app:
        app.tenants.create("Acme")
        of_parent = _backends(database_url, name)

        def work() -> None:
            app.tenants.create("Globex")
            app.close()
            with pytest.raises(ClosedError):
                app.tenants.create("Initech")

        with forked(work) as result:
            result()
        app.tenants.create("Initech")
        wait_until(lambda: _backends(database_url, name) == of_parent)


def _services(root: Mindia | Library) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(root).items()
        if not name.startswith("_") and type(value).__module__.startswith("mindia.services.")
    }


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _named(url: str) -> tuple[str, str]:
    """Return a connection string whose connections can be told from others, and their name."""
    name = f"mindia-{uuid.uuid4().hex[:12]}"
    return make_conninfo(url, application_name=name), name


def _backends(url: str, name: str) -> set[int]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select pid from pg_stat_activity where application_name = %s", (name,))
        return {pid for (pid,) in found}
