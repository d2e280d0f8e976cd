"""Where attempts run: threads, which take one after the other, and an event loop for coroutines."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from mindia.errors import TaskCancelledError, TaskTimedOutError
from mindia.worker.execution import Batch, Execution, Key
from mindia.worker.reporting import fields

_CANCEL_S = 1.0

_log = logging.getLogger("mindia.worker")


class EventLoop:
    """An event loop in a thread of its own, made when the first coroutine comes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, object]) -> Future[object]:
        """Run a coroutine, and return what will hold its result."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="mindia-async", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        with self._lock:
            if self._loop is not None and self._thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(2 * _CANCEL_S)
                self._loop = None


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    running = asyncio.all_tasks(loop)
    for task in running:
        task.cancel()
    if running:
        loop.run_until_complete(asyncio.wait(running, timeout=_CANCEL_S))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class Executor:
    """Runs attempts in so many threads, and tells of each that has ended.

    The threads are its own and not those of a pool: the interpreter would wait for such a one at its exit, and a
    handler that hangs must not keep it alive.

    Args:
        concurrency: How many run at once.
        tell: Is called with each attempt that has ended, in whichever thread.

    Attributes:
        fed_at: When the latest attempt came, by `time.monotonic`.
    """

    def __init__(self, concurrency: int, tell: Callable[[Execution], object]) -> None:
        self._concurrency = concurrency
        self._tell = tell
        self._waiting: SimpleQueue[Execution | Batch | None] = SimpleQueue()
        self._threads = 0
        self._sharing = 0
        self._hand: dict[Key, Execution] = {}
        self._timed: dict[Key, Execution] = {}
        self.fed_at = 0.0

    @property
    def hand(self) -> dict[Key, Execution]:
        """The attempts that are here: those that run, and those that wait for a thread."""
        return self._hand

    @property
    def held(self) -> int:
        """How many threads the attempts that are here take or wait for: a batch takes one."""
        return len(self._hand) - self._sharing

    @property
    def waiting(self) -> int:
        """How many wait for a thread, about."""
        return self._waiting.qsize()

    def submit(self, execution: Execution | Batch) -> None:
        """Run an attempt, or a batch of them, as soon as a thread is free."""
        for member in execution.members:
            self._hand[member.key] = member
            self._sharing += member.shares_thread
            if member.timeout_s is not None:
                self._timed[member.key] = member
        self.fed_at = time.monotonic()
        self._waiting.put(execution)
        if self._threads < self._concurrency:
            self._start_thread()

    def forget(self, execution: Execution) -> None:
        """Take an attempt out that has ended."""
        if self._hand.pop(execution.key, None) is not None:
            self._sharing -= execution.shares_thread
        if self._timed:
            self._timed.pop(execution.key, None)

    def take_back(self) -> list[Execution]:
        """Take out the attempts that no thread has begun."""
        taken: list[Execution] = []
        while True:
            try:
                execution = self._waiting.get_nowait()
            except Empty:
                break
            if execution is not None:
                for member in execution.members:
                    self.forget(member)
                    taken.append(member)
        return taken

    def end_overdue(self) -> float | None:
        """Give up the attempts whose time is over; return after how many seconds the next one will be, if any."""
        now = time.monotonic()
        next_s: float | None = None
        for execution in list(self._timed.values()):
            deadline = execution.deadline
            if deadline is None:
                continue
            if now >= deadline:
                self._give_up(execution, TaskTimedOutError(f"the attempt took longer than {execution.timeout_s:g} s"))
            else:
                next_s = min(deadline - now, next_s if next_s is not None else deadline - now)
        return next_s

    def cancel(self, task_id: UUID) -> None:
        """Tell the handler of a task that it is to end; one that does not look goes on."""
        for execution in list(self._hand.values()):
            if execution.task.id == task_id:
                execution.cancel(TaskCancelledError(f"task {task_id} was cancelled"))

    def end_all(self, why: Exception) -> None:
        """Have the handlers end, and their child processes; threads that do not look are left behind."""
        for execution in list(self._hand.values()):
            execution.give_up(why)

    def close(self) -> None:
        """Let the threads go that wait."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _give_up(self, execution: Execution, why: Exception) -> None:
        if execution.give_up(why):
            task = execution.task
            _log.warning("task %s (%s) is given up: %s", task.id, task.kind, why, extra=fields(task))
            self._start_thread(instead=True)  # the other one may never come back
            self._tell(execution)

    def _start_thread(self, *, instead: bool = False) -> None:
        if not instead:
            self._threads += 1
        threading.Thread(target=self._work, name="mindia-task", daemon=True).start()

    def _work(self) -> None:
        while (execution := self._waiting.get()) is not None:
            try:
                ended = execution.run()
            except BaseException:  # noqa: BLE001 - ours, and never let a thread end without a word
                _log.exception("the attempt of task %s cannot be ended", execution.members[0].task.id)
                ended = False
            if not ended:
                return  # it was given up, and another thread has taken the place of this one
            for member in execution.members:
                self._tell(member)
