"""Claims tasks, runs their handlers and records how they ended."""

from __future__ import annotations

import logging
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import OwnTransaction
from mindia.domain.tasks import Task, TaskStatus
from mindia.errors import DatabaseUnavailableError, DiscardTask
from mindia.repositories import tasks as repository
from mindia.worker.registry import TaskContext, TaskRegistry

if TYPE_CHECKING:
    from mindia.app import Library
    from mindia.services.maintenance import Maintenance

_MAX_ERROR_CHARS = 4_000
_RECORD_AGAIN_S = 0.5

_log = logging.getLogger("mindia.worker")


class Outcome(Enum):
    """How an attempt ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"
    LOST = "lost"
    """The task was taken away meanwhile: what this attempt says does not count."""


@attrs.frozen(kw_only=True)
class Runtime:
    """What a worker works with.

    Attributes:
        database: Where the queue is.
        registry: Types and handlers.
        settings: Times.
        maintenance: Work besides tasks.
        library_of: Returns the library of a tenant.
    """

    database: Database
    registry: TaskRegistry
    settings: Settings
    maintenance: Maintenance
    library_of: Callable[[UUID], Library]


class TaskRunner:
    """The identity of one worker, and what it does with the queue. Thread-safe."""

    def __init__(self, runtime: Runtime) -> None:
        self.id = uuid7()
        self._runtime = runtime
        self._unit = OwnTransaction(runtime.database, None)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Say that this worker lives, from a thread and a connection of its own: a busy handler is not in the way."""
        self._beat()
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._runtime.settings.heartbeat.total_seconds()):
                try:
                    self._beat()
                except DatabaseUnavailableError as error:
                    _log.warning("worker %s cannot say that it lives: %s", self.id, error)

        thread = threading.Thread(target=beat, name="mindia-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            try:
                with self._runtime.database.side_transaction() as session:
                    repository.release(session, self.id)
                    repository.leave(session, self.id)
            except DatabaseUnavailableError as error:
                _log.warning("worker %s cannot sign off, its tasks will be rescued: %s", self.id, error)

    def _beat(self) -> None:
        with self._runtime.database.side_transaction() as session:
            repository.heartbeat(session, worker_id=self.id, hostname=socket.gethostname(), pid=os.getpid())

    def claim(self, limit: int) -> list[Task]:
        """Take up to `limit` tasks that are due."""
        kinds = self._runtime.registry.kinds
        with self._runtime.database.transaction() as session:
            return repository.claim(session, worker_id=self.id, kinds=kinds, limit=limit)

    def rescue(self) -> int:
        """Put back the tasks of workers that have died."""
        timeout = self._runtime.settings.worker_timeout
        rescued = self._unit.run(lambda session: repository.rescue(session, worker_timeout=timeout))
        if rescued:
            _log.warning("rescued %d tasks of workers that died", rescued)
        return rescued

    def execute(self, task: Task, *, stopping: threading.Event | None = None) -> Outcome:
        """Run a task and record how it ended.

        While the database cannot be reached the record is tried again, until `stopping` is set: an end that nobody
        hears of would leave the task running for as long as this worker lives.
        """
        error = self._handle(task)
        never = threading.Event()
        while True:
            try:
                return self._record(task, error)
            except DatabaseUnavailableError as unavailable:
                _log.warning("the end of task %s cannot be recorded yet: %s", task.id, unavailable)
                if (stopping or never).wait(_RECORD_AGAIN_S):
                    return Outcome.LOST

    def _handle(self, task: Task) -> Exception | None:
        registered = self._runtime.registry.of_kind(task.kind)
        library = None if task.tenant_id is None else self._runtime.library_of(task.tenant_id)
        try:
            payload = registered.decode(task.payload)
            registered.handler(TaskContext(task=task, tenant_library=library), payload)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; it is recorded with the task
            return error
        return None

    def _record(self, task: Task, error: Exception | None) -> Outcome:
        if error is None:
            done = self._unit.run(
                lambda session: repository.complete(session, task, worker_id=self.id) or session.repeated
            )
            return Outcome.COMPLETED if done else Outcome.LOST
        settings = self._runtime.settings
        status = self._unit.run(
            lambda session: repository.fail(
                session,
                task,
                worker_id=self.id,
                error_type=type(error).__name__,
                error_message=_storable(str(error) or type(error).__name__),
                traceback=_storable("".join(traceback.format_exception(error))),
                final=isinstance(error, DiscardTask),
                base=settings.retry_base,
                cap=settings.retry_cap,
            )
        )
        _log.warning("task %s (%s) attempt %d failed: %r", task.id, task.kind, task.attempt, error)
        if status is None:
            return Outcome.LOST
        return Outcome.FAILED if status is TaskStatus.FAILED else Outcome.RETRIED


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[-_MAX_ERROR_CHARS:]
