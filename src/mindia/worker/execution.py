"""One attempt of a task: its handler is called, and what comes of that is put so that the queue can record it."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mindia.domain.tasks import Task
from mindia.errors import DiscardTask, InvalidError, RetryTask, SnoozeTask, TaskTimedOutError
from mindia.worker.context import Control, TaskContext
from mindia.worker.registry import RegisteredTask, TaskRegistry, as_json

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mindia.library import Library
    from mindia.worker.telemetry import Telemetry

Report = Callable[[Task, float | None, str | None], bool | None]
"""Records how far a task is; returns whether it is to be cancelled, None where it was taken from this worker."""

RunCoroutine = Callable[[Coroutine[Any, Any, object]], "Future[object]"]


class Outcome(Enum):
    """How an attempt ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    FAILED = "failed"
    LOST = "lost"
    """The task was taken away meanwhile: what this attempt says does not count."""


class Execution:
    """An attempt of a task, from its claim to its end.

    Attributes:
        task: As it was claimed.
        key: Tells it from all other attempts.
        control: The strings to its handler.
        error: What it failed with, or None.
        result: What its handler returned, as JSON, or None.
        duration_s: How long it took.
    """

    def __init__(
        self,
        task: Task,
        registry: TaskRegistry,
        library_of: Callable[[UUID], Library],
        *,
        report: Report,
        run_coroutine: RunCoroutine,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.task = task
        self.key = (task.id, task.attempt)
        self.control = Control()
        self.error: BaseException | None = None
        self.result: str | None = None
        self.duration_s = 0.0
        self._registered: RegisteredTask = registry.of_kind(task.kind)
        self._library_of = library_of
        self._report = report
        self._run_coroutine = run_coroutine
        self._telemetry = telemetry
        self._ended = threading.Lock()
        self._begun_at: float | None = None
        self._future: Future[object] | None = None

    @property
    def timeout_s(self) -> float | None:
        """How long it may take, or None for as long as it likes."""
        if self.task.timeout_s is not None:
            return self.task.timeout_s
        return None if self._registered.timeout is None else self._registered.timeout.total_seconds()

    @property
    def deadline(self) -> float | None:
        """Until when it may run, by `time.monotonic`; None while it has not begun, and where it may as it likes."""
        return None if self.timeout_s is None or self._begun_at is None else self._begun_at + self.timeout_s

    def run(self) -> bool:
        """Call the handler; False where the attempt was given up meanwhile, and its end has been said already."""
        self._begun_at = time.monotonic()
        process = os.getpid()
        error, result = self._call()
        if process != os.getpid():
            os._exit(0)  # a handler has forked, and its child has come back here: there must be no second worker
        return self._end(error, result)

    def give_up(self, why: Exception) -> bool:
        """End the attempt, whether its handler comes back or not; False where it has ended.

        Child processes are killed, and a coroutine is cancelled. A thread cannot be stopped: it is left behind.
        """
        self.cancel(why)
        return self._end(why, None)

    def cancel(self, why: Exception) -> None:
        """Tell the handler to end; it is waited for."""
        self.control.end(why)
        if self._future is not None:
            self._future.cancel()

    def _end(self, error: BaseException | None, result: str | None) -> bool:
        if not self._ended.acquire(blocking=False):
            return False
        self.duration_s = time.monotonic() - (self._begun_at or time.monotonic())
        # What was raised because it was told to end is that, whatever it looks like.
        self.error = self.control.why_ended or error if error is not None else None
        self.result = result
        return True

    def _call(self) -> tuple[BaseException | None, str | None]:
        try:
            if self._telemetry is None:
                return None, self._result()
            with self._telemetry.attempt(self.task):
                return None, self._result()
        except BaseException as error:
            # A handler may raise anything, SystemExit too: the task has failed. What comes from the keyboard passes.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            return error, None

    def _result(self) -> str | None:
        self.control.check()
        payload = self._registered.decode(self.task.payload)
        returned = self._handle(payload)
        return None if returned is None else _as_json(returned)

    def _handle(self, payload: object) -> object:
        registered = self._registered
        if registered.in_process:
            from mindia.worker.process import call

            return call(registered.handler, payload, self.control)  # type: ignore[arg-type]  # such a one takes the payload alone
        context = TaskContext(
            task=self.task,
            tenant_library=None if self.task.tenant_id is None else self._library_of(self.task.tenant_id),
            control=self.control,
            report=lambda fraction, note: self._report(self.task, fraction, note),
        )
        if not registered.is_async:
            return registered.handler(context, payload)  # type: ignore[call-arg]  # such a one takes the context, too
        coroutine = registered.handler(context, payload)  # type: ignore[call-arg]  # as above
        self._future = self._run_coroutine(_kept(coroutine))  # type: ignore[arg-type]  # it is a coroutine function
        result = self._future.result()
        if isinstance(result, _Exit):
            raise result.error
        return result


class _Exit:
    """An exception that is meant for the process.

    Args:
        error: The exception.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _kept(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine, and return the exceptions that would otherwise end the loop of all coroutines."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        return _Exit(error)


def is_final(error: BaseException) -> bool:
    """Tell whether trying again would not help."""
    return isinstance(error, DiscardTask)


def delay_of(error: BaseException) -> timedelta | None:
    """Return after which time an attempt wants the next one to come, or None."""
    if isinstance(error, SnoozeTask):
        return error.delay
    return error.after if isinstance(error, RetryTask) else None


def type_of(error: BaseException) -> str:
    """Return what an error is called in the record of a task."""
    return "TaskTimedOut" if isinstance(error, TaskTimedOutError) else type(error).__name__


def message_of(error: BaseException) -> str:
    """Return what an error says, whatever its class does."""
    try:
        # Half a character would break whatever it is written to.
        return str(error).encode("utf-8", "replace").decode() or type(error).__name__
    except Exception:  # noqa: BLE001 - of somebody else's class; the failure must be recorded all the same
        return f"a {type(error).__name__} that cannot be shown"


def traceback_of(error: BaseException) -> str:
    """Return where an error was raised, whatever its class does."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - as above
        return "".join(traceback.format_tb(error.__traceback__))


def _as_json(returned: object) -> str:
    try:
        return as_json(returned)
    except InvalidError as error:
        raise DiscardTask(f"what the handler returned cannot be kept: {error}") from error
