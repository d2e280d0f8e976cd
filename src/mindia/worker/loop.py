"""The loops around the runner: one that ends when nothing is due, one that ends when it is told to."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from uuid import UUID

from mindia._handles import Handle
from mindia.domain.tasks import Task, WorkReport
from mindia.errors import ClosedError, DatabaseError, DatabaseUnavailableError, InvalidError
from mindia.worker.runner import Outcome, Runtime, TaskRunner

_CLAIM_WHEN_IDLE = 16

_BATCHES_OF_TENANTS = 20
"""That are removed of deleted tenants before other maintenance has its turn again."""

_log = logging.getLogger("mindia.worker")


def run_until_idle(runtime: Runtime) -> WorkReport:
    """Run the tasks that are due, one after the other, and the maintenance, until there is nothing left to do now.

    Whatever a handler raises, also by `sys.exit`, is a failure of its task; only Ctrl-C passes.

    Raises:
        DatabaseUnavailableError: The database cannot be reached, or was lost on the way.
    """
    runner = TaskRunner(runtime)
    outcomes: Counter[Outcome] = Counter()
    runner.beat()
    with runner.alive():
        runner.rescue()
        while tasks := runner.claim(_CLAIM_WHEN_IDLE):
            outcomes.update(runner.execute(task) for task in tasks)
        runtime.maintenance.remove_expired()
        runtime.maintenance.remove_login_failures()
        removed = runtime.maintenance.remove_deleted() + runtime.maintenance.sweep_staged()
        removed += sum(report.objects_removed for report in runtime.maintenance.remove_deleted_tenants())
    return _report(outcomes, removed)


class Worker(Handle):
    """Runs tasks until it is told to stop. It runs once.

    A handler may raise anything: the attempt has failed and is recorded, also where it calls `sys.exit`.

    Args:
        runtime: What it works with.
        concurrency: How many tasks it runs at once, each in a thread.
        shutdown_timeout_s: How long it waits for running tasks when it stops; then they are put back for others. Their
            threads end with the process.
    """

    def __init__(self, runtime: Runtime, *, concurrency: int = 4, shutdown_timeout_s: float = 30.0) -> None:
        if concurrency < 1:
            raise InvalidError(f"concurrency must be at least 1, not {concurrency}")
        if not shutdown_timeout_s >= 0:
            raise InvalidError(f"shutdown_timeout_s must not be negative: {shutdown_timeout_s}")
        self._runtime = runtime
        self._concurrency = concurrency
        self._shutdown_timeout_s = shutdown_timeout_s
        self._has_run = threading.Lock()
        self._stopping = False
        # Ends of tasks; None only wakes. A signal handler may put into it whatever was interrupted: an event or a
        # condition could be locked by the very thread that the handler runs in.
        self._ends: SimpleQueue[tuple[Task, Outcome | None] | None] = SimpleQueue()
        self._running: dict[tuple[UUID, int], Task] = {}
        self._may_hold_more = False
        self._stopped = threading.Event()
        self._gave_up = threading.Event()
        self._outcomes: Counter[Outcome] = Counter()
        self._removed = 0

    def run(self) -> WorkReport:
        """Work until `stop` is called, or SIGTERM or SIGINT arrives where this is the main thread.

        Outages of the database are waited for, also at the start.

        Raises:
            ClosedError: It has run before, or the application was closed.
            SchemaError: The tables do not fit this version of Mindia.
            DatabaseTooOldError: PostgreSQL or pgvector is too old.
        """
        if not self._has_run.acquire(blocking=False):
            raise ClosedError("this worker has run: make another one with app.worker()")
        runner = TaskRunner(self._runtime)
        with self._signals():
            if self._first_beat(runner):
                with runner.alive():
                    self._work(runner)
        _log.info("worker %s stopped", runner.id)
        return _report(self._outcomes, self._removed)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what runs has ended, or after the shutdown time-out."""
        self._stopping = True
        self._ends.put(None)

    def _first_beat(self, runner: TaskRunner) -> bool:
        """Wait until the database can be reached; False where the worker is told to stop before."""
        while not self._stopping:
            try:
                runner.beat()
            except DatabaseUnavailableError as error:
                _log.warning("the worker waits for the database: %s", error)
                self._wait(self._runtime.settings.heartbeat.total_seconds())
            else:
                return True
        return False

    def _work(self, runner: TaskRunner) -> None:
        _log.info("worker %s started, concurrency %d", runner.id, self._concurrency)
        maintenance = threading.Thread(target=self._maintain, name="mindia-maintenance", daemon=True)
        maintenance.start()
        try:
            while not self._stopping:
                for task in self._claim(runner):
                    self._start(runner, task)
                self._wait()
        finally:
            self._stopped.set()
            _log.info("worker %s stops, %d tasks still run", runner.id, len(self._running))
            deadline = time.monotonic() + self._shutdown_timeout_s
            while self._running and time.monotonic() < deadline:
                self._wait(deadline - time.monotonic())
            if self._running:
                _log.warning("%d tasks still run; they are put back for other workers", len(self._running))
            self._gave_up.set()
            maintenance.join(max(0.0, deadline - time.monotonic()))

    def _claim(self, runner: TaskRunner) -> list[Task]:
        free = self._concurrency - len(self._running)
        if not free:
            return []
        try:
            if self._may_hold_more:
                runner.put_back(keep=self._running.values())
            self._may_hold_more = True
            tasks = runner.claim(free)
            self._may_hold_more = False
        except DatabaseError as error:
            _log.warning("no tasks can be claimed: %s", error)
            return []
        return [] if self._stopping else tasks  # what is not begun is put back at the end

    def _start(self, runner: TaskRunner, task: Task) -> None:
        # Not in a pool: the interpreter would wait for its threads, and a handler that hangs must not keep it alive.
        thread = threading.Thread(target=self._execute, args=(runner, task), name=f"mindia-task-{task.id}", daemon=True)
        thread.start()
        self._running[task.id, task.attempt] = task

    def _execute(self, runner: TaskRunner, task: Task) -> None:
        outcome = None
        try:
            outcome = runner.execute(task, gave_up=self._gave_up)
        except Exception:  # noqa: BLE001 - logged; the worker goes on, and puts the task back
            _log.exception("the end of task %s cannot be recorded", task.id)
        finally:
            self._ends.put((task, outcome))

    def _wait(self, timeout_s: float | None = None) -> None:
        """Wait for an end or a wake-up, at most until the next poll, and take account of all ends that there are."""
        timeout = self._runtime.settings.poll.total_seconds() if timeout_s is None else timeout_s
        while True:
            try:
                end = self._ends.get(timeout=max(0.0, timeout))
            except Empty:
                return
            timeout = 0.0
            if end is None:
                continue
            task, outcome = end
            del self._running[task.id, task.attempt]
            if outcome is None:
                self._may_hold_more = True
            else:
                self._outcomes[outcome] += 1

    def _maintain(self) -> None:
        while True:
            goes_on = False
            try:
                self._runtime.maintenance.remove_expired()
                self._runtime.maintenance.remove_login_failures()
                self._removed += self._runtime.maintenance.remove_deleted()
                self._removed += self._runtime.maintenance.sweep_staged()
                goes_on = self._remove_deleted_tenants()
            except DatabaseError as error:
                _log.warning("maintenance is put off: %s", error)
            except Exception:  # noqa: BLE001 - logged; the next round may do better
                _log.exception("maintenance is put off")
            if self._stopped.wait(0.0 if goes_on else self._runtime.settings.maintenance.total_seconds()):
                return

    def _remove_deleted_tenants(self) -> bool:
        """Remove a part of what deleted tenants have left, so that other work is not held up; True where more is left.

        What can only be removed later is not meant by that.
        """
        reports = self._runtime.maintenance.remove_deleted_tenants(max_batches=_BATCHES_OF_TENANTS)
        self._removed += sum(report.objects_removed for report in reports)
        return any(not report.is_complete and (report.rows or report.objects_removed) for report in reports)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: FrameType | None) -> None:  # noqa: ARG001 - of the signal's interface
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # set by somebody else than Python: cannot be put back
                    signal.signal(number, handler)


def _report(outcomes: Counter[Outcome], removed: int) -> WorkReport:
    return WorkReport(
        completed=outcomes[Outcome.COMPLETED],
        failed=outcomes[Outcome.FAILED],
        retried=outcomes[Outcome.RETRIED],
        objects_removed=removed,
    )
