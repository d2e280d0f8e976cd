"""Writing many tasks, calling off, trying again, putting off, waiting, looking: as a user relies on it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from tests.faults.harness import wait_until
from tests.integration.queue_jobs import Handler, Job, Other, Owner, make_due, running, status, value

from mindia import Library, MemoryStorage, Mindia, Settings, Task, TaskContext, TaskStatus, WorkReport
from mindia._ids import uuid7
from mindia.domain.tasks import TaskInput
from mindia.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    TaskCancelledError,
    TransactionError,
)


@attrs.frozen
class Text:
    """A payload of any text."""

    text: Any


class TestEnqueue:
    def test_a_delayed_task_waits_for_its_time(self, queue_app: Mindia, queue: Library, owner: Owner) -> None:
        task = queue.tasks.enqueue(Job(), delay=timedelta(hours=2))

        assert task.scheduled_for - task.created_at == timedelta(hours=2)
        assert queue_app.run_until_idle() == WorkReport()
        make_due(owner)
        assert queue_app.run_until_idle() == WorkReport(completed=1)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"delay": timedelta(seconds=-1)}, "delay must be nothing to 3660 days"),
            ({"delay": timedelta(days=3661)}, "delay must be"),
            ({"delay": timedelta(1), "run_at": datetime.now(UTC)}, "say the same thing twice"),
            ({"run_at": datetime.max.replace(tzinfo=UTC)}, "run_at must be"),
            ({"timeout": timedelta()}, "timeout must be longer than nothing"),
            ({"timeout": timedelta(days=31)}, "at most 30 days"),
            ({"on_failure": "explode"}, "on_failure"),
            ({"depends_on": ["x"]}, "a task is named by itself or by its id"),
            ({"priority": "high"}, "priority must fit in 32 bits"),
            ({"max_retries": 1.5}, "max_retries must be 0 to 1000"),
            ({"dedup_key": 7}, "dedup_key has 1 to 255 characters"),
            ({"delay": 5}, "delay must be"),
            ({"timeout": 5}, "timeout must be"),
        ],
    )
    def test_what_is_out_of_range_is_refused_and_nothing_is_written(
        self, queue: Library, owner: Owner, arguments: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(InvalidError, match=said):
            queue.tasks.enqueue(Job(), **arguments)
        assert value(owner, "select count(*) from mindia.tasks") == 0

    def test_a_payload_over_a_mebibyte_is_refused_and_one_below_is_taken(
        self, queue_app: Mindia, queue: Library
    ) -> None:
        seen: list[int] = []
        queue_app.register_task("text", Text, lambda _, payload: seen.append(len(payload.text)))

        with pytest.raises(InvalidError, match="the limit is 1048576"):
            queue.tasks.enqueue(Text("x" * (1 << 20)))
        queue.tasks.enqueue(Text("x" * ((1 << 20) - 20)))

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert seen == [(1 << 20) - 20]

    @pytest.mark.parametrize("text", ["a\0b", ["\0"], {"\0": 1}, "\ud800", {"\udfff": 1}, "\\\0"])
    def test_text_that_postgresql_cannot_store_is_refused(
        self, queue_app: Mindia, queue: Library, text: object
    ) -> None:
        queue_app.register_task("text", Text, lambda _, __: None)

        with pytest.raises(InvalidError, match="PostgreSQL does not store"):
            queue.tasks.enqueue(Text(text))
        with pytest.raises(InvalidError, match="PostgreSQL does not store"):
            queue.tasks.enqueue_many([Text(text)])

    @pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "é😀", "a\nb\r\u2028", '"', "\\"])
    def test_any_other_text_comes_out_as_it_went_in(self, queue_app: Mindia, queue: Library, text: str) -> None:
        seen: list[str] = []
        queue_app.register_task("text", Text, lambda _, payload: seen.append(payload.text))

        queue.tasks.enqueue(Text(text))
        queue.tasks.enqueue_many([Text(text), Text(text)])

        assert queue_app.run_until_idle() == WorkReport(completed=3)
        assert seen == [text] * 3

    def test_low_priorities_are_not_starved_by_a_steady_flow_of_high_ones(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        def does(context: TaskContext, job: Job) -> None:
            if job.name == "high" and len(handler.names) < 300:
                context.library.tasks.enqueue(Job("high"), priority=10)

        handler.does = does
        queue.tasks.enqueue(Job("low"), priority=-10)
        for _ in range(20):
            queue.tasks.enqueue(Job("high"), priority=10)

        queue_app.run_until_idle()

        assert handler.names.index("low") < 250

    def test_a_key_is_held_to_within_a_transaction(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        with queue.transaction() as tx:
            first = tx.tasks.enqueue(Job("first"), dedup_key="k")
            assert tx.tasks.enqueue(Job("second"), dedup_key="k") == first

        queue_app.run_until_idle()
        assert handler.names == ["first"]

    def test_a_key_that_an_open_transaction_has_is_waited_for(self, queue: Library) -> None:
        with ThreadPoolExecutor(1) as pool:
            with queue.transaction() as tx:
                first = tx.tasks.enqueue(Job(), dedup_key="k")
                second = pool.submit(queue.tasks.enqueue, Job(), dedup_key="k")
            assert second.result(30).id == first.id


class TestEnqueueMany:
    def test_ten_thousand_are_written(self, queue: Library, owner: Owner) -> None:
        assert queue.tasks.enqueue_many((Job(str(number)) for number in range(10_000)), priority=-10) == 10_000

        assert (
            value(owner, "select count(distinct payload ->> 'name') from mindia.tasks where priority = -10") == 10_000
        )
        assert value(owner, "select count(*) from mindia.tasks where tenant_id = %s", queue.tenant_id) == 10_000

    def test_keys_that_are_taken_are_left_out(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        queue.tasks.enqueue(Job("first"), dedup_key="a")
        other = queue_app.library(queue_app.tenants.create("Globex"))
        other.tasks.enqueue(Job("theirs"), dedup_key="b")
        inputs = [TaskInput(payload=Job(name), dedup_key=name) for name in ("a", "b", "b")]

        assert queue.tasks.enqueue_many([*inputs, Job("d")]) == 2

        queue_app.run_until_idle()
        assert sorted(handler.names) == ["b", "d", "first", "theirs"]

    def test_classes_are_not_mixed(self, queue_app: Mindia, queue: Library, owner: Owner) -> None:
        queue_app.register_task("other", Other, lambda _, __: None)

        with pytest.raises(InvalidError, match="payloads of one class, not Job and Other"):
            queue.tasks.enqueue_many([Job(), Other()])
        with pytest.raises(InvalidError, match="int is not registered"):
            queue.tasks.enqueue_many([1, 2])
        assert value(owner, "select count(*) from mindia.tasks") == 0

    def test_a_thousand_are_written_or_none_of_them(self, queue_app: Mindia, queue: Library, owner: Owner) -> None:
        queue_app.register_task("other", Other, lambda _, __: None)

        with pytest.raises(InvalidError):
            queue.tasks.enqueue_many([*(Job() for _ in range(1_999)), Other()])

        assert value(owner, "select count(*) from mindia.tasks") == 1_000

    @pytest.mark.parametrize("in_transaction", [False, True], ids=["", "in a transaction"])
    def test_one_that_cannot_be_kept_comes_after_the_thousands_before_it(
        self, queue: Library, owner: Owner, in_transaction: bool
    ) -> None:
        jobs = [Job(), *(Job() for _ in range(2_499)), Job("a\0")]

        scope = queue.transaction() if in_transaction else nullcontext(queue)
        with scope as library, pytest.raises(InvalidError, match="cannot be kept"):
            library.tasks.enqueue_many(jobs)

        assert value(owner, "select count(*) from mindia.tasks") == 2_000

    def test_payloads_may_come_from_the_same_database(
        self, queue_url: str, queue_settings: Settings, owner: Owner
    ) -> None:
        with _connect(queue_url, attrs.evolve(queue_settings, pool_size=1, pool_timeout_s=1.0)) as app:
            library = app.library(app.tenants.create("Acme"))

            assert library.tasks.enqueue_many(Job(str(library.media.count())) for _ in range(2_001)) == 2_001

        assert value(owner, "select count(*) from mindia.tasks where payload ->> 'name' = '0'") == 2_001

    def test_in_a_transaction_all_are_written_or_none(self, queue: Library, owner: Owner) -> None:
        with suppress(ZeroDivisionError), queue.transaction() as tx:
            assert tx.tasks.enqueue_many(Job() for _ in range(2_500)) == 2_500
            raise ZeroDivisionError

        assert value(owner, "select count(*) from mindia.tasks") == 0

    def test_none_are_none(self, queue: Library) -> None:
        assert queue.tasks.enqueue_many([]) == 0

    def test_tasks_without_a_tenant_are_written_too(
        self, queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
    ) -> None:
        assert queue_app.tasks.enqueue_many([Job("system"), Job("system")], delay=timedelta(hours=1)) == 2

        assert list(queue.tasks.list()) == []
        make_due(owner)
        assert queue_app.run_until_idle() == WorkReport(completed=2)
        assert handler.names == ["system", "system"]


class TestCancel:
    def test_a_task_that_waits_is_called_off_at_once(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        task = queue.tasks.enqueue(Job("unwanted"), dedup_key="k")

        cancelled = queue.tasks.cancel(task)

        assert (cancelled.status, cancelled.is_finished) == (TaskStatus.CANCELLED, True)
        assert cancelled.completed_at is not None
        assert queue_app.run_until_idle() == WorkReport()
        assert handler.names == []
        assert queue.tasks.enqueue(Job(), dedup_key="k").id != task.id

    @pytest.mark.parametrize("looks", ["check", "progress", "heartbeat"])
    def test_a_task_that_runs_is_told_and_ends(
        self, queue_app: Mindia, queue: Library, handler: Handler, looks: str
    ) -> None:
        began, ended_with = threading.Event(), []

        def does(context: TaskContext, _: Job) -> None:
            began.set()
            try:
                while not threading.Event().wait(0.005):
                    context.progress(0.5) if looks == "progress" else getattr(context, looks)()
            except TaskCancelledError as error:
                assert context.cancelled
                ended_with.append(error)
                raise

        handler.does = does
        task = queue.tasks.enqueue(Job())
        with running(queue_app.worker()):
            assert began.wait(30)
            assert queue.tasks.cancel(task).status is TaskStatus.RUNNING
            ended = queue.tasks.wait(task, timeout=timedelta(seconds=30))

        assert ended.status is TaskStatus.CANCELLED
        assert ended.retry_count <= 1
        assert len(ended_with) == 1
        assert [error.error_type for error in queue.tasks.errors(task)] == ["TaskCancelledError"]

    def test_a_handler_that_does_not_look_completes(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        handler.does = lambda context, _: queue.tasks.cancel(context.task) and None
        task = queue.tasks.enqueue(Job())

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert status(queue, task) == [TaskStatus.COMPLETED]

    @pytest.mark.parametrize("how", ["snooze", "fail"])
    def test_one_that_would_run_again_is_called_off_instead(
        self, queue_app: Mindia, queue: Library, handler: Handler, how: str
    ) -> None:
        from mindia.errors import SnoozeTask

        def does(context: TaskContext, _: Job) -> None:
            queue.tasks.cancel(context.task)
            raise SnoozeTask(timedelta()) if how == "snooze" else RuntimeError("bad luck")

        handler.does = does
        task = queue.tasks.enqueue(Job())
        queue_app.run_until_idle()

        assert status(queue, task) == [TaskStatus.CANCELLED]
        assert handler.names == [""]

    def test_one_that_is_put_back_by_a_worker_that_stops_is_called_off_instead(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def does(_: TaskContext, __: Job) -> None:
            began.set()
            go_on.wait(30)

        handler.does = does
        task = queue.tasks.enqueue(Job())
        worker = queue_app.worker(shutdown_timeout_s=0.05)
        with running(worker) as report:
            assert began.wait(30)
            queue.tasks.cancel(task)
            worker.stop()
            report.result(30)
        go_on.set()

        assert status(queue, task) == [TaskStatus.CANCELLED]

    def test_what_has_ended_or_is_not_there_is_refused(self, queue_app: Mindia, queue: Library) -> None:
        task = queue.tasks.enqueue(Job())
        theirs = queue_app.library(queue_app.tenants.create("Globex")).tasks.enqueue(Job())
        queue_app.run_until_idle()

        with pytest.raises(ConflictError, match="has ended: it is completed"):
            queue.tasks.cancel(task)
        for missing in (uuid7(), theirs):
            for call in (queue.tasks.cancel, queue.tasks.retry, queue.tasks.wait):
                with pytest.raises(NotFoundError):
                    call(missing)
            with pytest.raises(NotFoundError):
                queue.tasks.reschedule(missing, datetime.now(UTC))
        with pytest.raises(InvalidError, match="named by itself or by its id"):
            queue.tasks.cancel("x")  # type: ignore[arg-type]  # what a host may try


class TestRetry:
    def test_a_task_that_failed_runs_again_with_all_its_retries(
        self, queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
    ) -> None:
        def fails(_: TaskContext, __: Job) -> None:
            raise RuntimeError("bad luck")

        handler.does = fails
        task = queue.tasks.enqueue(Job(), max_retries=1)
        for _ in range(2):
            queue_app.run_until_idle()
            make_due(owner)
        assert status(queue, task) == [TaskStatus.FAILED]

        again = queue.tasks.retry(task)

        assert (again.status, again.retry_count, again.completed_at) == (TaskStatus.PENDING, 0, None)
        assert queue_app.run_until_idle() == WorkReport(retried=1)
        handler.does = lambda _, __: None
        make_due(owner)
        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert [error.attempt for error in queue.tasks.errors(task)] == [1, 2, 3]

    def test_one_that_was_cancelled_runs_again(self, queue_app: Mindia, queue: Library) -> None:
        task = queue.tasks.enqueue(Job())
        queue.tasks.cancel(task)

        assert not queue.tasks.retry(task).cancel_requested
        assert queue_app.run_until_idle() == WorkReport(completed=1)

    def test_others_are_refused(self, queue_app: Mindia, queue: Library) -> None:
        task = queue.tasks.enqueue(Job())
        with pytest.raises(ConflictError, match="neither failed nor been cancelled: it is pending"):
            queue.tasks.retry(task)
        queue_app.run_until_idle()
        with pytest.raises(ConflictError, match="it is completed"):
            queue.tasks.retry(task)

    def test_one_whose_key_is_taken_meanwhile_is_refused(self, queue: Library) -> None:
        task = queue.tasks.enqueue(Job(), dedup_key="k")
        queue.tasks.cancel(task)
        queue.tasks.enqueue(Job(), dedup_key="k")

        with pytest.raises(AlreadyExistsError, match="dedup"):
            queue.tasks.retry(task)


class TestReschedule:
    def test_a_task_that_waits_is_put_off_and_brought_forward(self, queue_app: Mindia, queue: Library) -> None:
        task = queue.tasks.enqueue(Job())
        later = datetime.now(UTC) + timedelta(days=1)

        assert queue.tasks.reschedule(task, later).scheduled_for == later
        assert queue_app.run_until_idle() == WorkReport()
        queue.tasks.reschedule(task.id, datetime.now(UTC) - timedelta(days=1))
        assert queue_app.run_until_idle() == WorkReport(completed=1)

    def test_one_that_has_ended_is_refused_and_so_is_a_time_without_zone(
        self, queue_app: Mindia, queue: Library
    ) -> None:
        task = queue.tasks.enqueue(Job())
        with pytest.raises(InvalidError, match="time zone"):
            queue.tasks.reschedule(task, datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point
        with pytest.raises(InvalidError, match="run_at must be"):
            queue.tasks.reschedule(task, datetime.max.replace(tzinfo=UTC))
        queue_app.run_until_idle()
        with pytest.raises(ConflictError, match="does not wait: it is completed"):
            queue.tasks.reschedule(task, datetime.now(UTC))


class TestWait:
    def test_it_returns_the_task_once_it_has_ended_well_or_not(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        def does(_: TaskContext, job: Job) -> dict[str, str]:
            if job.name == "bad":
                raise RuntimeError("bad luck")
            return {"said": job.name}

        handler.does = does
        good, bad = queue.tasks.enqueue(Job("good")), queue.tasks.enqueue(Job("bad"), max_retries=0)
        with running(queue_app.worker()):
            assert queue.tasks.wait(good).result == {"said": "good"}
            ended = queue.tasks.wait(bad.id)

        assert (ended.status, ended.error_message) == (TaskStatus.FAILED, "bad luck")

    def test_it_gives_up_after_its_time(self, queue: Library) -> None:
        task = queue.tasks.enqueue(Job())
        with pytest.raises(TimeoutError, match=f"task {task.id} is pending"):
            queue.tasks.wait(task, timeout=timedelta(seconds=0.05))
        with pytest.raises(TimeoutError):
            queue.tasks.wait(task, timeout=timedelta(seconds=-1))

    def test_in_a_transaction_it_is_refused(self, queue: Library) -> None:
        with queue.transaction() as tx:
            task = tx.tasks.enqueue(Job())
            with pytest.raises(TransactionError, match=r"library\.tasks\.wait"):
                tx.tasks.wait(task)


class TestLooking:
    def test_a_list_goes_over_all_pages_the_newest_first(self, queue_app: Mindia, queue: Library) -> None:
        queue_app.library(queue_app.tenants.create("Globex")).tasks.enqueue(Job())
        tasks = [queue.tasks.enqueue(Job(str(number))) for number in range(3)]
        queue.tasks.enqueue_many(Job() for _ in range(247))  # at the same moment
        for task in tasks:
            queue.tasks.cancel(task)

        listed = list(queue.tasks.list())

        assert len({task.id for task in listed}) == len(listed) == 250
        assert [task.created_at for task in listed] == sorted((task.created_at for task in listed), reverse=True)
        assert [task.id for task in queue.tasks.list(status="cancelled")] == [task.id for task in reversed(tasks)]
        assert list(queue.tasks.list(kind="other")) == []
        assert len(list(queue.tasks.list(status=TaskStatus.PENDING, kind="job"))) == 247
        with pytest.raises(InvalidError, match="status"):
            list(queue.tasks.list(status="lost"))

    def test_counts_are_by_type_and_status(self, queue_app: Mindia, queue: Library) -> None:
        queue_app.register_task("other", Other, lambda _, __: None)
        queue_app.tasks.enqueue(Job())
        queue.tasks.enqueue_many([Job(), Job()])
        queue.tasks.cancel(queue.tasks.enqueue(Other()))

        counts = [(each.kind, each.status, each.count) for each in queue.tasks.counts()]

        assert counts == [("job", TaskStatus.PENDING, 2), ("other", TaskStatus.CANCELLED, 1)]
        assert [(each.kind, each.count) for each in queue_app.tasks.counts()] == [("job", 1)]

    def test_errors_tell_what_each_attempt_failed_with_and_where(
        self, queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
    ) -> None:
        def fails(context: TaskContext, _: Job) -> None:
            raise LookupError(f"attempt {context.task.attempt}")

        handler.does = fails
        task = queue.tasks.enqueue(Job(), max_retries=1)
        for _ in range(2):
            queue_app.run_until_idle()
            make_due(owner)

        errors = queue.tasks.errors(task)

        assert [(each.attempt, each.error_type, each.error_message) for each in errors] == [
            (1, "LookupError", "attempt 1"),
            (2, "LookupError", "attempt 2"),
        ]
        assert all("in fails" in (each.traceback or "") for each in errors)
        assert all(each.failed_at.utcoffset() == timedelta() for each in errors)
        for foreign in (queue.tasks, queue_app.library(queue_app.tenants.create("Globex")).tasks):
            with pytest.raises(NotFoundError):
                foreign.errors(uuid7() if foreign is queue.tasks else task)

    def test_progress_is_seen_while_it_runs_and_gone_when_it_has_ended(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        seen: list[Task] = []

        def does(context: TaskContext, _: Job) -> None:
            for wrong in (-0.1, 1.1, float("nan")):
                with pytest.raises(InvalidError):
                    context.progress(wrong)
            context.progress(0.25, "a quarter\0 of it")
            context.heartbeat()
            seen.append(queue.tasks.get(context.task.id))

        handler.does = does
        task = queue.tasks.enqueue(Job())

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert [(each.progress, each.progress_note) for each in seen] == [(0.25, "a quarter\ufffd of it")]
        assert queue.tasks.get(task.id).progress is None


class TestPrune:
    def test_what_ended_long_ago_goes_and_nothing_that_is_needed(
        self, queue_url: str, queue_settings: Settings, owner: Owner
    ) -> None:
        settings = attrs.evolve(queue_settings, task_retention=timedelta(hours=1))
        with _connect(queue_url, settings) as app:
            library = app.library(app.tenants.create("Acme"))
            old, young, needed = (library.tasks.enqueue(Job(name)) for name in ("old", "young", "needed"))
            app.run_until_idle()
            waits = library.tasks.enqueue(Job(), depends_on=[needed], run_at=datetime.now(UTC) + timedelta(days=1))
            library.tasks.enqueue_many(Job() for _ in range(2_500))
            owner.execute(
                "update mindia.tasks set status = 'completed', completed_at = now() - interval '2 hours' "
                "where id not in (%s, %s)",
                (young.id, waits.id),
            )
            # Made long ago, too: their ids say when.
            owner.execute("set session_replication_role = replica")
            owner.execute(
                "update mindia.tasks set id = ('01000000-' || substr(id::text, 10))::uuid "
                "where completed_at < now() - interval '1 hour'"
            )
            owner.execute(
                "update mindia.task_dependencies "
                "set depends_on_id = ('01000000-' || substr(depends_on_id::text, 10))::uuid"
            )
            app.run_until_idle()

            left = {str(task.id)[9:] for task in library.tasks.list()}

        assert left == {str(task.id)[9:] for task in (young, needed, waits)}
        assert str(old.id)[9:] not in left


def _connect(url: str, settings: Settings) -> Mindia:
    import mindia

    app = mindia.connect(url, storage=MemoryStorage(), settings=settings)
    app.register_task("job", Job, lambda _, __: None)
    return app


class TestWakeUp:
    def _lazy(self, url: str, settings: Settings, *, listen: bool = True) -> Mindia:
        return _connect(url, attrs.evolve(settings, poll=timedelta(hours=1), listen=listen))

    def test_a_worker_that_waits_starts_a_new_task_at_once(
        self, queue_url: str, queue_settings: Settings, owner: Owner
    ) -> None:
        with self._lazy(queue_url, queue_settings) as app:
            library = app.library(app.tenants.create("Acme"))
            with running(app.worker()):
                for enqueue in (
                    lambda: library.tasks.enqueue(Job()),
                    lambda: library.tasks.enqueue_many([Job()]),
                    lambda: app.tasks.enqueue(Job()),
                ):
                    _until_idle(owner)
                    enqueue()
                    wait_until(lambda: _left(owner) == 0, what="the task is done")

    def test_a_worker_one_of_whose_threads_is_busy_starts_a_new_task_at_once(
        self, queue_url: str, queue_settings: Settings, owner: Owner
    ) -> None:
        go_on = threading.Event()
        with self._lazy(queue_url, queue_settings) as app:
            app.register_task("other", Other, lambda _, __: go_on.wait(60) and None)
            library = app.library(app.tenants.create("Acme"))
            with running(app.worker(concurrency=2)):
                _until_idle(owner)
                library.tasks.enqueue(Other())
                wait_until(
                    lambda: value(owner, "select count(*) from mindia.tasks where status = 'running'"), what="it runs"
                )
                _until_idle(owner)
                library.tasks.enqueue(Job())
                wait_until(lambda: _left(owner) == 1, what="the task is done")
                go_on.set()

    def test_one_that_does_not_listen_finds_it_by_polling(
        self, queue_url: str, queue_settings: Settings, owner: Owner
    ) -> None:
        with _connect(queue_url, attrs.evolve(queue_settings, listen=False)) as app:
            library = app.library(app.tenants.create("Acme"))
            with running(app.worker()):
                assert not [thread for thread in threading.enumerate() if thread.name == "mindia-listener"]
                _until_idle(owner)
                library.tasks.enqueue(Job())
                wait_until(lambda: _left(owner) == 0, what="the task is done")

    def test_nobody_is_notified_where_no_worker_waits(self, queue: Library, owner: Owner) -> None:
        owner.execute("listen mindia_tasks")
        for _ in range(5):
            queue.tasks.enqueue(Job())
        queue.tasks.enqueue_many([Job(), Job()])
        assert list(owner.notifies(timeout=0.1)) == []

        owner.execute(
            "insert into mindia.workers (id, hostname, pid, is_idle) values (gen_random_uuid(), 'x', 1, true)"
        )
        with queue.transaction() as tx:
            tx.tasks.enqueue(Job())
            assert list(owner.notifies(timeout=0.1)) == []
        assert len(list(owner.notifies(timeout=30, stop_after=1))) == 1
        owner.execute("unlisten *")


def _until_idle(owner: Owner) -> None:
    wait_until(lambda: value(owner, "select count(*) from mindia.workers where is_idle"), what="the worker waits")


def _left(owner: Owner) -> int:
    number: int = value(owner, "select count(*) from mindia.tasks where status in ('pending', 'running')")
    return number
