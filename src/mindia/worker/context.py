"""What a handler is given besides its payload."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from mindia.domain.tasks import Task
from mindia.errors import InvalidError, TaskCancelledError

if TYPE_CHECKING:
    from mindia.library import Library


class Control:
    """The strings between a running handler and its worker. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why: Exception | None = None
        self._kills: set[Callable[[], object]] = set()

    @property
    def why_ended(self) -> Exception | None:
        """Why the handler is to end before it is done, if it is."""
        return self._why

    def check(self) -> None:
        """Raise why the handler is to end, if it is."""
        if self._why is not None:
            raise self._why

    def end(self, why: Exception) -> None:
        """Have the handler end: its child processes are killed, each with the processes that it has started."""
        with self._lock:
            self._why = self._why or why
            kills = list(self._kills)
        for kill in kills:
            kill()

    @contextmanager
    def killing(self, kill: Callable[[], object]) -> Iterator[None]:
        """Have something killed, too, where the handler is to end while the block runs."""
        with self._lock:
            self._kills.add(kill)
            is_late = self._why is not None
        try:
            if is_late:
                kill()
            yield
        finally:
            with self._lock:
                self._kills.discard(kill)

    def run(self, command: Sequence[str], options: dict[str, Any]) -> subprocess.CompletedProcess[Any]:
        """Run a child process that ends with the handler."""
        timeout, check, sent = (options.pop(name, None) for name in ("timeout", "check", "input"))
        if options.pop("capture_output", False):
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if sent is not None:
            options["stdin"] = subprocess.PIPE
        with self._lock:
            self.check()
            # A group of its own, so that what it starts can be ended with it.
            child = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603 - the host's command
            kill = partial(_kill_group, child)
            self._kills.add(kill)
        try:
            with child:
                try:
                    stdout, stderr = child.communicate(sent, timeout=timeout)
                except BaseException:
                    kill()  # before the end of it is waited for
                    raise
        finally:
            with self._lock:
                self._kills.discard(kill)
        self.check()
        done = subprocess.CompletedProcess(command, child.returncode, stdout, stderr)
        if check:
            done.check_returncode()
        return done


def _kill_group(child: subprocess.Popen[Any]) -> None:
    if child.returncode is None:  # else its number may be somebody else's by now
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


@attrs.frozen(kw_only=True)
class TaskContext:
    """What a handler is given besides the payload.

    Attributes:
        task: The task, as it was claimed.
        tenant_library: The library of its tenant, or None for a task of the system.
    """

    task: Task
    tenant_library: Library | None = attrs.field(repr=False)
    _control: Control = attrs.field(factory=Control, repr=False, eq=False)
    _report: Callable[[float | None, str | None], bool | None] | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def library(self) -> Library:
        """The library of the task's tenant.

        Raises:
            InvalidError: The task has no tenant.
        """
        if self.tenant_library is None:
            raise InvalidError(f"task {self.task.id} ({self.task.kind}) has no tenant, and so no library")
        return self.tenant_library

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to end: the task was called off, timed out, or was taken away from this worker."""
        return self._control.why_ended is not None

    def check(self) -> None:
        """Raise where the handler is to end; for loops of handlers that take long.

        Raises:
            TaskCancelledError: The task was called off, or was taken away from this worker.
            TaskTimedOutError: Its time is over.
        """
        self._control.check()

    def progress(self, fraction: float, note: str | None = None) -> None:
        """Say how far the task is; it is written at once, in a transaction of its own.

        Args:
            fraction: 0 to 1.
            note: For people.

        Raises:
            InvalidError: `fraction` is out of range.
            TaskCancelledError: The task was called off, or was taken away from this worker.
            TaskTimedOutError: Its time is over.
        """
        if not 0 <= fraction <= 1:
            raise InvalidError(f"the progress must be 0 to 1, not {fraction!r}")
        self._say(fraction, note)

    def heartbeat(self) -> None:
        """Look whether the task is to go on. The worker lives by itself; a handler need not call this.

        Raises:
            TaskCancelledError: The task was called off, or was taken away from this worker.
            TaskTimedOutError: Its time is over.
        """
        self._say(None, None)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program as `subprocess.run` does; it is killed with all that it has started when the task is to end.

        Args:
            command: The program and its arguments.
            options: As for `subprocess.run`.

        Raises:
            TaskCancelledError: The task was called off, or was taken away from this worker.
            TaskTimedOutError: Its time is over.
        """
        return self._control.run(command, options)

    def _say(self, fraction: float | None, note: str | None) -> None:
        self.check()
        if self._report is None:
            return
        cancel = self._report(fraction, note)
        if cancel is None:
            self._control.end(TaskCancelledError(f"task {self.task.id} was taken away from this worker"))
        elif cancel:
            self._control.end(TaskCancelledError(f"task {self.task.id} was cancelled"))
        self.check()
