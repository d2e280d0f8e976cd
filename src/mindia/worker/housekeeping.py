"""What workers do besides tasks: fire periodic ones, look through dependencies, clear away what is done with."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from mindia._ids import uuid7_of
from mindia.db.session import ACROSS_TENANTS, Session
from mindia.db.units import OwnTransaction
from mindia.errors import ClosedError, DatabaseError, DatabaseUnavailableError, MindiaError, RoleError
from mindia.repositories import task_claims, task_control
from mindia.worker.rounds import Runtime

_TICK_S = 1.0
_RECONCILE_S = 5.0
_INDEXES_S = 60.0
_PRUNE_BATCH = 1_000

_BATCHES_OF_TENANTS = 20
"""That are removed of deleted tenants at a time, so that other work is not held up."""

_log = logging.getLogger("mindia.worker")


class Housekeeping:
    """The work of a worker besides tasks. Any number of workers may do it at once.

    Attributes:
        removed: How many stored items had their bytes removed, deleted or never added.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.removed = 0
        self._runtime = runtime
        self._unit = OwnTransaction(runtime.database, ACROSS_TENANTS)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Do all of it from time to time, in a thread, for as long as the block runs."""
        stopped = threading.Event()
        threads = [
            threading.Thread(target=self._keep, args=(stopped,), name="mindia-housekeeping", daemon=True),
            threading.Thread(target=self._keep_indexes, args=(stopped,), name="mindia-indexes", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join(_TICK_S)

    def _keep(self, stopped: threading.Event) -> None:
        maintenance_s = self._runtime.settings.maintenance.total_seconds()
        chores: list[tuple[Callable[[], object], float]] = [
            (self.fire, _TICK_S),
            (self.reconcile, _RECONCILE_S),
            (self.settle_videos, _RECONCILE_S),
            (self.maintain, maintenance_s),
            (self._remove_some_of_deleted_tenants, maintenance_s),
        ]
        due = [0.0] * len(chores)
        while True:
            goes_on = False
            for number, (chore, every_s) in enumerate(chores):
                if time.monotonic() >= due[number] and not stopped.is_set():
                    has_more = self._try(chore) is True
                    due[number] = 0.0 if has_more else time.monotonic() + every_s
                    goes_on = goes_on or has_more
            if stopped.wait(0.0 if goes_on else _TICK_S):
                return

    def _keep_indexes(self, stopped: threading.Event) -> None:
        """Look after the indexes of large tenants, apart from the rest: making one may take minutes."""
        while not stopped.wait(_INDEXES_S):
            try:
                self._runtime.maintenance.index_vectors()
            except RoleError as error:
                _log.warning("indexes for the vectors of large tenants are not made: %s", error)
                return
            except DatabaseError as error:
                _log.warning("indexes for the vectors of large tenants are put off: %s", error)
            except ClosedError:
                return
            except Exception:  # noqa: BLE001 - logged; the next round may do better
                _log.exception("indexes for the vectors of large tenants are put off")

    def _try(self, chore: Callable[[], object]) -> object:
        try:
            return chore()
        except DatabaseError as error:
            _log.warning("%s is put off: %s", chore.__name__, error)
        except Exception:  # noqa: BLE001 - logged; the next round may do better
            _log.exception("%s is put off", chore.__name__)
        return None

    def maintain(self) -> int:
        """Remove what has expired, was deleted, never added, or finished long ago; return how many items that were."""
        maintenance = self._runtime.maintenance
        maintenance.remove_expired()
        removed = maintenance.remove_deleted().removed + maintenance.sweep_staged().removed
        maintenance.remove_uploads()
        maintenance.remove_login_failures()
        maintenance.remove_old_deliveries()
        maintenance.remove_old_requests()
        maintenance.renew_webhook_secrets()
        maintenance.remove_retired_spaces()
        self.removed += removed
        self.prune()
        return removed

    def remove_deleted_tenants(self, *, max_batches: int | None = None) -> bool:
        """Remove what deleted tenants have left, or a part of it; True where more is left that can be removed now."""
        reports = self._runtime.maintenance.remove_deleted_tenants(max_batches=max_batches)
        self.removed += sum(report.objects_removed for report in reports)
        return any(not report.is_complete and (report.rows or report.objects_removed) for report in reports)

    def _remove_some_of_deleted_tenants(self) -> bool:
        return self.remove_deleted_tenants(max_batches=_BATCHES_OF_TENANTS)

    def fire(self) -> int:
        """Enqueue the periodic tasks whose time has come, each once whoever notices it; return how many."""
        now = datetime.now(UTC)
        fired = 0
        for schedule in self._runtime.schedules:
            try:
                fired += schedule.fire(self._unit, now=now)
            except DatabaseUnavailableError:
                raise
            except MindiaError as error:  # of this one alone: its tenant is gone, say
                _log.warning("the periodic task %r cannot be fired: %s", schedule.name, error)
        return fired

    def reconcile(self) -> None:
        """Let go the tasks that missed the end of what they waited for."""

        def work(session: Session) -> None:
            lost = task_control.reconcile(session)
            if lost:
                session.batch([task_claims.release_dependents(lost)])

        self._unit.run(work)

    def settle_videos(self) -> int:
        """Say of the videos whose encoding has failed for good that it has; return how many these are."""
        return self._runtime.maintenance._settle_videos()

    def prune(self) -> int:
        """Delete the tasks that finished longer ago than `Settings.task_retention`, and return how many."""
        older_than: timedelta = self._runtime.settings.task_retention
        made_before = uuid7_of(datetime.now(UTC) - older_than)
        return self._unit.exhaust(
            lambda session: task_control.prune(
                session, made_before=made_before, older_than=older_than, limit=_PRUNE_BATCH
            ),
            batch=_PRUNE_BATCH,
        )
