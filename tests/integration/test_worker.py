"""What users of `app.run_until_idle` and `app.worker` may rely on."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.faults.harness import Harness, wait_until
from tests.faults.worker_workload import Wait, connect, work, work_impatiently, work_lazily

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings, Task, TaskContext, TaskStatus, WorkReport
from mindia._ids import uuid7
from mindia.errors import ClosedError, DatabaseUnavailableError, DiscardTask, InvalidError
from mindia.testing import samples
from mindia.worker.claiming import Room
from mindia.worker.execution import Execution, Outcome
from mindia.worker.executor import EventLoop
from mindia.worker.loop import Worker
from mindia.worker.presence import Presence
from mindia.worker.rounds import Rounds

SETTINGS = Settings(
    heartbeat=timedelta(seconds=0.1),
    worker_timeout=timedelta(seconds=1),
    poll=timedelta(seconds=0.02),
    maintenance=timedelta(seconds=0.05),
    retry_base=timedelta(seconds=10),
    retry_cap=timedelta(seconds=60),
)

# The process of the server in which a worker's claim waits for a lock.
CLAIMING: LiteralString = """
select pid from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
  and (query like '%with recursive waiting%' or query like '%with recursive lane%')
"""

Host = psycopg.Connection[tuple[Any, ...]]


@attrs.frozen
class Job:
    """A payload that says what it is."""

    name: str = ""


class Handler:
    """Does with a job what the test says, and keeps what ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, UUID]] = []
        self.does: Callable[[TaskContext, Job], object] = lambda _, __: None

    def __call__(self, context: TaskContext, job: Job) -> None:
        self.ran.append((job.name, context.task.id))
        self.does(context, job)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ran]

    def raises(self, error: BaseException, *, for_: str = "bad") -> None:
        """Raise the error in jobs of that name."""

        def does(_: TaskContext, job: Job) -> None:
            if job.name == for_:
                raise error

        self.does = does


class Claimant:
    """A worker that does each of its steps when the test says."""

    def __init__(self, app: Mindia, *, concurrency: int = 10) -> None:
        self._runtime = app._runtime()
        kinds = self._runtime.registry.kinds
        worker_id = uuid7()
        self._concurrency = concurrency
        self._event_loop = EventLoop()
        self._rounds = Rounds(self._runtime, worker_id, kinds)
        self._presence = Presence(
            self._runtime, worker_id, concurrency=concurrency, kinds=kinds, on_cancel=lambda _: None
        )
        self.beat = self._presence.beat
        self.alive = self._presence.alive
        self.rescue = self._presence.rescue

    def claim(self, limit: int) -> list[Task]:
        return self._rounds.go(room=Room(limit=limit, free=limit, threads=self._concurrency)).tasks

    def execute(self, task: Task) -> Outcome:
        execution = Execution(
            task,
            self._runtime.registry,
            self._runtime.library_of,
            report=self._presence.report,
            run_coroutine=self._event_loop.run,
        )
        execution.run()
        (outcome,) = self._rounds.go(ended=[execution]).outcomes
        return outcome


@pytest.fixture(scope="module")
def _module_url(server_url: str) -> Iterator[str]:
    name = f"mindia_test_{uuid7().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = make_conninfo(server_url, dbname=name)
        with mindia.connect(url, storage=MemoryStorage()) as app:
            app.migrate()
        yield url
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def url(_module_url: str) -> str:
    """A database with nothing to do."""
    with psycopg.connect(_module_url, autocommit=True) as connection:
        for table in ("tasks", "workers", "staged_objects", "deleted_objects"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return _module_url


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def app(url: str, handler: Handler) -> Iterator[Mindia]:
    with mindia.connect(url, storage=MemoryStorage(), settings=SETTINGS) as app:
        app.register_task("job", Job, handler)
        yield app


@pytest.fixture
def lazy_app(url: str, handler: Handler) -> Iterator[Mindia]:
    """Its workers look for work once an hour."""
    settings = attrs.evolve(SETTINGS, poll=timedelta(hours=1))
    with mindia.connect(url, storage=MemoryStorage(), settings=settings) as app:
        app.register_task("job", Job, handler)
        yield app


@pytest.fixture
def host(url: str) -> Iterator[Host]:
    """A connection of the host's own, which commits each statement by itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def running(worker: Worker) -> Iterator[Future[WorkReport]]:
    """Run a worker in a thread for as long as the block runs."""
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(worker.run)
        try:
            yield report
        finally:
            worker.stop()
    if not isinstance(report.exception(), ClosedError):
        report.result()


def value(host: Host, query: LiteralString, *parameters: object) -> Any:
    row = host.execute(query, parameters or None).fetchone()
    return None if row is None else row[0]


def errors_of(host: Host, task: Task) -> list[tuple[int, str, str]]:
    return host.execute(
        "select attempt, error_type, error_message from mindia.task_errors where task_id = %s order by attempt",
        (task.id,),
    ).fetchall()


def make_due(host: Host) -> None:
    host.execute("update mindia.tasks set scheduled_for = now() where status = 'pending'")


def ended(queue: Library, tasks: Iterable[Task]) -> bool:
    return all(queue.tasks.get(task.id).completed_at is not None for task in tasks)


class TestRunUntilIdle:
    def test_it_reports_what_it_did_and_leaves_what_is_not_due(
        self, app: Mindia, library: Library, handler: Handler
    ) -> None:
        def does(_: TaskContext, job: Job) -> None:
            if job.name == "hopeless":
                raise DiscardTask("it never will")
            if job.name == "unlucky":
                raise RuntimeError("this time")

        handler.does = does
        library.media.delete(library.media.add(samples.image(), filename="gone.jpg"))
        for name in ("good", "good", "good", "hopeless", "unlucky"):
            library.tasks.enqueue(Job(name))
        later = library.tasks.enqueue(Job("later"), run_at=datetime.now(UTC) + timedelta(hours=1))

        assert app.run_until_idle() == WorkReport(completed=3, failed=1, retried=1, objects_removed=1)

        assert library.tasks.get(later.id) == later
        assert app.run_until_idle() == WorkReport()

    def test_it_runs_what_its_tasks_enqueue(self, app: Mindia, library: Library, handler: Handler) -> None:
        def does(context: TaskContext, job: Job) -> None:
            if len(job.name) < 30:
                context.library.tasks.enqueue(Job(job.name + "x"))

        handler.does = does
        library.tasks.enqueue(Job())

        assert app.run_until_idle().completed == 31

    def test_it_sweeps_what_was_staged_and_not_added(self, url: str) -> None:
        storage = MemoryStorage()
        short = attrs.evolve(SETTINGS, staging_grace=timedelta(microseconds=1))
        with mindia.connect(url, storage=storage, settings=short) as app:
            tenant = app.tenants.create("Acme")
            app.library(tenant).media.stage(samples.image(), filename="cat.jpg")

            assert app.run_until_idle().objects_removed == 1
            assert list(storage.list(tenant.s3_bucket)) == []

    def test_it_says_that_the_database_cannot_be_reached(self) -> None:
        nowhere = "postgresql://nobody@127.0.0.1:1/none"
        with mindia.connect(nowhere, storage=MemoryStorage()) as app, pytest.raises(DatabaseUnavailableError):
            app.run_until_idle()

    def test_ctrl_c_passes_and_puts_back_what_was_not_ended(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        handler.raises(KeyboardInterrupt(), for_="interrupted")
        tasks = [library.tasks.enqueue(Job(name)) for name in ("done", "interrupted", "waiting")]

        with pytest.raises(KeyboardInterrupt):
            app.run_until_idle()

        statuses = [(task.status, task.retry_count) for task in map(library.tasks.get, (task.id for task in tasks))]
        assert statuses == [(TaskStatus.COMPLETED, 0), (TaskStatus.PENDING, 0), (TaskStatus.PENDING, 0)]
        assert value(host, "select count(*) from mindia.workers") == 0
        assert value(host, "select count(*) from mindia.task_errors") == 0

    def test_it_is_refused_after_close(self, app: Mindia) -> None:
        app.close()
        with pytest.raises(ClosedError):
            app.run_until_idle()
        with pytest.raises(ClosedError):
            app.worker()


class TestRetries:
    def test_the_wait_doubles_with_jitter_up_to_the_cap_and_is_written_down(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        handler.raises(RuntimeError("again"))
        tasks = [library.tasks.enqueue(Job("bad"), max_retries=6) for _ in range(10)]
        for retry in range(6):
            make_due(host)
            assert app.run_until_idle() == WorkReport(retried=10)

            waits = [
                wait.total_seconds()
                for (wait,) in host.execute(
                    "select t.scheduled_for - e.failed_at from mindia.tasks t "
                    "join mindia.task_errors e on e.task_id = t.id and e.attempt = t.attempt"
                )
            ]
            exponential = 10.0 * 2**retry
            assert len(waits) == 10
            assert min(waits) >= 0.5 * min(exponential, 60.0)
            assert max(waits) <= min(1.5 * exponential, 60.0)
            assert len(set(waits)) == 10
        make_due(host)

        assert app.run_until_idle() == WorkReport(failed=10)
        assert app.run_until_idle() == WorkReport()
        last = library.tasks.get(tasks[0].id)
        assert (last.status, last.attempt, last.retry_count) == (TaskStatus.FAILED, 7, 6)
        assert last.completed_at is not None

    def test_a_retry_does_not_run_before_its_time(self, app: Mindia, library: Library, handler: Handler) -> None:
        handler.raises(RuntimeError("again"))
        task = library.tasks.enqueue(Job("bad"))

        assert app.run_until_idle() == WorkReport(retried=1)
        assert app.run_until_idle() == WorkReport()

        waiting = library.tasks.get(task.id)
        assert (waiting.status, waiting.attempt, waiting.retry_count) == (TaskStatus.PENDING, 1, 1)
        assert waiting.error_message == "again"
        assert waiting.completed_at is None

    def test_a_task_may_fail_and_then_complete(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        handler.raises(RuntimeError("again"))
        task = library.tasks.enqueue(Job("bad"), max_retries=1)
        app.run_until_idle()
        handler.does = lambda _, __: None
        make_due(host)

        assert app.run_until_idle() == WorkReport(completed=1)

        done = library.tasks.get(task.id)
        assert (done.status, done.attempt, done.retry_count) == (TaskStatus.COMPLETED, 2, 1)
        assert errors_of(host, task) == [(1, "RuntimeError", "again")]

    def test_a_task_without_retries_fails_at_once(self, app: Mindia, library: Library, handler: Handler) -> None:
        handler.raises(RuntimeError("once"))
        task = library.tasks.enqueue(Job("bad"), max_retries=0)

        assert app.run_until_idle() == WorkReport(failed=1)
        assert library.tasks.get(task.id).error_message == "once"

    def test_a_discarded_task_fails_at_once(self, app: Mindia, library: Library, handler: Handler, host: Host) -> None:
        handler.raises(DiscardTask("the customer is gone"))
        task = library.tasks.enqueue(Job("bad"), max_retries=5)

        assert app.run_until_idle() == WorkReport(failed=1)

        failed = library.tasks.get(task.id)
        assert (failed.status, failed.attempt, failed.retry_count) == (TaskStatus.FAILED, 1, 0)
        assert failed.scheduled_for == task.scheduled_for
        assert errors_of(host, task) == [(1, "DiscardTask", "the customer is gone")]


class TestRecordOfErrors:
    def test_every_failed_attempt_is_on_record(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        task = library.tasks.enqueue(Job("bad"), max_retries=2)
        for error in (ValueError("first"), KeyError("second"), RuntimeError("third")):
            handler.raises(error)
            make_due(host)
            app.run_until_idle()

        assert errors_of(host, task) == [
            (1, "ValueError", "first"),
            (2, "KeyError", "'second'"),
            (3, "RuntimeError", "third"),
        ]
        tracebacks = host.execute("select traceback from mindia.task_errors where task_id = %s", (task.id,)).fetchall()
        assert all("in does" in text and "raise error" in text for (text,) in tracebacks)

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (RuntimeError("NUL \0 and half a \ud83d pair"), "NUL \ufffd and half a ? pair"),
            (RuntimeError(), "RuntimeError"),
            (RuntimeError("x" * 1_000_000), "x" * 2000),
            (RuntimeError("é" * 100_000), "é" * 2000),
        ],
        ids=["unstorable", "empty", "long", "long in bytes"],
    )
    def test_an_error_with_any_text_is_recorded(
        self, app: Mindia, library: Library, handler: Handler, host: Host, error: Exception, message: str
    ) -> None:
        handler.raises(error)
        task = library.tasks.enqueue(Job("bad"))

        assert app.run_until_idle() == WorkReport(retried=1)

        assert errors_of(host, task) == [(1, "RuntimeError", message)]
        assert library.tasks.get(task.id).error_message == message
        assert len(value(host, "select traceback from mindia.task_errors")) <= 8000

    def test_an_error_that_cannot_even_be_shown_is_recorded(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        class Mute(Exception):  # noqa: N818 - it cannot say that it is one
            def __str__(self) -> str:
                raise RuntimeError("no")

            __repr__ = __str__

        handler.raises(Mute())
        task = library.tasks.enqueue(Job("bad"))

        assert app.run_until_idle() == WorkReport(retried=1)
        assert errors_of(host, task) == [(1, "Mute", "a Mute that cannot be shown")]

    @pytest.mark.parametrize(
        "error", [SystemExit(0), SystemExit("bye"), asyncio.CancelledError(), GeneratorExit(), BaseException("rare")]
    )
    def test_a_handler_that_calls_exit_fails_and_does_not_end_the_loop(
        self, app: Mindia, library: Library, handler: Handler, host: Host, error: BaseException
    ) -> None:
        handler.raises(error)
        bad, _ = library.tasks.enqueue(Job("bad")), library.tasks.enqueue(Job("good"))

        assert app.run_until_idle() == WorkReport(completed=1, retried=1)

        assert handler.names == ["bad", "good"]
        assert [(attempt, kind) for attempt, kind, _ in errors_of(host, bad)] == [(1, type(error).__name__)]

    @pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError()])
    def test_a_handler_that_calls_exit_fails_and_does_not_end_the_worker(
        self, app: Mindia, library: Library, handler: Handler, host: Host, error: BaseException
    ) -> None:
        handler.raises(error)
        bad = library.tasks.enqueue(Job("bad"), max_retries=0)
        with running(app.worker(concurrency=1)) as report:
            wait_until(lambda: ended(library, [bad]), what="the bad one ends")
            good = library.tasks.enqueue(Job("good"))
            wait_until(lambda: ended(library, [good]), what="the good one ends")

        assert report.result() == WorkReport(completed=1, failed=1)
        assert [(attempt, kind) for attempt, kind, _ in errors_of(host, bad)] == [(1, type(error).__name__)]


class TestFencing:
    """What a worker says counts only for the attempt that is still its own."""

    @pytest.fixture
    def claimed(self, app: Mindia, library: Library) -> tuple[Claimant, Task]:
        """A worker that has claimed a task and is never heard of again."""
        library.tasks.enqueue(Job("hello"), max_retries=5)
        silent = Claimant(app)
        (task,) = silent.claim(10)
        return silent, task

    @pytest.mark.parametrize("error", [None, RuntimeError("late"), DiscardTask("late")])
    def test_a_late_end_does_not_count_once_the_task_waits_again(
        self,
        app: Mindia,
        handler: Handler,
        host: Host,
        claimed: tuple[Claimant, Task],
        error: Exception | None,
    ) -> None:
        silent, task = claimed
        assert Claimant(app).rescue() == 1
        before = _row(host, task)
        if error is not None:
            handler.raises(error, for_="hello")

        assert silent.execute(task) is Outcome.LOST

        assert _row(host, task) == before
        assert before["status"] == "pending"
        assert errors_of(host, task) == [(1, "WorkerDied", "the worker died")]

    @pytest.mark.parametrize("error", [None, RuntimeError("late")])
    def test_a_late_end_does_not_count_while_another_runs_the_task(
        self,
        app: Mindia,
        library: Library,
        handler: Handler,
        host: Host,
        claimed: tuple[Claimant, Task],
        error: Exception | None,
    ) -> None:
        silent, task = claimed
        other = Claimant(app)
        other.beat()
        with other.alive():
            other.rescue()
            make_due(host)
            (again,) = other.claim(10)
            before = _row(host, task)
            if error is not None:
                handler.raises(error, for_="hello")

            assert silent.execute(task) is Outcome.LOST
            assert _row(host, task) == before
            handler.does = lambda _, __: None
            assert other.execute(again) is Outcome.COMPLETED

        assert library.tasks.get(task.id).attempt == 2

    @pytest.mark.parametrize("error", [None, RuntimeError("late")])
    def test_an_earlier_attempt_of_the_same_worker_does_not_count(
        self,
        app: Mindia,
        handler: Handler,
        host: Host,
        claimed: tuple[Claimant, Task],
        error: Exception | None,
    ) -> None:
        worker, first = claimed
        Claimant(app).rescue()
        make_due(host)
        (second,) = worker.claim(10)
        before = _row(host, first)
        if error is not None:
            handler.raises(error, for_="hello")

        assert worker.execute(first) is Outcome.LOST
        assert _row(host, first) == before
        handler.does = lambda _, __: None
        assert worker.execute(second) is Outcome.COMPLETED

    def test_an_end_that_was_said_twice_counts_once(self, claimed: tuple[Claimant, Task]) -> None:
        worker, task = claimed

        assert [worker.execute(task), worker.execute(task)] == [Outcome.COMPLETED, Outcome.LOST]

    def test_a_worker_that_ends_puts_back_only_what_is_its_own(
        self, app: Mindia, host: Host, claimed: tuple[Claimant, Task]
    ) -> None:
        _, task = claimed
        before = _row(host, task)
        other = Claimant(app)
        other.beat()
        with other.alive():
            pass

        assert _row(host, task) == before


class TestRescue:
    def test_a_rescued_task_waits_a_little_before_it_runs_again(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        task = library.tasks.enqueue(Job())
        Claimant(app).claim(1)

        assert app.run_until_idle() == WorkReport()

        rescued = library.tasks.get(task.id)
        assert (rescued.status, rescued.attempt, rescued.retry_count) == (TaskStatus.PENDING, 1, 1)
        wait = value(host, "select t.scheduled_for - e.failed_at from mindia.tasks t, mindia.task_errors e")
        assert timedelta(seconds=1) <= wait <= timedelta(seconds=3), "sooner than after an error of its own"
        assert handler.names == []
        make_due(host)
        assert app.run_until_idle() == WorkReport(completed=1)

    def test_a_worker_whose_handlers_are_busy_is_not_taken_for_dead(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        go_on = threading.Event()
        handler.does = lambda _, __: go_on.wait(30)
        task = library.tasks.enqueue(Job())
        with running(app.worker()):
            wait_until(
                lambda: value(
                    host,
                    "select count(*) from mindia.workers where heartbeat_at > started_at + 1.5 * %s::interval",
                    SETTINGS.worker_timeout,
                ),
                what="the worker is heard of for longer than a dead one would be",
            )
            assert Claimant(app).rescue() == 0
            go_on.set()
            wait_until(lambda: ended(library, [task]), what="the task ends")

        assert library.tasks.get(task.id).attempt == 1
        assert errors_of(host, task) == []

    def test_rescuers_at_the_same_time_share_the_work(self, app: Mindia, library: Library, host: Host) -> None:
        for _ in range(40):
            library.tasks.enqueue(Job())
        for _ in range(20):
            dead = Claimant(app)
            dead.beat()
            dead.claim(2)
        host.execute("update mindia.workers set heartbeat_at = now() - interval '1 day'")
        together = threading.Barrier(4)

        def rescue(_: int) -> int:
            together.wait(30)
            return Claimant(app).rescue()

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(rescue, range(4))) == 40
        assert value(host, "select count(*) from mindia.workers") == 0
        assert value(host, "select min(retry_count) = 1 and max(retry_count) = 1 from mindia.tasks")


class TestWorker:
    def test_two_workers_never_run_the_same_task(self, app: Mindia, library: Library, handler: Handler) -> None:
        with library.transaction() as tx:
            tasks = [tx.tasks.enqueue(Job()) for _ in range(300)]
        with (
            running(app.worker(concurrency=4)) as first,
            running(app.worker(concurrency=4)) as second,
            running(app.worker(concurrency=4)) as third,
        ):
            wait_until(lambda: len(handler.ran) >= 300, what="all tasks run")
            wait_until(lambda: ended(library, tasks), what="all tasks end")

        assert Counter(task_id for _, task_id in handler.ran) == Counter(task.id for task in tasks)
        assert sum(each.result().completed for each in (first, second, third)) == 300

    def test_it_runs_as_many_tasks_at_once_as_asked_and_not_more(self, lazy_app: Mindia, handler: Handler) -> None:
        together, most = threading.Barrier(3), threading.Semaphore(3)

        def does(_: TaskContext, __: Job) -> None:
            assert most.acquire(blocking=False)
            together.wait(30)
            most.release()

        handler.does = does
        library = lazy_app.library(lazy_app.tenants.create("Acme"))
        with library.transaction() as tx:
            tasks = [tx.tasks.enqueue(Job(), max_retries=0) for _ in range(12)]
        with running(lazy_app.worker(concurrency=3)) as report:
            wait_until(lambda: ended(library, tasks), what="all tasks end")

        assert report.result() == WorkReport(completed=12)

    def test_a_backlog_and_what_follows_from_it_do_not_wait_for_the_next_poll(
        self, lazy_app: Mindia, handler: Handler
    ) -> None:
        def does(context: TaskContext, job: Job) -> None:
            if len(job.name) < 5:
                context.library.tasks.enqueue(Job(job.name + "x"))

        handler.does = does
        library = lazy_app.library(lazy_app.tenants.create("Acme"))
        for _ in range(10):
            library.tasks.enqueue(Job())
        with running(lazy_app.worker(concurrency=2)) as report:
            wait_until(lambda: len(handler.ran) == 60, what="all tasks run")

        assert report.result(30).completed == 60  # and stop() does not wait for the next poll either

    def test_stop_lets_running_tasks_end_and_begins_no_other(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def does(_: TaskContext, __: Job) -> None:
            began.set()
            go_on.wait(30)

        handler.does = does
        first, second = library.tasks.enqueue(Job("first")), library.tasks.enqueue(Job("second"))
        worker = app.worker(concurrency=1)
        with running(worker) as report:
            began.wait(30)
            worker.stop()
            assert not report.done()
            go_on.set()
            assert report.result(30) == WorkReport(completed=1)

        assert handler.names == ["first"]
        assert library.tasks.get(first.id).status is TaskStatus.COMPLETED
        assert library.tasks.get(second.id) == second
        assert value(host, "select count(*) from mindia.workers") == 0

    def test_what_is_claimed_while_it_is_told_to_stop_is_not_begun(
        self, app: Mindia, library: Library, handler: Handler, host: Host, url: str
    ) -> None:
        task = library.tasks.enqueue(Job())
        worker = app.worker()
        with psycopg.connect(url) as other:
            other.execute("lock table mindia.tasks in access exclusive mode")
            with running(worker) as report:
                wait_until(lambda: value(host, CLAIMING), what="the worker claims")
                worker.stop()
                other.commit()
                assert report.result(30) == WorkReport()

        assert handler.names == []
        put_back = library.tasks.get(task.id)
        assert (put_back.status, put_back.attempt, put_back.retry_count) == (TaskStatus.PENDING, 1, 0)

    def test_what_still_runs_after_the_shutdown_time_out_is_put_back_uncounted(
        self, app: Mindia, library: Library, handler: Handler, host: Host
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def does(_: TaskContext, __: Job) -> None:
            began.set()
            go_on.wait(30)

        handler.does = does
        task = library.tasks.enqueue(Job(), max_retries=0)
        worker = app.worker(shutdown_timeout_s=0.05)
        with running(worker) as report:
            began.wait(30)
            worker.stop()
            assert report.result(30) == WorkReport()
        put_back = library.tasks.get(task.id)
        assert (put_back.status, put_back.attempt, put_back.retry_count) == (TaskStatus.PENDING, 1, 0)
        before = _row(host, task)

        go_on.set()
        for thread in _threads("mindia-task"):
            thread.join(30)

        assert _row(host, task) == before
        handler.does = lambda _, __: None
        assert app.run_until_idle() == WorkReport(completed=1)

    def test_it_leaves_no_thread_behind(self, app: Mindia, library: Library) -> None:
        task = library.tasks.enqueue(Job())
        with running(app.worker()):
            wait_until(lambda: ended(library, [task]), what="the task ends")
            assert _threads("mindia-heartbeat")
            assert _threads("mindia-housekeeping")

        assert not _threads("mindia-task") + _threads("mindia-heartbeat") + _threads("mindia-housekeeping")

    def test_stopped_before_it_runs_it_does_nothing(self, app: Mindia, library: Library, handler: Handler) -> None:
        library.tasks.enqueue(Job())
        worker = app.worker()
        worker.stop()

        assert worker.run() == WorkReport()
        assert handler.names == []

    def test_it_runs_once(self, app: Mindia) -> None:
        worker = app.worker()
        worker.stop()
        worker.run()

        with pytest.raises(ClosedError, match=re.escape("app.worker()")):
            worker.run()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
            ({"concurrency": -1}, "concurrency must be at least 1, not -1"),
            ({"shutdown_timeout_s": -0.1}, "shutdown_timeout_s must not be negative"),
            ({"shutdown_timeout_s": float("nan")}, "shutdown_timeout_s must not be negative"),
        ],
    )
    def test_arguments_out_of_range_are_refused(self, app: Mindia, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidError, match=said):
            app.worker(**arguments)

    def test_it_ends_when_the_application_is_closed(self, app: Mindia, library: Library) -> None:
        task = library.tasks.enqueue(Job())
        with running(app.worker()) as report:
            wait_until(lambda: ended(library, [task]), what="the task ends")
            app.close()

            with pytest.raises(ClosedError):
                report.result(30)

    def test_a_claim_whose_answer_was_lost_leaves_no_task_behind(
        self, app: Mindia, library: Library, handler: Handler, host: Host, url: str
    ) -> None:
        go_on = threading.Event()
        handler.does = lambda _, job: job.name == "long" and go_on.wait(30)
        long = library.tasks.enqueue(Job("long"))
        lost = library.tasks.enqueue(Job("lost"), run_at=datetime.now(UTC) + timedelta(days=1))
        with running(app.worker(concurrency=2)):
            wait_until(lambda: handler.names == ["long"], what="the long task runs")
            with psycopg.connect(url) as other:
                other.execute("lock table mindia.tasks in access exclusive mode")
                pid = wait_until(lambda: value(host, CLAIMING), what="the worker claims")
                # As the database is left when a claim commits and its answer is lost.
                other.execute(
                    "update mindia.tasks set status = 'running', attempt = 1, scheduled_for = now(), "
                    "worker_id = (select id from mindia.workers) where id = %s",
                    (lost.id,),
                )
                host.execute("select pg_terminate_backend(%s)", (pid,))
                wait_until(
                    lambda: not value(host, "select 1 from pg_stat_activity where pid = %s", pid), what="it is cut off"
                )
            wait_until(lambda: ended(library, [lost]), what="the task whose claim was lost ends")
            go_on.set()
            wait_until(lambda: ended(library, [long]), what="the long task ends")

        assert handler.names == ["long", "lost"]
        assert [library.tasks.get(task.id).attempt for task in (long, lost)] == [1, 2]
        assert [library.tasks.get(task.id).retry_count for task in (long, lost)] == [0, 0]


class TestProcess:
    """A worker in a process of its own."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        with Harness(tmp_path, seed=1) as harness:
            yield harness

    @pytest.fixture
    def queue(self, url: str) -> Iterator[Library]:
        with connect(url) as app:
            yield app.library(app.tenants.create("Acme"))

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
    def test_a_signal_lets_running_tasks_end_and_the_process_exits_with_0(
        self, harness: Harness, queue: Library, url: str, name: str
    ) -> None:
        first, second = queue.tasks.enqueue(Wait()), queue.tasks.enqueue(Wait())
        child = harness.start(work, url, 1)
        child.wait_for_line("began 1")

        child.terminate() if name == "SIGTERM" else child.interrupt()
        wait_until(lambda: "1 tasks still run" in child.output(), what="the signal is heard")
        assert child.is_alive()
        child.send("go on")

        assert child.wait() == 0, child.output()
        assert child.lines == ["began 1", f"ended {WorkReport(completed=1)}"]
        assert queue.tasks.get(first.id).status is TaskStatus.COMPLETED
        assert queue.tasks.get(second.id) == second

    def test_a_second_signal_ends_the_waiting_and_puts_the_rest_back(
        self, harness: Harness, queue: Library, url: str, host: Host
    ) -> None:
        task = queue.tasks.enqueue(Wait(), max_retries=0)
        child = harness.start(work, url, 1)
        child.wait_for_line("began 1")
        child.terminate()
        wait_until(lambda: "1 tasks still run" in child.output(), what="the signal is heard")

        child.terminate()

        assert child.wait() == 0, child.output()
        put_back = queue.tasks.get(task.id)
        assert (put_back.status, put_back.retry_count) == (TaskStatus.PENDING, 0)
        assert value(host, "select count(*) from mindia.workers") == 0

    def test_a_handler_that_hangs_does_not_keep_the_process_from_ending(
        self, harness: Harness, queue: Library, url: str, host: Host
    ) -> None:
        task = queue.tasks.enqueue(Wait())
        child = harness.start(work_impatiently, url)
        child.wait_for_line("began 1")

        child.terminate()

        assert child.wait() == 0, child.output()
        put_back = queue.tasks.get(task.id)
        assert (put_back.status, put_back.retry_count) == (TaskStatus.PENDING, 0)
        assert value(host, "select count(*) from mindia.workers") == 0

    def test_a_signal_while_idle_ends_it_long_before_the_next_poll(
        self, harness: Harness, queue: Library, url: str
    ) -> None:
        task = queue.tasks.enqueue(Wait())
        child = harness.start(work_lazily, url)
        child.wait_for_line("began 1")
        child.send("go on")
        wait_until(lambda: ended(queue, [task]), what="the task ends")

        child.terminate()

        assert child.wait() == 0, child.output()


class TestMaintenance:
    def test_a_worker_removes_what_was_deleted(self, app: Mindia, library: Library) -> None:
        item = library.media.add(samples.image(), filename="gone.jpg")
        with running(app.worker()) as report:
            library.media.delete(item)
            bucket = app.tenants.get(library.tenant_id).s3_bucket
            wait_until(lambda: not list(app.storage.list(bucket)), what="the bytes are removed")

        assert report.result().objects_removed == 1

    def test_it_goes_on_after_any_error(
        self, app: Mindia, library: Library, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        item = library.media.add(samples.image(), filename="gone.jpg")
        library.media.delete(item)
        host.execute("alter table mindia.deleted_objects rename to hidden")
        try:
            with running(app.worker()):
                wait_until(lambda: "maintain is put off" in caplog.text, what="maintenance fails")
                host.execute("alter table mindia.hidden rename to deleted_objects")
                bucket = app.tenants.get(library.tenant_id).s3_bucket
                wait_until(lambda: not list(app.storage.list(bucket)), what="the bytes are removed")
        finally:
            host.execute("alter table if exists mindia.hidden rename to deleted_objects")


def _row(host: Host, task: Task) -> dict[str, Any]:
    row: dict[str, Any] = value(host, "select to_jsonb(t) from mindia.tasks t where id = %s", task.id)
    return row


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]
