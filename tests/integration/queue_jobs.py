"""What tests of the task queue enqueue, and what they look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import attrs
import psycopg
from tests.integration.library_calls import SETTINGS as OF_LIBRARY

from mindia import Library, Task, TaskContext, TaskStatus, WorkReport
from mindia.errors import ClosedError
from mindia.worker.loop import Worker

SETTINGS = attrs.evolve(
    OF_LIBRARY,
    heartbeat=timedelta(seconds=0.1),
    worker_timeout=timedelta(seconds=1),
    poll=timedelta(seconds=0.05),
    maintenance=timedelta(seconds=0.05),
    retry_base=timedelta(seconds=10),
    retry_cap=timedelta(seconds=60),
)

Owner = psycopg.Connection[tuple[Any, ...]]


@attrs.frozen
class Job:
    """A payload that says what it is."""

    name: str = ""


@attrs.frozen
class Other:
    """A payload of another class."""

    number: int = 0


@attrs.frozen
class InProcess:
    """What `in_process` does, in a process of its own."""

    does: str
    file: str = ""


class Handler:
    """Does with a job what the test says, and keeps what ran."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.does: Callable[[TaskContext, Job], object] = lambda _, __: None

    def __call__(self, context: TaskContext, job: Job) -> object:
        self.names.append(job.name)
        return self.does(context, job)


class Together:
    """Counts how many handlers run at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[object, int] = {}
        self.most: dict[object, int] = {}

    @contextmanager
    def one_more(self, of: object = None) -> Iterator[None]:
        with self._lock:
            self._now[of] = self._now.get(of, 0) + 1
            self.most[of] = max(self.most.get(of, 0), self._now[of])
        try:
            yield
        finally:
            with self._lock:
                self._now[of] -= 1


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


def value(owner: Owner, query: LiteralString, *parameters: object) -> Any:
    row = owner.execute(query, parameters or None).fetchone()
    return None if row is None else row[0]


def make_due(owner: Owner) -> None:
    owner.execute("update mindia.tasks set scheduled_for = now() where status = 'pending'")


def status(library: Library, *tasks: Task) -> list[TaskStatus]:
    return [library.tasks.get(task.id).status for task in tasks]


def in_process(payload: InProcess) -> object:
    """Run in a process of its own."""
    match payload.does:
        case "return":
            return {"pid": os.getpid(), "file": payload.file}
        case "raise":
            raise LookupError("nothing there")
        case "retry":
            from mindia.errors import RetryTask

            raise RetryTask("not yet", after=timedelta(seconds=30))
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit("bye")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "unpicklable":
            raise Unpicklable(threading.Lock())
        case "unreadable":
            raise Unreadable("a", 1)
        case "return unpicklable":
            return threading.Lock()
        case "return no json":
            return {1, 2}
        case "hang":
            child = subprocess.Popen(["sleep", "600"])
            Path(payload.file).write_text(f"{os.getpid()} {child.pid} ")
            time.sleep(600)
    return None


class Unpicklable(Exception):  # noqa: N818 - it is what it is
    """Holds what cannot be handed to another process."""


class Unreadable(Exception):  # noqa: N818 - it is what it is
    """Can be written for another process, which cannot read it."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} and {second}")
