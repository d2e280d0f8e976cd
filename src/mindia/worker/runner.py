"""Claims tasks, runs their handlers and records how they ended."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, OwnTransaction, Session
from mindia.domain.tasks import Task, TaskStatus
from mindia.errors import DatabaseError, DatabaseUnavailableError, DiscardTask, MindiaError
from mindia.repositories import tasks as repository
from mindia.worker.registry import TaskContext, TaskRegistry

if TYPE_CHECKING:
    from mindia.library import Library
    from mindia.services.maintenance import Maintenance

_RECORD_AGAIN_S = 0.5
_SIGN_OFF_S = 5.0

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
        self._unit = OwnTransaction(runtime.database, ACROSS_TENANTS)
        # What must not wait for the connections that handlers hold.
        self._beside = OwnTransaction(runtime.database, ACROSS_TENANTS, beside=True)
        self._was_cut_off = False
        self._rescues_from = 0.0

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Say that this worker lives, and rescue the tasks of those that do not, for as long as the block runs.

        That has a thread and connections of its own: a busy handler is not in the way. The first `beat` is the
        caller's. At the end what this worker has claimed and not ended is put back.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._stay_alive, args=(ended,), name="mindia-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            # Without a database the thread cannot sign off: it is left behind, and the tasks will be rescued.
            thread.join(_SIGN_OFF_S)

    def _stay_alive(self, ended: threading.Event) -> None:
        while not ended.wait(self._runtime.settings.heartbeat.total_seconds()):
            try:
                self.beat()
                self.rescue()
            except MindiaError as error:
                _log.warning("worker %s cannot say that it lives: %s", self.id, error)
            except Exception:  # noqa: BLE001 - logged; a worker that falls silent is taken for dead while it works
                _log.exception("worker %s cannot say that it lives", self.id)
        try:
            self._beside.run(self._sign_off)
        except MindiaError as error:
            _log.warning("worker %s cannot sign off, its tasks will be rescued: %s", self.id, error)
        except Exception:  # noqa: BLE001 - logged; the end of the thread
            _log.exception("worker %s cannot sign off, its tasks will be rescued", self.id)

    def _sign_off(self, session: Session) -> None:
        repository.release(session, self.id)
        repository.leave(session, self.id)

    def beat(self) -> None:
        """Say that this worker lives."""
        try:
            self._beside.run(
                lambda session: repository.heartbeat(
                    session, worker_id=self.id, hostname=socket.gethostname(), pid=os.getpid()
                )
            )
        except DatabaseUnavailableError:
            self._was_cut_off = True
            raise
        if self._was_cut_off:
            # So may the others have been: they are given the time to say that they live.
            self._was_cut_off = False
            self._rescues_from = time.monotonic() + self._runtime.settings.worker_timeout.total_seconds()

    def rescue(self) -> int:
        """Put back the tasks of workers that have died, unless all of them may just have been cut off."""
        if time.monotonic() < self._rescues_from:
            return 0
        settings = self._runtime.settings
        rescued = self._beside.run(
            lambda session: repository.rescue(
                session, worker_timeout=settings.worker_timeout, base=settings.retry_base, cap=settings.retry_cap
            )
        )
        if rescued:
            _log.warning("rescued %d tasks of workers that died", rescued)
        return rescued

    def claim(self, limit: int) -> list[Task]:
        """Take up to `limit` tasks that are due.

        After an error it is not known whether tasks were taken: see `put_back`.
        """
        kinds = self._runtime.registry.kinds
        with self._runtime.database.transaction(ACROSS_TENANTS) as session:
            return repository.claim(session, worker_id=self.id, kinds=kinds, limit=limit)

    def put_back(self, *, keep: Collection[Task]) -> None:
        """Put back the tasks that this worker has on record, except those that it knows to run."""
        self._unit.run(lambda session: repository.release(session, self.id, keep=keep))

    def execute(self, task: Task, *, gave_up: threading.Event | None = None) -> Outcome:
        """Run a task and record how it ended.

        Args:
            task: As it was claimed.
            gave_up: Where it is given, a record that fails is tried again until this is set: an end that nobody hears
                of would leave the task running for as long as this worker lives.

        Raises:
            DatabaseError: The end cannot be recorded, and `gave_up` is not given.
        """
        error = self._handle(task)
        while True:
            try:
                return self._record(task, error)
            except DatabaseError as unrecorded:
                if gave_up is None:
                    raise
                _log.warning("the end of task %s cannot be recorded yet: %s", task.id, unrecorded)
                if gave_up.wait(_RECORD_AGAIN_S):
                    return Outcome.LOST

    def _handle(self, task: Task) -> BaseException | None:
        try:
            registered = self._runtime.registry.of_kind(task.kind)
            library = None if task.tenant_id is None else self._runtime.library_of(task.tenant_id)
            payload = registered.decode(task.payload)
            registered.handler(TaskContext(task=task, tenant_library=library), payload)
        except BaseException as error:
            # A handler may raise anything, SystemExit too: the task has failed. What comes from the keyboard passes.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            return error
        return None

    def _record(self, task: Task, error: BaseException | None) -> Outcome:
        if error is None:
            done = self._unit.run(
                lambda session: repository.complete(session, task, worker_id=self.id) or session.repeated
            )
            return Outcome.COMPLETED if done else Outcome.LOST
        settings = self._runtime.settings
        error_type, message = type(error).__name__, _message(error)
        status = self._unit.run(
            lambda session: repository.fail(
                session,
                task,
                worker_id=self.id,
                error_type=error_type,
                error_message=message,
                traceback="".join(traceback.format_exception(error)),
                final=isinstance(error, DiscardTask),
                base=settings.retry_base,
                cap=settings.retry_cap,
            )
        )
        _log.warning("task %s (%s) attempt %d failed: %s: %s", task.id, task.kind, task.attempt, error_type, message)
        if status is None:
            return Outcome.LOST
        return Outcome.FAILED if status is TaskStatus.FAILED else Outcome.RETRIED


def _message(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - of somebody else's class; the failure must be recorded all the same
        return f"a {type(error).__name__} that cannot be shown"
