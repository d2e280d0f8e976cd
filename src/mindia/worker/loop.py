"""The loops around the runner: one that ends when nothing is due, one that ends when it is told to."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

from mindia._handles import Handle
from mindia.domain.tasks import Task, WorkReport
from mindia.errors import DatabaseUnavailableError, InvalidError, StorageError
from mindia.worker.runner import Outcome, Runtime, TaskRunner

_CLAIM_WHEN_IDLE = 16

_log = logging.getLogger("mindia.worker")


def run_until_idle(runtime: Runtime) -> WorkReport:
    """Run the tasks that are due, one after the other, and the maintenance, until there is nothing left to do now."""
    runner = TaskRunner(runtime)
    outcomes: Counter[Outcome] = Counter()
    with runner.alive():
        runner.rescue()
        while tasks := runner.claim(_CLAIM_WHEN_IDLE):
            outcomes.update(runner.execute(task) for task in tasks)
        removed = runtime.maintenance.remove_deleted() + runtime.maintenance.sweep_staged()
    return _report(outcomes, removed)


class Worker(Handle):
    """Runs tasks until it is told to stop.

    Args:
        runtime: What it works with.
        concurrency: How many tasks it runs at once, each in a thread.
        shutdown_timeout_s: How long it waits for running tasks when it stops; then they are put back for others.
    """

    def __init__(self, runtime: Runtime, *, concurrency: int = 4, shutdown_timeout_s: float = 30.0) -> None:
        if concurrency < 1:
            raise InvalidError(f"concurrency must be at least 1, not {concurrency}")
        self._runtime = runtime
        self._concurrency = concurrency
        self._shutdown_timeout_s = shutdown_timeout_s
        self._stopping = threading.Event()
        self._wake = threading.Condition()
        self._in_flight = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._removed = 0

    def run(self) -> WorkReport:
        """Work until `stop` is called, or SIGTERM or SIGINT arrives where this is the main thread.

        Outages of the database are waited for.
        """
        runner = TaskRunner(self._runtime)
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="mindia-task")
        maintenance = threading.Thread(target=self._maintain, args=(runner,), name="mindia-maintenance", daemon=True)
        with self._signals(), runner.alive():
            maintenance.start()
            _log.info("worker %s started, concurrency %d", runner.id, self._concurrency)
            try:
                while not self._stopping.is_set():
                    self._claim_into(pool, runner)
            finally:
                self._stopping.set()
                self._drain()
                pool.shutdown(wait=False, cancel_futures=True)
                maintenance.join()
        _log.info("worker %s stopped", runner.id)
        return _report(self._outcomes, self._removed)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what runs has ended, or after the shutdown time-out."""
        # No lock is taken, since a signal handler may call this while the lock is held.
        self._stopping.set()

    def _claim_into(self, pool: ThreadPoolExecutor, runner: TaskRunner) -> None:
        poll_s = self._runtime.settings.poll.total_seconds()
        with self._wake:
            while self._in_flight >= self._concurrency and not self._stopping.is_set():
                self._wake.wait(poll_s)
            free = self._concurrency - self._in_flight
        if free <= 0 or self._stopping.is_set():
            return
        try:
            tasks = runner.claim(free)
        except DatabaseUnavailableError as error:
            _log.warning("no tasks can be claimed: %s", error)
            tasks = []
        for task in tasks:
            with self._wake:
                self._in_flight += 1
            pool.submit(self._execute, runner, task).add_done_callback(self._finished)
        if not tasks:
            self._stopping.wait(poll_s)

    def _execute(self, runner: TaskRunner, task: Task) -> Outcome:
        return runner.execute(task, stopping=self._stopping)

    def _finished(self, future: Future[Outcome]) -> None:
        with self._wake:
            self._in_flight -= 1
            if not future.cancelled() and future.exception() is None:
                self._outcomes[future.result()] += 1
            self._wake.notify_all()
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.error("the worker failed to record a task", exc_info=error)

    def _drain(self) -> None:
        deadline = time.monotonic() + self._shutdown_timeout_s
        with self._wake:
            while self._in_flight and (left := deadline - time.monotonic()) > 0:
                self._wake.wait(left)
            if self._in_flight:
                _log.warning("%d tasks still run; they are put back for other workers", self._in_flight)

    def _maintain(self, runner: TaskRunner) -> None:
        interval_s = self._runtime.settings.maintenance.total_seconds()
        rescue_s = self._runtime.settings.worker_timeout.total_seconds() / 4
        clean_at = time.monotonic()
        while True:
            try:
                runner.rescue()
                if time.monotonic() >= clean_at:
                    self._removed += self._runtime.maintenance.remove_deleted()
                    self._removed += self._runtime.maintenance.sweep_staged()
                    clean_at = time.monotonic() + interval_s
            except (DatabaseUnavailableError, StorageError) as error:
                _log.warning("maintenance is put off: %s", error)
            if self._stopping.wait(min(rescue_s, interval_s)):
                return

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: FrameType | None) -> None:
            _log.info("stopping after signal %d", number)
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _report(outcomes: Counter[Outcome], removed: int) -> WorkReport:
    return WorkReport(
        completed=outcomes[Outcome.COMPLETED],
        failed=outcomes[Outcome.FAILED],
        retried=outcomes[Outcome.RETRIED],
        objects_removed=removed,
    )
