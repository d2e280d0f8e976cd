"""What a handler may be and may do: its task ends as documented, and the worker lives."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.harness import wait_until
from tests.integration.processes import is_alive
from tests.integration.queue_jobs import Handler, InProcess, Job, Owner, in_process, make_due, running, status, value

from mindia import Library, Mindia, Task, TaskContext, TaskStatus, WorkReport
from mindia.errors import DiscardTask, InvalidError, RetryTask, SnoozeTask, TaskCancelledError, TaskTimedOutError

SHORT = timedelta(seconds=0.3)

# Starts a process of its own, and says who both are.
FAMILY = "import os, subprocess, sys, time; c = subprocess.Popen(['sleep', '600']); " + (
    "open(sys.argv[1], 'w').write(f'{os.getpid()} {c.pid} '); time.sleep(600)"
)


def work_off(app: Mindia, *tasks: Task, library: Library, how: str) -> None:
    """Have the tasks run, by a worker or by `run_until_idle`."""
    if how == "idle":
        app.run_until_idle()
        return
    with running(app.worker()):
        for task in tasks:
            wait_until(lambda task=task: library.tasks.get(task.id).started_at is not None, what="it begins")  # type: ignore[misc]  # mypy cannot type the default
            wait_until(
                lambda task=task: library.tasks.get(task.id).status is not TaskStatus.RUNNING,  # type: ignore[misc]  # as above
                what="it ends",
            )


def pids_in(file: Path) -> list[int]:
    wait_until(lambda: file.exists() and file.read_text().count(" ") == 2, what="the processes have started")
    return [int(pid) for pid in file.read_text().split()]


class TestKinds:
    def test_a_coroutine_function_runs_in_an_event_loop(self, queue_app: Mindia, queue: Library) -> None:
        async def handler(context: TaskContext, job: InProcess) -> dict[str, str]:
            await asyncio.sleep(0)
            await asyncio.to_thread(context.check)
            return {"did": job.does}

        queue_app.register_task("async", InProcess, handler)
        task = queue.tasks.enqueue(InProcess("it"))

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert queue.tasks.get(task.id).result == {"did": "it"}

    def test_an_object_that_is_async_only_when_it_is_called_does_too(self, queue_app: Mindia, queue: Library) -> None:
        class Caller:
            async def __call__(self, _: TaskContext, job: InProcess) -> str:
                await asyncio.sleep(0)
                return job.does

        queue_app.register_task("async", InProcess, Caller())
        task = queue.tasks.enqueue(InProcess("it"))

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert queue.tasks.get(task.id).result == "it"

    def test_coroutines_run_at_once_in_one_loop(self, queue_app: Mindia, queue: Library) -> None:
        met: list[asyncio.Event] = []
        arrived: list[int] = []

        async def handler(_: TaskContext, __: InProcess) -> None:
            if not met:
                met.append(asyncio.Event())
            arrived.append(1)
            if len(arrived) == 3:
                met[0].set()
            await asyncio.wait_for(met[0].wait(), 30)

        queue_app.register_task("async", InProcess, handler)
        tasks = [queue.tasks.enqueue(InProcess(""), max_retries=0) for _ in range(3)]
        with running(queue_app.worker(concurrency=3)):
            assert [queue.tasks.wait(task).status for task in tasks] == [TaskStatus.COMPLETED] * 3

    def test_a_handler_may_use_threads_of_its_own(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        def does(context: TaskContext, _: Job) -> None:
            threads = [threading.Thread(target=context.progress, args=(0.1 * number,)) for number in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        handler.does = does
        queue.tasks.enqueue(Job())

        assert queue_app.run_until_idle() == WorkReport(completed=1)

    def test_a_handler_that_no_process_could_import_is_refused(self, queue_app: Mindia) -> None:
        async def coroutine(_: InProcess) -> None: ...

        handlers: list[Any] = [lambda _: None, Handler(), coroutine]
        for refused in handlers:
            with pytest.raises(InvalidError, match="must be a function of a module"):
                queue_app.register_task("apart", InProcess, refused, in_process=True)


class TestInProcess:
    @pytest.fixture(autouse=True)
    def _registered(self, queue_app: Mindia) -> None:
        queue_app.register_task("apart", InProcess, in_process, in_process=True)

    def test_it_runs_in_a_process_of_its_own_and_what_it_returns_is_kept(
        self, queue_app: Mindia, queue: Library
    ) -> None:
        task = queue.tasks.enqueue(InProcess("return", "x"))

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        result = queue.tasks.get(task.id).result
        assert isinstance(result, dict)
        assert result["file"] == "x"
        assert result["pid"] != os.getpid()

    @pytest.mark.parametrize(
        ("does", "error_type", "said"),
        [
            ("raise", "LookupError", "nothing there"),
            ("exit", "ProcessDiedError", "without an answer, with exit code 3"),
            ("sys.exit", "SystemExit", "bye"),
            ("kill", "ProcessDiedError", "exit code -9"),
            ("unpicklable", "RuntimeError", "Unpicklable: .* cannot be handed back"),
            ("unreadable", "RuntimeError", "Unreadable: a and 1 .which cannot be handed back"),
            ("return unpicklable", "RuntimeError", "lock.* cannot be handed back"),
            ("return no json", "DiscardTask", "cannot be written as JSON"),
            ("retry", "RetryTask", "not yet"),
        ],
    )
    def test_however_it_ends_its_task_does_and_says_why(
        self, queue_app: Mindia, queue: Library, does: str, error_type: str, said: str
    ) -> None:
        task = queue.tasks.enqueue(InProcess(does), max_retries=1)
        queue.tasks.enqueue(Job("good"))

        assert queue_app.run_until_idle().completed == 1

        (error,) = queue.tasks.errors(task)
        assert error.error_type == error_type
        assert re.search(said, error.error_message)
        if does == "raise":
            assert "in in_process" in (error.traceback or "")
        if does == "retry":
            waits = queue.tasks.get(task.id)
            assert timedelta(seconds=25) < waits.scheduled_for - error.failed_at <= timedelta(seconds=30)

    @pytest.mark.parametrize("how", ["worker", "idle"])
    def test_after_its_time_it_is_killed_with_all_that_it_has_started(
        self, queue_app: Mindia, queue: Library, tmp_path: Path, how: str
    ) -> None:
        file = tmp_path / "pids"
        task = queue.tasks.enqueue(InProcess("hang", str(file)), timeout=timedelta(seconds=4), max_retries=0)
        work_off(queue_app, task, library=queue, how=how)

        failed = queue.tasks.get(task.id)
        assert (failed.status, failed.error_message) == (TaskStatus.FAILED, "the attempt took longer than 4 s")
        pids = pids_in(file)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="the processes are gone")

    def test_it_is_killed_when_its_task_is_cancelled(self, queue_app: Mindia, queue: Library, tmp_path: Path) -> None:
        file = tmp_path / "pids"
        task = queue.tasks.enqueue(InProcess("hang", str(file)))
        with running(queue_app.worker()):
            pids = pids_in(file)
            queue.tasks.cancel(task)
            assert queue.tasks.wait(task).status is TaskStatus.CANCELLED

        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="the processes are gone")


class TestInstructions:
    def test_a_snoozed_task_comes_back_and_uses_up_no_retry(
        self, queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
    ) -> None:
        def does(context: TaskContext, _: Job) -> None:
            if context.task.attempt < 3:
                raise SnoozeTask(timedelta(hours=1))

        handler.does = does
        task = queue.tasks.enqueue(Job(), max_retries=0)
        for _ in range(2):
            assert queue_app.run_until_idle() == WorkReport()
            snoozed = queue.tasks.get(task.id)
            assert (snoozed.status, snoozed.retry_count) == (TaskStatus.PENDING, 0)
            assert snoozed.scheduled_for > datetime.now(UTC) + timedelta(minutes=50)
            make_due(owner)

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert queue.tasks.errors(task) == ()

    def test_a_retry_comes_after_the_time_that_the_handler_chose(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        def does(_: TaskContext, __: Job) -> None:
            raise RetryTask("the server is busy", after=timedelta(minutes=7))

        handler.does = does
        task = queue.tasks.enqueue(Job(), max_retries=1)

        assert queue_app.run_until_idle() == WorkReport(retried=1)
        waits, (error,) = queue.tasks.get(task.id), queue.tasks.errors(task)
        assert waits.scheduled_for - error.failed_at == timedelta(minutes=7)
        assert (waits.retry_count, waits.error_message) == (1, "the server is busy")

    @pytest.mark.parametrize("wait", [timedelta(seconds=-1), timedelta(days=4000), timedelta.max, 5, None, "soon"])
    @pytest.mark.parametrize("instruction", [SnoozeTask, lambda wait: RetryTask("later", after=wait)])
    def test_a_time_that_nobody_could_wait_is_a_failure_that_says_so(
        self,
        queue_app: Mindia,
        queue: Library,
        handler: Handler,
        wait: Any,
        instruction: Callable[[Any], Exception],
    ) -> None:
        def does(_: TaskContext, job: Job) -> None:
            if job.name == "bad":
                raise instruction(wait)

        handler.does = does
        task = queue.tasks.enqueue(Job("bad"))
        queue.tasks.enqueue(Job("good"))

        assert queue_app.run_until_idle() == WorkReport(completed=1, retried=1)
        assert queue.tasks.errors(task)[0].error_type == "InvalidError"


class TestResults:
    @pytest.mark.parametrize("result", [None, True, 0, 1.5, "text", "\\u0000", [1, [2]], {"a": {"b": None}}])
    def test_what_json_can_say_is_kept(self, queue_app: Mindia, queue: Library, handler: Handler, result: Any) -> None:
        handler.does = lambda _, __: result
        task = queue.tasks.enqueue(Job())

        assert queue_app.run_until_idle() == WorkReport(completed=1)
        assert queue.tasks.get(task.id).result == result

    @pytest.mark.parametrize(
        "result",
        [
            {1, 2}, object(), float("nan"), float("inf"), "a\0b", "\ud800", b"bytes", "x" * (1 << 20), {"\0": 1},
            {(1, 2): 3}, datetime.now(UTC), [float("-inf")],
        ],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_anything_else_fails_its_task_for_good_and_no_other(
        self, queue_app: Mindia, queue: Library, handler: Handler, result: Any
    ) -> None:
        handler.does = lambda _, job: result if job.name == "bad" else None
        task = queue.tasks.enqueue(Job("bad"), max_retries=5)
        good = queue.tasks.enqueue(Job("good"))
        with running(queue_app.worker(concurrency=1)):
            assert queue.tasks.wait(task).status is TaskStatus.FAILED
            assert queue.tasks.wait(good).status is TaskStatus.COMPLETED

        assert "what the handler returned cannot be kept" in str(queue.tasks.get(task.id).error_message)

    def test_a_result_that_holds_itself_fails_its_task(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        result: list[object] = []
        result.append(result)
        handler.does = lambda _, __: result
        queue.tasks.enqueue(Job())

        assert queue_app.run_until_idle() == WorkReport(failed=1)


class TestHarm:
    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            ("[1]", "it is no JSON object"),
            ("null", "it is no JSON object"),
            ('{"name": 1}', "expected str @ payload.name"),
            ('{"name": null}', "expected str @ payload.name"),
            ('{"name": ["a"]}', "expected str @ payload.name"),
        ],
    )
    def test_a_payload_that_no_longer_fits_fails_at_once_and_says_why(
        self, queue_app: Mindia, queue: Library, owner: Owner, handler: Handler, payload: str, said: str
    ) -> None:
        task = queue.tasks.enqueue(Job(), max_retries=5, delay=timedelta(days=1))
        owner.execute("update mindia.tasks set payload = %s::jsonb, scheduled_for = now()", (payload,))
        with running(queue_app.worker()):
            failed = queue.tasks.wait(task)

        assert (failed.status, failed.attempt) == (TaskStatus.FAILED, 1)
        assert "the payload does not fit Job" in str(failed.error_message)
        assert said in str(failed.error_message)
        assert handler.names == []

    @pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), BaseException("rare"), asyncio.CancelledError()])
    def test_a_coroutine_that_raises_anything_fails_and_the_loop_lives(
        self, queue_app: Mindia, queue: Library, error: BaseException
    ) -> None:
        async def handler(_: TaskContext, job: InProcess) -> None:
            await asyncio.sleep(0)
            if job.does == "bad":
                raise error

        queue_app.register_task("async", InProcess, handler)
        bad, good = queue.tasks.enqueue(InProcess("bad"), max_retries=0), queue.tasks.enqueue(InProcess("good"))
        with running(queue_app.worker(concurrency=1)):
            assert queue.tasks.wait(bad).status is TaskStatus.FAILED
            assert queue.tasks.wait(good).status is TaskStatus.COMPLETED

    def test_closing_the_connection_fails_the_attempt_and_no_other(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        def does(context: TaskContext, job: Job) -> None:
            with context.library.transaction() as tx:
                tx.tasks.enqueue(Job("never"))
                if job.name == "bad":
                    tx.connection.close()

        handler.does = does
        bad, good = queue.tasks.enqueue(Job("bad"), max_retries=0), queue.tasks.enqueue(Job("good"))
        with running(queue_app.worker(concurrency=1)):
            assert queue.tasks.wait(bad).status is TaskStatus.FAILED
            assert queue.tasks.wait(good).status is TaskStatus.COMPLETED

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_fork_that_comes_back_is_no_second_worker(
        self, queue_app: Mindia, queue: Library, handler: Handler, tmp_path: Path
    ) -> None:
        def does(_: TaskContext, job: Job) -> None:
            if job.name == "forks" and (pid := os.fork()):
                os.waitpid(pid, 0)
            with (tmp_path / "ran").open("a") as file:
                file.write(f"{job.name} {os.getpid()}\n")

        handler.does = does
        forks, after = queue.tasks.enqueue(Job("forks")), queue.tasks.enqueue(Job("after"))
        with running(queue_app.worker(concurrency=1)):
            assert [queue.tasks.wait(task).status for task in (forks, after)] == [TaskStatus.COMPLETED] * 2

        ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
        assert [name for name, _ in ran] == ["forks", "forks", "after"]
        assert ran[2][1] == str(os.getpid())


class TestTimeouts:
    @pytest.mark.parametrize("how", ["worker", "idle"])
    def test_a_handler_that_looks_ends_with_its_time(
        self, queue_app: Mindia, queue: Library, handler: Handler, how: str
    ) -> None:
        raised: list[BaseException] = []

        def does(context: TaskContext, _: Job) -> None:
            try:
                while True:
                    time.sleep(0.005)  # the work of a loop
                    context.check()
            except TaskTimedOutError as error:
                raised.append(error)
                raise

        handler.does = does
        task = queue.tasks.enqueue(Job(), timeout=SHORT, max_retries=0)
        work_off(queue_app, task, library=queue, how=how)

        wait_until(lambda: bool(raised), what="the handler has noticed")
        failed = queue.tasks.get(task.id)
        assert (failed.status, failed.error_message) == (TaskStatus.FAILED, "the attempt took longer than 0.3 s")
        assert [error.error_type for error in queue.tasks.errors(task)] == ["TaskTimedOut"]

    def test_a_thread_that_does_not_look_is_left_behind_and_replaced(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        go_on, came_back = threading.Event(), threading.Event()

        def does(_: TaskContext, job: Job) -> None:
            if job.name == "hangs":
                go_on.wait(60)
                came_back.set()

        handler.does = does
        hang = [queue.tasks.enqueue(Job("hangs"), timeout=SHORT, max_retries=0) for _ in range(2)]
        good = [queue.tasks.enqueue(Job("good")) for _ in range(3)]
        with running(queue_app.worker(concurrency=2)) as report:
            assert {queue.tasks.wait(task).status for task in good} == {TaskStatus.COMPLETED}
            assert {queue.tasks.wait(task).status for task in hang} == {TaskStatus.FAILED}
            go_on.set()
            assert came_back.wait(30)

        assert report.result() == WorkReport(completed=3, failed=2)
        assert set(status(queue, *hang)) == {TaskStatus.FAILED}

    def test_in_run_until_idle_it_has_failed_when_it_comes_back_late(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        handler.does = lambda context, _: wait_until(lambda: context.cancelled, what="its time is over")
        task = queue.tasks.enqueue(Job(), timeout=SHORT)

        assert queue_app.run_until_idle() == WorkReport(retried=1)
        assert [error.error_type for error in queue.tasks.errors(task)] == ["TaskTimedOut"]

    @pytest.mark.parametrize("how", ["worker", "idle"])
    def test_a_coroutine_is_cancelled(self, queue_app: Mindia, queue: Library, how: str) -> None:
        cancelled = threading.Event()

        async def handler(_: TaskContext, __: InProcess) -> None:
            try:
                await asyncio.sleep(600)
            finally:
                cancelled.set()

        queue_app.register_task("async", InProcess, handler, timeout=SHORT)
        task = queue.tasks.enqueue(InProcess(""), max_retries=0)
        work_off(queue_app, task, library=queue, how=how)

        assert cancelled.wait(30)
        assert queue.tasks.get(task.id).error_message == "the attempt took longer than 0.3 s"

    @pytest.mark.parametrize("how", ["worker", "idle"])
    def test_child_processes_are_killed_with_all_that_they_have_started(
        self, queue_app: Mindia, queue: Library, handler: Handler, tmp_path: Path, how: str
    ) -> None:
        file = tmp_path / "pids"
        handler.does = lambda context, _: context.run([sys.executable, "-c", FAMILY, str(file)]) and None
        task = queue.tasks.enqueue(Job(), timeout=timedelta(seconds=3), max_retries=0)
        work_off(queue_app, task, library=queue, how=how)

        assert queue.tasks.get(task.id).error_message == "the attempt took longer than 3 s"
        pids = pids_in(file)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="the processes are gone")

    def test_the_task_says_how_long_and_else_its_type(self, queue_app: Mindia, queue: Library) -> None:
        queue_app.register_task(
            "short", InProcess, lambda context, _: wait_until(lambda: context.cancelled, what="it ends"), timeout=SHORT
        )
        own = queue.tasks.enqueue(InProcess(""), timeout=timedelta(seconds=0.2), max_retries=0)
        of_type = queue.tasks.enqueue(InProcess(""), max_retries=0)
        with running(queue_app.worker()):
            messages = [queue.tasks.wait(task).error_message for task in (own, of_type)]

        assert messages == ["the attempt took longer than 0.2 s", "the attempt took longer than 0.3 s"]


class TestChildProcesses:
    def test_run_is_like_that_of_the_standard_library(
        self, queue_app: Mindia, queue: Library, handler: Handler
    ) -> None:
        def does(context: TaskContext, _: Job) -> None:
            done = context.run(["cat"], input=b"hello", capture_output=True, check=True)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
            assert context.run(["cat"], input="text", text=True, stdout=subprocess.PIPE).stdout == "text"
            assert context.run(["false"]).returncode == 1
            with pytest.raises(subprocess.CalledProcessError):
                context.run(["false"], check=True)
            with pytest.raises(subprocess.TimeoutExpired):
                context.run(["sleep", "600"], timeout=0.05)
            with pytest.raises(FileNotFoundError):
                context.run(["/nowhere/program"])

        handler.does = does
        queue.tasks.enqueue(Job(), max_retries=0)

        assert queue_app.run_until_idle() == WorkReport(completed=1)

    def test_they_are_killed_when_the_task_is_cancelled(
        self, queue_app: Mindia, queue: Library, handler: Handler, tmp_path: Path
    ) -> None:
        file, raised = tmp_path / "pids", []

        def does(context: TaskContext, _: Job) -> None:
            try:
                context.run([sys.executable, "-c", FAMILY, str(file)])
            except TaskCancelledError as error:
                raised.append(error)
                raise

        handler.does = does
        task = queue.tasks.enqueue(Job())
        with running(queue_app.worker()):
            pids = pids_in(file)
            queue.tasks.cancel(task)
            assert queue.tasks.wait(task).status is TaskStatus.CANCELLED

        assert len(raised) == 1
        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="the processes are gone")

    def test_they_are_killed_when_the_worker_stops_and_does_not_wait_longer(
        self, queue_app: Mindia, queue: Library, handler: Handler, tmp_path: Path
    ) -> None:
        file = tmp_path / "pids"
        handler.does = lambda context, _: context.run([sys.executable, "-c", FAMILY, str(file)]) and None
        task = queue.tasks.enqueue(Job())
        worker = queue_app.worker(shutdown_timeout_s=0.05)
        with running(worker) as report:
            pids = pids_in(file)
            worker.stop()
            assert report.result(30) == WorkReport()

        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="the processes are gone")
        put_back = queue.tasks.get(task.id)
        assert (put_back.status, put_back.retry_count) == (TaskStatus.PENDING, 0)


class TestReserve:
    def test_what_waits_behind_a_long_task_that_was_thought_to_be_short_goes_back(
        self, queue_app: Mindia, queue: Library, handler: Handler, owner: Owner
    ) -> None:
        go_on = threading.Event()

        def does(_: TaskContext, job: Job) -> None:
            if job.name == "long":
                go_on.wait(60)

        handler.does = does
        queue.tasks.enqueue_many([Job("short") for _ in range(50)])
        with running(queue_app.worker(concurrency=1)):
            wait_until(
                lambda: value(owner, "select count(*) = 50 from mindia.tasks where status = 'completed'"),
                what="the short ones end",
            )
            queue.tasks.enqueue_many([Job("long"), *(Job("behind") for _ in range(20))])
            wait_until(lambda: "long" in handler.names, what="the long one runs")
            wait_until(
                lambda: value(owner, "select count(*) from mindia.tasks where status = 'running'") == 1,
                what="those behind it go back",
            )
            with running(queue_app.worker(concurrency=1)):
                wait_until(lambda: handler.names.count("behind") == 20, what="another worker takes them")
            go_on.set()

        assert value(owner, "select max(retry_count) from mindia.tasks") == 0
        assert handler.names.count("long") == 1


class TestDiscard:
    def test_it_fails_for_good(self, queue_app: Mindia, queue: Library, handler: Handler) -> None:
        def does(_: TaskContext, __: Job) -> None:
            raise DiscardTask("the customer is gone")

        handler.does = does
        task = queue.tasks.enqueue(Job(), max_retries=5)

        assert queue_app.run_until_idle() == WorkReport(failed=1)
        assert queue.tasks.get(task.id).error_message == "the customer is gone"
