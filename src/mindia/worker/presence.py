"""A worker says that it lives, and looks after the tasks of those that do not."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from mindia.db.session import ACROSS_TENANTS, Session
from mindia.db.units import OwnTransaction
from mindia.domain.tasks import Task
from mindia.errors import DatabaseUnavailableError, MindiaError
from mindia.repositories import task_claims, workers
from mindia.worker.rounds import Runtime

_SIGN_OFF_S = 5.0

_RESCUE_BASE = timedelta(seconds=2)
"""Wait before the first retry, at most: time has been lost already until the worker was taken for dead."""

_log = logging.getLogger("mindia.worker")


class Presence:
    """The identity of one worker. Thread-safe.

    Args:
        runtime: What it works with.
        worker_id: Who it is.
        concurrency: How many tasks it runs at once.
        kinds: The types that it runs.
        on_cancel: Is called with the id of each of its tasks that is to be cancelled.
    """

    def __init__(
        self,
        runtime: Runtime,
        worker_id: UUID,
        *,
        concurrency: int,
        kinds: Sequence[str],
        on_cancel: Callable[[UUID], object],
    ) -> None:
        self._settings = runtime.settings
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._kinds = list(kinds)
        self._on_cancel = on_cancel
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
        while not ended.wait(self._settings.heartbeat.total_seconds()):
            try:
                self.beat()
                self.rescue()
                for task_id in self._beside.run(lambda session: workers.cancelled(session, self._worker_id)):
                    self._on_cancel(task_id)
            except MindiaError as error:
                _log.warning("worker %s cannot say that it lives: %s", self._worker_id, error)
            except Exception:  # noqa: BLE001 - logged; a worker that falls silent is taken for dead while it works
                _log.exception("worker %s cannot say that it lives", self._worker_id)
        try:
            self._beside.run(self._sign_off)
        except MindiaError as error:
            _log.warning("worker %s cannot sign off, its tasks will be rescued: %s", self._worker_id, error)
        except Exception:  # noqa: BLE001 - logged; the end of the thread
            _log.exception("worker %s cannot sign off, its tasks will be rescued", self._worker_id)

    def _sign_off(self, session: Session) -> None:
        workers.release(session, self._worker_id)
        workers.leave(session, self._worker_id)

    def beat(self) -> None:
        """Say that this worker lives."""
        try:
            self._beside.run(
                lambda session: workers.heartbeat(
                    session,
                    worker_id=self._worker_id,
                    hostname=socket.gethostname(),
                    pid=os.getpid(),
                    concurrency=self._concurrency,
                    kinds=self._kinds,
                )
            )
        except DatabaseUnavailableError:
            self._was_cut_off = True
            raise
        if self._was_cut_off:
            # So may the others have been: they are given the time to say that they live.
            self._was_cut_off = False
            self._rescues_from = time.monotonic() + self._settings.worker_timeout.total_seconds()

    def rescue(self) -> int:
        """Put back the tasks of workers that have died, unless all of them may just have been cut off."""
        if time.monotonic() < self._rescues_from:
            return 0
        settings = self._settings

        def work(session: Session) -> int:
            rescued = workers.rescue(
                session,
                worker_timeout=settings.worker_timeout,
                base=min(settings.retry_base, _RESCUE_BASE),
                cap=settings.retry_cap,
            )
            if rescued:
                session.batch([task_claims.release_dependents(rescued)])
            return len(rescued)

        rescued = self._beside.run(work)
        if rescued:
            _log.warning("rescued %d tasks of workers that died", rescued)
        return rescued

    def put_back(self, *, keep: Collection[Task]) -> None:
        """Put back the tasks that this worker has on record, except those that it knows to have."""
        self._unit.run(lambda session: workers.release(session, self._worker_id, keep=keep))

    def report(self, task: Task, fraction: float | None, note: str | None) -> bool | None:
        """Record how far a task is; return whether it is to be cancelled, None where it was taken from this worker."""
        statement = task_claims.progress(worker_id=self._worker_id, running=task, fraction=fraction, note=note)
        ((*answers,),) = self._beside.run(lambda session: session.batch([statement]))
        return answers[0] if answers else None
