"""One attempt of a task: its handler is called, and what comes of that is put so that the queue can record it."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
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


Key = tuple[int, int]
"""Tells an attempt from all others: numbers, which a dict looks up without asking the interpreter."""


def key_of(task: Task) -> Key:
    """Return the key of the attempt that a task was claimed for."""
    return task.id.int, task.attempt


class Execution:
    """An attempt of a task, from its claim to its end.

    Attributes:
        task: As it was claimed.
        key: Tells it from all other attempts.
        control: The strings to its handler.
        error: What it failed with, or None.
        result: What its handler returned, as JSON, or None.
        duration_s: How long it took.
        shares_thread: Whether another one of its batch stands for the thread that it takes.
        tracing: Where the attempt is traced, or None.
    """

    def __init__(
        self,
        task: Task,
        registry: TaskRegistry,
        library_of: Callable[[UUID], Library],
        *,
        report: Report,
        run_coroutine: RunCoroutine,
        tracing: Telemetry | None = None,
    ) -> None:
        self.task = task
        self.key = key_of(task)
        self.control = Control()
        self.error: BaseException | None = None
        self.result: str | None = None
        self.duration_s = 0.0
        self.shares_thread = False
        self._registered: RegisteredTask = registry.of_kind(task.kind)
        self._library_of = library_of
        self._report = report
        self._run_coroutine = run_coroutine
        self.tracing = tracing
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

    @property
    def members(self) -> tuple[Execution, ...]:
        """The attempts that end when it does: itself."""
        return (self,)

    def run(self) -> bool:
        """Call the handler; False where the attempt was given up meanwhile, and its end has been said already."""
        process = os.getpid()
        error, result = self._call()
        if process != os.getpid():
            os._exit(0)  # a handler has forked, and its child has come back here: there must be no second worker
        return self.end(error, result)

    def begin(self) -> object:
        """Take the time, and return the payload."""
        self._begun_at = time.monotonic()
        self.control.check()
        return self._registered.decode(self.task.payload)

    def give_up(self, why: Exception) -> bool:
        """End the attempt, whether its handler comes back or not; False where it has ended.

        Child processes are killed, and a coroutine is cancelled. A thread cannot be stopped: it is left behind.
        """
        self.cancel(why)
        return self.end(why, None)

    def cancel(self, why: Exception) -> None:
        """Tell the handler to end; it is waited for."""
        self.control.end(why)
        if self._future is not None:
            self._future.cancel()

    def end(self, error: BaseException | None, result: str | None) -> bool:
        """Keep what came of the attempt; False where it has ended before."""
        if not self._ended.acquire(blocking=False):
            return False
        self.duration_s = time.monotonic() - (self._begun_at or time.monotonic())
        # What was raised because it was told to end is that, whatever it looks like.
        self.error = self.control.why_ended or error if error is not None else None
        self.result = result
        return True

    def _call(self) -> tuple[BaseException | None, str | None]:
        try:
            payload = self.begin()
            if self.tracing is None:
                return None, self._result(payload)
            with self.tracing.attempt(self.task):
                return None, self._result(payload)
        except BaseException as error:
            # A handler may raise anything, SystemExit too: the task has failed. What comes from the keyboard passes.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            return error, None

    def _result(self, payload: object) -> str | None:
        returned = self._handle(payload)
        return None if returned is None else _as_json(returned)

    def context(self) -> TaskContext:
        """Return what the handler is given besides the payload."""
        return TaskContext(
            task=self.task,
            tenant_library=None if self.task.tenant_id is None else self._library_of(self.task.tenant_id),
            control=self.control,
            report=lambda fraction, note: self._report(self.task, fraction, note),
        )

    def _handle(self, payload: object) -> object:
        registered = self._registered
        if registered.in_process:
            from mindia.worker.process import call

            return call(registered.handler, payload, self.control)  # type: ignore[arg-type]  # such a one takes the payload alone
        context = self.context()
        handler: Any = registered.handler
        if registered.batch_size > 1:
            (returned,) = handler([context], [payload])
            if isinstance(returned, BaseException):
                raise returned
            return returned
        if not registered.is_async:
            return handler(context, payload)
        self._future = self._run_coroutine(_kept(handler(context, payload)))
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


class Batch:
    """Attempts of one type and one tenant, whose handler takes them together.

    Args:
        executions: The attempts, of which none has a time-out: the handler cannot leave one behind.
        registered: Their type.

    Attributes:
        members: The attempts; once it has run, those that have ended by it.
    """

    def __init__(self, executions: Sequence[Execution], registered: RegisteredTask) -> None:
        self.members = tuple(executions)
        self._registered = registered
        for execution in executions[1:]:
            execution.shares_thread = True

    def run(self) -> bool:
        """Call the handler; False where all were given up meanwhile."""
        begun_at = time.monotonic()
        process = os.getpid()
        outcomes = self._call()
        if process != os.getpid():
            os._exit(0)  # as for a single one
        took_s = (time.monotonic() - begun_at) / len(outcomes)
        ended = []
        for execution, (error, result) in outcomes.items():
            if execution.end(error, result):
                execution.duration_s = took_s
                ended.append(execution)
        self.members = tuple(ended)
        return bool(ended)

    def _call(self) -> dict[Execution, tuple[BaseException | None, str | None]]:
        outcomes: dict[Execution, tuple[BaseException | None, str | None]] = {}
        begun: dict[Execution, object] = {}
        for execution in self.members:
            try:
                begun[execution] = execution.begin()
            except Exception as error:  # noqa: BLE001 - its payload does not fit, or it was cancelled: kept as its end
                outcomes[execution] = (error, None)
        if begun:
            try:
                handler: Any = self._registered.handler
                tracing = self.members[0].tracing
                with nullcontext() if tracing is None else tracing.attempt(*(each.task for each in begun)):
                    returned = list(handler([execution.context() for execution in begun], list(begun.values())))
                for execution, each in zip(begun, returned, strict=True):
                    outcomes[execution] = _outcome(each)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                    raise
                outcomes.update(dict.fromkeys(begun, (error, None)))
        return outcomes


def _outcome(returned: object) -> tuple[BaseException | None, str | None]:
    if isinstance(returned, BaseException):
        return returned, None
    try:
        return None, None if returned is None else _as_json(returned)
    except DiscardTask as error:
        return error, None


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
